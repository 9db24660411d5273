# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One round of restoring, as the journal tells it: what a killed restore had done, and what is still to do.

A round begins with `restore-begin`, is ready for changes at `prepared` (all is verified, the failed state is kept),
and ends with `restore-end`. One that did not end well is gone on with: what it displaced stays the failed state.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import UmbraError
from ..shadow import Manifest, Shadow
from ..store.update import HostUpdate
from .outcome import Result

SHOWN = 20  # names


class Round:
    """The round that a restore works in; `of` is the round whose displaced state an undo brings back."""

    def __init__(self, update: HostUpdate, undo: bool, chosen: int | None = None) -> None:
        """The unfinished round of the same kind, or the next one; nothing is written.

        An undo brings back what the round `chosen` set aside, whatever that was; None: see `_displaced_by`.
        """
        self._update = update
        self.source = "displaced" if undo else "shadow"
        events = update.journal.events()
        begins = [event for event in events if event["event"] == "restore-begin"]
        self._displaced: dict[str, int] = {}
        if undo:
            self._displaced = self._displaced_by(events) if chosen is None else self._set_aside_by(chosen)
        self.resumed = bool(begins) and update.state in ("restoring", "failed") and begins[-1]["source"] == self.source
        if self.resumed:
            self.number: int = begins[-1]["round"]
            self.of: int | None = begins[-1]["of"]
        else:
            # the journal of an earlier round may have been lost: what that one set aside is never replaced
            self.number = max([*(event["round"] for event in begins), *update.displaced_rounds()], default=0) + 1
            self.of = max(self._displaced.values(), default=None) if undo else None
        self._events = [event for event in events if event.get("round") == self.number]

    def _set_aside_by(self, number: int) -> dict[str, int]:
        manifest = self._update.displaced(number)
        return dict.fromkeys(manifest.names, number) if manifest else {}

    def _displaced_by(self, events: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """By name, the last round that set its failed state aside to go back to the shadow, since it was undone.

        What an undo sets aside does not count: to undo twice, or again after the first was killed at its very end, is
        to undo once.
        """
        kept = set(self._update.displaced_rounds())
        found: dict[str, int] = {}
        undone, source, number = False, "", 0
        for event in events:
            if event["event"] == "restore-begin":
                source, number = event["source"], event["round"]
                manifest = self._update.displaced(number) if source == "shadow" and number in kept else None
                if manifest:
                    found = {} if undone else found
                    found.update(dict.fromkeys(manifest.names, number))
                    undone = False
            elif event["event"] == "restore-end" and source == "displaced":
                undone = undone or (event["ok"] and not event["partial"])
        return found

    def failed_state(self) -> Manifest | None:
        """What the restores since the last undo set aside, each resource as it was set aside last; None: nothing."""
        manifests = {number: self._update.displaced(number) for number in set(self._displaced.values())}
        newest = manifests.get(max(manifests, default=0))
        if newest is None:
            return None
        shadows = [
            shadow
            for name, number in sorted(self._displaced.items())
            for shadow in (manifests[number] or newest).shadows
            if shadow.name == name
        ]
        return replace(newest, shadows=tuple(shadows))

    def prepared(self, names: Sequence[str]) -> bool:
        """Whether an earlier call of this round made all of `names` ready for changes, and the round is still going."""
        begin = self._last("restore-begin")
        if begin is None:
            return False
        since = [event["event"] for event in self._events[self._events.index(begin) :]]
        return "prepared" in since and "restore-end" not in since and set(names) <= set(begin["resources"])

    @property
    def drifted(self) -> set[str]:
        """Names that differed when any call of this round began: they are restored, whatever they look like by now."""
        return {name for event in self._all("restore-begin") for name in event["drifted"]}

    @property
    def stopped(self) -> tuple[str, ...]:
        """Names of services that were stopped for this round."""
        return tuple(dict.fromkeys(name for event in self._all("restore-begin") for name in event["stopped"]))

    @property
    def undisplaced(self) -> dict[str, str]:
        """Names whose failed state could not be kept, with the reason: they are not restored."""
        ready = self._last("prepared")
        return dict(ready["undisplaced"]) if ready else {}

    @property
    def results(self) -> dict[str, Result]:
        """How it went so far, by name."""
        return {event["name"]: Result.from_dict(event["result"]) for event in self._all("resource-end")}

    def begin(self, names: Sequence[str], drifted: Sequence[str], stopped: Sequence[str]) -> None:
        """A restore of `names` begins: from here on it is to be finished."""
        self._note("restore-begin", source=self.source, of=self.of, resources=names, drifted=drifted, stopped=stopped)

    def prepare(self, undisplaced: Mapping[str, str]) -> None:
        """All is verified, stopped and set aside: changes may begin."""
        self._note("prepared", undisplaced=dict(undisplaced))

    def end_one(self, result: Result) -> None:
        """One resource is done with."""
        self._note("resource-end", name=result.name, ok=result.ok, result=result.to_dict())

    def end(self, ok: bool, partial: bool) -> None:
        """The round is over. `partial`: not every resource of the update was asked for, so it stays open."""
        self._note("restore-end", ok=ok, partial=partial)

    def steps(self, name: str, kept: Shadow | None) -> JournaledSteps:
        """The journal of one resource in this round, whose failed state is `kept`."""
        done = {event["step"] for event in self._all("step") if event["name"] == name}
        return JournaledSteps(self, name, done, kept)

    def note_step(self, name: str, step: str, facts: Mapping[str, Any]) -> None:
        """One step of one resource is done."""
        self._note("step", name=name, step=step, facts=dict(facts))

    def _note(self, event: str, **facts: Any) -> None:
        self._update.journal.append(event, round=self.number, **facts)
        self._events.append({"event": event, "round": self.number, **facts})

    def _all(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in list(self._events) if event["event"] == kind]

    def _last(self, kind: str) -> dict[str, Any] | None:
        return next(reversed(self._all(kind)), None)


class JournaledSteps:
    """What a provider sees of the journal (providers.base.Steps)."""

    def __init__(self, round_: Round, name: str, done: set[str], kept: Shadow | None) -> None:
        self._round, self._name, self._done = round_, name, done
        self.kept = kept

    def done(self, step: str) -> bool:
        """Whether `step` was noted in this round, by this process or by one before it."""
        return step in self._done

    def note(self, step: str, **facts: Any) -> None:
        """Write `step` down; it is on disk when this returns."""
        self._round.note_step(self._name, step, facts)
        self._done.add(step)


def told(update: HostUpdate) -> list[dict[str, Any]]:
    """What each round of `update` set aside, oldest first, for people; of a damaged one, the `problem`.

    Raises StoreError.
    """
    sources = {e["round"]: e["source"] for e in update.journal.events() if e["event"] == "restore-begin"}
    found: list[dict[str, Any]] = []
    for number in update.displaced_rounds():
        try:
            manifest = update.displaced(number)
        except UmbraError as error:  # the others can be brought back all the same
            found.append({"round": number, "problem": str(error)})
            continue
        if manifest is None:
            continue
        names = manifest.names
        found.append(
            {
                "round": number,
                "by": "undo" if sources.get(number) == "displaced" else "rollback",
                "created": manifest.created,
                "created_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(manifest.created)),
                "resources": list(names[:SHOWN]) + ([f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []),
                "bytes": sum(shadow.bytes for shadow in manifest.shadows),
                "manifest": update.displaced_path(number),
            }
        )
    return found
