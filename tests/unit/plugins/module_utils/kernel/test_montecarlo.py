# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated time of the way back: its bounds, its determinism, and cases that can be computed by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import montecarlo
from hypothesis import given
from hypothesis import strategies as st

times = st.lists(st.floats(0, 1000), min_size=1, max_size=12)

# seconds of the jobs, workers, when the last of them ends
SCHEDULES = [
    ([], 2, 0.0),
    ([3.0], 1, 3.0),
    ([3.0, 2.0], 1, 5.0),
    ([3.0, 2.0], 2, 3.0),
    ([3.0, 2.0, 2.0], 2, 4.0),
    ([1.0, 1.0, 1.0, 9.0], 2, 10.0),
]


@pytest.mark.parametrize(("seconds", "workers", "expected"), SCHEDULES)
def test_makespan(seconds: list[float], workers: int, expected: float) -> None:
    assert montecarlo.makespan(seconds, workers) == expected


@given(times, st.integers(1, 5))
def test_makespan_is_within_the_bounds_of_list_scheduling(seconds: list[float], workers: int) -> None:
    least = max(*seconds, sum(seconds) / workers)
    found = montecarlo.makespan(seconds, workers)
    assert least - 1e-9 <= found <= sum(seconds) / workers + max(seconds) + 1e-9


def test_without_spread_it_is_the_sum_of_the_waves_slowest_hosts() -> None:
    # wave 1: host 0 has 3 + 1 on two workers, host 1 has 2; wave 2: host 1 has 5
    found = montecarlo.totals([1, 1, 1, 2], [0, 0, 1, 1], [3.0, 1.0, 2.0, 5.0], [3.0, 1.0, 2.0, 5.0], 2, 10)
    assert found == [8.0] * 10


def test_one_resource_has_the_quantiles_it_was_given() -> None:
    found = montecarlo.totals([1], [0], [10.0], [40.0], 4, 4000)
    assert montecarlo.quantile(found, 0.5) == pytest.approx(10, rel=0.1)
    assert montecarlo.quantile(found, 0.9) == pytest.approx(40, rel=0.15)


def test_a_slow_host_is_slow_for_all_its_resources() -> None:
    """In sequence, on one host, the sum spreads more than it would if the times were independent."""
    count, sigma = 30, math.log(2.0) / montecarlo.Z90
    found = montecarlo.totals([1] * count, [0] * count, [1.0] * count, [2.0] * count, 1, 3000)
    mean = sum(found) / len(found)
    deviation = math.sqrt(sum((total - mean) ** 2 for total in found) / len(found))
    independent = math.sqrt(count * (math.exp(sigma**2) - 1) * math.exp(sigma**2))
    assert deviation > 2 * independent


def test_equal_arguments_give_equal_draws_and_another_seed_others() -> None:
    plan = ([1, 1, 2], [0, 1, 0], [1.0, 2.0, 3.0], [2.0, 5.0, 4.0], 2, 50)
    assert montecarlo.totals(*plan) == montecarlo.totals(*plan)
    assert montecarlo.totals(*plan) != montecarlo.totals(*plan, seed=1)


def normals(seed: int) -> Iterator[float]:
    """The stream that a twin of the kernel has to reproduce: MT19937, and Box-Muller in pairs, the cosine first."""
    uniform = random.Random(seed).random
    while True:
        angle = uniform() * 2 * math.pi
        radius = math.sqrt(-2 * math.log(1 - uniform()))
        yield math.cos(angle) * radius
        yield math.sin(angle) * radius


def test_the_luck_of_the_hosts_is_drawn_first_then_each_resource_by_wave_and_host() -> None:
    draw = normals(7)
    expected = []
    for dummy in range(20):
        luck = [math.sqrt(0.5) * next(draw), math.sqrt(0.5) * next(draw)]
        seconds = []
        for host, median, bound in [(0, 1.0, 2.0), (1, 2.0, 5.0), (0, 3.0, 4.0)]:
            sigma = math.log(bound / median) / montecarlo.Z90
            seconds.append(median * math.exp(sigma * (luck[host] + math.sqrt(0.5) * next(draw))))
        expected.append(max(seconds[0], seconds[1]) + seconds[2])
    found = montecarlo.totals([1, 1, 2], [0, 1, 0], [1.0, 2.0, 3.0], [2.0, 5.0, 4.0], 2, 20, seed=7)
    assert found == pytest.approx(sorted(expected), rel=1e-12)


def test_a_plan_of_nothing_takes_nothing() -> None:
    assert montecarlo.totals([], [], [], [], 4, 3) == [0.0, 0.0, 0.0]
    assert montecarlo.totals([1], [0], [0.0], [4.0], 4, 3) == [0.0, 0.0, 0.0]


@given(st.lists(st.floats(0, 100), max_size=20).map(sorted), st.floats(0, 1))
def test_quantile_is_the_smallest_value_that_enough_do_not_exceed(values: list[float], share: float) -> None:
    found = montecarlo.quantile(values, share)
    if not values:
        assert found == 0.0
    else:
        assert found in values
        assert sum(value <= found for value in values) >= share * len(values) - 1e-9
