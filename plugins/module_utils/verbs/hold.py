# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is held for the way back while an update runs: disk space, given back first thing; and the tier of each
resource."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from contextlib import suppress

from ..effort.exert import TIERS
from ..errors import NoSpace, StoreCorrupt
from ..shadow import Shadow
from ..store import files
from ..store.update import HostUpdate
from .run import HostWork

RESERVE = "reserve"
EARLY = f"{RESERVE}.tmp"  # as long as there is no manifest: what is beside one that is lost is kept, and this is not
WRITTEN = 1 << 20  # bytes: the journal, the manifest of the failed state, the history, directories
WRITTEN_AN_ITEM = 512  # its lines in the listing and the index of the failed state, and its place in a pack


def needed(work: HostWork, shadows: Sequence[Shadow], percent: int) -> int:
    """Bytes that the way back to `shadows` takes at most while it goes on, when the update changes `percent` % of them:
    the failed state, which is kept, what is there twice for a while, and what the store writes about it.
    """
    if percent <= 0:
        return 0
    most = sum(one.bytes + work.provider(one.type).extra_bytes(one, work.contents) for one in shadows)
    items = sum(one.items for one in shadows)
    return most * percent // 100 + WRITTEN + items * WRITTEN_AN_ITEM


def reserve(update: HostUpdate, size: int, room: str = "", *, name: str = RESERVE) -> str:
    """Hold `size` bytes, not less and not more, on the store's file system in the file `name`; '' when held, else why
    it is only checked. `room` is where that file is as long as nothing is shadowed; `bring` and `settle` follow then.

    Raises NoSpace when there is less; then what was held before is still. Raises StoreError.
    """
    path = os.path.join(room or update.path, name)
    with files.explained(update.store, "the way back", size):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            before = os.fstat(fd).st_size
            stat = os.fstatvfs(fd)
            free = stat.f_bavail * stat.f_frsize + before  # what is held counts as free for this very update
            error = _fallocate(fd, size) if size <= free else errno.ENOSPC  # or it would fill the disk for a moment
            os.ftruncate(fd, before if error else size)
        finally:
            os.close(fd)
        if not (before if error else size):
            os.unlink(path)
    if not error:
        return ""
    if error in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise NoSpace(
            path=update.path,
            where=f"The store at {update.path}",
            free=free,
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
    found = 0
    for name in (RESERVE, EARLY):
        with suppress(FileNotFoundError):
            found += os.stat(os.path.join(update.path, name)).st_size
    return found


def bring(update: HostUpdate, room: str) -> None:
    """The manifest is about to be published: what is held in `room` belongs to it. Raises StoreError."""
    with files.explained(update.store), suppress(FileNotFoundError):
        files.make_directory(update.path)
        os.rename(os.path.join(room, RESERVE), os.path.join(update.path, EARLY))


def settle(update: HostUpdate) -> None:
    """The manifest is published: what is held stays held. May be repeated. Raises StoreError."""
    with files.explained(update.store), suppress(FileNotFoundError):
        os.rename(os.path.join(update.path, EARLY), os.path.join(update.path, RESERVE))


def release(update: HostUpdate, name: str = RESERVE) -> None:
    """Give the held space back. May be repeated."""
    for one in (RESERVE, EARLY) if name == RESERVE else (name,):
        with suppress(OSError):  # nothing is held; or it can't be given back, and who needs it will say what is missing
            os.unlink(os.path.join(update.path, one))


def tiers(update: HostUpdate) -> dict[str, str]:
    """The tier of each resource of `update` that was prestaged, by name; none where that can't be read."""
    try:
        leases = update.leases().get("leases", [])
    except StoreCorrupt:
        return {}
    return {lease["name"]: lease["tier"] for lease in leases if lease["tier"] in TIERS}
