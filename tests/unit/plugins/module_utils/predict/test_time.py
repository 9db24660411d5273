# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a restore takes: the regression finds what is there, its bound holds, and what is assumed is said to be."""

from __future__ import annotations

import random
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.predict import time
from ansible_collections.umbra.rollback.tests.unit.support.manifests import MIB, manifest, record, shadow
from hypothesis import given, settings
from hypothesis import strategies as st

HOST = manifest("h", shadow("x", seconds=0.1))
sizes = st.tuples(st.integers(0, 10**6), st.integers(0, 10**12))
observed = st.lists(st.tuples(st.integers(0, 10**5), st.integers(0, 10**10), st.floats(0.001, 10**4)), max_size=15)


def history(count: int, spread: float, seed: int = 1) -> list[dict[str, Any]]:
    """Restores of a disk of 0.2 s + 0.4 ms an item + 50 MB/s, each off by a log-normal factor of this spread."""
    draw = random.Random(seed)
    records = []
    for number in range(count):
        items, size = int(10 ** draw.uniform(0, 4)), int(10 ** draw.uniform(4, 9))
        seconds = truth(items, size) * draw.lognormvariate(0, spread)
        records.append(record(seconds=seconds, time=number, items=items, bytes=size))
    return records


def truth(items: int, size: int) -> float:
    return 0.2 + 4e-4 * items + size / 5e7


def test_without_history_it_is_what_creating_took_and_the_spread_is_assumed() -> None:
    times = time.fit([], manifest("h", shadow("x", size=1000 * MIB, items=100, seconds=42)))
    prediction = times.predict("file", "copy", 100, 1000 * MIB)
    assert prediction.p50 == pytest.approx(42, rel=0.1)
    assert prediction.p90 == pytest.approx(prediction.p50 * time.ASSUMED_RATIOS[1])
    assert not prediction.measured


def test_what_was_never_seen_is_predicted_from_the_assumptions() -> None:
    a, b, c = time.ASSUMED_SECONDS
    assert time.fit([], HOST).predict("sqlite", "backup", 7, 10**9).p50 == pytest.approx(a + 7 * b + 10**9 * c)


def test_it_finds_the_host_behind_the_measurements() -> None:
    times = time.fit(history(60, 0.05), HOST)
    for items, size in [(1, 10**9), (10_000, 10**6), (100, 10**8)]:
        assert times.predict("file", "copy", items, size).p50 == pytest.approx(truth(items, size), rel=0.15)


def test_the_bound_holds_for_nine_in_ten_that_come_after() -> None:
    records = history(240, 0.5)
    kept = 0
    for split in range(40, 240):
        prediction = time.fit(records[:split], HOST).predict(
            "file", "copy", records[split]["items"], records[split]["bytes"]
        )
        assert prediction.measured
        kept += records[split]["seconds"] <= prediction.p90
    assert 0.85 <= kept / 200 <= 0.96


def test_nine_restores_make_the_bound_a_measured_one() -> None:
    measured = [time.fit(history(count, 0.1), HOST).predict("file", "copy", 10, MIB).measured for count in (8, 9)]
    assert measured == [False, True]


def test_with_few_restores_the_bound_is_never_below_the_worst_that_was_seen() -> None:
    slow = time.fit([record(seconds=100.0)], HOST).predict("file", "copy", 10, MIB)
    assert slow.p90 / slow.p50 > time.ASSUMED_RATIOS[1]


def test_the_order_of_the_records_is_that_of_their_times() -> None:
    records = history(30, 0.3)
    shuffled = random.Random(2).sample(records, len(records))
    assert time.fit(shuffled, HOST) == time.fit(records, HOST)


OTHERS = [
    {"ok": False},
    {"changed": False},
    {"seconds": None},
    {"seconds": float("nan")},
    {"seconds": -1},
    {"bytes": "many"},
    {"type": None},
    {"verb": "prune"},
    {"verb": "create", "previous": "earlier"},
    {"verb": "create", "ok": False},
]


@pytest.mark.parametrize("facts", OTHERS)
def test_what_tells_nothing_about_a_restore_is_left_out(facts: dict[str, Any]) -> None:
    assert time.fit([record(**{"seconds": 500.0, **facts})], HOST) == time.fit([], HOST)


def test_creations_of_earlier_updates_are_learnt_from_and_of_this_one_not_twice() -> None:
    slow = {"verb": "create", "seconds": 9.0}
    assert time.fit([record(**slow)], HOST) != time.fit([], HOST)
    assert time.fit([record(**slow, update_id="up-1")], HOST) == time.fit([], HOST)


def test_an_incremental_shadow_says_nothing_about_copying_it_all() -> None:
    fast = manifest("h", shadow("x", size=1000 * MIB, seconds=0.01, previous="earlier"))
    assert time.fit([], fast).predict("file", "copy", 10, 1000 * MIB).p50 > 1


def test_while_a_method_was_seen_rarely_all_methods_of_its_type_answer() -> None:
    records = [record(seconds=30.0, time=n, method="swap") for n in range(20)]
    assert time.fit(records, HOST).predict("file", "copy", 10, MIB).p50 == pytest.approx(30, rel=0.1)
    own = [record(seconds=3.0, time=20 + n) for n in range(time.RATIOS_NEEDED)]
    assert time.fit([*records, *own], HOST).predict("file", "copy", 10, MIB).p50 == pytest.approx(3, rel=0.1)


def test_a_method_that_was_never_created_in_full_starts_from_its_type() -> None:
    times = time.fit([], manifest("h", shadow("x", size=1000 * MIB, seconds=42.0)))
    assert times.creation("file", "incremental", 10, 1000 * MIB) == pytest.approx(42, rel=0.1)
    assert times.predict("file", "incremental", 10, 1000 * MIB).p50 == pytest.approx(42, rel=0.1)


def test_creation_is_not_confused_by_restores() -> None:
    times = time.fit([record(seconds=50.0, time=n) for n in range(20)], HOST)
    assert times.creation("file", "copy", 10, MIB) == pytest.approx(0.1, rel=0.3)
    assert times.predict("file", "copy", 10, MIB).p50 == pytest.approx(50, rel=0.1)


@settings(deadline=None)
@given(observed, observed, sizes, sizes)
def test_more_items_or_bytes_never_take_less(
    created: list[tuple[int, int, float]],
    restored: list[tuple[int, int, float]],
    one: tuple[int, int],
    more: tuple[int, int],
) -> None:
    model = time.TimeModel()
    for items, size, seconds in created:
        model.created(items, size, seconds)
    for items, size, seconds in restored:
        model.restored(items, size, seconds)
    less = model.predict(*one)
    assert 0 < less.p50 <= less.p90 < float("inf")
    assert model.predict(one[0] + more[0], one[1] + more[1]).p50 >= less.p50 * (1 - 1e-9)


@given(st.lists(st.floats(0.1, 10), min_size=time.RATIOS_NEEDED, max_size=50), st.floats(0.05, 0.9))
def test_the_conformal_bound_covers_its_share_of_the_ratios(ratios: list[float], share: float) -> None:
    bound = time._conformal(ratios, share)
    assert sum(ratio <= bound for ratio in ratios) >= share * len(ratios)
