# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probability of failure: what is assumed, how it learns, and from whom it borrows."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.predict import risk
from ansible_collections.umbra.rollback.tests.unit.support.manifests import record
from hypothesis import given
from hypothesis import strategies as st

outcomes = st.lists(
    st.builds(record, name=st.sampled_from("ab"), type=st.sampled_from(["file", "sqlite"]), ok=st.booleans()),
    max_size=30,
)


def p_fail(records: list[dict[str, Any]], name: str = "a", type: str = "file", host: str = "h") -> float:
    return risk.fit({"h": records}).p_fail(host, name, type)


def test_without_any_history_it_is_the_assumption() -> None:
    assert p_fail([]) == pytest.approx(risk.P_ASSUMED)


def test_by_hand() -> None:
    """One failure in two restores of a; the posterior means of three Betas, one the prior of the next."""
    of_all = (1 + 10 * 0.01) / (2 + 10)
    of_type = (1 + 10 * of_all) / (2 + 10)
    assert p_fail([record("a", ok=False), record("a")]) == pytest.approx((1 + 5 * of_type) / (2 + 5))


def test_a_resource_borrows_from_its_type_and_less_from_others() -> None:
    failed = [record("a", type="sqlite", ok=False)] * 3
    assert p_fail(failed, "a", "sqlite") > p_fail(failed, "b", "sqlite") > p_fail(failed, "b", "file") > risk.P_ASSUMED


def test_the_same_name_on_another_host_is_another_resource() -> None:
    failed = [record("a", ok=False)] * 3
    assert p_fail(failed, host="other") < p_fail(failed, host="h")


@given(outcomes)
def test_a_failure_raises_it_and_a_success_lowers_it(records: list[dict[str, Any]]) -> None:
    before = p_fail(records)
    assert 0 < before < 1
    assert p_fail([*records, record("a", ok=False)]) > before
    assert p_fail([*records, record("a", ok=True)]) < before


def test_many_restores_outweigh_the_assumption() -> None:
    records = [record("a", ok=number % 5 > 0) for number in range(1000)]
    assert p_fail(records) == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("other", [{}, {"verb": "create"}, {"verb": "restore"}, {"verb": "restore", "ok": "no"}])
def test_what_is_no_outcome_of_a_restore_counts_for_nothing(other: dict[str, Any]) -> None:
    assert p_fail([other]) == pytest.approx(risk.P_ASSUMED)


def test_together() -> None:
    assert risk.together([]) == 0
    assert risk.together([0.5, 0.5]) == pytest.approx(0.75)
    assert risk.together([1.0, 0.2]) == pytest.approx(1)
    assert risk.together([1e-9] * 1000) == pytest.approx(1e-6, rel=1e-3)
