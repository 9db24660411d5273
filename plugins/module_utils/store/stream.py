# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files read once, from end to end: hashed, and written elsewhere on the way. Holes are skipped where they can be."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from typing import Callable

from ..kernel import selected
from . import files

CHUNK = 1 << 20
BLOCK = 4096
ENDLESS = 1 << 62
_ZEROS = bytes(CHUNK)
_FICLONE = 0x40049409

Write = Callable[[memoryview, int], None]
"""Takes bytes and the offset where they belong."""


def copy(source: int, size: int, write: Write | None = None, fill: bool = False) -> tuple[bytes, int]:
    """SHA-256 (32 bytes) and size of the first `size` bytes of `source`, each given to `write`; with `fill`, holes too.

    A file that ends sooner is as long as it is. Moves the position of `source`. Raises OSError, what `write` raises.
    """
    hasher = hashlib.sha256()
    zeros, view = memoryview(_ZEROS), memoryview(bytearray(min(CHUNK, max(size, 1))))
    position = 0

    def take(data: memoryview, wanted: bool) -> None:
        nonlocal position
        hasher.update(data)
        if write and wanted:
            write(data, position)
        position += len(data)

    for start, end in _extents(source, size):
        while position < start:
            take(zeros[: start - position], fill)
        while position < end:
            count = os.preadv(source, [view[: end - position]], position)
            if not count:
                return hasher.digest(), position
            take(view[:count], True)
    return hasher.digest(), position


def hashed(source: int, size: int) -> tuple[bytes, int]:
    """SHA-256 (32 bytes) and size of the first `size` bytes of `source`. Moves its position. Raises OSError."""
    kernel = selected.kernel()
    if kernel is None or size == ENDLESS:
        return copy(source, size)
    digest, done, _refused = kernel.stream(source, -1, -1, size)
    return digest, done


def copy_whole(source: int, target: int, size: int, direct: int = -1) -> tuple[bytes, int, int]:
    """As `copy`, to the empty file `target`, holes kept; and the errno of writing, or 0. Raises OSError of reading.

    The native kernel writes to `direct`, if that is not -1: see files.open_direct.
    """
    kernel = selected.kernel()
    if kernel is not None and size != ENDLESS:
        digest, done, refused = kernel.stream(source, target, direct, size)
        return digest, done, refused
    return _copied(source, size, writer(target), False)


def copy_dense(source: int, target: int, size: int, sparse: bool) -> tuple[bytes, int]:
    """Digest and errno as `copy_whole`; holes are filled, or with `sparse` made wherever a block is zeros."""
    digest, _size, refused = _copied(source, size, sparse_writer(target) if sparse else writer(target), not sparse)
    return digest, refused


def _copied(source: int, size: int, write: Write, fill: bool) -> tuple[bytes, int, int]:
    refusals: list[OSError] = []

    def keep(data: memoryview, offset: int) -> None:
        try:
            write(data, offset)
        except OSError as error:
            refusals.append(error)
            raise

    try:
        return (*copy(source, size, keep, fill), 0)
    except OSError as error:
        if not refusals:
            raise
        return b"", 0, error.errno or errno.EIO


def has_holes(fd: int, stat: os.stat_result) -> bool:
    """Whether the file has a hole: not only fewer blocks than bytes, which compression does too. Raises OSError."""
    return stat.st_blocks * 512 < stat.st_size and os.lseek(fd, 0, os.SEEK_HOLE) < stat.st_size


def small(fd: int, stat: os.stat_result, limit: int) -> bytes | None:
    """All of `fd`, if that is no more than `limit` bytes and has no holes. Raises OSError."""
    if stat.st_size > limit or has_holes(fd, stat):
        return None
    data = os.pread(fd, stat.st_size + 1, 0)
    if len(data) <= stat.st_size:
        return data
    while len(data) <= limit:  # it grew, or is one of those in /proc that have no size
        more = os.pread(fd, limit + 1 - len(data), len(data))
        if not more:
            return data
        data += more
    return None


def clone(source: int, target: int) -> bool:
    """Make `target` share all blocks of `source` (a reflink); whether the file system can, between these two."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False  # other file systems, no reflinks here, a file that is no-copy-on-write: copy it
    return True


def writer(fd: int) -> Write:
    """Writes to `fd` as it comes. Raises OSError."""
    return lambda data, offset: files.write_all(fd, data, offset)


def sparse_writer(fd: int) -> Write:
    """Writes to the empty file `fd`, and leaves blocks of zeros out. Raises OSError."""

    def write(data: memoryview, offset: int) -> None:
        start, raw = None, bytes(data)
        for at in range(0, len(raw), BLOCK):
            if raw.startswith(_ZEROS[: min(BLOCK, len(raw) - at)], at):
                if start is not None:
                    files.write_all(fd, data[start:at], offset + start)
                start = None
            elif start is None:
                start = at
        if start is not None:
            files.write_all(fd, data[start:], offset + start)

    return write


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of everything below `size` that is not a hole; then the end of the file, twice."""
    offset = 0
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
            offset = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end, which may be nearer than it was
                size = min(size, os.fstat(fd).st_size)
                break
            start, offset = offset, size  # this file system tells of no holes
        yield start, min(offset, size)
    yield size, size
