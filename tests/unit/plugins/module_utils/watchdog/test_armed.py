# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user writes of a switch: taken as it is meant, or refused in a sentence; and what is kept of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import errors
from ansible_collections.umbra.rollback.plugins.module_utils.watchdog import armed
from ansible_collections.umbra.rollback.plugins.module_utils.watchdog.armed import Armed, Check, Hook

WRONG_CHECKS: list[tuple[dict[str, Any], str]] = [
    ({}, r"health\[0\]: it needs one of command, tcp, http, unit, and has none"),
    ({"tcp": "h:1", "unit": "a.service"}, "and has tcp and unit"),
    ({"command": ["check", "--fast"]}, "'check' has no absolute path"),
    ({"tcp": "host"}, "'host' has no port"),
    ({"http": "ftp://host/"}, "no URL of the web"),
    ({"unit": "a.service", "n": 4, "m": 3}, "4 of 3 samples can't be"),
    ({"unit": "a.service", "n": 0}, "0 of 5 samples can't be"),
    ({"unit": "a.service", "interval": 0.0}, "more than 0 seconds"),
]


@pytest.mark.parametrize(("raw", "message"), WRONG_CHECKS)
def test_a_check_that_makes_no_sense_is_refused(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.InputError, match=message):
        armed.parse_checks([raw])


WRONG_HOOKS: list[tuple[dict[str, Any], str]] = [
    ({}, r"hooks\[0\]: it needs one of command, url, and has none"),
    ({"command": ["page"]}, "no absolute path"),
    ({"url": "page"}, "no URL of the web"),
    ({"url": "http://h", "timeout": 0.0}, "more than 0 seconds"),
]


@pytest.mark.parametrize(("raw", "message"), WRONG_HOOKS)
def test_a_hook_that_makes_no_sense_is_refused(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.InputError, match=message):
        armed.parse_hooks([raw])


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_deadline_that_never_comes_or_has_passed_is_refused(seconds: float) -> None:
    with pytest.raises(errors.InputError, match="deadline"):
        armed.parse_deadline(seconds)


def test_a_url_is_told_without_what_may_be_a_secret() -> None:
    (hook,) = armed.parse_hooks([{"url": "https://user:password@chat.example.org:8443/hooks/t0ken?key=s3cret"}])
    assert hook.name == "https://chat.example.org"


def test_what_is_kept_is_read_back_as_it_was() -> None:
    checks = armed.parse_checks([{"http": "http://h/", "status": [200, 204], "n": 2}, {"command": ["/bin/true", "-x"]}])
    hooks = armed.parse_hooks([{"command": ["/bin/page", "now"], "events": ["failed"]}, {"url": "http://h/"}])
    one = Armed(
        "u1", "h", "s", 9.5, "b", 1.5, 2.5, "daemon", "rollback", checks, hooks, 2, ("/p",), "/t", "", ("ssh", "a")
    )
    assert Armed.from_dict(json.loads(json.dumps(one.to_dict())), "path") == one
    assert checks[0] == Check("http http://h/", "http", ("http://h/",), n=2, status=(200, 204))
    assert hooks[0] == Hook(("/bin/page", "now"), events=("failed",))


@pytest.mark.parametrize("raw", [None, [], {}, {"format": "umbra-watchdog 9"}])
def test_another_format_is_refused(raw: Any) -> None:
    with pytest.raises(errors.StoreFormatUnknown):
        Armed.from_dict(raw, "path")


def test_what_is_no_switch_is_refused() -> None:
    for bad in ({"checks": 3}, {"hooks": [{"odd": 1}]}, {"seconds": 1.0}):
        with pytest.raises(errors.StoreCorrupt):
            Armed.from_dict({"format": armed.FORMAT, **bad}, "path")
