# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the way back of a whole plan takes, by simulation; the native kernel gives the same to the last bit."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence

from . import selected

SEED = 20260105  # any fixed number: equal plans get equal predictions
Z90 = 1.2815515655446004  # 90 % of a standard normal lies below
SHARED = 0.5  # the part of a time's variance that all resources of a host have in common: one slow disk slows them all

Group = tuple[int, list[tuple[float, float]]]  # host, and (median, sigma of the logarithm) of its resources in one wave


def totals(
    wave: Sequence[int],
    host: Sequence[int],
    p50: Sequence[float],
    p90: Sequence[float],
    workers: int,
    draws: int,
    seed: int = SEED,
) -> list[float]:
    """`draws` simulated durations (seconds) of the plan, ascending.

    Resource i is restored in wave[i] on host[i], and takes a log-normal time with median p50[i] and 90 % quantile
    p90[i]. A host restores up to `workers` resources at once, in the order given; a wave begins when the one before it
    has ended on every host. Equal arguments give equal results, whichever twin runs. Raises IndexError when a sequence
    is shorter than `wave`, or there is no worker; OverflowError for a time that no float can hold.
    """
    native = selected.kernel()
    found: list[float] | None = None
    if native:
        state = random.Random(seed).getstate()[1]
        found = native.totals(wave, host, p50, p90, workers, draws, state, selected.threads())
    return sorted(_totals(wave, host, p50, p90, workers, draws, seed) if found is None else found)


def _totals(
    wave: Sequence[int],
    host: Sequence[int],
    p50: Sequence[float],
    p90: Sequence[float],
    workers: int,
    draws: int,
    seed: int,
) -> list[float]:
    groups = _groups(wave, host, p50, p90)
    hosts = max(host, default=-1) + 1
    gauss = random.Random(seed).gauss
    common, own = math.sqrt(SHARED), math.sqrt(1 - SHARED)
    found = []
    for dummy in range(draws):
        luck = [common * gauss(0.0, 1.0) for dummy in range(hosts)]
        total = 0.0
        for members in groups:
            slowest = 0.0
            for at, times in members:
                drawn = [median * math.exp(sigma * (luck[at] + own * gauss(0.0, 1.0))) for median, sigma in times]
                slowest = max(slowest, makespan(drawn, workers))
            total += slowest
        found.append(total)
    return found


def makespan(seconds: Sequence[float], workers: int) -> float:
    """When the last of the jobs ends, if each in turn goes to the first free worker (Graham 1969)."""
    return max(ends(seconds, workers), default=0.0)


def ends(seconds: Sequence[float], workers: int) -> list[float]:
    """When each of the jobs ends, begun in this order at 0 by whichever of the `workers` is free first."""
    if len(seconds) <= workers:
        return list(seconds)
    free = [0.0] * workers
    found = []
    for job in seconds:
        end = free[0] + job
        heapq.heapreplace(free, end)
        found.append(end)
    return found


def quantile(ascending: Sequence[float], share: float) -> float:
    """The smallest of the values that at least `share` of them do not exceed; 0.0 if there are none."""
    if not ascending:
        return 0.0
    return ascending[min(len(ascending), max(1, math.ceil(share * len(ascending)))) - 1]


def _groups(wave: Sequence[int], host: Sequence[int], p50: Sequence[float], p90: Sequence[float]) -> list[list[Group]]:
    cells: dict[int, dict[int, list[tuple[float, float]]]] = {}
    for index, number in enumerate(wave):
        median = max(0.0, p50[index])
        sigma = math.log(max(1.0, p90[index] / median)) / Z90 if median else 0.0
        cells.setdefault(number, {}).setdefault(host[index], []).append((median, sigma))
    return [sorted(cells[number].items()) for number in sorted(cells)]
