# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SHA-256 of what a descriptor reads, in pure Python. The specification of the kernel's hashing part."""

from __future__ import annotations

import hashlib
import os

CHUNK = 1 << 18


def sha256_fd(fd: int, most: int | None = None) -> tuple[str, int]:
    """Digest (64 hexadecimal digits) and size in bytes of `fd` from offset 0 to its end; of one that has more than
    `most` bytes not all are read: it may grow for ever. Raises OSError of reading."""
    state = hashlib.sha256()
    offset = 0
    while True:
        chunk = os.pread(fd, CHUNK, offset)
        if not chunk or (most is not None and offset > most):
            return state.hexdigest(), offset
        state.update(chunk)
        offset += len(chunk)
