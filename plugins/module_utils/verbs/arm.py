# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arm the dead-man switch of an update, extend its deadline, disarm it: each alone with the host's lock."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from ..emergency import build
from ..errors import InputError, NoSpace, StateRefused, UmbraError, WatchdogNotArmed, WatchdogNotStarted
from ..kernel import selected
from ..store.seal import read_key
from ..store.update import HostUpdate
from ..systemd.manager import Manager
from ..watchdog import clock, daemon, health, units
from ..watchdog.armed import (
    DAEMON,
    SYSTEMD,
    WAIT,
    Armed,
    Check,
    Hook,
    parse_checks,
    parse_deadline,
    parse_hooks,
)
from . import hold, survivors, switch, switch_record
from .run import Module, Target, Work, looking, working

ARMABLE = ("open", "undone")
PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3", "/usr/libexec/platform-python")
TEST_SECONDS = 180.0  # for a Python to load the engine: on a host that is very busy a minute is not enough
START_SECONDS = 180.0  # for the watcher to begin
SPARE_BYTES = 1 << 20  # for the journal's lines, and a directory, when the disk is full
POLL, POLL_MOST = 0.05, 0.8


@dataclass(frozen=True)
class Settings:
    """What a switch is to be armed with; `deadline` is in seconds from now."""

    deadline: float
    checks: tuple[Check, ...] = ()
    hooks: tuple[Hook, ...] = ()
    on_reboot: str = WAIT
    max_attempts: int = 3
    store_key_file: str = ""


@dataclass(frozen=True)
class Switched:
    """How the switch of an update stands on one host. `armed` is None when it is not armed; `pid` is who watches.

    `deadline` is in seconds from now; `before` what it was.
    """

    update_id: str
    host: str
    store: str
    changed: bool
    armed: Armed | None = None
    deadline: float | None = None
    pid: int | None = None
    before: Armed | None = None
    warnings: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """The module's result."""
        one, when = self.armed, time.time() + (self.deadline or 0.0)
        return {
            "changed": self.changed,
            "update_id": self.update_id,
            "host": self.host,
            "store": self.store,
            "state": "armed" if one else "disarmed",
            "deadline": None if self.deadline is None else round(self.deadline, 1),
            "deadline_utc": "" if self.deadline is None else switch.utc(when),
            "mode": one.mode if one else "",
            "survives_reboot": bool(one and one.mode == SYSTEMD),
            "unit": one.unit if one else "",
            "pid": self.pid,
            "tool": one.tool if one else "",
            "interpreters": list(one.interpreters) if one else [],
            "watched": [check.name for check in one.checks] if one else [],
            "hooks": [hook.name for hook in one.hooks] if one else [],
            "warnings": list(self.warnings),
        }

    def diff(self) -> dict[str, str]:
        """What changed, for people; the time that is left is no difference."""
        return {"before": _shown(self.before), "after": _shown(self.armed)}


def from_module(target: Target, module: Module) -> dict[str, Any]:
    """The verb as module umbra.rollback.rollback_watchdog calls it."""
    params, dry = module.params, module.check_mode
    if params["state"] == "disarmed":
        done = check_disarm(target, params["force"]) if dry else disarm(target, params["force"])
    elif params["state"] == "extended":
        seconds = parse_deadline(params["deadline"])
        done = check_extend(target, seconds) if dry else extend(target, seconds)
    else:
        settings = _settings(params)
        done = check_arm(target, settings) if dry else arm(target, settings)
    return {**done.to_dict(), "diff": done.diff()} if module._diff else done.to_dict()


def _settings(params: Mapping[str, Any]) -> Settings:
    return Settings(
        parse_deadline(params["deadline"]),
        parse_checks(params["health"]),
        parse_hooks(params["hooks"]),
        params["on_reboot"],
        params["max_attempts"],
        params["store_key_file"] or "",
    )


# --- arm


def arm(target: Target, settings: Settings) -> Switched:
    """Arm the switch, or arm it anew with other settings and a new deadline; it watches when this returns.

    Raises InputError, ManifestMissing, StateRefused (the update is not open), WatchdogFired, WatchdogNotStarted,
    Unsupported, NoSpace, StoreError.
    """
    _refuse_key(target, settings)
    with working(target, "arm") as work:
        _refuse(work, "guarded by a switch")
        before, dummy = switch.readable(work.update)
        warnings = [*_unwell(work, settings), *_in_the_way(work)]
        tool, pythons = _tool(work)
        one = _armed(work, settings, tool, pythons, before)
        warnings += _hold(work.update)
        pid, problems = _start(work, one, before)
        work.replicas.follow(work.update)  # the journal's new line
        return _switched(work, True, one, pid, before, (*warnings, *problems, *work.replicas.troubles))


def check_arm(target: Target, settings: Settings) -> Switched:
    """What `arm` would do."""
    _refuse_key(target, settings)
    with looking(target) as work:
        _refuse(work, "guarded by a switch")
        before, dummy = switch.readable(work.update)
        return _switched(work, True, _armed(work, settings, "", (), before), None, before, ())


def _armed(work: Work, settings: Settings, tool: str, pythons: Sequence[str], before: Armed | None) -> Armed:
    now, boot, update = clock.now(), clock.boot_id(), work.update
    unit = units.name(update.update_id, update.host, work.store.path) if units.here() else ""
    return Armed(
        update_id=update.update_id,
        host=update.host,
        stamp=secrets.token_hex(8),
        seconds=settings.deadline,
        boot=boot,
        ends=now + settings.deadline,
        begun=before.begun if before and before.boot == boot else now,
        mode=SYSTEMD if unit else DAEMON,
        on_reboot=settings.on_reboot,
        checks=settings.checks,
        hooks=settings.hooks,
        max_attempts=settings.max_attempts,
        interpreters=tuple(pythons),
        tool=tool,
        unit=unit,
        origin=survivors.origin(),
        store_key_file=settings.store_key_file,
    )


def _refuse(work: Work, verb: str) -> None:
    update = work.update
    update.manifest()
    switch.refuse_fired(update, verb)
    if update.state not in ARMABLE:
        remedy = "Only an update that is open has a way back to wait for; shadow it first."
        raise StateRefused(update_id=update.update_id, host=update.host, state=update.state, verb=verb, remedy=remedy)


def _refuse_key(target: Target, settings: Settings) -> None:
    """Raise InputError where nobody could give the key when it is needed."""
    path = settings.store_key_file
    if target.store_key and not path:
        problem = "is missing: a host that goes back by itself has nobody to give it the `store_key`"
        remedy = "Name a file on the host that has the key, or arm no switch (guard_deadline: 0)."
        raise InputError(where="store_key_file", problem=problem, remedy=remedy)
    if path and read_key(path) != target.store_key:
        problem = "has another key than `store_key`"
        raise InputError(where=f"store_key_file {path}", problem=problem, remedy="Correct one of them.")


def _unwell(work: Work, settings: Settings) -> list[str]:
    """Warn of what fails already now. Raises Unsupported for a unit where no systemd is."""
    for check in settings.checks:
        if check.kind == "unit":
            Manager(work.context, check.name, "system")
    if not settings.checks:
        return []
    with ThreadPoolExecutor(len(settings.checks)) as pool:
        found = list(pool.map(lambda check: health.sample(check, work.context), settings.checks))
    return [f"{check.name} fails already now: {bad}" for check, bad in zip(settings.checks, found) if bad]


def _in_the_way(work: Work) -> list[str]:
    """Warn of what the restore would take away while it needs it."""
    paths = [(one.name, str(one.resource.options.get("path") or "")) for one in work.update.manifest().shadows]
    inside = [name for name, path in paths if path and _is_in(units.DIRECTORY, path) and units.here()]
    return [
        f"{name} has {units.DIRECTORY} in it, where the switch's own units lie: exclude umbra-watchdog-*, or a way "
        "back that a reboot interrupts does not go on by itself."
        for name in inside
    ]


def _is_in(path: str, directory: str) -> bool:
    return os.path.commonpath([path, os.path.normpath(directory)]) == os.path.normpath(directory)


def _tool(work: Work) -> tuple[str, list[str]]:
    """The tool in the store, and the Pythons that it works with: this one, and others that were tried."""
    tool = build.write(work.store.path, selected.content(), [sys.executable])
    others = {os.path.realpath(path): path for path in reversed(PYTHONS) if os.path.exists(path)}
    others.pop(os.path.realpath(sys.executable), None)

    def works(path: str) -> bool:
        return work.context.run([path, "-I", "-S", "-B", tool, "--version"], TEST_SECONDS).status == 0

    with ThreadPoolExecutor(len(PYTHONS)) as pool:
        good = [path for path, ok in zip(others.values(), pool.map(works, others.values())) if ok]
    pythons = [sys.executable, *good]  # whether this one works, the watcher shows
    return build.write(work.store.path, selected.content(), pythons), pythons


def _hold(update: HostUpdate) -> list[str]:
    """Make now what needs room on a disk that may be full by then; and hold some for the first lines of the journal."""
    switch.notebook(update).make()
    daemon.prepare(update.path)
    try:
        unheld = hold.reserve(update, SPARE_BYTES, name=switch.SPARE)
    except NoSpace as error:
        unheld = str(error)
    return [f"The switch holds no space for its journal: {unheld}"] if unheld else []


def _start(work: Work, one: Armed, before: Armed | None) -> tuple[int, tuple[str, ...]]:
    """Save it, and have it watched; the pid of who does, and warnings.

    Raises WatchdogNotStarted: then nothing is armed. Who watched `before` takes what was saved, so that what fails
    beside him is no reason to disarm a live switch.
    """
    update = work.update
    switch_record.save(update, one)
    try:
        pid = _watched(work, one)
        problem = daemon.said(update.path) or f"nobody watches after {START_SECONDS:.0f} s"
    except (UmbraError, OSError, subprocess.TimeoutExpired) as error:
        pid, problem = _still_watched(update, before), str(error)
        if pid is not None:
            return pid, (f"The switch is watched as before, but not all of it could be renewed: {problem}",)
    if pid is None:
        switch.stand_down(work, work.update, f"it could not be started: {problem}")
        raise _not_started(update, problem)
    return pid, ()


def _still_watched(update: HostUpdate, before: Armed | None) -> int | None:
    try:
        return daemon.watcher(update.path) if before else None
    except OSError:
        return None  # then nobody can tell


def _watched(work: Work, one: Armed) -> int | None:
    """Who watches; a watcher is started if nobody does."""
    update = work.update
    argv = ["/bin/sh", one.tool, "watch", one.update_id, "--store", work.store.path, "--host", one.host]
    if one.store_key_file:
        argv += ["--store-key-file", one.store_key_file]
    if one.mode == SYSTEMD:
        if daemon.watcher(update.path) is None or not units.installed(one.unit, one.update_id, argv):
            units.install(work.context, one.unit, one.update_id, argv)
    elif daemon.watcher(update.path) is None:
        daemon.start([*argv, "--daemon"], update.path)
    until, pause = time.monotonic() + START_SECONDS, POLL
    while True:
        pid = daemon.watcher(update.path)
        if pid is not None or time.monotonic() > until:
            return pid
        time.sleep(pause)
        pause = min(2 * pause, POLL_MOST)  # a slow host has better things to do


def _not_started(update: HostUpdate, problem: str) -> WatchdogNotStarted:
    return WatchdogNotStarted(path=update.path, update_id=update.update_id, host=update.host, problem=problem)


# --- extend, disarm


def extend(target: Target, seconds: float) -> Switched:
    """Let the deadline be `seconds` from now.

    Raises WatchdogFired, WatchdogNotArmed, WatchdogNotStarted, StoreError.
    """
    with working(target, "extend") as work:
        before = _to_extend(work)
        one = _extended(before, seconds)
        pid, problems = _start(work, one, before)  # should somebody have ended who watched
        work.replicas.follow(work.update)
        return _switched(work, True, one, pid, before, (*problems, *work.replicas.troubles))


def check_extend(target: Target, seconds: float) -> Switched:
    """What `extend` would do."""
    with looking(target) as work:
        before = _to_extend(work)
        return _switched(work, True, _extended(before, seconds), daemon.watcher(work.update.path), before, ())


def _to_extend(work: Work) -> Armed:
    work.update.manifest()
    switch.refuse_fired(work.update, "given more time")
    before = switch.armed(work.update)
    if before is None:
        raise WatchdogNotArmed(path=work.update.path, update_id=work.update.update_id, host=work.update.host)
    return before


def _extended(before: Armed, seconds: float) -> Armed:
    boot, now = clock.boot_id(), clock.now()
    begun = before.begun if before.boot == boot else 0.0
    return replace(before, stamp=secrets.token_hex(8), seconds=seconds, boot=boot, ends=now + seconds, begun=begun)


def disarm(target: Target, force: bool = False) -> Switched:
    """Disarm the switch; twice is fine. One that fired is refused: what comes late must not take the update for good.

    With `force`, one that fired and could change nothing stands down, too. Raises WatchdogFired, StoreError.
    """
    with working(target, "disarm") as work:
        before = _to_disarm(work, force)
        changed = switch.stand_down(work, work.update, "disarmed")
        if switch.fired(work.update) and force:
            work.update.journal.append(switch_record.DISARMED, why="disarmed by force after it fired")
            changed = True
        return _switched(work, changed, None, None, before, ())


def check_disarm(target: Target, force: bool = False) -> Switched:
    """What `disarm` would do."""
    with looking(target) as work:
        before = _to_disarm(work, force)
        changed = before is not None or (force and switch.fired(work.update) is not None)
        return _switched(work, changed, None, None, before, ())


def _to_disarm(work: Work, force: bool) -> Armed | None:
    work.update.manifest()
    if not (force and work.update.state in ("open", "failed")):
        switch.refuse_fired(work.update, "kept")
    return switch.armed(work.update)


# --- results


def _switched(
    work: Work, changed: bool, one: Armed | None, pid: int | None, before: Armed | None, warnings: tuple[str, ...]
) -> Switched:
    left = max(0.0, one.ends - clock.now()) if one else None
    update = work.update
    return Switched(update.update_id, update.host, work.store.path, changed, one, left, pid, before, warnings)


def _shown(one: Armed | None) -> str:
    if one is None:
        return "disarmed\n"
    lines = [f"armed for {one.seconds:g} s ({one.mode}), on_reboot: {one.on_reboot}"]
    lines += [f"watches {c.name}: fails with {c.n} of {c.m} samples, every {c.interval:g} s" for c in one.checks]
    lines += [f"tells {hook.name}: {', '.join(hook.events)}" for hook in one.hooks]
    return "".join(f"{line}\n" for line in lines)
