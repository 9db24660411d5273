# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Contents in memory: the reference fake of the store's contents, for tests of providers."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable

from ansible_collections.umbra.rollback.plugins.module_utils.errors import ContentMissing, StoreCorrupt

BLOCK = 4096
CHUNK = 1 << 16
ZEROS = bytes(BLOCK)


class MemoryContents:
    """Meets providers.base.Contents. `blobs` is open to tests: change one to damage it, delete one to lose it."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self._new_bytes = 0
        self._lock = threading.Lock()

    def has(self, digest: str) -> bool:
        """Whether the content is there."""
        return digest in self.blobs

    def put(self, data: bytes) -> str:
        """Keep `data`, and return its digest."""
        digest = hashlib.sha256(data).hexdigest()
        with self._lock:
            if digest not in self.blobs:
                self.blobs[digest] = bytes(data)
                self._new_bytes += len(data)
        return digest

    def put_fd(self, fd: int) -> tuple[str, int]:
        """Keep what can be read from `fd` from offset 0 to its end; return digest and size."""
        chunks = []
        offset = 0
        while True:
            chunk = os.pread(fd, CHUNK, offset)
            if not chunk:
                break
            chunks.append(chunk)
            offset += len(chunk)
        return self.put(b"".join(chunks)), offset

    def get(self, digest: str) -> bytes:
        """The content, checked. Raises ContentMissing, StoreCorrupt."""
        try:
            data = self.blobs[digest]
        except KeyError:
            raise ContentMissing(digest=digest, path="memory") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise StoreCorrupt(path=f"memory/{digest}", problem="its SHA-256 is another one")
        return data

    def copy_to(self, digest: str, fd: int, sparse: bool = False) -> int:
        """Write the content to `fd` from offset 0, checked, and cut `fd` there; return its size. With `sparse`, blocks
        of zeros become holes. Raises ContentMissing, StoreCorrupt; OSError of writing to `fd`.
        """
        data = self.get(digest)
        os.ftruncate(fd, 0)
        step = BLOCK if sparse else CHUNK
        for offset in range(0, len(data), step):
            block = data[offset : offset + step]
            if not (sparse and block == ZEROS):
                _write_all(fd, block, offset)
        os.ftruncate(fd, len(data))
        return len(data)

    def size(self, digest: str) -> int:
        """Size in bytes. Raises ContentMissing."""
        try:
            return len(self.blobs[digest])
        except KeyError:
            raise ContentMissing(digest=digest, path="memory") from None

    def verify(self, digests: Iterable[str]) -> int:
        """Read every content and check it; return how many bytes. Raises ContentMissing, StoreCorrupt."""
        return sum(len(self.get(digest)) for digest in digests)

    @property
    def new_bytes(self) -> int:
        """How many bytes were added so far."""
        return self._new_bytes


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written
