# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How hard a restore tries: what each attempt is given, what of that took effect; and all of it is put back.

Priorities are those of the calling thread. Threads and programs that it starts inherit them, and so would a service
that a restore starts, for as long as it runs. So whoever starts one does it `aside`, and what a program left behind is
given back its place as soon as that program has ended (see orphans).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

from ..kernel import selected
from . import cgroups, orphans, standing
from .cgroups import Hierarchy, Limit
from .standing import BEST_EFFORT, REALTIME, Standing, io_value

LOW, MEDIUM, HIGH = "low", "medium", "high"
TIERS = (LOW, MEDIUM, HIGH)
NICE = {LOW: 0, MEDIUM: -5, HIGH: -10}  # setpriority(2); needs root
IO = {LOW: 0, MEDIUM: io_value(BEST_EFFORT, 2), HIGH: io_value(BEST_EFFORT, 0)}  # ioprio_set(2); 0: none of its own
LAST_NICE, LAST_IO = -15, io_value(REALTIME, 7)
# Moves itself (0) into the cgroup, and becomes the program: whatever that starts is there from its beginning.
_ENTER = ["/bin/sh", "-c", 'echo 0 > "$1"; shift; exec "$@"', "sh"]


@dataclass(frozen=True)
class Effort:
    """What an attempt is given. `patience` multiplies timeouts, `threads` the cores of this host for the kernel's
    threads (0: as many as the option says); `unlimited`: it leaves cgroups that limit it, and takes the last priority.
    """

    tier: str = LOW
    patience: float = 1.0
    threads: int = 0
    unlimited: bool = False

    @property
    def nice(self) -> int:
        """Niceness; 0 leaves it as it is."""
        return LAST_NICE if self.unlimited else NICE[self.tier]

    @property
    def io(self) -> int:
        """I/O priority; 0 leaves it as it is."""
        return LAST_IO if self.unlimited else IO[self.tier]

    @property
    def words(self) -> str:
        """What it is, for people."""
        priority = "highest priority, no limits" if self.unlimited else f"{self.tier} priority"
        return f"{priority}, timeouts x{self.patience:g}" if self.patience > 1 else priority


@dataclass
class Granted:
    """What was asked for, what took effect, and what was refused with the reason, by kind."""

    asked: dict[str, Any] = field(default_factory=dict)
    effective: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"asked": dict(self.asked), "effective": dict(self.effective), "refused": dict(self.refused)}


def for_attempt(number: int, most: int, tier: str) -> Effort:
    """Attempt 1 has the tier of the resource, each further one a higher tier and twice the time, and the last all."""
    if number <= 1:
        return Effort(tier)
    last = number >= most
    risen = HIGH if last else TIERS[min(TIERS.index(tier) + number - 1, len(TIERS) - 1)]
    return Effort(risen, 2.0 ** (number - 1), 2 if last else 1, last)


class _Process:
    """What the efforts of all threads of this process share."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.efforts = 0
        self.before: Standing | None = None  # of whoever began the first
        self.outside = 0  # how many efforts need the process out of its cgroup of version 2
        self.home = ""  # that cgroup, while the process is out of it
        self.room = ""


_process = _Process()


@contextmanager
def exerted(effort: Effort) -> Iterator[Granted]:
    """Let the calling thread, and what it starts, try that hard. What is refused is told, and no error."""
    granted = Granted()
    if effort.patience > 1:
        granted.asked["timeouts"] = granted.effective["timeouts"] = f"x{effort.patience:g}"
    if effort == Effort(patience=effort.patience):
        yield granted
        return
    mine = _begin()
    try:
        _raise_nice(effort, mine, granted)
        _raise_io(effort, granted)
        if effort.threads:
            count = effort.threads * selected.cores()
            granted.asked["threads"] = granted.effective["threads"] = count
            selected.grant(count)
        with _unlimited(granted) if effort.unlimited else nullcontext():
            yield granted
    finally:
        selected.grant(0)
        standing.take(mine)
        _end()


@contextmanager
def aside(service: bool) -> Iterator[list[str]]:
    """Let the calling thread start a program; what to put before its arguments. A `service`, which lives longer than
    the effort, has no part in it."""
    before = _process.before
    if before is None or not service:
        yield []
        return
    mine = standing.now()
    standing.take(before)
    try:
        home = _process.home
        yield [*_ENTER, os.path.join(home, cgroups.PROCESSES)] if home else []
    finally:
        standing.take(mine)


def settle() -> None:
    """Put what programs left behind back to where this process was before any effort."""
    with _process.lock:
        before, home = _process.before, _process.home
    if before is not None:
        orphans.settle(before, home)


def _begin() -> Standing:
    mine = standing.now()
    with _process.lock:
        if not _process.efforts:
            _process.before = mine
            orphans.begin()
        _process.efforts += 1
    return mine


def _end() -> None:
    with _process.lock:
        _process.efforts -= 1
        if not _process.efforts:
            settle()
            orphans.end()
            _process.before = None


def _raise_nice(effort: Effort, mine: Standing, granted: Granted) -> None:
    if effort.nice >= 0:
        return
    granted.asked["nice"] = effort.nice
    if mine.nice > effort.nice:
        try:
            standing.set_nice(effort.nice)
        except OSError as error:
            granted.refused["nice"] = f"{_reason(error)}; only root may raise a priority"
            return
    granted.effective["nice"] = min(mine.nice, effort.nice)


def _raise_io(effort: Effort, granted: Granted) -> None:
    if not effort.io:
        return
    granted.asked["io"] = standing.io_words(effort.io)
    wanted = [effort.io, IO[HIGH]] if effort.io == LAST_IO else [effort.io]
    for value in wanted:
        try:
            standing.set_io(value)
            granted.effective["io"] = standing.io_words(value)
            return
        except OSError as error:
            granted.refused["io"] = f"{_reason(error)} ({standing.io_words(value)})"


@contextmanager
def _unlimited(granted: Granted) -> Iterator[None]:
    """Leave what limits this thread; only a process as a whole can leave a cgroup of version 2."""
    moved = False
    for hierarchy in cgroups.hierarchies():
        for limit in (found := cgroups.limits(hierarchy)):
            granted.asked.setdefault("cgroup", []).append(f"no {limit.text} ({limit.group})")
        if found:
            moved = _leave(hierarchy, found, granted) or moved
    try:
        yield
    finally:
        if moved:
            _go_home()


def _leave(hierarchy: Hierarchy, found: list[Limit], granted: Granted) -> bool:
    """Whether the whole process was moved, and has to be moved back."""
    if hierarchy.controllers == {"memory"}:
        granted.refused["cgroup memory"] = "with cgroup version 1, a thread has the memory of its whole process"
        return False
    above = cgroups.beyond(hierarchy, found)
    if not above:
        granted.refused["cgroup"] = f"{found[-1].group} limits all that can be seen from here"
        return False
    try:
        if hierarchy.controllers:
            cgroups.enter(os.path.join(above, cgroups.THREADS))
            place = above
        else:
            place = _go_out(hierarchy, above)
    except OSError as error:
        granted.refused["cgroup"] = f"{above}: {_reason(error)}"
        return False
    granted.effective.setdefault("cgroup", []).append(place)
    return not hierarchy.controllers


def _go_out(hierarchy: Hierarchy, above: str) -> str:
    with _process.lock:
        if not _process.outside:
            room = cgroups.make_room(above)
            try:
                cgroups.enter(os.path.join(room, cgroups.PROCESSES))
            except OSError:
                os.rmdir(room)
                raise
            _process.home, _process.room = hierarchy.place, room
        _process.outside += 1
        return _process.room


def _go_home() -> None:
    with _process.lock:
        _process.outside -= 1
        if _process.outside:
            return
        with suppress(OSError):  # its home is gone, or something still is in the room: the next one removes that
            cgroups.empty(_process.room, _process.home)
            os.rmdir(_process.room)
        _process.home = _process.room = ""


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
