# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Contents for check mode: what is there can be read, what is put is only counted."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable

from ..providers.base import Contents
from . import stream


class DryContents:
    """As `contents`, but nothing is written: what was put here `has` its digest, and can't be read."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def new_bytes(self) -> int:
        """How many bytes the store would have grown by."""
        return sum(self._sizes.values())

    def has(self, digest: str) -> bool:
        """Whether the content is there, or was put."""
        return digest in self._sizes or self._contents.has(digest)

    def put(self, data: bytes) -> str:
        """The digest of `data`."""
        return self._note(hashlib.sha256(data).hexdigest(), len(data))

    def put_fd(self, fd: int) -> tuple[str, int]:
        """Digest and size of what can be read from `fd`. Raises OSError of reading it."""
        size = os.fstat(fd).st_size
        raw, size = stream.copy(fd, size or stream.ENDLESS)
        return self._note(raw.hex(), size), size

    def get(self, digest: str) -> bytes:
        """The content, if it is in the store. Raises ContentMissing, StoreCorrupt."""
        return self._contents.get(digest)

    def copy_to(self, digest: str, fd: int, sparse: bool = False) -> int:
        """Write the content to `fd`, if it is in the store. Raises ContentMissing, StoreCorrupt; OSError of writing."""
        return self._contents.copy_to(digest, fd, sparse)

    def size(self, digest: str) -> int:
        """Size in bytes. Raises ContentMissing."""
        size = self._sizes.get(digest)
        return self._contents.size(digest) if size is None else size

    def verify(self, digests: Iterable[str]) -> int:
        """Check what is in the store; return its bytes. Raises ContentMissing, StoreCorrupt."""
        return self._contents.verify(digest for digest in digests if digest not in self._sizes)

    def _note(self, digest: str, size: int) -> str:
        with self._lock:
            if digest not in self._sizes and not self._contents.has(digest):
                self._sizes[digest] = size
        return digest
