# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The dead-man switch of an update, as the host's journal knows it: is it armed, has it fired, may one still commit."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from ..context import Context
from ..errors import StoreCorrupt, WatchdogFired
from ..store.update import HostUpdate
from ..watchdog import clock, daemon, units
from ..watchdog.armed import ROLLBACK, SYSTEMD, Armed
from . import hold, switch_record
from .outcome import RESTORED, UNCHANGED, Result
from .run import HostWork
from .switch_record import ARMED, DISARMED, ENDED, FIRED

NOTE = "watchdog.left"
SPARE = "watchdog.spare"
WATCHDOG, CONTROLLER = "watchdog", "controller"
_REMEDIES = {
    "rolled_back": "The state before the update is in place: to try again, play the update again, from its shadows on.",
    "open": "It tries to go back until it can; to keep the update after all, disarm it with `force: true` first.",
}
_REMEDY = "Let its way back be finished: run umbra.rollback.rollback with this update_id."


def armed(update: HostUpdate) -> Armed | None:
    """What the switch is armed with; None when it is not. Raises StoreCorrupt, StoreFormatUnknown, StoreError."""
    found = switch_record.read(update)
    if found.one is None and found.problem is not None:
        raise found.problem  # pylint: disable=raising-bad-type  # it was looked at
    return found.one


def notebook(update: HostUpdate) -> clock.Notebook:
    """Where the watcher notes how much time is left."""
    return clock.Notebook(os.path.join(update.path, NOTE))


def ends(one: Armed, note: clock.Note | None, boot: str) -> float:
    """When it fires, in seconds on the clock of the boot `boot`.

    After a reboot the rest, as last noted, counts from the boot; or it fires at once.
    """
    if one.boot == boot:
        return one.ends
    if one.on_reboot == ROLLBACK:
        return 0.0
    if note is None or note.stamp != one.stamp:
        return one.seconds
    return note.left + (note.at if note.boot == boot else 0.0)


def fired(update: HostUpdate) -> dict[str, Any] | None:
    """The event of the journal with which it fired, unless it was armed or disarmed again since. Raises StoreError."""
    found: dict[str, Any] | None = None
    for event in update.journal.events():
        if event["event"] == FIRED:
            found = event
        elif event["event"] in (ARMED, DISARMED):
            found = None
    return found


def refuse_fired(update: HostUpdate, verb: str) -> None:
    """Raise WatchdogFired when the switch has fired; not when a person undid what it did."""
    event, state = fired(update), update.state
    if event and state not in ("undone", "committed"):
        raise WatchdogFired(
            path=update.path, update_id=update.update_id, host=update.host, state=state, verb=verb,
            when=utc(event["time"]), why=event.get("why", "?"), remedy=_REMEDIES.get(state, _REMEDY),
        )  # fmt: skip


def readable(update: HostUpdate) -> tuple[Armed | None, str]:
    """As `armed`; and what is wrong with it where something is, so that no way back stops because of it.

    Raises StoreError where the store itself, or its journal, can't be read.
    """
    found = switch_record.read(update)
    return found.one, found.text


def stand_down(work: HostWork, update: HostUpdate, why: str) -> bool:
    """No switch is armed from now on, and whoever watches ends; whether one was. Raises StoreError."""
    try:
        one, problem = readable(update)
    except StoreCorrupt:  # it has no file of its own, and nobody knows what the journal says
        return False
    if one is None and not problem:
        return False
    update.journal.append(ENDED if fired(update) else DISARMED, why=why)
    update.forget_watchdog()
    clear(work.context, update, one)
    return True


def clear(context: Context, update: HostUpdate, one: Armed | None) -> None:
    """Take away what a switch that is not armed any more has left: its units, its note, the space that it holds."""
    mine = daemon.watcher(update.path) == os.getpid()
    unit = one.unit if one else units.name(update.update_id, update.host, store_of(update))
    if units.here() and unit and (one is None or one.mode == SYSTEMD):
        if not mine:
            units.stop(context, unit)
        units.remove(context, unit)
    hold.release(update, SPARE)
    notebook(update).forget()


def store_of(update: HostUpdate) -> str:
    """The store that the update is in."""
    return os.path.dirname(os.path.dirname(os.path.dirname(update.path)))


def told(update: HostUpdate) -> dict[str, Any]:
    """How the switch stands, for results. Raises StoreError."""
    (one, problem), event = readable(update), fired(update)
    told_: dict[str, Any] = {"state": "armed" if one else "fired" if event else "disarmed"}
    if problem:
        told_.update(problem=problem, **({} if one else {"state": "damaged"}))
    if one:
        left = ends(one, notebook(update).read(), clock.boot_id()) - clock.now()
        pid = daemon.watcher(update.path)
        told_.update(deadline=round(max(0.0, left), 1), mode=one.mode, unit=one.unit, pid=pid, tool=one.tool)
    if event:
        told_.update(fired=utc(event["time"]), why=event.get("why", ""))
    return told_


def credit(update: HostUpdate, result: dict[str, Any]) -> dict[str, Any]:
    """The result of a restore, which says `by` whom the host was brought back: what its own switch restored before is
    in it as that did it, with why and when."""
    event = fired(update)
    if event is None:
        return {**result, "by": CONTROLLER}
    since = _since(update, event)
    if not any(one["event"] == "restore-end" and one["ok"] for one in since):
        return {**result, "by": CONTROLLER}  # it had tried in vain
    before = {one["name"]: Result.from_dict(one["result"]) for one in since if one["event"] == "resource-end"}
    resources = [_credited(one, before.get(one["name"])) for one in result["resources"]]
    facts = {"by": WATCHDOG, "why": event.get("why", ""), "when": utc(event["time"]), "resources": resources}
    rounds = update.displaced_rounds()
    if result["displaced"] is None and rounds:
        facts["displaced"] = update.displaced_path(rounds[-1])
    return {**result, **facts}


def _since(update: HostUpdate, event: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the switch that fired with `event` did, as far as the journal tells."""
    events = update.journal.events()
    since = events[events.index(dict(event)) :]
    over = next((number for number, one in enumerate(since) if one["event"] == ENDED), len(since))
    return since[:over]


def _credited(one: dict[str, Any], before: Result | None) -> dict[str, Any]:
    if before is None or one["action"] != UNCHANGED or before.action != RESTORED:
        return one
    told_ = before.told()
    return {**told_, "notes": [*told_["notes"], "restored by the host's own dead-man switch"]}


def utc(when: float) -> str:
    """A moment, for messages."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(when))
