# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The analysis as a whole: order, plans, result and gate of known and of made-up updates."""

from __future__ import annotations

import json
import random
import time

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import InputError
from ansible_collections.umbra.rollback.plugins.module_utils.plan import Plan, host_plan
from ansible_collections.umbra.rollback.plugins.module_utils.shadow import Shadow
from ansible_collections.umbra.rollback.plugins.plugin_utils.analysis import (
    Analysis,
    AnalysisOptions,
    HostInput,
    analyze,
)
from ansible_collections.umbra.rollback.tests.unit.support.manifests import MIB, manifest, record, shadow


def run(options: AnalysisOptions | None = None, /, **hosts: list[Shadow]) -> Analysis:
    """Analyze update up-1 of hosts without history."""
    return analyze("up-1", [HostInput(host, manifest(host, *shadows)) for host, shadows in hosts.items()], options)


def shop(options: AnalysisOptions | None = None) -> Analysis:
    """A web server whose app needs its configuration and the database of another server."""
    return run(
        options,
        web1=[
            shadow("packages", type="package"),
            shadow("config"),
            shadow("app", ["config", "db1:db"], "systemd_unit"),
        ],
        db1=[shadow("db", ["disk"], type="sqlite", size=500 * MIB, items=1, seconds=5.0), shadow("disk")],
    )


def fleet(hosts: int, each: int, seed: int = 1) -> list[HostInput]:
    """Hosts whose resources need some of those before them, and now and then one of the host before."""
    draw = random.Random(seed)
    found = []
    for host in range(hosts):
        shadows = []
        for number in range(each):
            needs = [f"resource-{other}" for other in range(max(0, number - 12), number) if draw.random() < 0.12]
            if host and draw.random() < 0.03:
                needs.append(f"host{host - 1}:resource-{draw.randrange(each)}")
            kind = draw.choice(["file", "sqlite", "package"])
            size, items = int(10 ** draw.uniform(3, 10)), int(10 ** draw.uniform(0, 4))
            shadows.append(shadow(f"resource-{number}", needs, kind, size, items, size / 2e8))
        history = [record(f"resource-{n}", time=n, ok=draw.random() > 0.05) for n in range(20)]
        found.append(HostInput(f"host{host}", manifest(f"host{host}", *shadows), history))
    return found


def test_waves_go_on_across_hosts_and_plans_keep_their_numbers() -> None:
    found = shop()
    assert {key: one.wave for key, one in found.resources.items()} == {
        "db1:disk": 1,
        "web1:config": 1,
        "web1:packages": 1,
        "db1:db": 2,
        "web1:app": 3,
    }
    assert found.waves == 3
    web, db = found.plans["web1"], found.plans["db1"]
    assert (web.waves, db.waves, web.source, web.rto) == (3, 3, "analysis", db.rto)
    assert [(step.name, step.wave) for step in db.steps] == [("disk", 1), ("db", 2)]
    app = web.step("app")
    assert app is not None
    assert (app.wave, app.needs, app.needs_remote) == (3, ("config",), ("db1:db",))


def test_the_plan_travels_as_json() -> None:
    for plan in shop().plans.values():
        assert Plan.from_dict(json.loads(json.dumps(plan.to_dict())), "plan.json") == plan


def test_one_host_alone_gets_the_order_that_it_would_make_itself() -> None:
    shadows = [shadow("c", ["b"]), shadow("b", ["a"]), shadow("a", priority="low"), shadow("z", priority="critical")]
    alone = host_plan("up-1", "h", shadows)
    joined = run(h=shadows).plans["h"]
    assert [(s.name, s.wave, s.needs, s.cycle) for s in joined.steps] == [
        (s.name, s.wave, s.needs, s.cycle) for s in alone.steps
    ]


def test_a_cycle_across_hosts_is_one_unit_and_named() -> None:
    found = run(a=[shadow("x", ["b:y"]), shadow("top", ["x"])], b=[shadow("y", ["a:x"])])
    assert found.cycles == [("a:x", "b:y")]
    assert {key: one.wave for key, one in found.resources.items()} == {"a:x": 1, "b:y": 1, "a:top": 2}
    assert found.warnings[0] == "a:x needs b:y needs a:x: a cycle of 2, restored as one unit in one wave."
    step = found.plans["a"].step("x")
    assert step is not None
    assert (step.cycle, step.needs, step.needs_remote) == (("x",), (), ("b:y",))


def test_needs_on_hosts_that_are_not_analyzed_stay_in_the_plan() -> None:
    step = run(a=[shadow("x", ["other:y"])]).plans["a"].step("x")
    assert step is not None
    assert step.needs_remote == ("other:y",)


def test_scores_use_depth_dependents_and_volume() -> None:
    found = shop().resources
    assert (found["web1:app"].dependents, found["db1:disk"].dependents) == (0, 2)
    assert found["web1:app"].score.contributions["depth"] == 7.5
    assert found["db1:db"].score.value == max(one.score.value for one in found.values())


def test_history_of_a_failing_resource_raises_its_risk_and_the_whole() -> None:
    host = manifest("h", shadow("a"), shadow("b"))
    calm = analyze("up-1", [HostInput("h", host)])
    failed = analyze("up-1", [HostInput("h", host, [record("a", ok=False)] * 3)])
    assert failed.resources["h:a"].p_fail > failed.resources["h:b"].p_fail > calm.resources["h:b"].p_fail
    assert failed.risk > calm.risk > 0


def test_the_bound_is_above_the_median_and_both_are_repeatable() -> None:
    found = shop()
    assert 0 < found.rto[0] < found.rto[1]
    assert shop().rto == found.rto


def test_more_workers_are_not_slower() -> None:
    many = [shadow(f"r{number}", seconds=5.0, size=500 * MIB) for number in range(12)]
    one, four = (run(AnalysisOptions(workers=workers), h=many).rto for workers in (1, 4))
    assert four[0] < one[0]
    assert four[1] < one[1]


def test_a_measured_history_takes_the_note_away() -> None:
    assert [text[:50] for text in shop().notes] == ["Too few restores were seen for 5 of 5 resources: t"]
    history = [record("x", seconds=1 + n % 3 / 10, time=n) for n in range(20)]
    assert analyze("up-1", [HostInput("h", manifest("h", shadow("x")), history)]).notes == ()


def test_nothing_shadowed_takes_no_time_and_passes() -> None:
    found = run(AnalysisOptions(max_rto=1, max_risk=0), h=[])
    assert (found.rto, found.risk, found.waves, found.gate.passed) == ((0.0, 0.0), 0.0, 0, True)
    assert found.plans["h"].steps == ()


def test_the_result_is_what_the_module_returns() -> None:
    result = json.loads(json.dumps(shop(AnalysisOptions(depends_on={"packages": ["config"]})).to_result()))
    assert {"update_id", "hosts", "waves", "rto", "risk", "gate", "warnings", "cycles", "resources", "edges"} <= set(
        result
    )
    assert result["omitted"] == {}
    assert result["gate"] == {"passed": True, "refusals": []}
    app = result["resources"]["web1:app"]
    assert (app["wave"], app["tier"], app["needs"]) == (3, "low", ["db1:db", "web1:config"])
    assert sum(app["contributions"].values()) == pytest.approx(app["score"], abs=0.005)
    assert {"from": "web1:packages", "to": "web1:config"}.items() <= result["edges"][-1].items()
    assert next(iter(result["resources"])) == "db1:db"  # the highest score first


def test_the_result_of_a_large_fleet_is_bounded_and_says_what_it_left_out() -> None:
    found = analyze("up-1", fleet(20, 50))
    result = found.to_result()
    assert len(json.dumps(result)) < 56 * 1024
    assert result["omitted"]["resources"] == 1000 - len(result["resources"])
    assert len(result["resources"]) > 50
    assert len(result["edges"]) > 10


def test_the_result_is_bounded_whatever_others_wrote() -> None:
    deep = [shadow("a" * 200, [f"host{n}:{'b' * 190}{n}" for n in range(300)])]
    result = run(AnalysisOptions(max_rto=0.001), h=deep).to_result()
    assert len(json.dumps(result)) < 56 * 1024
    assert result["omitted"]["warnings"] > 0
    assert len(result["resources"]) == 1


def test_ten_thousand_resources_take_a_few_seconds() -> None:
    hosts = fleet(50, 200)
    begun = time.monotonic()
    found = analyze("up-1", hosts)
    assert len(found.resources) == 10_000
    assert time.monotonic() - begun < 20  # a few seconds; the machine may be busy


WRONG = [
    (AnalysisOptions(max_rto=0), "max_rto: is 0."),
    (AnalysisOptions(max_rto=-1), "max_rto: is -1."),
    (AnalysisOptions(max_rto=float("nan")), "max_rto: is nan."),
    (AnalysisOptions(max_risk=1.5), "max_risk: is 1.5."),
    (AnalysisOptions(max_risk=True), "max_risk: is True."),
    (AnalysisOptions(workers=0), "workers: is 0."),
    (AnalysisOptions(weights={"colour": 1}), "weights: unknown key 'colour'."),
    (AnalysisOptions(tiers={"high": 200}), "tiers: high is 200."),
    (AnalysisOptions(depends_on={"x": ["y"]}), "depends_on: x on h depends on 'y', which nothing shadows."),
]


@pytest.mark.parametrize(("options", "sentence"), WRONG)
def test_bad_options_get_one_sentence(options: AnalysisOptions, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        run(options, h=[shadow("x")])
    assert str(caught.value).startswith(sentence)


def test_no_hosts_twice_the_same_host_or_another_update_are_refused() -> None:
    one = HostInput("h", manifest("h", shadow("x")))
    with pytest.raises(InputError, match="no host has brought its shadows of update up-1"):
        analyze("up-1", [])
    with pytest.raises(InputError, match="h is there twice"):
        analyze("up-1", [one, one])
    with pytest.raises(InputError, match="h brings the shadows of update up-1, not of up-2"):
        analyze("up-2", [one])


def test_the_timeline_event_has_every_resource() -> None:
    found = shop()
    event = found.to_event()
    assert set(event["resources"]) == set(found.resources)
    assert event["resources"]["db1:db"]["tier"] == found.resources["db1:db"].score.tier
    assert json.loads(json.dumps(event)) == event


def test_the_turn_of_the_controller_is_the_slowest_that_was_measured_once_for_each_wave_of_several_hosts() -> None:
    needs = manifest("a", shadow("x"), shadow("y", ["x"])), manifest("b", shadow("x"))
    one = [analyze("up-1", [HostInput("a", needs[0], turn=turn)]).rto[0] for turn in (0.0, 3.0)]
    two = [
        analyze("up-1", [HostInput("a", needs[0], turn=turn), HostInput("b", needs[1], turn=0.0)]).rto[0]
        for turn in (0.0, 3.0)
    ]
    assert one[1] - one[0] == pytest.approx(3.0) and two[1] - two[0] == pytest.approx(9.0)
