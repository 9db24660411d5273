# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a module ends: one sentence, a bounded result, never a traceback."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import edge, errors


class Ended(Exception):
    """What AnsibleModule does by leaving the process."""

    def __init__(self, failed: bool, told: dict[str, Any]) -> None:
        self.failed, self.told = failed, told


PURE = {"kernel": "pure", "kernel_reason": "It was asked for (kernel: pure)."}


class FakeModule:
    """Stands in for AnsibleModule, which can't be had without ansible-core on Python 3.9."""

    check_mode = False
    _diff = False

    def __init__(self, **params: Any) -> None:
        common = {"update_id": "u1", "host": "web1", "store": "/s", "lock_timeout": 1.0}
        self.params = {**common, "kernel": "pure", "kernel_threads": 0, "kernel_offer": None, **params}
        self.no_log_values: set[str] = set()
        self.warnings: list[str] = []

    def warn(self, warning: str) -> None:
        self.warnings.append(warning)

    def exit_json(self, **told: Any) -> Any:
        raise Ended(False, told)

    def fail_json(self, msg: str, **told: Any) -> Any:
        raise Ended(True, {"msg": msg, **told})


def conclude(call: Any, **params: Any) -> Ended:
    with pytest.raises(Ended) as caught:
        edge.conclude(FakeModule(**params), call)
    return caught.value


def test_a_result_is_told() -> None:
    ended = conclude(lambda target: {"changed": True, "host": target.host})
    assert not ended.failed and ended.told == {"changed": True, "host": "web1", **PURE}


def test_a_result_with_a_message_fails_with_all_that_is_known() -> None:
    ended = conclude(lambda target: {"msg": "not complete", "resources": [1]})
    assert ended.failed and ended.told == {"msg": "not complete", "resources": [1], **PURE}


def raising(error: Exception) -> Any:
    def call(target: Any) -> Any:
        raise error

    return call


ERRORS = [
    (errors.UpdateIdInvalid(update_id="!"), "update-id-invalid"),
    (OSError(28, "No space left on device", "/var"), "system"),
    (ZeroDivisionError("of ours"), "internal"),
]


@pytest.mark.parametrize(("error", "code"), ERRORS)
def test_an_error_is_one_sentence_with_a_code(error: Exception, code: str) -> None:
    ended = conclude(raising(error))
    assert ended.failed and ended.told["code"] == code
    assert "\n" not in ended.told["msg"] and "Traceback" not in ended.told["msg"]
    assert ended.told["kernel"] == "pure" and ended.told["kernel_reason"]


def test_a_bad_update_id_never_reaches_the_verb() -> None:
    ended = conclude(raising(AssertionError("called")), update_id="../../etc")
    assert ended.failed and ended.told["code"] == "update-id-invalid"


def test_a_kernel_that_can_not_be_had_is_a_sentence_before_any_work() -> None:
    ended = conclude(raising(AssertionError("called")), kernel="native")
    assert ended.failed and ended.told["code"] == "kernel-unavailable"
    assert "no file of it was offered to this host" in ended.told["msg"] and ended.told["kernel"] == "pure"


def test_a_large_result_is_cut_and_says_so() -> None:
    records = [{"name": f"resource-{n}", "text": "x" * 100} for n in range(20_000)]
    cut = edge.fit({"shadows": records, "few": [1, 2], "changed": True})
    assert len(json.dumps(cut)) < 64 << 10
    assert cut["truncated"] == {"shadows": 20_000} and cut["shadows"] == records[: len(cut["shadows"])]
    assert cut["few"] == [1, 2]


def test_a_small_result_is_left_alone() -> None:
    result = {"shadows": [1, 2, 3]}
    assert edge.fit(result) == result


def test_every_error_class_has_a_code_of_its_own_and_one_sentence() -> None:
    seen: dict[str, str] = {}
    todo = [errors.UmbraError]
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        assert seen.setdefault(kind.code, kind.__name__) == kind.__name__, kind.code
        assert (kind.__doc__ or "").strip()
