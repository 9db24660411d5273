# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Graphs: waves, cycles and dependents; what the native kernel leaves undecided, and how it has to decide the rest."""

from __future__ import annotations

from collections.abc import Sequence

from . import selected

Edge = tuple[int, int]  # (node, what it needs)
BLOCK = 4096


def components(nodes: int, edges: Sequence[Edge]) -> list[list[int]]:
    """Strongly connected components, what is needed first; ascending in each. Raises IndexError for an unknown node."""
    native = selected.kernel()
    found: list[list[int]] | None = native.components(nodes, edges) if native else None
    return _components(nodes, edges) if found is None else found


def waves(nodes: int, edges: Sequence[Edge]) -> tuple[list[int], list[list[int]]]:
    """Wave of each node (0: needs nothing), and the cycles: components of two or more, or a node that needs itself.

    Raises IndexError for an unknown node.
    """
    native = selected.kernel()
    found: tuple[list[int], list[list[int]]] | None = native.waves(nodes, edges) if native else None
    return _waves(nodes, edges) if found is None else found


def dependents(nodes: int, edges: Sequence[Edge]) -> list[int]:
    """How many other nodes need each node, directly or not. Raises IndexError for an unknown node."""
    native = selected.kernel()
    found: list[int] | None = native.dependents(nodes, edges, selected.threads()) if native else None
    return _dependents(nodes, edges) if found is None else found


def _components(nodes: int, edges: Sequence[Edge]) -> list[list[int]]:
    """Tarjan 1972, SIAM J. Comput. 1(2), without recursion."""
    needs: list[list[int]] = [[] for dummy in range(nodes)]
    for node, need in edges:
        needs[node].append(need)
    index = [-1] * nodes
    low = [0] * nodes
    on_stack = [False] * nodes
    stack: list[int] = []
    found: list[list[int]] = []
    counter = 0
    for start in range(nodes):
        if index[start] >= 0:
            continue
        work = [(start, 0)]
        while work:
            node, position = work.pop()
            if position == 0:
                index[node] = low[node] = counter
                counter += 1
                stack.append(node)
                on_stack[node] = True
            else:
                low[node] = min(low[node], low[needs[node][position - 1]])
            for next_position in range(position, len(needs[node])):
                need = needs[node][next_position]
                if index[need] < 0:
                    work.append((node, next_position + 1))
                    work.append((need, 0))
                    break
                if on_stack[need]:
                    low[node] = min(low[node], index[need])
            else:
                if low[node] == index[node]:
                    component = []
                    while True:
                        member = stack.pop()
                        on_stack[member] = False
                        component.append(member)
                        if member == node:
                            break
                    found.append(sorted(component))
    return found


def _waves(nodes: int, edges: Sequence[Edge]) -> tuple[list[int], list[list[int]]]:
    groups = _components(nodes, edges)
    group_of = [0] * nodes
    for number, group in enumerate(groups):
        for node in group:
            group_of[node] = number
    group_needs: list[set[int]] = [set() for dummy in groups]
    selfish: set[int] = set()
    for node, need in edges:
        if group_of[node] != group_of[need]:
            group_needs[group_of[node]].add(group_of[need])
        elif node == need:
            selfish.add(group_of[node])
    level = [0] * len(groups)
    for number, wanted in enumerate(group_needs):  # components come what is needed first, so one pass is enough
        level[number] = max((level[need] + 1 for need in wanted), default=0)
    cycles = [group for number, group in enumerate(groups) if len(group) > 1 or number in selfish]
    return [level[group_of[node]] for node in range(nodes)], cycles


def _dependents(nodes: int, edges: Sequence[Edge]) -> list[int]:
    groups = _components(nodes, edges)
    group_of = [0] * nodes
    for number, group in enumerate(groups):
        for node in group:
            group_of[node] = number
    needed_by: list[set[int]] = [set() for dummy in groups]
    for node, need in edges:
        if group_of[node] != group_of[need]:
            needed_by[group_of[need]].add(group_of[node])
    counts = [0] * len(groups)
    # Sets are bits of one number, in blocks, so that memory stays at nodes * BLOCK bits.
    for start in range(0, nodes, BLOCK):
        above = [0] * len(groups)
        for node in range(start, min(start + BLOCK, nodes)):
            above[group_of[node]] |= 1 << (node - start)
        for number in range(len(groups) - 1, -1, -1):  # what needs a group comes after it
            for other in needed_by[number]:
                above[number] |= above[other]
            counts[number] += bin(above[number]).count("1")
    return [counts[group_of[node]] - 1 for node in range(nodes)]
