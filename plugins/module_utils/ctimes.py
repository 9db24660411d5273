# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a file's ctime tells of every change that follows a look."""

from __future__ import annotations

import os
import time

CHANGES = 4
TRIES = 8
TICK = 1_000_000  # nanoseconds; a kernel whose clock ticks does not tick more often


def has_fine_clock(directory: int) -> bool:
    """Whether the file system of `directory` gives each change that follows a stat a ctime of its own, as Linux does
    from 6.13 on for most: elsewhere what is changed twice within a tick of the clock may look as if it was once.
    """
    try:
        fd = os.open(b".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError:
        return False  # it can't be tried without leaving something behind when killed
    try:
        return is_fine(fd)
    finally:
        os.close(fd)


def is_fine(fd: int) -> bool:
    """The same of a private file (0600) of our own, by changing it."""
    try:
        for _try in range(TRIES):
            begun = time.monotonic_ns()
            ctimes = {_change(fd) for _number in range(CHANGES)}
            if time.monotonic_ns() - begun < TICK:
                return len(ctimes) == CHANGES
    except OSError:
        return False
    return False  # too busy to say


def _change(fd: int) -> int:
    os.fchmod(fd, 0o600)
    return os.fstat(fd).st_ctime_ns
