# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is held for the way back while an update runs: disk space, and a raised priority; given back first thing."""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress

from ..errors import NoSpace
from ..store.update import HostUpdate

RESERVE = "reserve"
NICE = {"low": 0, "medium": -5, "high": -10}  # setpriority(2); needs root


def reserve(update: HostUpdate, size: int, name: str = RESERVE) -> str:
    """Hold `size` bytes on the store's file system in the file `name`; '' when held, else why it is only checked.

    Raises NoSpace when there is less.
    """
    path = os.path.join(update.path, name)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        error = _fallocate(fd, size)
    finally:
        os.close(fd)
    if not error:
        return ""
    os.unlink(path)
    if error in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        stat = os.statvfs(update.path)
        raise NoSpace(
            path=update.path,
            where=f"The store at {update.path}",
            free=stat.f_bavail * stat.f_frsize,
            what=f"the way back of update {update.update_id}",
            needed=size,
        )
    return f"the file system of the store can't hold space ({os.strerror(error)}); it was checked only"


def _fallocate(fd: int, size: int) -> int:
    """fallocate(2), which, unlike posix_fallocate(3), never falls back to writing zeros; 0 or the errno."""
    if size <= 0:
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "fallocate64"):
        return errno.EOPNOTSUPP
    done = libc.fallocate64(fd, 0, ctypes.c_int64(0), ctypes.c_int64(size))
    return ctypes.get_errno() if done else 0


def held(update: HostUpdate) -> int:
    """How many bytes are held for `update`."""
    try:
        return os.stat(os.path.join(update.path, RESERVE)).st_size
    except FileNotFoundError:
        return 0


def release(update: HostUpdate, name: str = RESERVE) -> None:
    """Give the held space back. May be repeated."""
    with suppress(OSError):  # nothing is held; or it can't be given back, and who needs it will say that it is missing
        os.unlink(os.path.join(update.path, name))


def raise_priority(update: HostUpdate) -> None:
    """Run the rest of this process as the leases of `update` say: the niceness of its highest tier."""
    wanted = [lease["effective"].get("nice", 0) for lease in update.leases().get("leases", [])]
    if wanted and min(wanted) < 0 and os.geteuid() == 0:
        os.setpriority(os.PRIO_PROCESS, 0, min(wanted))
