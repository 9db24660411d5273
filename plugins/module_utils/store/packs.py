# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packs: many small contents in one file, and a sorted index beside it. The format is in docs/store_format.md."""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import sys
import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple

from ..errors import StoreCorrupt, StoreError, StoreFormatUnknown
from ..kernel import selected
from ..present import is_there
from . import files

SMALL = 128 << 10  # contents up to so many bytes go into packs
OPEN_MOST = 64  # packs that are open at a time, with two descriptors each
NATIVE_MOST = 128  # packs whose indexes the native kernel holds in memory: 48 bytes for each content
MAGIC = b"umbraidx"
VERSION = 1
HEADER = struct.Struct(">8sQQ")  # magic, version, count
PLACE = struct.Struct(">QQ")  # offset, length
DIGEST = 32


class Place(NamedTuple):
    """Where a content is in the file of a pack, in bytes."""

    offset: int
    length: int


class _Files(NamedTuple):
    """The open files of a pack; they are closed when the last reader lets go of them."""

    mapped: mmap.mmap
    rows: int
    contents: BinaryIO
    size: int

    def digest(self, row: int) -> bytes:
        """The digest in `row` of the index."""
        start = HEADER.size + row * DIGEST
        return self.mapped[start : start + DIGEST]

    def place(self, row: int) -> int:
        """Where in the index the place of `row` is."""
        return HEADER.size + self.rows * DIGEST + row * PLACE.size


class Pack:
    """A published pack. `open_files` is asked for them again and again, and may close those of other packs."""

    def __init__(self, directory: str, name: str, open_files: Callable[[str], _Files]) -> None:
        self.name = name
        self.path = os.path.join(directory, f"{name}.pack")
        self.index_path = os.path.join(directory, f"{name}.idx")
        self._open_files = open_files
        self._prefixes: array[int] | None = None

    def find(self, digest: bytes, key: int) -> Place | None:
        """Where `digest` is, or None; `key` is its first 8 bytes as a number. Raises OSError, StoreError."""
        prefixes = self._prefixes
        if prefixes is None:
            prefixes = self._prefixes = _prefixes(self._open_files(self.name))
        row = bisect_left(prefixes, key)
        while row < len(prefixes) and prefixes[row] == key:
            opened = self._open_files(self.name)
            if opened.digest(row) == digest:
                return self._place(opened, row)
            row += 1
        return None

    def read(self, place: Place) -> bytes:
        """What is at `place`, unchecked. Raises OSError, StoreCorrupt when the file ends before."""
        opened = self._open_files(self.name)  # held, so that no other thread has it closed before it was read
        data = os.pread(opened.contents.fileno(), place.length, place.offset)
        if len(data) != place.length:
            raise StoreCorrupt(path=self.path, problem=f"it ends before byte {place.offset + place.length}")
        return data

    def entries(self) -> Iterator[tuple[bytes, Place]]:
        """Every digest, sorted, with its place. Raises OSError, StoreError."""
        opened = self._open_files(self.name)
        for row in range(opened.rows):
            yield opened.digest(row), self._place(opened, row)

    def locate(self, digests: set[bytes]) -> list[tuple[Place, bytes]]:
        """Those of `digests` that are here, with their places, sorted. Raises OSError, StoreError."""
        opened = self._open_files(self.name)
        if len(digests) * 8 < opened.rows:
            found = ((self.find(digest, int.from_bytes(digest[:8], "big")), digest) for digest in digests)
            return sorted((place, digest) for place, digest in found if place)
        column = opened.mapped[HEADER.size : HEADER.size + opened.rows * DIGEST]
        rows = ((row, column[row * DIGEST : row * DIGEST + DIGEST]) for row in range(opened.rows))
        return sorted((self._place(opened, row), digest) for row, digest in rows if digest in digests)

    def good(self) -> Iterator[bytes]:
        """Every content that reads as its digest says, whatever else is damaged."""
        try:
            opened = self._open_files(self.name)
        except (OSError, StoreError):
            return
        for row in range(opened.rows):
            with suppress(OSError, StoreError):
                data = self.read(self._place(opened, row))
                if hashlib.sha256(data).digest() == opened.digest(row):
                    yield data

    def check(self) -> None:
        """Read the whole index against its checksum and its name. Raises OSError, StoreError."""
        if not is_there(self.path) and is_there(self.index_path):
            raise StoreCorrupt(path=self.path, problem="it is missing, but its index is there")
        data = files.read(self.index_path)
        if data[-DIGEST:] != hashlib.sha256(data[:-DIGEST]).digest() or hashlib.sha256(data).hexdigest() != self.name:
            raise StoreCorrupt(path=self.index_path, problem="its checksum does not match what it says")
        opened = self._open_files(self.name)
        end = max((sum(PLACE.unpack_from(opened.mapped, opened.place(row))) for row in range(opened.rows)), default=0)
        if opened.size != end:
            raise StoreCorrupt(path=self.path, problem=f"it has {opened.size} bytes, and its index says {end}")

    def _place(self, opened: _Files, row: int) -> Place:
        place = Place(*PLACE.unpack_from(opened.mapped, opened.place(row)))
        if place.length > SMALL or place.offset + place.length > opened.size:
            raise StoreCorrupt(path=self.index_path, problem=f"its entry {row} lies outside its pack")
        return place


def _prefixes(opened: _Files) -> array[int]:
    """The first 8 bytes of every digest as numbers: what a search needs, in a sixth of the index."""
    column = array("Q", opened.mapped[HEADER.size : HEADER.size + opened.rows * DIGEST])[:: DIGEST // 8]
    if sys.byteorder == "little":
        column.byteswap()
    return column


class Packs:
    """All packs in a directory, as they were when it was last read."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._packs: list[Pack] | None = None
        self._last: Pack | None = None
        self._checked: list[StoreError | None] | None = None
        self._lock = threading.Lock()  # for what follows
        self._native: Any = None
        self._native_names: list[str] | None = None
        self._opened: dict[str, _Whole] = {}
        self._open_files = lru_cache(OPEN_MOST)(lambda name: files.retrying(lambda: _open(directory, name)))

    def all(self) -> list[Pack]:
        """Every published pack. Raises OSError."""
        packs = self._packs
        return self.refresh() if packs is None else packs

    def refresh(self) -> list[Pack]:
        """Read the directory again: other processes may have published packs, or joined them. Raises OSError."""
        known = {pack.name: pack for pack in self._packs or []}
        names = [name[:-4] for name in files.names(self.directory) if name.endswith(".idx")]
        packs = [known.get(name) or Pack(self.directory, name, self._open_files) for name in names]
        self._packs = packs
        return packs

    def find(self, digest: bytes) -> tuple[Pack, Place] | None:
        """The pack that has `digest`, and where. A pack that is damaged or gone has nothing. Raises OSError."""
        key = int.from_bytes(digest[:8], "big")
        last = self._last
        if last and (place := _find(last, digest, key)):
            return last, place
        for pack in self.all():
            if pack is not last and (place := _find(pack, digest, key)):
                self._last = pack
                return pack, place
        return None

    def locate(self, digests: set[bytes]) -> Iterator[tuple[Pack, list[tuple[Place, bytes]]]]:
        """Those of `digests` that are in packs, each once, with their places, sorted, by pack; as `find`."""
        wanted = set(digests)
        for pack in self.all():
            with suppress(StoreError, FileNotFoundError):
                rows = pack.locate(wanted)
                wanted.difference_update(digest for _place, digest in rows)
                yield pack, rows

    def native(self) -> Any:
        """All packs as the native kernel reads them; None without one, or when they are too many. Raises OSError."""
        kernel = selected.kernel()
        packs = self.all()
        if kernel is None or len(packs) > NATIVE_MOST:
            return None
        names = [pack.name for pack in packs]
        with self._lock:
            if names != self._native_names:
                opened = {pack.name: self._opened.get(pack.name) or _whole(pack) for pack in packs}
                self._opened = {name: one for name, one in opened.items() if one}
                self._native, self._native_names = kernel.Packs(list(self._opened.values())), names
            return self._native

    def damage(self) -> StoreError | None:
        """What is wrong with the first pack whose index is not as it was written. Raises OSError."""
        if self._checked is None:
            self._checked = [_damage(pack) for pack in self.all()]
        return next((damage for damage in self._checked if damage), None)

    def forget(self) -> None:
        """Close all files, and know no pack."""
        self._packs = self._last = self._checked = self._native = self._native_names = None
        self._opened = {}
        self._open_files.cache_clear()


class _Whole(NamedTuple):
    """A pack with its index in memory: unlike one that is mapped it can't become unreadable."""

    table: bytes
    size: int
    contents: BinaryIO


def _whole(pack: Pack) -> _Whole | None:
    try:
        contents = files.retrying(lambda: open(pack.path, "rb", buffering=0))  # noqa: SIM115 - _Whole keeps it open
        return _Whole(files.read(pack.index_path), os.fstat(contents.fileno()).st_size, contents)
    except FileNotFoundError:
        return None  # as `find` has it


def _find(pack: Pack, digest: bytes, key: int) -> Place | None:
    try:
        return pack.find(digest, key)
    except (StoreError, FileNotFoundError):
        return None  # the others may have it; if none has, `damage` names this one


def _damage(pack: Pack) -> StoreError | None:
    try:
        pack.check()
    except StoreError as error:
        return error
    return None


def _open(directory: str, name: str) -> _Files:
    index_path = os.path.join(directory, f"{name}.idx")
    with open(index_path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        count = _count(file.read(HEADER.size), size, index_path)
        index = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
    contents = open(os.path.join(directory, f"{name}.pack"), "rb", buffering=0)  # noqa: SIM115 - _Files keeps it open
    return _Files(index, count, contents, os.fstat(contents.fileno()).st_size)


def _count(header: bytes, size: int, path: str) -> int:
    """How many contents the index names. Raises StoreFormatUnknown, StoreCorrupt."""
    if len(header) < HEADER.size:
        raise StoreCorrupt(path=path, problem="it is too short to be an index")
    magic, version, count = HEADER.unpack(header)
    if magic == MAGIC and version != VERSION:
        raise StoreFormatUnknown(path=path, found=f"umbra index {version}", known=f"umbra index {VERSION}")
    if magic != MAGIC or size != HEADER.size + count * (DIGEST + PLACE.size) + DIGEST:
        raise StoreCorrupt(path=path, problem="it is not an index, or not a whole one")
    return int(count)
