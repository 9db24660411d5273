# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The twins of graphs and of the simulation are equal: in values to the last bit, and in errors."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import graph, montecarlo, selected
from ansible_collections.umbra.rollback.tests.unit.support.twins import using
from hypothesis import given
from hypothesis import strategies as st

GRAPHS = (graph.components, graph.waves, graph.dependents)
PLAIN = st.integers(0, 40).flatmap(
    lambda nodes: st.tuples(
        st.just(nodes),
        st.lists(st.tuples(*[st.integers(0, nodes - 1)] * 2), max_size=120) if nodes else st.just([]),
    )
)
ANY_NUMBER = st.one_of(st.integers(-6, 6), st.sampled_from((2**31, 2**32, 2**64, -(2**63), True, 1.0, "1", None)))
ANY_GRAPH = st.tuples(
    st.one_of(st.integers(-1, 6), st.sampled_from((True, 2.0, None))),
    st.one_of(
        st.lists(st.tuples(ANY_NUMBER, ANY_NUMBER), max_size=4),
        st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=4),
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=4).map(tuple),
        st.sampled_from((None, 5, "ab", [5], [None], {(0, 1): 2})),
    ),
)

SECONDS = st.one_of(st.floats(0, 1e4), st.integers(0, 1000), st.sampled_from((0.0, -0.0, 5e-324, 1e-300, 1e300)))
RESTORES = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 4), SECONDS, st.floats(0, 1e4)), max_size=60)
PLAN = st.tuples(RESTORES, st.integers(1, 7), st.integers(0, 9), st.integers(0, 2**70))
ANY_SECONDS = st.one_of(st.floats(), st.integers(-(2**70), 2**70), st.sampled_from((True, None, "1")))
ANY_PLAN = st.tuples(
    st.lists(ANY_NUMBER, max_size=3),
    st.lists(st.one_of(st.integers(-3, 3), st.sampled_from((True, 1.0, "1", None))), max_size=4),
    st.lists(ANY_SECONDS, max_size=4),
    st.one_of(st.lists(ANY_SECONDS, max_size=4), st.lists(ANY_SECONDS, max_size=4).map(tuple), st.none()),
    st.one_of(st.integers(-1, 3), st.sampled_from((2**70, True, 2.0, None))),
    st.one_of(st.integers(-1, 3), st.sampled_from((-(2**70), True, 2.0, None))),
)
# A sigma of 553, and of 1.2e308: times beyond all bounds, which a draw soon meets
BEYOND = [([0], [0], [1e-300], [1e8], 1, 400), ([0] * 9, [0] * 9, [5e-324] * 9, [1e308] * 9, 1, 9)]


@pytest.fixture(autouse=True, scope="module")
def native() -> Iterator[None]:
    """One loaded kernel for all examples."""
    with using("native"):
        yield
    selected.limit(0)


def bits(value: Any) -> Any:
    """The value, with floats as text that tells all of their bits, so that a NaN is equal to itself."""
    if isinstance(value, (list, tuple)):
        return [bits(one) for one in value]
    return value.hex() if isinstance(value, float) else value


def outcome(call: Callable[..., Any], arguments: Any) -> tuple[str, Any]:
    """What a call returned, or the type of what it raised."""
    try:
        return "returned", bits(call(*arguments))
    except (IndexError, OverflowError, TypeError, ValueError) as error:
        return "raised", type(error)


def pure(call: Callable[..., Any], arguments: Any) -> tuple[str, Any]:
    """The outcome with the pure twin."""
    loaded, selected.native = selected.native, None
    try:
        return outcome(call, arguments)
    finally:
        selected.native = loaded


def columns(plan: Any) -> tuple[Any, ...]:
    """The arguments of totals."""
    restores, workers, draws, seed = plan
    return (*([one[at] for one in restores] for at in range(4)), workers, draws, seed)


@given(PLAIN)
def test_plain_graphs_are_decided_natively_and_equal(plain: tuple[int, list[tuple[int, int]]]) -> None:
    kernel = selected.kernel()
    assert kernel is not None
    assert bits(kernel.components(*plain)) == pure(graph.components, plain)[1]
    assert bits(kernel.waves(*plain)) == pure(graph.waves, plain)[1]
    assert bits(kernel.dependents(*plain, 2)) == pure(graph.dependents, plain)[1]


@given(ANY_GRAPH)
def test_any_graph_has_equal_values_and_errors(arguments: Any) -> None:
    for call in GRAPHS:
        assert outcome(call, arguments) == pure(call, arguments)


@pytest.mark.parametrize("call", GRAPHS)
@pytest.mark.parametrize("edges", [[(0, 3)], [(3, 0)], [(0, 1), (-4, 0)]])
def test_an_unknown_node_is_an_index_error(call: Callable[..., Any], edges: list[tuple[int, int]]) -> None:
    with pytest.raises(IndexError):
        call(3, edges)


def some_edges(nodes: int, count: int, backwards: int) -> list[tuple[int, int]]:
    """Edges between shuffled nodes, most of them in one direction, so that few are in a cycle."""
    draw = random.Random(nodes)
    names = list(range(nodes))
    draw.shuffle(names)
    pairs = [sorted((draw.randrange(nodes), draw.randrange(nodes)), reverse=at >= backwards) for at in range(count)]
    return [(names[a], names[b]) for a, b in pairs]


@pytest.mark.parametrize("backwards", [0, 20, 5000])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_several_blocks_and_threads(backwards: int, threads: int) -> None:
    large = 3000, some_edges(3000, 5000, backwards)
    selected.limit(threads)
    for call in GRAPHS:
        assert outcome(call, large) == pure(call, large)


@given(PLAN)
def test_plain_plans_are_decided_natively_and_equal(plan: Any) -> None:
    *plain, seed = columns(plan)
    expected = pure(montecarlo.totals, (*plain, seed))
    kernel = selected.kernel()
    assert kernel is not None
    drawn = kernel.totals(*plain, random.Random(seed).getstate()[1], 2)
    assert drawn is None or ("returned", bits(sorted(drawn))) == expected
    # What is left over has a spread without bound, or a time that no float can hold.
    assert drawn is not None or expected == ("raised", OverflowError) or any(p50 < 1e-290 for p50 in plain[2])


@given(ANY_PLAN)
def test_any_plan_has_equal_values_and_errors(arguments: Any) -> None:
    assert outcome(montecarlo.totals, arguments) == pure(montecarlo.totals, arguments)


@pytest.mark.parametrize("arguments", BEYOND)
def test_times_beyond_all_bounds(arguments: Any) -> None:
    assert outcome(montecarlo.totals, arguments) == pure(montecarlo.totals, arguments)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("resources", "hosts", "draws"), [(1, 1, 99_999), (3000, 30, 66), (2999, 30, 66)])
def test_threads_share_one_stream_of_numbers(threads: int, resources: int, hosts: int, draws: int) -> None:
    """With an odd count of numbers for one draw, batches begin amid a pair."""
    draw = random.Random(5)
    restores = [
        (draw.randrange(4), draw.randrange(hosts), draw.random(), 3 * draw.random()) for dummy in range(resources - 1)
    ]
    plan = columns(([*restores, (0, hosts - 1, 1.0, 2.0)], 3, draws, 1))
    selected.limit(threads)
    assert outcome(montecarlo.totals, plan) == pure(montecarlo.totals, plan)


def test_other_threads_of_the_process_go_on() -> None:
    plan = columns(([(0, 0, 1.0, 2.0)] * 1000, 4, 10_000, 1))
    at_work = threading.Thread(target=montecarlo.totals, args=plan)
    at_work.start()
    turns = 0
    while at_work.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns > 20
