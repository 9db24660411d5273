# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a restore went: for one resource (Result), for all on this host (Restored), and what to say of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..providers.base import Drift
from ..store.repair import Repaired

RESTORED, UNCHANGED, FAILED, UNTOUCHED, WOULD = "restored", "unchanged", "failed", "untouched", "would_restore"


ESCALATIONS_BYTES = 24 << 10  # of all resources of a host, in a result; all of them are in the journal


@dataclass(frozen=True)
class Result:
    """How it went for one resource. `escalations` says of each attempt that failed why it did, and what the next one
    was given (see Attempts)."""

    name: str
    type: str
    wave: int
    action: str
    attempts: int = 0
    items: int = 0
    bytes: int = 0
    seconds: float = 0.0
    validation: str = "skipped"
    method: str = ""
    escalations: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether the resource is as its shadow says now."""
        return self.action in (RESTORED, UNCHANGED)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        told = {**vars(self), "escalations": list(self.escalations), "notes": list(self.notes)}
        return {**told, "seconds": round(self.seconds, 3)}

    def told(self) -> dict[str, Any]:
        """As a module's result says it: `items` is a method of dictionaries in templates, so it is `item_count`
        there."""
        told = self.to_dict()
        told["item_count"] = told.pop("items")
        return told

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Result:
        """The result that `to_dict` wrote."""
        return cls(**{**raw, "escalations": tuple(raw["escalations"]), "notes": tuple(raw["notes"])})


@dataclass(frozen=True)
class Restored:
    """How it went on one host, in which round (0: none, in check mode). `undone` says that it was an undo; `drifts`
    tells what differed before (in check mode: what would change)."""

    update_id: str
    host: str
    store: str
    state: str
    results: tuple[Result, ...]
    waves: int
    seconds: float
    displaced: str | None = None
    drifts: Mapping[str, Drift] = field(default_factory=dict)
    stopped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    round: int = 0
    undone: bool = False
    repaired: tuple[Repaired, ...] = ()
    ended: tuple[Mapping[str, Any], ...] = ()  # processes of the update that still ran: pid, command, why

    @property
    def bad(self) -> list[Result]:
        """What failed or had to be left alone."""
        return [result for result in self.results if result.action in (FAILED, UNTOUCHED)]

    @property
    def changed(self) -> bool:
        """Whether anything on the host was changed (or would be, in check mode)."""
        return bool(self.stopped) or any(r.action in (RESTORED, WOULD, FAILED) for r in self.results)

    def to_dict(self) -> dict[str, Any]:
        """The module's result; `msg` is there when it is not complete."""
        told: dict[str, Any] = {
            "changed": self.changed,
            "update_id": self.update_id,
            "host": self.host,
            "store": self.store,
            "state": self.state,
            "waves": self.waves,
            "resources": self._told_results(),
            "seconds": round(self.seconds, 3),
            "round": self.round,
            "displaced": self.displaced,
            "undo": self._how_to_undo() if self.displaced else "",
            "stopped": list(self.stopped),
            "notes": list(self.notes),
            "repaired": [repaired.to_dict() for repaired in self.repaired],
            "ended": list(self.ended),
        }
        return {**told, "msg": self._complaint()} if self.bad else told

    def _told_results(self) -> list[dict[str, Any]]:
        """As a module's result says them: it has a bound, and no resource is to be cut for the attempts at others."""
        told, room = [], ESCALATIONS_BYTES
        for result in self.results:
            room -= len(json.dumps(result.escalations))
            told.append(result.told() if room >= 0 else {**result.told(), "escalations": []})
        return told

    def _how_to_undo(self) -> str:
        undo = f"undo: true, round: {self.round}" if self.undone else "undo: true"
        return f"umbra.rollback.shadow_restore with update_id: {self.update_id}, {undo}, store: {self.store}"

    def _complaint(self) -> str:
        well = sum(result.ok for result in self.results)
        parts = [
            f"The way back of update {self.update_id} on {self.host} is not complete: "
            f"{well} of {len(self.results)} resources are as before."
        ]
        for result in self.results:
            if result.action == FAILED:
                count = "1 attempt" if result.attempts == 1 else f"{result.attempts} attempts"
                parts.append(f"Failed after {count}: {_why(result)}")
        if untouched := [f"{r.name} ({r.reason})" for r in self.results if r.action == UNTOUCHED]:
            parts.append(f"Left alone: {', '.join(untouched)}.")
        parts.append("The shadows are all kept, and so is the failed state of what was changed.")
        again = f"-e umbra_update_id={self.update_id} -e umbra_hosts={self.host}"
        parts.append("Mend the cause, then run the restore again, which goes on from here")
        parts.append(f"(from the controller: ansible-playbook umbra.rollback.rollback {again}).")
        return " ".join(parts)


def _why(result: Result) -> str:
    """Which one, why it failed in the end; and before, where that was another reason."""
    earlier = dict.fromkeys(one["why"] for one in result.escalations if one["why"] != result.reason)
    named = result.reason if result.reason.startswith(f"{result.name}: ") else f"{result.name}: {result.reason}"
    return f"{named} Earlier attempts: {' '.join(earlier)}" if earlier else named
