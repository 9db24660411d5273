# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure graph part against brute force, and against what its words say."""

from __future__ import annotations

import time

from ansible_collections.umbra.rollback.plugins.module_utils.kernel import graph
from hypothesis import given
from hypothesis import strategies as st

NODES = 12
edges = st.lists(st.tuples(st.integers(0, NODES - 1), st.integers(0, NODES - 1)), max_size=30)


def reachable(start: int, pairs: list[tuple[int, int]]) -> set[int]:
    """Everything that `start` needs, directly or not, by walking (itself only if it is in a cycle)."""
    seen: set[int] = set()
    frontier = {start}
    while frontier:
        frontier = {need for node, need in pairs if node in frontier} - seen
        seen |= frontier
    return seen


@given(edges)
def test_components_are_the_sets_that_need_each_other(pairs: list[tuple[int, int]]) -> None:
    needs = {node: reachable(node, pairs) for node in range(NODES)}
    together = {frozenset({n, *(o for o in needs[n] if n in needs[o])}) for n in range(NODES)}
    assert {frozenset(component) for component in graph.components(NODES, pairs)} == together


@given(edges)
def test_a_wave_comes_after_all_it_needs_and_as_early_as_it_can(pairs: list[tuple[int, int]]) -> None:
    levels, cycles = graph.waves(NODES, pairs)
    group = {node: frozenset(cycle) for cycle in cycles for node in cycle}
    for node in range(NODES):
        unit = group.get(node, frozenset({node}))
        outside = [levels[need] for member, need in pairs if member in unit and need not in unit]
        assert levels[node] == max((level + 1 for level in outside), default=0)


@given(edges)
def test_cycles_are_what_needs_itself(pairs: list[tuple[int, int]]) -> None:
    _levels, cycles = graph.waves(NODES, pairs)
    assert {node for cycle in cycles for node in cycle} == {n for n in range(NODES) if n in reachable(n, pairs)}


@given(edges)
def test_dependents_are_all_others_that_need_it(pairs: list[tuple[int, int]]) -> None:
    needs = {node: reachable(node, pairs) for node in range(NODES)}
    expected = [sum(node in needs[other] for other in range(NODES) if other != node) for node in range(NODES)]
    assert graph.dependents(NODES, pairs) == expected


def test_dependents_across_blocks_of_nodes() -> None:
    nodes = graph.BLOCK * 2 + 3
    assert graph.dependents(nodes, [(node, 0) for node in range(1, nodes)])[:2] == [nodes - 1, 0]


def test_ten_thousand_in_one_chain_take_no_time_and_no_recursion() -> None:
    nodes = 10_000
    chain = [(node, node - 1) for node in range(1, nodes)]
    begun = time.monotonic()
    assert graph.waves(nodes, chain)[0] == list(range(nodes))
    assert graph.dependents(nodes, chain) == list(range(nodes - 1, -1, -1))
    assert time.monotonic() - begun < 5
