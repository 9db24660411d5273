# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of this machine as /proc tells of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PROC = "/proc"
COMM = "umbra.rollback"  # the name that the engine's own processes have, in at most 15 characters
NAMESPACES = ("pid", "mnt", "net", "uts")
_DEAD = "ZX"


@dataclass(frozen=True)
class Process:
    """One process. `start` is when it began, in clock ticks since boot: with the pid, it names one process for ever."""

    pid: int
    parent: int
    session: int
    tty: int
    start: int
    state: str
    comm: str
    argv: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """What it runs, for a message: the program, and the script that it runs; other arguments may be secrets."""
        words = [os.path.basename(self.argv[0])] if self.argv else [f"[{self.comm}]"]
        script = next((word for word in self.argv[1:2] if word.startswith("/")), "")
        return " ".join([*words, script]).strip()


def all_now() -> dict[int, Process]:
    """Every living process by pid. Raises OSError where there is no /proc."""
    found = {}
    for name in os.listdir(PROC):
        if name.isdigit():
            process = look(int(name))
            if process is not None and process.state not in _DEAD:
                found[process.pid] = process
    return found


def look(pid: int) -> Process | None:
    """One process, or None when there is none (any more), or it is hidden from us."""
    try:
        with open(f"{PROC}/{pid}/stat", "rb") as file:
            stat = file.read().decode("utf-8", "replace")
        with open(f"{PROC}/{pid}/cmdline", "rb") as file:
            words = file.read().decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # the last: /proc with hidepid, and not root
        return None
    comm, fields = stat.partition("(")[2].rpartition(")")[0], stat.rpartition(")")[2].split()
    argv = tuple(words.rstrip("\0").split("\0")) if words else ()
    return Process(
        pid, int(fields[1]), int(fields[3]), int(fields[4]), int(fields[19]), fields[0], comm, argv
    )  # proc(5): state is the third field of all


def is_alive(pid: int, start: int) -> bool:
    """Whether this very process, and not a later one with its number, still lives."""
    process = look(pid)
    return process is not None and process.start == start and process.state not in _DEAD


def environment(pid: int) -> dict[str, str]:
    """The environment that it was started with; {} where that can't be read."""
    try:
        with open(f"{PROC}/{pid}/environ", "rb") as file:
            words = os.fsdecode(file.read()).split("\0")
    except OSError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def ancestors(process: Process, among: Mapping[int, Process]) -> list[Process]:
    """Its parent, the parent of that, and so on."""
    found: list[Process] = []
    above = among.get(process.parent)
    while above is not None and above not in found:
        found.append(above)
        above = among.get(above.parent)
    return found


def with_descendants(roots: Iterable[Process], among: Mapping[int, Process]) -> list[Process]:
    """`roots`, their children, the children of those, and so on."""
    children: dict[int, list[Process]] = {}
    for process in among.values():
        children.setdefault(process.parent, []).append(process)
    found: dict[int, Process] = {}
    frontier = list(roots)
    while frontier:
        process = frontier.pop()
        if process.pid not in found:
            found[process.pid] = process
            frontier += children.get(process.pid, [])
    return list(found.values())


def shares_machine(pid: int) -> bool:
    """Whether it sees what this process sees: the same processes, files, network and name of the host. A container on
    this machine is another host."""
    try:
        return all(
            os.readlink(f"{PROC}/{pid}/ns/{name}") == os.readlink(f"{PROC}/self/ns/{name}") for name in NAMESPACES
        )
    except OSError:
        return False


def reads_from_pipe(pid: int) -> bool:
    """Whether its standard input is a pipe or a socket."""
    try:
        return os.readlink(f"{PROC}/{pid}/fd/0").startswith(("pipe:", "socket:"))
    except OSError:
        return False


def name_this() -> None:
    """Let this process be known for one of ours, in `ps` and to a restore that looks for what an update left."""
    try:
        with open(f"{PROC}/self/comm", "w", encoding="ascii") as file:
            file.write(COMM)
    except OSError:
        return  # no /proc: then nobody looks either
