# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The analysis of an update before it starts: the order of the way back, how long and how risky it is, and the gate."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..module_utils.errors import InputError
from ..module_utils.plan import Plan, Step
from ..module_utils.predict import risk, score, time
from .assess import Assessment, HostInput, assess, prepare_seconds, rounded
from .gate import TURN_SECONDS, Clock, Gate, decide
from .graph import Dependencies, Edge, join

WORKERS = 4  # as many resources of a wave are restored at once on one host
RESULT_BYTES = 48 * 1024  # of JSON; a module's result stays below 64 KiB, and Ansible adds to it
TEXT_SHOWN = 300


@dataclass(frozen=True, slots=True)
class AnalysisOptions:
    """What the user may set. `depends_on` adds edges; `max_rto` (seconds) and `max_risk` (0 to 1) are the gate."""

    depends_on: Mapping[str, Sequence[str]] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    tiers: Mapping[str, float] = field(default_factory=dict)
    max_rto: float | None = None
    max_risk: float | None = None
    workers: int = WORKERS


@dataclass(frozen=True)
class Analysis:
    """All of it. `resources` are by host:name in the order of the way back; `rto` is (p50, p90) in seconds; `turn` what
    the controller takes for one call on all hosts."""

    update_id: str
    hosts: tuple[str, ...]
    resources: Mapping[str, Assessment]
    dependencies: Dependencies
    edges: Sequence[Edge]
    cycles: Sequence[tuple[str, ...]]
    waves: int
    rto: tuple[float, float]
    prepare: Mapping[str, float]
    turn: float
    risk: float
    gate: Gate
    plans: Mapping[str, Plan]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    scorer: score.Scorer
    options: AnalysisOptions

    def to_result(self) -> dict[str, Any]:
        """JSON-ready and bounded: the highest scores come first, `omitted` counts what did not fit (see the report)."""
        result: dict[str, Any] = {
            "update_id": self.update_id,
            "hosts": len(self.hosts),
            "waves": self.waves,
            "rto": rounded(self.rto),
            "risk": round(self.risk, 4),
            "gate": {"passed": self.gate.passed, "refusals": [_short(text) for text in self.gate.refusals]},
        }
        ranked = sorted(self.resources.values(), key=lambda one: (-one.score.value, one.key))
        edges = [_edge(edge) for edge in self.edges]
        parts: list[tuple[str, list[Any], float]] = [  # each may take its share of what those before it have left
            ("warnings", [_short(text) for text in self.warnings], 0.2),
            ("notes", [_short(text) for text in self.notes], 0.2),
            ("cycles", [list(cycle) for cycle in self.cycles], 0.2),
            ("resources", [(one.key, one.to_dict()) for one in ranked], 0.7),
            ("edges", edges, 1.0),
        ]
        left = RESULT_BYTES - _size(result)
        omitted = {}
        for name, entries, share in parts:
            kept, used = _fitting(entries, left * share)
            left -= used
            omitted[name] = len(entries) - len(kept)
            result[name] = dict(kept) if name == "resources" else kept
        return {**result, "omitted": {name: count for name, count in omitted.items() if count}}

    def to_event(self) -> dict[str, Any]:
        """What the timeline keeps of it."""
        resources = {
            key: {"tier": one.score.tier, "score": one.score.value, "eta": rounded((one.eta.p50, one.eta.p90))}
            for key, one in self.resources.items()
        }
        return {"rto": rounded(self.rto), "risk": self.risk, "waves": self.waves, "resources": resources}


def analyze(update_id: str, hosts: Sequence[HostInput], options: AnalysisOptions | None = None) -> Analysis:
    """Join what all hosts shadowed into one graph, and predict the way back. Raises InputError, ToolMissing."""
    options = options or AnalysisOptions()
    _check(update_id, hosts, options)
    scorer = score.scorer(options.weights, options.tiers)
    dependencies = join({one.host: one.manifest for one in hosts}, options.depends_on)
    times = {one.host: time.fit(one.history, one.manifest) for one in hosts}
    resources, cycles = assess(hosts, dependencies, scorer, times)
    prepare = {one.host: prepare_seconds(one.manifest, times[one.host]) for one in hosts}
    turn = max((TURN_SECONDS if one.turn is None else one.turn) for one in hosts)
    clock = Clock(list(resources.values()), prepare, options.workers, turn)
    rto = clock.rto()
    chance = risk.together(one.p_fail for one in resources.values())
    return Analysis(
        update_id=update_id,
        hosts=tuple(one.host for one in hosts),
        resources=resources,
        dependencies=dependencies,
        edges=dependencies.edges(),
        cycles=cycles,
        waves=clock.waves,
        rto=rto,
        prepare=prepare,
        turn=turn,
        risk=chance,
        gate=decide(list(resources.values()), clock, rto, chance, options.max_rto, options.max_risk),
        plans=_plans(update_id, hosts, resources, dependencies, clock.waves, rto),
        warnings=(*dependencies.warnings, *_cycle_warnings(dependencies, cycles)),
        notes=tuple(_unmeasured(resources)),
        scorer=scorer,
        options=options,
    )


def _check(update_id: str, hosts: Sequence[HostInput], options: AnalysisOptions) -> None:
    seen: set[str] = set()
    for one in hosts:
        if one.host in seen:
            raise InputError(where="hosts", problem=f"{one.host} is there twice", remedy="Bring each host once.")
        seen.add(one.host)
        if one.manifest.update_id != update_id:
            problem = f"{one.host} brings the shadows of update {one.manifest.update_id}, not of {update_id}"
            raise InputError(where="hosts", problem=problem, remedy="Run shadow_create for this update_id.")
    if not hosts:
        problem = f"no host has brought its shadows of update {update_id}"
        raise InputError(where="hosts", problem=problem, remedy="Run shadow_create or shadow_info on them in this run.")
    _check_number("max_rto", options.max_rto, 0, math.inf, "seconds, above 0")
    _check_number("max_risk", options.max_risk, 0, 1, "a probability from 0 to 1")
    if isinstance(options.workers, bool) or not isinstance(options.workers, int) or options.workers < 1:
        raise InputError(where="workers", problem=f"is {options.workers!r}", remedy="Give a whole number from 1 up.")


def _check_number(where: str, value: Any, least: float, most: float, wanted: str) -> None:
    if value is None:
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not least <= value <= most or (where == "max_rto" and value == 0):
        raise InputError(where=where, problem=f"is {value!r}", remedy=f"Give {wanted}.")


def _plans(
    update_id: str,
    hosts: Sequence[HostInput],
    resources: Mapping[str, Assessment],
    dependencies: Dependencies,
    waves: int,
    rto: tuple[float, float],
) -> dict[str, Plan]:
    """The part of each host; the wave numbers are those of all hosts together."""
    steps: defaultdict[str, list[Step]] = defaultdict(list)
    for key, one in resources.items():
        prefix = f"{one.host}:"
        local = [need for need in one.needs if resources[need].host == one.host]
        remote = [need for need in one.needs if resources[need].host != one.host]
        step = Step(
            name=one.shadow.name,
            wave=one.wave,
            needs=tuple(need.removeprefix(prefix) for need in local),
            needs_remote=(*remote, *dependencies.elsewhere.get(key, ())),
            cycle=tuple(other.removeprefix(prefix) for other in one.cycle if resources[other].host == one.host),
            tier=one.score.tier,
            score=one.score.value,
            eta=(round(one.eta.p50, 3), round(one.eta.p90, 3)),
            p_fail=round(one.p_fail, 6),
        )
        steps[one.host].append(step)
    bounds = (round(rto[0], 3), round(rto[1], 3))
    return {one.host: Plan(update_id, one.host, tuple(steps[one.host]), waves, bounds, "analysis") for one in hosts}


def _cycle_warnings(dependencies: Dependencies, cycles: Iterable[tuple[str, ...]]) -> list[str]:
    return [
        f"{' needs '.join(dependencies.loop(cycle))}: a cycle of {len(cycle)}, restored as one unit in one wave."
        for cycle in cycles
    ]


def _unmeasured(resources: Mapping[str, Assessment]) -> list[str]:
    count = sum(not one.eta.measured for one in resources.values())
    if not count:
        return []
    return [
        f"Too few restores were seen for {count} of {len(resources)} resources: their 90 % bounds are assumed "
        f"({time.ASSUMED_RATIOS[1]:g} times what is expected), not measured."
    ]


def _edge(edge: Edge) -> dict[str, Any]:
    evidence = [_short(text) for text in edge.evidence[:3]]
    return {
        "from": edge.source,
        "to": edge.target,
        "declared": edge.declared,
        "claimed": edge.claimed,
        "evidence": evidence,
    }


def _short(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else f"{text[: TEXT_SHOWN - 3]}..."


def _size(value: Any) -> int:
    return len(json.dumps(value)) + 2


def _fitting(entries: Sequence[Any], room: float) -> tuple[list[Any], int]:
    """The first entries that fit into `room` bytes of JSON, and what they take."""
    kept: list[Any] = []
    used = 0
    for entry in entries:
        size = _size(entry)
        if used + size > room:
            break
        kept.append(entry)
        used += size
    return kept, used
