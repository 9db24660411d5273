# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packs that are being written: one takes contents, full ones are published meanwhile."""

from __future__ import annotations

import hashlib
import os
import threading
from array import array
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from typing import Any

from ..kernel import selected
from . import files
from .packs import HEADER, MAGIC, PLACE, VERSION, Packs, Place
from .temporaries import Temporaries

PACK_LIMIT = 64 << 20  # a pack with so many bytes is closed
BUFFER_LIMIT = 1 << 20
PIECE = 2 << 20  # what the native kernel's threads write at a time


class PackWriter:
    """A pack that is still being written, in a temporary; nobody else sees its contents. Not for several threads."""

    def __init__(self, temporaries: Temporaries) -> None:
        """Raises OSError."""
        self._temporaries = temporaries
        self._file = temporaries.file()
        self._waiting: dict[bytes, bytes] = {}  # contents that are not in the file yet
        self._waiting_bytes = 0
        self._places: dict[bytes, Place] = {}
        self._end = 0

    @property
    def path(self) -> str:
        """Its file, for messages."""
        return self._file.path

    @property
    def size(self) -> int:
        """How large the pack is by now, in bytes."""
        return self._end + self._waiting_bytes

    @property
    def stored(self) -> int:
        """Bytes of all contents so far."""
        return self.size

    def is_empty(self) -> bool:
        """Whether it has no contents."""
        return not self._waiting and not self._places

    def has(self, digest: bytes) -> bool:
        """Whether the content is here."""
        return digest in self._waiting or self._place(digest) is not None

    def get(self, digest: bytes) -> bytes | None:
        """The content, unchecked; None when it is not here. Raises OSError."""
        data = self._waiting.get(digest)  # first: `drain` takes it from here when it is there
        place = self._place(digest) if data is None else None
        return os.pread(self._file.fd, place.length, place.offset) if place else data

    def add(self, digest: bytes, data: bytes) -> None:
        """Append a content that is not here. Raises OSError, and is as before then."""
        if self._waiting_bytes >= BUFFER_LIMIT:
            self.drain()
        self._waiting[digest] = data
        self._waiting_bytes += len(data)

    def drain(self) -> None:
        """Have all contents in the file. Raises OSError, and is as before then."""
        if self._waiting:
            self._write(self._waiting)
        self._waiting, self._waiting_bytes = {}, 0

    def publish(self, directory: str) -> str:
        """Make it a pack in `directory`: contents, then the index, both on disk; its name. Raises OSError; may be
        repeated then."""
        self.drain()
        index = self._index()
        name = hashlib.sha256(index).hexdigest()
        stem = os.path.join(directory, name)
        file = self._temporaries.file()
        try:
            files.write_all(file.fd, index, 0)
            files.make_directory(directory)
            self._file.name(f"{stem}.pack")
            file.name(f"{stem}.idx")
            files.sync_directory(directory)
        finally:
            file.close()
        return name

    def close(self) -> None:
        """Let go of its file, and remove it unless it was published. Raises OSError."""
        self._file.close()

    # --- what the twins do each in its own way

    def _place(self, digest: bytes) -> Place | None:
        return self._places.get(digest)

    def _write(self, contents: Mapping[bytes, bytes]) -> None:
        files.write_all(self._file.fd, b"".join(contents.values()), self._end)
        for digest, data in contents.items():
            self._places[digest] = Place(self._end, len(data))
            self._end += len(data)

    def _index(self) -> bytes:
        entries = sorted(self._places.items())
        body = HEADER.pack(MAGIC, VERSION, len(entries))
        body += b"".join([digest for digest, _place in entries])
        body += b"".join([PLACE.pack(*place) for _digest, place in entries])
        return body + hashlib.sha256(body).digest()


class NativePackWriter(PackWriter):
    """The same by the native kernel, whose threads write to it too, as `native`. Nothing can be added once it was to be
    published."""

    def __init__(self, temporaries: Temporaries, kernel: Any, previous: Any = None) -> None:
        """What `previous` has (another's `native`), the kernel's threads don't write again. Raises OSError."""
        super().__init__(temporaries)
        self._direct = files.open_direct(self._file.fd, self._file.path)
        self.native = kernel.PackWriter(self._file.fd, self._direct, previous)

    @property
    def size(self) -> int:
        return int(self.native.look()[0]) + self._waiting_bytes

    @property
    def stored(self) -> int:
        return int(self.native.look()[1]) + self._waiting_bytes

    def is_empty(self) -> bool:
        return not self._waiting and not self.native.look()[2]

    def close(self) -> None:
        self.native.close()
        if self._direct >= 0:
            os.close(self._direct)
        super().close()

    def _place(self, digest: bytes) -> Place | None:
        place = self.native.find(digest)
        return Place(*place) if place else None

    def _write(self, contents: Mapping[bytes, bytes]) -> None:
        sizes = array("I", map(len, contents.values())).tobytes()
        self.native.add(b"".join(contents), sizes, b"".join(contents.values()))

    def _index(self) -> bytes:
        os.ftruncate(self._file.fd, self.native.close())  # it is written in whole blocks
        index: bytes = self.native.index()
        return index


class Writers:
    """The packs that a store's contents are being written to. `lock` is held by whoever calls."""

    def __init__(self, packs: Packs, temporaries: Temporaries, lock: threading.RLock) -> None:
        self._packs = packs
        self._temporaries = temporaries
        self._lock = lock
        self._open: PackWriter | None = None
        self._full: list[PackWriter] = []  # the first of them is being published, or could not be
        self._publishing: Future[str] | None = None
        self._last: Any = None
        self._stored = 0  # of those that are here no more

    @property
    def stored(self) -> int:
        """How many bytes of contents were added so far, also to packs that were given up."""
        return self._stored + sum(writer.stored for writer in self._all())

    @property
    def size(self) -> int:
        """How large the packs are that are not published."""
        return sum(writer.size for writer in self._all())

    def has(self, digest: bytes) -> bool:
        """Whether one of them has the content."""
        return any(writer.has(digest) for writer in self._all())

    def get(self, digest: bytes) -> tuple[bytes, str] | None:
        """The content, unchecked, and the path of its file; None when it is in none. Raises OSError."""
        for writer in self._all():
            data = writer.get(digest)
            if data is not None:
                return data, writer.path
        return None

    def add(self, digest: bytes, data: bytes) -> None:
        """Add a content. Raises OSError, also of a pack that was to be published meanwhile."""
        self._ready().add(digest, data)

    def following(self) -> Any:
        """The pack that the native kernel's threads are to write to, which call this; holds the lock itself. Raises
        OSError, as `add`."""
        with self._lock:
            writer = self._ready()
            if not isinstance(writer, NativePackWriter):  # another twin began it
                self._retire(writer)
                writer = self._ready()
            return writer.native  # type: ignore[attr-defined]

    def publish(self) -> None:
        """Publish all of them. Raises OSError; may be repeated then."""
        self._settle()
        if self._open:
            self._full.append(self._open)
        self._open = self._last = None
        while self._full:
            if not self._full[0].is_empty():
                self._full[0].publish(self._packs.directory)
            self._let_go()

    def forget(self) -> None:
        """Give them up. Raises OSError."""
        with suppress(OSError):  # then that one is given up too
            self._settle()
        self._stored = self.stored
        with ExitStack() as stack:
            for writer in self._all():
                stack.callback(writer.close)
            self._open, self._last, self._full = None, None, []

    def _all(self) -> list[PackWriter]:
        return [*self._full, self._open] if self._open else self._full

    def _ready(self) -> PackWriter:
        """The one that takes contents."""
        if self._publishing and self._publishing.done():
            self._settle()
        if self._open and self._open.size >= PACK_LIMIT:
            self._retire(self._open)
        if self._open is None:
            self._open = self._new()
        return self._open

    def _new(self) -> PackWriter:
        kernel = selected.kernel()
        if kernel is None:
            return PackWriter(self._temporaries)
        writer = NativePackWriter(self._temporaries, kernel, self._last)
        self._last = writer.native
        return writer

    def _retire(self, writer: PackWriter) -> None:
        """Have a thread publish it: contents need not wait until the disk has what came before."""
        writer.drain()
        self._settle()
        self._full.append(writer)
        self._open = None
        pool = ThreadPoolExecutor(1, "umbra-publish")
        try:
            self._publishing = pool.submit(self._full[0].publish, self._packs.directory)
        except RuntimeError:  # there may be no more threads: then it is waited for
            self._full[0].publish(self._packs.directory)
            self._let_go()
        pool.shutdown(wait=False)

    def _settle(self) -> None:
        """Wait for that thread. Raises its OSError; its pack stays here then."""
        if self._publishing:
            wait([self._publishing])
            publishing, self._publishing = self._publishing, None
            publishing.result()
            self._let_go()

    def _let_go(self) -> None:
        """Forget the first one that was full: it is a pack now."""
        writer = self._full.pop(0)
        self._stored += writer.stored
        self._packs.refresh()
        writer.close()
