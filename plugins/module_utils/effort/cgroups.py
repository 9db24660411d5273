# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cgroups that a restore works in, the limits that hold it there, and the way out of them.

Version 1 takes single threads, each controller in a hierarchy of its own; version 2 takes whole processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

THREADS, PROCESSES = "tasks", "cgroup.procs"
NAME = "umbra-restore"
PASSES = 3
UNLIMITED = 1 << 60  # bytes; version 1 writes "no limit" as the largest number of pages


@dataclass(frozen=True)
class Hierarchy:
    """A tree of cgroups: where it is mounted, and the calling thread's place in it (both absolute paths).

    `controllers` are those of version 1, empty for version 2.
    """

    mount: str
    place: str
    controllers: frozenset[str] = frozenset()

    def above(self) -> Iterator[str]:
        """Its place, and all above that, up to the mount point."""
        path = self.place
        while path != self.mount:
            yield path
            path = os.path.dirname(path)
        yield path


@dataclass(frozen=True)
class Limit:
    """What limits whoever is in the cgroup `group`, in the kernel's words; `kind` is cpu, io or memory."""

    kind: str
    group: str
    text: str


def hierarchies(process: int | None = None, proc: str = "/proc") -> list[Hierarchy]:
    """Those of the calling thread, or of a process, that can be seen from here."""
    who = "thread-self" if process is None else str(process)
    try:
        places = _lines(os.path.join(proc, who, "cgroup"))
        mounts = _lines(os.path.join(proc, "self", "mountinfo"))
    except OSError:
        return []
    found = []
    for line in places:
        dummy, controllers, place = line.split(":", 2)
        mount = _mount(mounts, frozenset(filter(None, controllers.split(","))), place)
        if mount:
            found.append(mount)
    return found


def of_thread(process: int | None = None) -> dict[str, str]:
    """The cgroups, of version 1, whose limits `ways_out` knows: paths by mount point."""
    return {one.mount: one.place for one in hierarchies(process) if one.controllers & {"cpu", "blkio"}}


def limits(hierarchy: Hierarchy) -> list[Limit]:
    """What limits the thread there, the nearest cgroup first."""
    found = []
    for group in hierarchy.above():
        for kind, controller, name, limited in _FILES_1 if hierarchy.controllers else _FILES_2:
            if controller and controller not in hierarchy.controllers:
                continue
            try:
                text = " ".join(_lines(os.path.join(group, name)))
            except OSError:
                continue  # the root has no limits, and who lacks the controller has none
            if limited(text):
                found.append(Limit(kind, group, f"{name}: {text}"))
    return found


def enter(file: str, who: int = 0) -> None:
    """Move the calling thread (`tasks`) or process (`cgroup.procs`), or another one, into a cgroup. Raises OSError."""
    with open(file, "w", encoding="ascii") as members:
        members.write(str(who))


def beyond(hierarchy: Hierarchy, found: list[Limit]) -> str:
    """The nearest cgroup above all the limits `found`; empty when there is none that can be seen from here."""
    top = min((limit.group for limit in found), key=len)
    return os.path.dirname(top) if top != hierarchy.mount else ""


def make_room(above: str) -> str:
    """A new cgroup of version 2 for this process: it may not be in one that hands controllers down. Raises OSError."""
    for name in os.listdir(above):  # what was killed before it came back
        if name.startswith(f"{NAME}-") and not os.path.exists(f"/proc/{name[len(NAME) + 1 :]}"):
            with suppress(OSError):
                os.rmdir(os.path.join(above, name))
    path = os.path.join(above, f"{NAME}-{os.getpid()}")
    os.makedirs(path, exist_ok=True)
    return path


def empty(group: str, into: str) -> None:
    """Move all processes out of a cgroup of version 2: this one, and what it started there. Raises OSError."""
    for _pass in range(PASSES):  # what is there may go on starting others
        for process in map(int, _lines(os.path.join(group, PROCESSES))):
            with suppress(ProcessLookupError):  # it has ended meanwhile
                enter(os.path.join(into, PROCESSES), process)


def _lines(path: str) -> list[str]:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().splitlines()


def _mount(mounts: list[str], controllers: frozenset[str], place: str) -> Hierarchy | None:
    for line in mounts:
        before, dummy, after = line.partition(" - ")
        root, mount = before.split()[3:5]
        type_, dummy, options = after.split(" ", 2)
        wanted = controllers <= set(options.split(",")) if controllers else True
        if type_ == ("cgroup" if controllers else "cgroup2") and wanted:
            below = os.path.relpath(place, root)
            if not below.startswith(".."):
                path = os.path.normpath(os.path.join(mount, below))
                return Hierarchy(mount, path, controllers)
    return None


def _is_number(text: str) -> bool:
    return text.isdigit() and int(text) < UNLIMITED


def _is_positive(text: str) -> bool:
    return text.isdigit() and int(text) > 0


def _is_set(text: str) -> bool:
    return bool(text)


def _is_less(text: str) -> bool:
    return not text.startswith("max")


_Files = tuple[tuple[str, str, str, Callable[[str], bool]], ...]
_FILES_1: _Files = (
    ("cpu", "cpu", "cpu.cfs_quota_us", _is_positive),
    *(
        ("io", "blkio", f"blkio.throttle.{way}_{unit}_device", _is_set)
        for way in ("read", "write")
        for unit in ("bps", "iops")
    ),
    ("memory", "memory", "memory.limit_in_bytes", _is_number),
)
_FILES_2: _Files = (
    ("cpu", "", "cpu.max", _is_less),
    ("io", "", "io.max", _is_set),
    ("memory", "", "memory.max", _is_less),
    ("memory", "", "memory.high", _is_less),
)
