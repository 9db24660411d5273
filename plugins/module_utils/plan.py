# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of the way back on one host: waves of resources, cycles as one unit, and what each is predicted to take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import StoreCorrupt, StoreFormatUnknown
from .kernel import graph
from .resource import PRIORITIES
from .shadow import Shadow

PLAN_FORMAT = "umbra-plan 1"


@dataclass(frozen=True)
class Step:
    """One resource in the plan. `wave` counts from 1; `needs` are names on this host, `needs_remote` are host:name.

    `eta` is (p50, p90) in seconds, `p_fail` a probability, `score` 0 to 100, `tier` low, medium or high, `cycle` the
    names restored as one unit with it (empty: none).
    """

    name: str
    wave: int
    needs: tuple[str, ...] = ()
    needs_remote: tuple[str, ...] = ()
    cycle: tuple[str, ...] = ()
    tier: str = "low"
    score: float = 0.0
    eta: tuple[float, float] = (0.0, 0.0)
    p_fail: float = 0.0


@dataclass(frozen=True)
class Plan:
    """The part of the way back that one host does; `waves` counts those of all hosts.

    `rto` is (p50, p90) in seconds.
    """

    update_id: str
    host: str
    steps: tuple[Step, ...]
    waves: int
    rto: tuple[float, float] | None = None
    source: str = "host"

    def step(self, name: str) -> Step | None:
        """The step of the resource `name`, or None."""
        return next((step for step in self.steps if step.name == name), None)

    def wave(self, number: int) -> list[Step]:
        """The steps of wave `number`, in the order of the plan."""
        return [step for step in self.steps if step.wave == number]

    def dependents(self, names: Sequence[str]) -> set[str]:
        """Everything on this host that needs one of `names`, directly or not (a cycle needs itself)."""
        found: set[str] = set()
        frontier = set(names)
        while frontier:
            frontier = {s.name for s in self.steps if frontier & {*s.needs, *s.cycle} and s.name not in found}
            found |= frontier
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        return {
            "format": PLAN_FORMAT,
            "update_id": self.update_id,
            "host": self.host,
            "waves": self.waves,
            "rto": self.rto,
            "source": self.source,
            "steps": [vars(step) for step in self.steps],
        }

    @classmethod
    def from_dict(cls, raw: Any, path: str) -> Plan:
        """The plan that `to_dict` wrote; `path` is for messages. Raises StoreFormatUnknown, StoreCorrupt."""
        if not isinstance(raw, Mapping) or raw.get("format") != PLAN_FORMAT:
            found = raw.get("format") if isinstance(raw, Mapping) else type(raw).__name__
            raise StoreFormatUnknown(path=path, found=found, known=PLAN_FORMAT)
        try:
            steps = tuple(_step(step) for step in raw["steps"])
            rto = None if raw["rto"] is None else (float(raw["rto"][0]), float(raw["rto"][1]))
            return cls(raw["update_id"], raw["host"], steps, int(raw["waves"]), rto, raw["source"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise StoreCorrupt(path=path, problem=f"it is not a plan: {error}") from error


@dataclass(frozen=True)
class Ordered:
    """Nodes by wave (from 1), and the cycles among them."""

    waves: Mapping[str, int]
    cycles: Sequence[tuple[str, ...]] = field(default_factory=tuple)

    def cycle_of(self, name: str) -> tuple[str, ...]:
        """The cycle that `name` is in, or ()."""
        return next((cycle for cycle in self.cycles if name in cycle), ())


def order(needs: Mapping[str, Sequence[str]]) -> Ordered:
    """Topological waves of `needs` (node: what it needs; all nodes are keys). A cycle is one unit, in one wave."""
    names = sorted(needs)
    number = {name: index for index, name in enumerate(names)}
    edges = [(number[name], number[need]) for name in names for need in needs[name] if need in number]
    levels, components = graph.waves(len(names), edges)
    cycles = [tuple(names[index] for index in component) for component in components]
    return Ordered({name: levels[number[name]] + 1 for name in names}, cycles)


def host_plan(update_id: str, host: str, shadows: Sequence[Shadow]) -> Plan:
    """The plan that a host can make alone, from the dependencies declared on it; those on other hosts don't order
    it."""
    local = {shadow.name for shadow in shadows}
    needs = {s.name: tuple(n for n in map(_local(host), s.resource.depends_on) if n in local) for s in shadows}
    ordered = order(needs)
    by_priority = sorted(shadows, key=lambda s: (ordered.waves[s.name], PRIORITIES.index(s.resource.priority), s.name))
    steps = tuple(
        Step(
            shadow.name,
            ordered.waves[shadow.name],
            needs[shadow.name],
            tuple(n for n in shadow.resource.depends_on if _local(host)(n) not in local),
            ordered.cycle_of(shadow.name),
        )
        for shadow in by_priority
    )
    return Plan(update_id, host, steps, max((step.wave for step in steps), default=0))


def _step(raw: Mapping[str, Any]) -> Step:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    return Step(**fields)


def _local(host: str) -> Callable[[str], str]:
    return lambda name: name.removeprefix(f"{host}:")
