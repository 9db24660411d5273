# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What programs leave behind: daemons, which become children of ours while we try harder, so that they can be found."""

from __future__ import annotations

import ctypes
import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from . import cgroups, standing
from .standing import Standing

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
PASSES = 10  # what is looked at may go on starting others meanwhile
_lock = threading.Lock()
_programs: set[int] = set()  # that somebody of ours waits for
_others: set[int] = set()  # children from before
_active = False


def begin() -> None:
    """From now on, what loses its parent becomes a child of this process."""
    global _active, _others  # one process, one set of children
    with _lock:
        _others = set(_children_of().get(os.getpid(), ()))
        _active = _be_reaper(True)


def end() -> None:
    """As it was before `begin`; who is our child by now remains so."""
    global _active  # one process, one set of children
    with _lock:
        _be_reaper(False)
        _active = False


@contextmanager
def waited_for(process: int) -> Iterator[None]:
    """`process` is a program that its caller waits for: it and what it starts are left alone meanwhile."""
    with _lock:
        _programs.add(process)
    try:
        yield
    finally:
        with _lock:
            _programs.discard(process)


def settle(where: Standing, home: str) -> None:
    """Let all that was left behind stand so; `home` is its cgroup of version 2, empty where it never left that."""
    with _lock:
        if not _active:
            return
        for _pass in range(PASSES):
            if not [process for process in _left_behind() if _send_home(process, where, home)]:
                return


def _send_home(process: int, where: Standing, home: str) -> bool:
    moved = False
    if home:
        with suppress(OSError):
            places = {one.place for one in cgroups.hierarchies(process) if not one.controllers}
            if home not in places:
                cgroups.enter(os.path.join(home, cgroups.PROCESSES), process)
                moved = True
    return standing.settle(where, process) or moved


def _left_behind() -> list[int]:
    """Children that nobody waits for, and all below them."""
    children = _children_of()
    waiting = [one for one in children.get(os.getpid(), ()) if one not in _programs and one not in _others]
    found = []
    while waiting:
        process = waiting.pop()
        found.append(process)
        waiting += children.get(process, ())
    return found


def _children_of() -> dict[int, list[int]]:
    """The living processes of this host by their parent."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    with suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError, ValueError), open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state != b"Z":  # who has ended, and is not ours to wait for
                    found[int(parent)].append(int(name))
    return found


def _be_reaper(on: bool) -> bool:
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return prctl is not None and prctl(SUBREAPER, *(ctypes.c_ulong(one) for one in (on, 0, 0, 0))) == 0
