# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is held for the way back while an update runs: disk space, given back first thing; and the tier of each
resource."""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress

from ..effort.exert import TIERS
from ..errors import NoSpace
from ..store.update import HostUpdate

RESERVE = "reserve"


def reserve(update: HostUpdate, size: int) -> str:
    """Hold `size` bytes on the store's file system in a file; '' when held, else why it is only checked.

    Raises NoSpace when there is less.
    """
    path = os.path.join(update.path, RESERVE)
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


def release(update: HostUpdate) -> None:
    """Give the held space back. May be repeated."""
    with suppress(OSError):  # nothing is held; or it can't be given back, and who needs it will say that it is missing
        os.unlink(os.path.join(update.path, RESERVE))


def tiers(update: HostUpdate) -> dict[str, str]:
    """The tier of each resource of `update` that was prestaged, by name."""
    leases = update.leases().get("leases", [])
    return {lease["name"]: lease["tier"] for lease in leases if lease["tier"] in TIERS}
