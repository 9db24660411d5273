# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watch an armed switch until its update is decided; when the deadline passes or a condition fails, go back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from .. import canonical
from ..context import Context
from ..errors import NoSpace, StoreCorrupt, StoreError, StoreLocked, UmbraError
from ..store import files
from ..store.update import HostUpdate
from ..watchdog import clock, daemon, notify, units
from ..watchdog.armed import Armed
from ..watchdog.health import Watched
from . import hold, restore, switch, switch_record
from .outcome import Restored
from .run import Target, Work, working, working_on_host
from .switch_record import Found

STATUS_FORMAT = "umbra-status 1"
RUN = "/run"  # where the status goes when the store takes nothing
OVER, DONE = "the switch is not armed any more", "the switch fired"  # why a watcher ends


@dataclass(frozen=True)
class Pace:
    """Seconds: between two looks, between two notes of the time that is left, for the host's lock, before it tries
    again what could not begin (doubled up to `again_most`), and before each further try of what went wrong."""

    look: float = 1.0
    note: float = 15.0
    lock: float = 60.0
    again: float = 30.0
    again_most: float = 600.0
    failed: Sequence[float] = (60.0, 120.0, 240.0)


def watch(target: Target, pace: Pace | None = None, ready: Callable[[], None] | None = None) -> str:
    """Watch until there is nothing to watch any more; why that is. A second watcher ends at once, without `ready`.

    A store that is not there (yet) is waited for: its file system may be mounted later.
    """
    pace = pace or Pace()
    update = _wait_for_update(target, pace)
    if update is None:
        return "nothing is shadowed there"
    with daemon.watching(update.path) as fd:
        if fd is None:
            return "another process watches"
        if ready:
            ready()
        return _Watch(target, update, fd, pace).run()


def _wait_for_update(target: Target, pace: Pace) -> HostUpdate | None:
    while True:
        with suppress(StoreError, OSError):
            update = target.open().update(target.update_id)
            return update if os.path.isdir(update.path) else None
        time.sleep(pace.look)


class _Watch:
    """One watcher at work."""

    def __init__(self, target: Target, update: HostUpdate, fd: int, pace: Pace) -> None:
        self._target, self._update, self._fd, self._pace = target, update, fd, pace
        self._boot = clock.boot_id()
        self._context = Context(target.update_id, target.host, "/")
        self._armed: Armed | None = None
        self._whole = True  # what it is armed with is known with checks and hooks
        self._watched: list[Watched] = []
        self._hooks = notify.Hooks((), self._context)
        self._noted = self._not_before = 0.0
        self._pause = pace.again
        self._failures = 0
        self._fired = ""  # why, once it has
        self._told = self._damage = ""
        self._ending = OVER

    def run(self) -> str:
        """Until there is nothing to watch any more; why that is."""
        while True:
            if daemon.is_gone(self._fd, self._update.path):
                return "the update was dropped"
            if not self._read():
                if self._is_over():
                    return self._ending
                time.sleep(self._pace.look)
                continue
            why = self._why()
            if why and clock.now() >= self._not_before and self._go_back(why):
                self._ending = DONE if self._fired else OVER
                continue
            self._note()
            time.sleep(max(0.0, min(self._pace.look, self._left())) or self._pace.look)

    def _is_over(self) -> bool:
        """End to watch, alone with the host's lock: whoever arms it anew finds either a watcher that goes on, or none.
        Hooks are told first; when it is armed anew meanwhile, it is watched."""
        if self._hooks.busy():
            return False
        try:
            with working_on_host(replace(self._target, lock_timeout=0.0), "watchdog"):
                if switch_record.read(self._update) != Found(None):
                    return False
                with suppress(UmbraError, OSError):  # what stays harms nobody: its next start finds nothing armed
                    switch.clear(self._context, self._update, None)
                daemon.let_go(self._fd)
        except StoreLocked:
            return False
        except (UmbraError, OSError):
            pass  # a store that takes no lock is one where nobody arms anything
        return True

    # --- what is armed

    def _read(self) -> bool:
        """Learn what is armed now; whether anything is. What can't be read just now is as it was."""
        try:
            found = switch_record.read(self._update)
            if found == Found(None):
                self._target.open()  # raises StoreMissing when its file system is gone
                self._armed = None
                return False
            if found.one and (self._armed is None or found.one.stamp != self._armed.stamp):
                self._take(found.one, found.whole)
            self._tell_damage(found)
        except StoreCorrupt as error:
            self._tell_damage(Found(None, True, error))
        except (StoreError, OSError) as error:
            self._say(f"what is armed can't be read: {error}", notify.CRITICAL)
        return True

    def _tell_damage(self, found: Found) -> None:
        """Say once what is wrong with the record, where everybody looks, and write it anew out of what is known."""
        if found.text == self._damage:
            return
        self._damage = found.text
        if not found.problem:
            return
        self._say(f"what is armed can't be read: {found.text}", notify.CRITICAL)
        if not self._fired:
            self._report("damaged", found.text, {})
        known = self._armed if self._whole else None
        target = replace(self._target, lock_timeout=0.0)
        with suppress(UmbraError, OSError), working_on_host(target, "watchdog"):  # else it goes by what it knows
            switch_record.mend(self._update, known)

    def _take(self, found: Armed, whole: bool) -> None:
        if self._armed is None or (found.checks, found.begun) != (self._armed.checks, self._armed.begun):
            begun = found.begun if found.boot == self._boot else clock.now()
            self._watched = [Watched(check, self._context, begun) for check in found.checks]
        if self._armed is None or found.hooks != self._armed.hooks:
            self._hooks = notify.Hooks(found.hooks, self._context)
        note = switch.notebook(self._update).read()
        self._ends = switch.ends(found, note, self._boot)
        self._armed, self._whole, self._noted = found, whole, 0.0
        self._pause, self._not_before, self._failures, self._ending = self._pace.again, 0.0, 0, OVER
        event = switch.fired(self._update)  # and was killed, or the host rebooted, before all was back
        self._fired = str(event.get("why", "?")) if event else ""
        notify.log(f"watching update {found.update_id} on {found.host}: {max(0.0, self._left()):.0f} s are left")

    def _left(self) -> float:
        return self._ends - clock.now() if self._armed else self._pace.look

    def _note(self) -> None:
        """Note how much is left, for the next boot."""
        now = clock.now()
        if self._armed and now - self._noted >= min(self._pace.note, max(1.0, self._left() / 10)):
            self._noted = now
            with suppress(OSError):  # then the last note counts: it waits longer
                note = clock.Note(self._armed.stamp, self._boot, now, self._ends - now)
                switch.notebook(self._update).write(note)

    def _why(self) -> str:
        """Why to go back now; '' when there is no reason."""
        if self._armed is None:
            return ""
        if self._fired:
            return self._fired
        bad = next(filter(None, [one.look() for one in self._watched]), "")
        if self._left() <= 0:
            if self._armed.boot != self._boot and self._armed.on_reboot == "rollback":
                return "the host was rebooted during the update"
            return f"the update was not committed within {self._armed.seconds:g} s"
        return bad

    # --- the way back

    def _go_back(self, why: str) -> bool:
        """Take the host's lock and go back; whether that is the end of this switch."""
        target = replace(self._target, lock_timeout=self._pace.lock)
        try:
            with working(target, "watchdog", give_back=hold.release) as work:
                return self._decide(work, why)
        except (UmbraError, OSError) as error:
            self._say(f"the way back of update {target.update_id} can't begin: {error}", notify.CRITICAL)
            self._report("failed", why, {"error": str(error), "code": getattr(error, "code", "system")})
            self._not_before = clock.now() + self._pause
            self._pause = min(2 * self._pause, self._pace.again_most)
            return False

    def _decide(self, work: Work, why: str) -> bool:
        """With the lock held: what was decided meanwhile counts, and else the way back begins."""
        state = work.update.state
        if state == "missing":
            work.update.manifest()  # raises ManifestMissing: that it is lost is no reason to leave things as they are
        if not self._read() or state in ("committed", "rolled_back") or (self._fired and state == "undone"):
            switch.stand_down(work, work.update, f"the update is {state}")
            return True
        if not self._fired and self._left() > 0 and (self._why() == "" or state == "restoring"):
            return False  # it was extended meanwhile; or a controller brings it back, and services stand still for it
        why = self._fired or why
        if not self._fired:
            self._note_fired(work, why)
            self._fired = why
            self._say(f"fired: {why}; update {work.update.update_id} goes back", notify.CRITICAL)
            self._report("fired", why, {})
        attempts = self._armed.max_attempts if self._armed else 3
        restored = restore.bring_back(work, restore.Request(max_attempts=attempts))
        return self._ended(work, why, restored)

    def _note_fired(self, work: Work, why: str) -> None:
        """It is on disk, in the room that was held for it, and if that is taken in that of the way back."""
        hold.release(work.update, switch.SPARE)
        try:
            work.update.journal.append(switch_record.FIRED, why=why, pid=os.getpid())
        except NoSpace:
            hold.release(work.update)
            work.update.journal.append(switch_record.FIRED, why=why, pid=os.getpid())

    def _ended(self, work: Work, why: str, restored: Restored) -> bool:
        told = {key: value for key, value in restored.to_dict().items() if key not in ("changed", "waves")}
        if not restored.bad:
            switch.stand_down(work, work.update, "it brought the host back")
            names = ", ".join(result.name for result in restored.results if result.action == "restored")
            self._say(f"update {restored.update_id} is rolled back: {names or 'nothing had changed'}", notify.CRITICAL)
            self._report("rolled_back", why, told)
            return True
        self._say(str(told["msg"]), notify.CRITICAL)
        self._report("failed", why, told)
        if self._failures == len(self._pace.failed):
            switch.stand_down(work, work.update, "it could not bring everything back; a person has to")
            return True
        self._not_before = clock.now() + self._pace.failed[self._failures]
        self._failures += 1
        return False

    # --- telling

    def _say(self, text: str, severity: int) -> None:
        """In the system's log, once for each text."""
        if text != self._told:
            self._told = text
            notify.log(text, severity)

    def _report(self, event: str, why: str, facts: dict[str, Any]) -> None:
        """Tell the hooks, and leave it in the status file: in the store, or where that takes nothing, in /run."""
        report = {
            "format": STATUS_FORMAT,
            "update_id": self._target.update_id,
            "host": self._target.host,
            "event": event,
            "why": why,
            "when": switch.utc(time.time()),
            **facts,
        }
        try:
            self._update.save_status(report)
        except (StoreError, OSError):
            name = units.name(self._target.update_id, self._target.host, switch.store_of(self._update))
            with suppress(OSError):  # the log and the hooks have it
                files.publish(os.path.join(RUN, f"{name}.json"), canonical.dumps(report))
        brief = [{key: one[key] for key in ("name", "action", "reason")} for one in report.get("resources", [])]
        self._hooks.tell(event, {**report, "resources": brief})
