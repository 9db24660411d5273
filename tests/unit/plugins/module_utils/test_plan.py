# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of one host: its order, its cycles, and what it looks like as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import StoreCorrupt, StoreFormatUnknown
from ansible_collections.umbra.rollback.plugins.module_utils.plan import PLAN_FORMAT, Plan, Step, host_plan, order
from ansible_collections.umbra.rollback.tests.unit.support.manifests import shadow

PLAN = Plan(
    "up-1",
    "web1",
    (
        Step("db", 1, tier="high", score=61.5, eta=(2.0, 9.5), p_fail=0.01),
        Step("app", 2, ("db",), ("db1:cache",), ("app", "queue")),
        Step("queue", 2, ("app",), (), ("app", "queue")),
    ),
    3,
    (4.0, 12.5),
    "analysis",
)


def test_it_comes_back_from_json_as_it_was() -> None:
    assert Plan.from_dict(json.loads(json.dumps(PLAN.to_dict())), "plan.json") == PLAN


def test_a_plan_without_prediction_comes_back_too() -> None:
    plan = host_plan("up-1", "web1", [shadow("a")])
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict())), "plan.json") == plan


@pytest.mark.parametrize("raw", [None, [], {}, {"format": "umbra-plan 2"}])
def test_an_unknown_format_is_refused(raw: Any) -> None:
    with pytest.raises(StoreFormatUnknown, match=r"plan\.json"):
        Plan.from_dict(raw, "plan.json")


BROKEN = [{"steps": None}, {"steps": [{"name": "x"}]}, {"steps": [{"colour": 1}]}, {"rto": [1]}, {"waves": "many"}]


@pytest.mark.parametrize("change", BROKEN)
def test_a_damaged_plan_is_named(change: dict[str, Any]) -> None:
    raw = {**json.loads(json.dumps(PLAN.to_dict())), **change}
    with pytest.raises(StoreCorrupt, match=r"plan\.json is damaged"):
        Plan.from_dict(raw, "plan.json")
    assert raw["format"] == PLAN_FORMAT


def test_order_puts_what_is_needed_first_and_a_cycle_into_one_wave() -> None:
    ordered = order({"app": ["db", "queue"], "queue": ["app"], "db": [], "web": ["app"], "alone": []})
    assert ordered.waves == {"alone": 1, "db": 1, "app": 2, "queue": 2, "web": 3}
    assert ordered.cycles == [("app", "queue")]
    assert ordered.cycle_of("queue") == ("app", "queue")
    assert ordered.cycle_of("db") == ()


def test_order_ignores_needs_that_are_no_nodes() -> None:
    assert order({"app": ["elsewhere"]}).waves == {"app": 1}


def test_host_plan_orders_by_wave_priority_and_name() -> None:
    plan = host_plan(
        "up-1",
        "web1",
        [
            shadow("z", priority="critical"),
            shadow("b"),
            shadow("a"),
            shadow("low", priority="low"),
            shadow("app", ["b", "web1:z", "db1:cache"]),
        ],
    )
    assert [(step.name, step.wave) for step in plan.steps] == [("z", 1), ("a", 1), ("b", 1), ("low", 1), ("app", 2)]
    assert plan.step("app") == Step("app", 2, ("b", "z"), ("db1:cache",))
    assert (plan.waves, plan.source, plan.rto) == (2, "host", None)


def test_host_plan_of_nothing_has_no_waves() -> None:
    assert host_plan("up-1", "web1", []).waves == 0


def test_wave_and_step() -> None:
    assert [step.name for step in PLAN.wave(2)] == ["app", "queue"]
    assert PLAN.wave(3) == []
    assert PLAN.step("nobody") is None


def test_dependents_follow_needs_and_cycles_but_not_back() -> None:
    assert PLAN.dependents(["db"]) == {"app", "queue"}
    assert PLAN.dependents(["queue"]) == {"app", "queue"}, "a cycle needs itself"
    assert host_plan("u", "h", [shadow("a"), shadow("b", ["a"]), shadow("c", ["b"])]).dependents(["b"]) == {"c"}
