# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a restore takes: a + b * items + c * bytes for each type and method of a host, learnt from its history."""

from __future__ import annotations

import copy
import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..shadow import Manifest

# Assumptions, not measurements: what is said while too little was restored on a host (docs/analysis.md).
ASSUMED_SECONDS = (0.05, 1e-4, 1e-8)  # per resource, per item, per byte
ASSUMED_RATIOS = (1.0, 4.0)  # actual over predicted: median, and the 90 % bound
NOISE_CREATE = 0.5  # variance of the relative error: creating is a hint of what restoring takes
NOISE_RESTORE = 0.1
FORGETTING = 0.98  # weight of a restore relative to the next one
RESTORES_USED = 200  # the last ones of each type and method
RATIOS_USED = 50
RATIOS_NEEDED = 9  # with fewer, no finite bound holds 90 % of the time: ceil((n + 1) * 0.9) is more than n
SHORTEST = 0.01  # seconds
SCALE = (1.0, 1e4, 1e8)  # units of the regression: 1, items, bytes
_LOOSE = ((1.0, 0.0, 0.0), (0.0, 9.0, 0.0), (0.0, 0.0, 9.0))  # how little the assumed coefficients are trusted

ANY = ""  # any method

Key = tuple[str, str]  # type, method
Vector = list[float]


@dataclass(frozen=True)
class Prediction:
    """Seconds: the median, and the bound that holds 90 % of the time. `restores` counts what it was learnt from.

    Unless `measured`, the distance between the two is an assumption.
    """

    p50: float
    p90: float
    restores: int
    measured: bool


@dataclass
class TimeModel:
    """Recursive least squares of relative errors (Plackett 1950), and how far off it was each time before it learnt."""

    theta: Vector = field(default_factory=lambda: [a * unit for a, unit in zip(ASSUMED_SECONDS, SCALE)])
    spread: list[Vector] = field(default_factory=lambda: [list(row) for row in _LOOSE])
    ratios: deque[float] = field(default_factory=lambda: deque(maxlen=RATIOS_USED))
    restores: int = 0

    def seconds(self, items: int, size: int) -> float:
        """The most likely time for so many items and bytes; never less for more of them."""
        theta = _not_negative(self.theta, self.spread)
        return max(SHORTEST, _dot(theta, _features(items, size)))

    def created(self, items: int, size: int, seconds: float) -> None:
        """Learn from what creating a shadow took."""
        self._learn(items, size, seconds, NOISE_CREATE)

    def restored(self, items: int, size: int, seconds: float) -> None:
        """Learn from what a restore took, after noting how far off its prediction was."""
        self.ratios.append(max(seconds, SHORTEST) / self.seconds(items, size))
        self.restores += 1
        self.spread = [[value / FORGETTING for value in row] for row in self.spread]
        self._learn(items, size, seconds, NOISE_RESTORE)

    def predict(self, items: int, size: int) -> Prediction:
        """Median and 90 % bound of the time for so many items and bytes."""
        seconds = self.seconds(items, size)
        measured = len(self.ratios) >= RATIOS_NEEDED
        if measured:
            low, high = _conformal(self.ratios, 0.5), _conformal(self.ratios, 0.9)
        else:
            low, high = ASSUMED_RATIOS[0], max([ASSUMED_RATIOS[1], *self.ratios])
        return Prediction(seconds * low, seconds * high, self.restores, measured)

    def _learn(self, items: int, size: int, seconds: float, noise: float) -> None:
        """One step of recursive least squares, on the error relative to the prediction: ratios are what is bounded."""
        scale = max(self.seconds(items, size), 0.05)
        row = [x / scale for x in _features(items, size)]
        gains = [_dot(line, row) for line in self.spread]
        total = _dot(row, gains) + noise
        error = max(seconds, SHORTEST) / scale - _dot(row, self.theta)
        self.theta = [value + gain * error / total for value, gain in zip(self.theta, gains)]
        self.spread = [
            [value - one * other / total for value, other in zip(line, gains)] for line, one in zip(self.spread, gains)
        ]


@dataclass(frozen=True)
class Times:
    """What is known about times on one host, by (type, method), and by (type, ANY) of all its methods together."""

    restores: Mapping[Key, TimeModel]
    creations: Mapping[Key, TimeModel]

    def predict(self, type: str, method: str, items: int, size: int) -> Prediction:
        """How long a restore takes; all methods of the type answer while this one was seen too rarely."""
        return self._model(self.restores, type, method, RATIOS_NEEDED).predict(items, size)

    def creation(self, type: str, method: str, items: int, size: int) -> float:
        """How many seconds a full copy takes."""
        return self._model(self.creations, type, method, 0).seconds(items, size)

    @staticmethod
    def _model(models: Mapping[Key, TimeModel], type: str, method: str, restores: int) -> TimeModel:
        found = models.get((type, method))
        if found is not None and found.restores >= restores:
            return found
        return models.get((type, ANY)) or TimeModel()


def fit(history: Iterable[Mapping[str, Any]], manifest: Manifest) -> Times:
    """Learn from one host's shadows and history: first what creating took, then its restores, in the order of time.

    A restore that failed, or changed nothing (`changed` is false), tells nothing about the time of one that succeeds,
    nor an incremental creation (`previous` is set) about reading it all. A record of no known form is left out.
    """
    creations: defaultdict[Key, TimeModel] = defaultdict(TimeModel)
    restores: defaultdict[Key, deque[Mapping[str, Any]]] = defaultdict(lambda: deque(maxlen=RESTORES_USED))
    for record in sorted(filter(_usable, history), key=lambda record: float(record["time"])):
        if record["verb"] == "restore":
            for key in _keys(record["type"], record["method"]):
                restores[key].append(record)
        elif record.get("update_id") != manifest.update_id:  # these shadows say themselves what they took
            for key in _keys(record["type"], record["method"]):
                creations[key].created(record["items"], record["bytes"], record["seconds"])
    for shadow in manifest.shadows:
        for key in _keys(shadow.type, shadow.method) if shadow.previous is None else ():
            creations[key].created(shadow.items, shadow.bytes, shadow.seconds)
    models = {key: copy.deepcopy(model) for key, model in creations.items()}
    for key, records in restores.items():
        start = creations.get(key) or creations.get((key[0], ANY)) or TimeModel()
        model = models[key] = copy.deepcopy(start)
        for record in records:
            model.restored(record["items"], record["bytes"], record["seconds"])
    return Times(models, dict(creations))


def _keys(type: str, method: str) -> tuple[Key, Key]:
    return (type, method), (type, ANY)


def _usable(record: Mapping[str, Any]) -> bool:
    numbers = [record.get(key) for key in ("time", "items", "bytes", "seconds")]
    if not all(isinstance(number, (int, float)) and math.isfinite(number) and number >= 0 for number in numbers):
        return False
    if not all(isinstance(record.get(key), str) for key in ("verb", "type", "method")):
        return False
    if record["verb"] == "create":
        return record.get("ok") is True and not record.get("previous")
    return record["verb"] == "restore" and record.get("ok") is True and record.get("changed", True) is True


def _features(items: int, size: int) -> Vector:
    return [1.0, items / SCALE[1], size / SCALE[2]]


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other))


def _not_negative(theta: Vector, spread: Sequence[Vector]) -> Vector:
    """`theta` given that no coefficient is below 0: each that is becomes 0, and the others take over its part."""
    for dummy in SCALE:
        worst = min(range(3), key=theta.__getitem__)
        pivot = spread[worst][worst]
        if theta[worst] >= 0 or pivot <= 0:
            break
        column = [line[worst] for line in spread]
        theta = [value - share * theta[worst] / pivot for value, share in zip(theta, column)]
        theta[worst] = 0.0
        spread = [[v - one * other / pivot for v, other in zip(line, column)] for line, one in zip(spread, column)]
    return [max(0.0, value) for value in theta]


def _conformal(ratios: Iterable[float], share: float) -> float:
    """The bound that the next ratio keeps with probability `share` at least, if their order means nothing."""
    ordered = sorted(ratios)
    return ordered[min(len(ordered), math.ceil((len(ordered) + 1) * share)) - 1]
