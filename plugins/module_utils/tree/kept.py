# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the failed state that was kept has what a restore is about to replace."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable

from ..kernel import selected
from ..providers.base import Contents
from . import entry as listing
from . import statindex


class Kept:
    """Some names of the failed state of a tree, by what stat said when it was shadowed (its listing and stat index)."""

    def __init__(self, contents: Contents, tree: str, stats: str, paths: Iterable[bytes]) -> None:
        """Raises ContentMissing, StoreCorrupt, StoreFormatUnknown."""
        find = _finder(contents.get(tree))
        wanted = {find(path): path for path in paths}
        self._lines = {
            wanted[number]: line for number, line in statindex.each_line(contents.get(stats), tree) if number in wanted
        }

    def has(self, path: bytes, live: os.stat_result, unstable: bool) -> bool:
        """Whether `live`, a file or a symlink, is what was kept of `path`. `unstable`: though it may have grown.

        A file that changes while it is read is read again, so that each later change gives another mtime. The ctime is
        left out: it changes with each other name of the file, and with what a killed restore did to the metadata.
        """
        line = self._lines.get(path)
        if line is None:
            return False
        dev, ino, size, mtime, _ctime = map(int, line.split())
        if (dev, ino) != (live.st_dev, live.st_ino):
            return False
        if unstable:
            return True
        if stat.S_ISREG(live.st_mode) and live.st_nlink > 1:
            return size == live.st_size  # its mtime may have been put back by another name
        return (size, mtime) == (live.st_size, live.st_mtime_ns)


def _finder(data: bytes) -> Callable[[bytes], int | None]:
    """What gives the number of the line of a path."""
    kernel = selected.kernel()
    lines = kernel.listing(data) if kernel else None
    if lines is not None:
        find: Callable[[bytes], int | None] = lines.find
        return find
    return {entry.path: number for number, entry in enumerate(listing.decode(data))}.get
