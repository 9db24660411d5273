# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the failed state that was kept has what a restore is about to replace."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from ..kernel.hashing import sha256_fd
from ..providers.base import Contents
from . import entry as listing
from . import messages, native, statindex
from .rootfs import RootFs

BLOCK = 512  # bytes; no file system has smaller ones


class Kept:
    """Some names of the failed state of a tree, by what stat said when it was shadowed (its listing and stat index),
    and all that it has of contents."""

    def __init__(self, contents: Contents, tree: str, stats: str, paths: Iterable[bytes]) -> None:
        """Raises ContentMissing, StoreCorrupt, StoreFormatUnknown."""
        self._contents, self._tree = contents, tree
        numbers = listing.numbers(native.blocks(contents, tree), sorted(paths))
        lines = statindex.some_lines(native.blocks(contents, stats), tree, sorted(numbers))
        self._lines = {numbers[number]: line for number, line in lines}
        self._bodies: set[str | bytes] | None = None

    def has(self, fs: RootFs, path: bytes, live: os.stat_result, unstable: bool) -> bool:
        """Whether what `path` has now, a file or a symlink (`live`), was kept. `unstable`: it may have grown since.

        Stat proves it, or else its content does, whatever name that had: inodes and devices have other numbers after a
        reboot, logs are rotated, and tools write the same again. Raises OSError.
        """
        return self._is_same(path, live, unstable) or self._has_body(fs, path, live)

    def _is_same(self, path: bytes, live: os.stat_result, unstable: bool) -> bool:
        """A file that changes while it is read is read again, so that each later change gives another mtime. The ctime
        is left out: it changes with each other name of the file, and with what a killed restore did to the metadata."""
        line = self._lines.get(path)
        if line is None:
            return False
        dev, ino, size, mtime, _ctime = map(int, line.split())
        if (dev, ino) != (live.st_dev, live.st_ino):
            return False
        # The mtime of a file with other names may have been put back by one of them.
        return unstable or (live.st_nlink == 1 and (size, mtime) == (live.st_size, live.st_mtime_ns))

    def _has_body(self, fs: RootFs, path: bytes, live: os.stat_result) -> bool:
        if self._bodies is None:
            self._bodies = set(_bodies(self._contents.get(self._tree)))
        try:
            if stat.S_ISLNK(live.st_mode):
                directory, name = fs.at(path)
                return os.readlink(name, dir_fd=directory) in self._bodies
            with os.fdopen(fs.open_file(path), "rb", buffering=0) as file:
                return sha256_fd(file.fileno(), live.st_size)[0] in self._bodies
        except OSError as error:
            if error.errno in messages.GONE:
                return True  # then nothing of it can get lost
            raise


def is_beginning(fs: RootFs, entry: listing.Entry, live: os.stat_result, contents: Contents) -> bool:
    """Whether what `entry`, a file of the shadow, has now (`live`) is but the beginning of what the shadow has, or
    zeros in its place: a file system that lost its power leaves that of a file that a restore had written.

    Raises OSError, ContentMissing, StoreCorrupt.
    """
    if not stat.S_ISREG(live.st_mode) or live.st_size > entry.size:
        return False
    with os.fdopen(fs.open_file(entry.path), "rb") as file:
        for piece in native.pieces(contents, entry.digest):
            data = file.read(len(piece))
            if not _is_part(data, piece):
                return False
            if len(data) < len(piece):
                break
        return not file.read(1)


def _is_part(data: bytes, piece: bytes) -> bool:
    if piece.startswith(data):
        return True
    ends = ((at, min(at + BLOCK, len(data))) for at in range(0, len(data), BLOCK))
    return all(data[at:end] in (piece[at:end], bytes(end - at)) for at, end in ends)


def _bodies(data: bytes) -> Iterator[str | bytes]:
    """The digest of each file of a listing, and the text of each symlink. Raises StoreCorrupt, StoreFormatUnknown."""
    yield from listing.digests(data)
    yield from listing.targets(data)
