# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time that no step of the clock moves, and that goes on while the machine sleeps; and which boot it counts from."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass

from ..store import files

BOOT_ID = "/proc/sys/kernel/random/boot_id"
NOTE_BYTES = 256


def now() -> float:
    """Seconds since boot, time asleep included (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def ticks(seconds: float) -> int:
    """Seconds since boot as /proc/PID/stat counts them."""
    return int(seconds * os.sysconf("SC_CLK_TCK"))


def boot_id() -> str:
    """Another text after each boot. Raises OSError."""
    with open(BOOT_ID, encoding="ascii") as file:
        return file.read().strip()


@dataclass(frozen=True)
class Note:
    """How many seconds were `left` at `at`, on the clock of the boot `boot`; `stamp` says for which deadline."""

    stamp: str
    boot: str
    at: float
    left: float


class Notebook:
    """The file `path` with the last note. It has its block from the beginning, and is written in place: a full disk
    does not stop it. A write that a crash tears is no note."""

    def __init__(self, path: str) -> None:
        self._path = path

    def make(self) -> None:
        """Make the file, on disk when this returns. Raises OSError."""
        files.publish(self._path, b" " * NOTE_BYTES)

    def write(self, note: Note) -> None:
        """Keep `note` instead of the last one. Raises OSError."""
        data = json.dumps(vars(note)).encode().ljust(NOTE_BYTES)
        fd = os.open(self._path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            files.write_all(fd, data, 0)
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def read(self) -> Note | None:
        """The last note, or None."""
        try:
            return Note(**json.loads(files.read(self._path)))
        except (OSError, ValueError, TypeError):
            return None  # none yet, or torn

    def forget(self) -> None:
        """Remove the file. Raises OSError."""
        files.unlink(self._path)
