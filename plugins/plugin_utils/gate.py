# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the whole way back takes, and the gate: a limit on that time or on the risk refuses the update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..module_utils.kernel import montecarlo
from ..module_utils.predict import risk
from .assess import Assessment

TURN_SECONDS = 1.0  # an assumption: what the controller takes for one wave, where nobody measured it
PREPARE_RATIO = 2.0  # an assumption: 90 % bound over median of verifying the shadows and keeping the failed state
DRAWS = (100, 1000)  # of the simulation: least, most
DRAWN = 1_000_000  # times drawn in all, so that 10,000 resources take seconds too
CANDIDATES = 5  # how many of the slowest resources a refusal looks at


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether the update may start; one sentence for each limit that says no."""

    passed: bool
    refusals: tuple[str, ...]


class Clock:
    """How long the way back takes, as a whole, and if single resources took no time."""

    def __init__(
        self,
        resources: Sequence[Assessment],
        prepare: Mapping[str, float],
        workers: int,
        turn: float = TURN_SECONDS,
    ) -> None:
        number = {host: index for index, host in enumerate(prepare)}
        self.waves = max((one.wave for one in resources), default=0)
        self.workers = workers
        self.position = {one.key: index for index, one in enumerate(resources)}
        count = len(resources)
        self.wave = [one.wave for one in resources] + [0] * len(number)  # wave 0 prepares
        self.host = [number[one.host] for one in resources] + list(number.values())
        self.p50 = [one.eta.p50 for one in resources] + list(prepare.values())
        self.p90 = [one.eta.p90 for one in resources] + [PREPARE_RATIO * seconds for seconds in prepare.values()]
        self.turns = (self.waves + 1 if len(number) > 1 else 1) * turn if count else 0.0
        self.draws = max(DRAWS[0], min(DRAWS[1], DRAWN // max(1, len(self.wave))))

    def rto(self, without: Iterable[str] = ()) -> tuple[float, float]:
        """Median and 90 % bound, when those resources take no time."""
        free = {self.position[key] for key in without}
        p50 = [0.0 if index in free else seconds for index, seconds in enumerate(self.p50)]
        totals = montecarlo.totals(self.wave, self.host, p50, self.p90, self.workers, self.draws)
        return tuple(self.turns + montecarlo.quantile(totals, share) for share in (0.5, 0.9))  # type: ignore[return-value]


def decide(
    resources: Sequence[Assessment],
    clock: Clock,
    rto: tuple[float, float],
    chance: float,
    max_rto: float | None,
    max_risk: float | None,
) -> Gate:
    """Compare the 90 % bound of the time, and the probability that any resource fails, with their limits."""
    refusals = []
    if max_rto is not None and rto[1] > max_rto:
        refusals.append(_too_slow(resources, clock, rto, max_rto))
    if max_risk is not None and chance > max_risk:
        refusals.append(_too_risky(resources, chance, max_risk))
    return Gate(not refusals, tuple(refusals))


def _too_slow(resources: Sequence[Assessment], clock: Clock, rto: tuple[float, float], limit: float) -> str:
    slowest = sorted(resources, key=lambda one: (-one.eta.p90, one.key))[:CANDIDATES]
    left, worst = min(((clock.rto([one.key])[1], one) for one in slowest), key=lambda pair: (pair[0], pair[1].key))
    said = (
        f"The way back would take up to {rto[1]:.1f} s (90 % bound; median {rto[0]:.1f} s), and max_rto is "
        f"{limit:g} s: {worst.label} costs most (up to {worst.eta.p90:.1f} s; {left:.1f} s without it)."
    )
    if left < limit:
        cure = f"if {worst.shadow.name} came back within {limit - left:.1f} s (make it smaller, or update it by itself)"
    else:
        cure = "if the update were split into smaller ones"
    return f"{said} It would pass with max_rto: {math.ceil(rto[1])}, or {cure}."


def _too_risky(resources: Sequence[Assessment], chance: float, limit: float) -> str:
    worst = min(resources, key=lambda one: (-one.p_fail, one.key))
    left = risk.together(one.p_fail for one in resources if one is not worst)
    cure = "if that one were updated by itself" if left <= limit else "if the update were split into smaller ones"
    return (
        f"The way back would fail somewhere with a probability of {chance:.3f}, and max_risk is {limit:g}: "
        f"{worst.label} is the likeliest to ({worst.p_fail:.3f}; {left:.3f} without it). It would pass with max_risk: "
        f"{math.ceil(chance * 1000) / 1000:g}, or {cure}."
    )
