# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The dependency graph of all hosts: what was declared, what claims show, and names resolved to resources."""

from __future__ import annotations

import difflib
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

try:
    import networkx  # type: ignore[import-untyped]
except ImportError:
    networkx = None

from ..module_utils.errors import InputError, ToolMissing
from ..module_utils.shadow import Claim, Manifest

EVIDENCE_KEPT = 20  # per edge


@dataclass(frozen=True, slots=True)
class Edge:
    """`source` needs `target` (both host:name): declared, claimed (seen in claims), or both; `evidence` says where."""

    source: str
    target: str
    declared: bool
    claimed: bool
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Dependencies:
    """Nodes are host:name, edges go from a resource to what it needs; `elsewhere` holds needs on hosts not analyzed."""

    graph: Any  # networkx.DiGraph, which has no types
    elsewhere: Mapping[str, tuple[str, ...]]
    warnings: tuple[str, ...]

    def needs(self, key: str) -> list[str]:
        """What `key` needs directly, sorted."""
        return sorted(self.graph.successors(key))

    def edges(self) -> list[Edge]:
        """All edges, sorted."""
        return [
            Edge(source, target, data["declared"], data["claimed"], tuple(data["evidence"]))
            for source, target, data in sorted(self.graph.edges(data=True), key=lambda edge: edge[:2])
        ]

    def loop(self, members: Iterable[str]) -> list[str]:
        """One way round within a cycle, beginning and ending with the same member."""
        subgraph = self.graph.subgraph(members)
        path = [source for source, dummy in networkx.find_cycle(subgraph, source=min(members))]
        return [*path, path[0]]


def join(manifests: Mapping[str, Manifest], extra: Mapping[str, Sequence[str]] | None = None) -> Dependencies:
    """Join the dependencies of `manifests` (by host) with `extra` ones. Raises InputError for one that names nothing.

    On a host, "x" means its own x, and "host:x" that of another. In `extra`, "x" may be on any host if only one has it.
    """
    if networkx is None:
        package = f"it on the controller for {sys.executable} (pip install networkx)"
        raise ToolMissing(name="rollback_analyze", tool="networkx", package=package)
    return _Join(manifests).join(_checked(extra or {}))


def essential(pairs: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
    """Those of the edges that no others imply (transitive reduction); all inside a cycle are. For drawing."""
    whole = networkx.DiGraph(list(pairs))
    condensed = networkx.condensation(whole)
    kept = networkx.transitive_reduction(condensed).edges
    group = condensed.graph["mapping"]
    return {(a, b) for a, b in whole.edges if group[a] == group[b] or (group[a], group[b]) in kept}


def _checked(extra: Any) -> Mapping[str, Sequence[str]]:
    remedy = "Write `resource: [what it needs, ...]`, each as name or host:name."
    if not isinstance(extra, Mapping):
        raise InputError(where="depends_on", problem=f"is {type(extra).__name__}, not a dictionary", remedy=remedy)
    for key, needs in extra.items():
        if not isinstance(needs, (list, tuple)) or not all(isinstance(need, str) for need in needs):
            raise InputError(where="depends_on", problem=f"what {key!r} needs is not a list of names", remedy=remedy)
    return extra


class _Join:
    """The graph while it is made, and the names that a dependency may use."""

    def __init__(self, manifests: Mapping[str, Manifest]) -> None:
        self.manifests = manifests
        self.graph = networkx.DiGraph()
        self.by_name: dict[str, list[str]] = {}  # hosts
        self.elsewhere: defaultdict[str, list[str]] = defaultdict(list)
        for host, manifest in manifests.items():
            for name in manifest.names:
                self._add_node(host, name)

    def _add_node(self, host: str, name: str) -> None:
        key = f"{host}:{name}"
        if key in self.graph:
            raise InputError(where="resources", problem=f"{key} stands for two of them", remedy="Rename one.")
        self.graph.add_node(key)
        self.by_name.setdefault(name, []).append(host)

    def join(self, extra: Mapping[str, Sequence[str]]) -> Dependencies:
        for host, manifest in self.manifests.items():
            for shadow in manifest.shadows:
                for need in shadow.resource.depends_on:
                    self._declare(host, shadow.name, need, "declared in `depends_on` of the resource")
            self._claim(host, manifest)
        for reference, needs in extra.items():
            host, name = self._owner(reference)
            for need in needs:
                self._declare(host, name, need, "declared in `depends_on` of the analysis", anywhere=True)
        return Dependencies(self.graph, {key: tuple(needs) for key, needs in self.elsewhere.items()}, self._warnings())

    def _declare(self, host: str, name: str, need: str, evidence: str, anywhere: bool = False) -> None:
        key = f"{host}:{name}"
        target = self._find(need, host, f"{name} on {host} depends on {need!r}", anywhere)
        if target is not None:
            self._add_edge(key, target, "declared", evidence)
        elif need not in self.elsewhere[key]:
            self.elsewhere[key].append(need)

    def _claim(self, host: str, manifest: Manifest) -> None:
        """Edges from each resource that uses something to all others on the host that provide it."""
        provided: defaultdict[tuple[str, str], list[tuple[str, Claim]]] = defaultdict(list)
        for shadow in manifest.shadows:
            for claim in shadow.claims:
                if claim.role == "provides":
                    provided[claim.kind, claim.value].append((shadow.name, claim))
        for shadow in manifest.shadows:
            for use in shadow.claims:
                for name, claim in provided[use.kind, use.value] if use.role == "uses" else ():
                    if name != shadow.name:
                        evidence = f"{use.kind} {use.value}: used ({use.evidence}), provided ({claim.evidence})"
                        self._add_edge(f"{host}:{shadow.name}", f"{host}:{name}", "claimed", evidence)

    def _add_edge(self, source: str, target: str, how: str, evidence: str) -> None:
        if not self.graph.has_edge(source, target):
            self.graph.add_edge(source, target, declared=False, claimed=False, evidence=[])
        edge = self.graph.edges[source, target]
        edge[how] = True
        if evidence not in edge["evidence"] and len(edge["evidence"]) < EVIDENCE_KEPT:
            edge["evidence"].append(evidence)

    def _owner(self, reference: str) -> tuple[str, str]:
        """Host and name of the resource that an extra dependency is for."""
        host, name = self._split(reference)
        hosts = self.by_name.get(reference, [])
        if host is None and len(hosts) == 1:
            return hosts[0], reference
        if host is not None and f"{host}:{name}" in self.graph:
            return host, name
        raise self._unknown(f"{reference!r} is to depend on something", reference, host)

    def _find(self, need: str, host: str, said: str, anywhere: bool) -> str | None:
        """The key of what is needed, or None if it is on a host that is not analyzed. Raises InputError."""
        if f"{host}:{need}" in self.graph:
            return f"{host}:{need}"
        other, name = self._split(need)
        if other is not None and f"{other}:{name}" in self.graph:
            return f"{other}:{name}"
        if anywhere and len(self.by_name.get(need, ())) == 1:
            return f"{self.by_name[need][0]}:{need}"
        mistyped = difflib.get_close_matches(need, self.manifests[host].names, cutoff=0.8)
        if other is None and ":" in need and not mistyped:
            return None
        raise self._unknown(said, need, other or host)

    def _split(self, reference: str) -> tuple[str | None, str]:
        """The analyzed host that `reference` begins with, if any, and the rest; both may have colons of their own."""
        parts = reference.split(":")
        for count in range(len(parts) - 1, 0, -1):
            host, name = ":".join(parts[:count]), ":".join(parts[count:])
            if host in self.manifests:
                return host, name
        return None, reference

    def _unknown(self, said: str, reference: str, host: str | None) -> InputError:
        hosts = self.by_name.get(reference, ())
        if len(hosts) > 1:
            problem = f"{said}, which is on {len(hosts)} hosts"
            remedy = f"Say which one, as {hosts[0]}:{reference} or {hosts[1]}:{reference}."
            return InputError(where="depends_on", problem=problem, remedy=remedy)
        name = reference.removeprefix(f"{host}:")
        known = sorted(self.manifests[host].names if host is not None else self.by_name)
        matches = difflib.get_close_matches(name, known, n=1)
        if not matches and hosts:
            matches = [f"{hosts[0]}:{reference}"]
        remedy = f"Did you mean {matches[0]!r}?" if matches else "Shadow it too, or take this dependency out."
        return InputError(where="depends_on", problem=f"{said}, which nothing shadows", remedy=remedy)

    def _warnings(self) -> tuple[str, ...]:
        """One for each reference to a host that is not analyzed."""
        users: defaultdict[str, list[str]] = defaultdict(list)
        for key, needs in self.elsewhere.items():
            for need in needs:
                users[need].append(key)
        return tuple(
            f"{_some(keys, 1)} depends on {need!r}, which is on no host of this analysis ({_some(self.manifests)}): "
            f"the way back does not wait for it."
            for need, keys in sorted(users.items())
        )


def _some(hosts: Iterable[str], shown: int = 5) -> str:
    """The first of them, and how many more there are."""
    names = sorted(hosts)
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
