# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of each resource's way back: its wave, its score, how long it takes and how likely it fails."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..module_utils.kernel import graph as kernel_graph
from ..module_utils.plan import order
from ..module_utils.predict import risk, score, time
from ..module_utils.resource import PRIORITIES
from ..module_utils.shadow import Manifest, Shadow
from .graph import Dependencies


@dataclass(frozen=True, slots=True)
class HostInput:
    """What one host brings: its inventory name, what it shadowed, its history (records as in docs/analysis.md), and the
    seconds in which the controller had a module begin and end there, or None when nobody measured that."""

    host: str
    manifest: Manifest
    history: Sequence[Mapping[str, Any]] = ()
    turn: float | None = None


@dataclass(frozen=True, slots=True)
class Assessment:
    """What is known of one resource's way back. `needs`, `cycle` are host:name; `dependents` has indirect ones."""

    host: str
    shadow: Shadow
    wave: int
    needs: tuple[str, ...]
    dependents: int
    cycle: tuple[str, ...]
    score: score.Score
    p_fail: float
    eta: time.Prediction

    @property
    def key(self) -> str:
        """host:name."""
        return f"{self.host}:{self.shadow.name}"

    @property
    def label(self) -> str:
        """As a sentence names it."""
        return f"{self.shadow.name} on {self.host}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "type": self.shadow.type,
            "wave": self.wave,
            "tier": self.score.tier,
            "score": self.score.value,
            "contributions": dict(self.score.contributions),
            "p_fail": round(self.p_fail, 4),
            "eta": rounded((self.eta.p50, self.eta.p90)),
            "bytes": self.shadow.bytes,
            "dependents": self.dependents,
            "needs": list(self.needs),
        }


def assess(
    hosts: Sequence[HostInput], dependencies: Dependencies, scorer: score.Scorer, times: Mapping[str, time.Times]
) -> tuple[dict[str, Assessment], list[tuple[str, ...]]]:
    """Every resource, in the order of the way back, and the cycles."""
    keys = sorted(dependencies.graph)
    number = {key: index for index, key in enumerate(keys)}
    needs = {key: tuple(dependencies.needs(key)) for key in keys}
    edges = [(number[key], number[need]) for key in keys for need in needs[key]]
    dependents = kernel_graph.dependents(len(keys), edges)
    ordered = order(needs)
    cycle_of = {key: cycle for cycle in ordered.cycles for key in cycle}
    risks = risk.fit({one.host: one.history for one in hosts})
    found = []
    for one in hosts:
        for shadow in one.manifest.shadows:
            key = f"{one.host}:{shadow.name}"
            wave, above = ordered.waves[key], dependents[number[key]]
            p_fail = risks.p_fail(one.host, shadow.name, shadow.type)
            points = scorer.score(score.Facts(wave - 1, above, shadow.bytes, shadow.type, p_fail))
            eta = times[one.host].predict(shadow.type, shadow.method, shadow.items, shadow.bytes)
            cycle = cycle_of.get(key, ())
            found.append(Assessment(one.host, shadow, wave, needs[key], above, cycle, points, p_fail, eta))
    found.sort(key=lambda one: (one.wave, one.host, PRIORITIES.index(one.shadow.resource.priority), one.shadow.name))
    return {one.key: one for one in found}, list(ordered.cycles)


def prepare_seconds(manifest: Manifest, times: time.Times) -> float:
    """Seconds before the first wave on one host: shadows are verified, and the failed state kept, as if all copied."""
    return math.fsum(times.creation(s.type, s.method, s.items, s.bytes) for s in manifest.shadows)


def rounded(bounds: tuple[float, float]) -> dict[str, float]:
    """Two seconds as a result tells them."""
    return {"p50": round(bounds[0], 3), "p90": round(bounds[1], 3)}
