# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`hash_pool.py NAMES`: check lists of digests, as sha256sum reads them, with a pool of threads and hashlib."""

from __future__ import annotations

import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor

CHUNK = 1 << 20


def wrong(listing: str) -> list[bytes]:
    """The names in a list whose files have another digest."""
    found = []
    with open(listing, "rb") as lines:
        for line in lines:
            name = line.lstrip(b"\\")[66:-1]
            if line.startswith(b"\\"):
                name = name.replace(b"\\\\", b"\\")
            if digest(name) != line.lstrip(b"\\")[:64].decode():
                found.append(name)
    return found


def digest(name: bytes) -> str:
    """The SHA-256 of a file, hexadecimal; small files in one read."""
    state = hashlib.sha256()
    fd = os.open(name, os.O_RDONLY)
    try:
        size = min(max(1, os.fstat(fd).st_size), CHUNK)
        while chunk := os.read(fd, size):
            state.update(chunk)
    finally:
        os.close(fd)
    return state.hexdigest()


def main() -> None:
    """Check all lists that a file names, with NUL after each."""
    with open(sys.argv[1], encoding="utf-8") as file:
        names = file.read().split("\0")[:-1]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bad = [name for found in pool.map(wrong, names) for name in found]
    if bad:
        sys.exit(f"{len(bad)} files have another digest: {bad[:5]}")


if __name__ == "__main__":
    main()
