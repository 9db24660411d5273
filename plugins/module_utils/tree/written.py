# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore has just written, which needs no reading back while nobody has changed it."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass, field
from typing import Any

from .entry import Entry

IDENTITY = struct.Struct("=QQq")  # device, inode, ctime: of one line, for the native kernel


@dataclass
class Written:
    """The regular files that a restore of the listing `tree` put in their places below `root`.

    `files` has device, inode and ctime in that place, by path; `lines` has the same of what the native kernel wrote.
    Each content was hashed on its way to the disk, and whoever read it back would get the same pages of memory. So what
    still has that inode and ctime is what was written; that the disk took it, syncfs says. It holds only where each
    change after a look gives another ctime (`has_fine_clock`): nothing is remembered elsewhere.
    """

    root: bytes
    tree: str
    files: dict[bytes, tuple[int, int, int]] = field(default_factory=dict)
    lines: bytes = b""

    def proves(self, entry: Entry, live: os.stat_result) -> bool:
        """Whether `live` is what was written for the entry."""
        if self.files.get(entry.path) != (live.st_dev, live.st_ino, live.st_ctime_ns):
            return False
        now = (live.st_size, live.st_mtime_ns, stat.S_IMODE(live.st_mode), live.st_uid, live.st_gid, live.st_nlink)
        return now == (entry.size, entry.mtime_ns, entry.mode, entry.uid, entry.gid, 1)

    def native(self, lines: Any) -> bytes:
        """All of it as the native kernel takes it, for its listing `lines`."""
        if not self.files:
            return self.lines  # as it is: there are 24 bytes for each line
        found = bytearray(self.lines or IDENTITY.size * len(lines))
        for path, identity in self.files.items():
            number = lines.find(path)
            if number is not None:
                IDENTITY.pack_into(found, IDENTITY.size * number, *identity)
        return bytes(found)
