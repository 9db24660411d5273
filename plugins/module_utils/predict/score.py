# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How complex the way back of a resource is: a score of 0 to 100, what each factor adds to it, and the tier."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable

from ..errors import InputError

# The default weights and thresholds, and the constants of the factors, are judgements; docs/analysis.md says so.
WEIGHTS: Mapping[str, float] = {"depth": 0.15, "dependents": 0.20, "volume": 0.30, "type": 0.15, "p_fail": 0.20}
TIERS: Mapping[str, float] = {"medium": 30.0, "high": 60.0}
TYPE_FACTORS: Mapping[str, float] = {
    "file": 0.1,
    "systemd_unit": 0.2,
    "sqlite": 0.3,
    "package": 0.4,
    "command": 0.5,
    "docker_container": 0.5,
    "kubernetes": 0.7,
    "postgresql": 0.8,
    "mysql": 0.8,
    "libvirt_domain": 0.8,
    "vmware_vm": 0.9,
}
TYPE_UNKNOWN = 0.5
DEPTH_HALF = 2  # this many waves before its own make half of the factor
DEPENDENTS_HALF = 3
VOLUME_UNIT = 2**20
VOLUME_FULL = 100 * 2**30  # bytes that make the whole factor


@dataclass(frozen=True)
class Facts:
    """What a score is made of. `depth` counts the waves before its own, `dependents` the direct and indirect ones."""

    depth: int
    dependents: int
    bytes: int
    type: str
    p_fail: float


@dataclass(frozen=True)
class Score:
    """`value` (0 to 100) is the sum of `contributions` (points by factor), all of them rounded to two decimals."""

    value: float
    contributions: Mapping[str, float]
    tier: str


_FACTORS: Mapping[str, Callable[[Facts], float]] = {
    "depth": lambda facts: facts.depth / (facts.depth + DEPTH_HALF),
    "dependents": lambda facts: facts.dependents / (facts.dependents + DEPENDENTS_HALF),
    "volume": lambda facts: min(1.0, math.log1p(facts.bytes / VOLUME_UNIT) / math.log1p(VOLUME_FULL / VOLUME_UNIT)),
    "type": lambda facts: TYPE_FACTORS.get(facts.type, TYPE_UNKNOWN),
    "p_fail": lambda facts: math.sqrt(facts.p_fail),
}


@dataclass(frozen=True)
class Scorer:
    """Weights (checked, of sum 1) and thresholds (checked) of one analysis. Made by `scorer`."""

    weights: Mapping[str, float]
    tiers: Mapping[str, float]

    def score(self, facts: Facts) -> Score:
        """The score of `facts`: no fact that grows, the type aside, ever lowers it."""
        points = {name: round(100 * weight * _FACTORS[name](facts), 2) for name, weight in self.weights.items()}
        value = min(100.0, round(math.fsum(points.values()), 2))
        return Score(value, points, self.tier(value))

    def tier(self, value: float) -> str:
        """high, medium or low."""
        return next((name for name in ("high", "medium") if value >= self.tiers[name]), "low")


def scorer(weights: Mapping[str, Any] | None = None, tiers: Mapping[str, Any] | None = None) -> Scorer:
    """The defaults with what is given put over them; weights are divided by their sum. Raises InputError."""
    return Scorer(_weights(weights or {}), _tiers(tiers or {}))


def _weights(given: Mapping[str, Any]) -> dict[str, float]:
    merged = _merged("weights", given, WEIGHTS)
    for name, value in merged.items():
        if not 0 <= value <= 1e6:
            raise InputError(where="weights", problem=f"{name} is {value:g}", remedy="Use 0 or more; 0 leaves it out.")
    total = math.fsum(merged.values())
    if total <= 0:
        raise InputError(where="weights", problem="all are 0", remedy="Give at least one a weight above 0.")
    return {name: value / total for name, value in merged.items()}


def _tiers(given: Mapping[str, Any]) -> dict[str, float]:
    merged = _merged("tiers", given, TIERS)
    for name, value in merged.items():
        if not 0 <= value <= 100:
            raise InputError(where="tiers", problem=f"{name} is {value:g}", remedy="Scores go from 0 to 100.")
    if merged["medium"] > merged["high"]:
        problem = f"medium ({merged['medium']:g}) is above high ({merged['high']:g})"
        raise InputError(where="tiers", problem=problem, remedy="Give the score at which each tier begins.")
    return merged


def _merged(where: str, given: Mapping[str, Any], defaults: Mapping[str, float]) -> dict[str, float]:
    """The defaults with `given` put over them, every value a finite number."""
    if not isinstance(given, Mapping):
        raise InputError(where=where, problem=f"is {type(given).__name__}, not a dictionary", remedy=_known(defaults))
    merged = dict(defaults)
    for name, value in given.items():
        if name not in defaults:
            raise InputError(where=where, problem=f"unknown key {name!r}", remedy=_known(defaults))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(where=where, problem=f"{name} is {value!r}, not a number", remedy=_known(defaults))
        merged[name] = float(value)
    return merged


def _known(defaults: Mapping[str, float]) -> str:
    return f"Give a number for any of: {', '.join(defaults)}."
