# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the kernel treats one thread: its niceness, its I/O priority, and (version 1) its cgroups; what it starts
inherits all three."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from . import cgroups

REALTIME, BEST_EFFORT = 1, 2  # classes of ioprio_set(2)
CLASS_SHIFT = 13
WHO_PROCESS = 1  # which means one thread
IO_WORDS = {0: "none", REALTIME: "realtime", BEST_EFFORT: "best-effort", 3: "idle"}
# ioprio_set(2) and ioprio_get(2), which no C library has; by machine, and whether pointers have 64 bits.
_CALLS = {
    ("x86_64", True): (251, 252),
    ("aarch64", True): (30, 31),
    ("riscv64", True): (30, 31),
    ("loongarch64", True): (30, 31),
    ("ppc64le", True): (273, 274),
    ("ppc64", True): (273, 274),
    ("s390x", True): (282, 283),
    ("i686", False): (289, 290),
    ("i386", False): (289, 290),
    ("x86_64", False): (289, 290),
    ("armv7l", False): (314, 315),
}


@dataclass(frozen=True)
class Standing:
    """`io` as ioprio_get(2) has it, None where that is not known; `groups` are paths of cgroups by their hierarchy's
    mount point, of version 1."""

    nice: int
    io: int | None
    groups: Mapping[str, str] = field(default_factory=dict)


def io_value(class_: int, level: int) -> int:
    """An I/O priority as the kernel has it."""
    return class_ << CLASS_SHIFT | level


def io_words(value: int) -> str:
    """An I/O priority for people, such as "best-effort 2"."""
    return f"{IO_WORDS.get(value >> CLASS_SHIFT, 'unknown')} {value & 7}"


def now() -> Standing:
    """That of the calling thread."""
    return Standing(os.getpriority(os.PRIO_PROCESS, 0), _io_of(0), cgroups.of_thread())


def set_nice(value: int, thread: int = 0) -> None:
    """The niceness of a thread (0: the calling one). Raises OSError."""
    os.setpriority(os.PRIO_PROCESS, thread, value)


def set_io(value: int, thread: int = 0) -> None:
    """The I/O priority of a thread. Raises OSError."""
    _ioprio(0, WHO_PROCESS, thread, value)


def take(standing: Standing) -> None:
    """Let the calling thread stand so; only what differs is set, and what is refused stays."""
    for mount, group in standing.groups.items():
        if cgroups.of_thread().get(mount) != group:
            with suppress(OSError):  # it is gone, or not ours: the thread ends soon
                cgroups.enter(os.path.join(group, cgroups.THREADS))
    _settle(standing, 0)


def settle(standing: Standing, process: int) -> bool:
    """Let all threads of another process stand so; whether any did not. One that ended meanwhile is no matter."""
    changed = False
    for mount, group in standing.groups.items():
        with suppress(OSError):
            if cgroups.of_thread(process).get(mount) != group:
                cgroups.enter(os.path.join(group, cgroups.PROCESSES), process)
                changed = True
    with suppress(OSError):
        for thread in map(int, os.listdir(f"/proc/{process}/task")):
            changed = _settle(standing, thread) or changed
    return changed


def _settle(standing: Standing, thread: int) -> bool:
    changed = False
    with suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, thread) != standing.nice:
            set_nice(standing.nice, thread)
            changed = True
    with suppress(OSError):
        if standing.io is not None and _io_of(thread) not in (None, standing.io):
            set_io(standing.io, thread)
            changed = True
    return changed


def _io_of(thread: int) -> int | None:
    try:
        return _ioprio(1, WHO_PROCESS, thread)
    except OSError:
        return None


def _ioprio(which: int, *arguments: int) -> int:
    calls = _CALLS.get((platform.machine(), struct.calcsize("P") == 8))
    if calls is None or platform.system() != "Linux":
        raise OSError(f"the number of ioprio_set(2) is not known for {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    found: int = libc.syscall(*(ctypes.c_long(one) for one in (calls[which], *arguments)))
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found
