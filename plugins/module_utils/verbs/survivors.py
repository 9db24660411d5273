# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What still runs of an update: found, and ended, before its way back changes anything.

Killing the wrong process is worse than to miss one, so that only this counts: a module of Ansible, and what descends
from it, that carries this update's mark (MARK in its environment, which the guard sets), or that has no mark, came
after the switch was armed, and has the same known origin as what armed it. A service that the update started is none:
its parent is process 1, or systemd's.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .. import processes
from ..errors import Survivor
from ..processes import Process
from ..watchdog import clock
from ..watchdog.armed import Armed

MARK = "UMBRA_ROLLBACK_UPDATE"  # <update_id>/<host>@<store>, in the environment of the update's tasks
TERM_SECONDS, KILL_SECONDS = 5.0, 10.0
POLL = 0.05
ROUNDS = 20  # so often new children of what was stopped are looked for
_MODULE = re.compile(r"(^|/)AnsiballZ_|/ansible-tmp-[0-9.]+-[0-9]+-[0-9]+(/|$)")
_RUNS_MODULES = re.compile(r"(ba|da|a|k|z)?sh|python[0-9.]*|perl|ruby")
_PYTHON = re.compile(r"(platform-)?python[0-9.]*")
_KNOWN = ("ssh", "local")  # origins that tell one playbook from another
_CONTROLLER = "ansible"  # how the names of the controller's processes begin


@dataclass(frozen=True)
class Found:
    """A process of the update that still runs, and why it counts as one."""

    process: Process
    why: str

    def to_dict(self) -> dict[str, Any]:
        """As results tell it."""
        return {"pid": self.process.pid, "command": self.process.command, "why": self.why}


def origin() -> tuple[str, str]:
    """From where this module was started: ("ssh", the client's address), ("local", which controller), ("other", "")."""
    among = processes.all_now()
    me = among.get(os.getpid())
    return _origin(me, among) if me else ("other", "")


def find(update_id: str, host: str, armed: Armed | None, store: str = "") -> list[Found]:
    """What still runs of the update; `armed` is its switch, if there is one. Raises OSError where there is no /proc."""
    among = processes.all_now()
    spared = _spared(among)
    found: dict[int, Found] = {}
    for process in among.values():
        if process.pid in spared or not _is_module(process) or not processes.shares_machine(process.pid):
            continue
        tree = processes.with_descendants([process], among)
        if any(one.pid in spared for one in tree):
            continue  # it is what waits for us
        why = _why(process, among, f"{update_id}/{host}@{store}", armed)
        if why:
            for one in tree:
                reason = why if one is process else f"it was started by {process.command} (pid {process.pid})"
                found.setdefault(one.pid, Found(one, reason))
            found[process.pid] = Found(process, why)
    return sorted(found.values(), key=lambda one: one.process.pid)


def end(update_id: str, host: str, armed: Armed | None, store: str = "") -> list[Found]:
    """End what still runs of the update, and say what that was. Raises Survivor when one can't be ended."""
    found: dict[tuple[int, int], Found] = {}
    for dummy in range(ROUNDS):  # until nothing new comes up: what is stopped starts nothing
        new = [one for one in find(update_id, host, armed, store) if _key(one.process) not in found]
        if not new:
            break
        for one in new:
            found[_key(one.process)] = one
            _send(one.process, signal.SIGSTOP)
    for number, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        for one in found.values():
            _send(one.process, number)
            _send(one.process, signal.SIGCONT)
        if not _left(found.values(), seconds):
            break
    left = _left(found.values(), 0.0)
    if left:
        told = ", ".join(f"{one.process.command} (pid {one.process.pid}: {one.why})" for one in left)
        raise Survivor(update_id=update_id, host=host, left=told)
    return list(found.values())


def _left(found: Iterable[Found], seconds: float) -> list[Found]:
    """Those that live on after so many seconds."""
    until = time.monotonic() + seconds
    while True:
        left = [one for one in found if processes.is_alive(*_key(one.process))]
        if not left or time.monotonic() >= until:
            return left
        time.sleep(POLL)


def _key(process: Process) -> tuple[int, int]:
    return process.pid, process.start


def _send(process: Process, number: int) -> None:
    if processes.is_alive(*_key(process)):
        with suppress(ProcessLookupError, PermissionError):  # it ended just now; or who lives on is named afterwards
            os.kill(process.pid, number)


def _spared(among: Mapping[int, Process]) -> set[int]:
    """This process, those above it, and all that work for this collection: one may wait for the lock that we hold."""
    me = among.get(os.getpid())
    ours = [process for process in among.values() if process.comm == processes.COMM]
    above = processes.ancestors(me, among) if me else []
    mine = processes.with_descendants([me, *ours] if me else ours, among)
    return {os.getpid(), *(process.pid for process in [*above, *mine])}


def _is_module(process: Process) -> bool:
    """Whether it is a module of Ansible: run from a file of its own, or by a Python that reads it from a pipe."""
    if not process.argv:
        return False
    program = os.path.basename(process.argv[0])
    if any(_MODULE.search(word) for word in process.argv[:3]):
        return bool(_RUNS_MODULES.fullmatch(program) or _MODULE.search(process.argv[0]))
    alone = len(process.argv) == 1 and _PYTHON.fullmatch(program) is not None
    return alone and not process.tty and processes.reads_from_pipe(process.pid)


def _why(process: Process, among: Mapping[int, Process], mark: str, armed: Armed | None) -> str:
    """Why a module counts as one of the update; '' when it does not."""
    its = processes.environment(process.pid).get(MARK)
    if its is not None:
        return f"it carries the mark of the update, {MARK}={mark}" if its == mark else ""
    if armed is None or armed.boot != clock.boot_id() or process.start < clock.ticks(armed.begun):
        return ""
    where = _origin(process, among)
    if where[0] not in _KNOWN or where != armed.origin or where[0] == "local" and _is_attended(process, among):
        return ""
    return "it is a module of Ansible that came after the switch was armed, from where that was armed"


def _origin(process: Process, among: Mapping[int, Process]) -> tuple[str, str]:
    above = processes.ancestors(process, among)
    controller = next((one for one in above if one.comm.startswith(_CONTROLLER)), None)
    if controller:
        with suppress(OSError), open(f"{processes.PROC}/{controller.pid}/environ", "rb") as file:
            words = "\0".join(controller.argv).encode("utf-8", "surrogateescape")
            return "local", hashlib.sha256(words + b"\0" + file.read()).hexdigest()
    for one in [process, *above]:
        client = processes.environment(one.pid).get("SSH_CONNECTION", "").split()
        if client:
            return "ssh", client[0]
    return "other", ""


def _is_attended(process: Process, among: Mapping[int, Process]) -> bool:
    """Whether the controller that started it on this very machine still lives: it may work for another of its hosts. A
    worker whose controller is gone has no other of its kind above it."""
    return sum(one.comm.startswith(_CONTROLLER) for one in processes.ancestors(process, among)) > 1
