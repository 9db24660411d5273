# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Contents by their SHA-256: large ones are files of their own, small ones go into packs (implements base.Contents)."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Collection, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Callable, NamedTuple, TypeVar, Union

from ..ctimes import is_fine
from ..errors import ContentMissing, StoreCorrupt, StoreError
from ..kernel import selected
from ..present import is_there
from . import files, stream
from . import writer as writers
from .packs import DIGEST, SMALL, Pack, Packs, Place
from .temporaries import Temporaries, Temporary
from .writer import Writers

T = TypeVar("T")

_DIGEST = re.compile("[0-9a-f]{64}")
WINDOW = 4 << 20  # how much of a pack is read at once to verify it
GAP = 64 << 10  # so many bytes between two contents are read rather than skipped
PIECE = 1 << 20  # how much of a large content is read at once
AT_ONCE = 1 << 16  # digests that the native kernel looks for together
VERIFIERS = min(4, os.cpu_count() or 1)
LARGE = 1 << 20  # copies of more bytes are written past the page cache


@dataclass(frozen=True)
class Location:
    """Where a published content is: `length` bytes of the file `path` from `offset` on."""

    path: str
    offset: int
    length: int


class Checked(NamedTuple):
    """Contents that were read: how many are good, how many bytes those have, and what is wrong with which others."""

    good: int
    bytes: int
    problems: tuple[tuple[str, StoreError], ...] = ()


class _Object:
    """A large content, which is a file of its own."""

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self, _place: Place) -> bytes:
        return files.read(self.path)


_Source = Union[Pack, _Object]


class ObjectContents:
    """The contents of the store at `path`. Safe to use from several threads."""

    def __init__(self, path: str, temporaries: Temporaries) -> None:
        self.path = path
        self.objects = os.path.join(path, "objects")
        self.packs = Packs(os.path.join(path, "packs"))
        self._temporaries = temporaries
        self._lock = threading.RLock()  # for all that follows
        self._writers = Writers(self.packs, temporaries, self._lock)
        self._listed: dict[str, set[str]] = {}
        self._unsynced: set[str] = set()
        self._new_bytes = 0

    @property
    def new_bytes(self) -> int:
        """How many bytes this object has added to the store so far."""
        with self._lock:
            return self._new_bytes + self._writers.stored

    # --- reading

    def has(self, digest: str) -> bool:
        """Whether the content is there (its bytes are not read). Raises StoreError."""
        raw = self._raw(digest)
        with files.explained(self.path):
            return self._packed(raw) or is_there(self._object_path(raw.hex()))

    def size(self, digest: str) -> int:
        """Size in bytes. Raises ContentMissing, StoreError."""
        data = self._unpublished(self._raw(digest))
        return len(data) if data is not None else self.location(digest).length

    def location(self, digest: str) -> Location:
        """Where the published content is. Raises ContentMissing, StoreError."""
        return self._reading(self._raw(digest), lambda source, place: Location(source.path, *place))

    def get(self, digest: str) -> bytes:
        """The content, checked. Raises ContentMissing, StoreCorrupt, StoreError."""
        raw = self._raw(digest)
        data = self._unpublished(raw)
        if data is None:
            data = self._reading(raw, lambda source, place: _checked(source, place, raw))
        return data

    def pieces(self, digest: str) -> Iterator[bytes]:
        """The content, piece by piece, for who needs little of a large one; whether that was it, is known at the end.

        Raises ContentMissing, StoreCorrupt, StoreError.
        """
        raw = self._raw(digest)
        data = self._unpublished(raw)
        found = data if data is not None else self._reading(raw, lambda source, place: _open_or_get(source, place, raw))
        if isinstance(found, bytes):
            yield found
            return
        hasher = hashlib.sha256()
        with found, files.explained(self.path):
            while data := found.read(PIECE):
                hasher.update(data)
                yield data
        if hasher.digest() != raw:
            raise _damaged(self._object_path(digest), raw)

    def copy_to(self, digest: str, fd: int, sparse: bool = False) -> int:
        """Make the file `fd` hold the content, checked; return its size. With `sparse`, blocks of zeros become holes.

        Raises ContentMissing, StoreCorrupt, StoreError; OSError of writing to `fd`.
        """
        raw = self._raw(digest)
        data = self._unpublished(raw)
        if data is None:
            opened = self._reading(raw, lambda source, place: _open_or_get(source, place, raw))
            if not isinstance(opened, bytes):
                with opened:
                    return self._copy_object(raw, opened.fileno(), fd, sparse)
            data = opened
        os.ftruncate(fd, 0)
        (stream.sparse_writer if sparse else stream.writer)(fd)(memoryview(data), 0)
        os.ftruncate(fd, len(data))
        return len(data)

    def verify(self, digests: Iterable[str]) -> int:
        """Read every content and check it; return how many bytes. Raises the StoreError of the first bad one."""
        kernel = selected.kernel()
        if kernel is not None:
            return self.verify_many(b"".join({self._raw(digest) for digest in digests}))
        return self._verify_each(digests)

    def verify_many(self, digests: bytes) -> int:
        """As `verify`, for digests of 32 bytes, one after the other."""
        dummy, size, left = self.screen(digests)
        return size + self._verify_each(left)

    def screen(self, digests: bytes) -> tuple[int, int, Collection[str]]:
        """Read many contents (digests of 32 bytes, one after the other) at once: how many are good, how many bytes they
        have, and the digests of those that are left over, for `examine`. Raises StoreError."""
        native = self.packed()
        if native is None:
            return 0, 0, {raw.hex() for raw in _split(digests)}
        size, flags = native.verify(digests, selected.threads())
        at, left = flags.find(1), set()
        while at >= 0:
            left.add(digests[at * DIGEST : (at + 1) * DIGEST].hex())
            at = flags.find(1, at + 1)
        return flags.count(0), int(size), left

    def _verify_each(self, digests: Iterable[str]) -> int:
        total = 0
        with closing(self.examine(digests)) as examined:
            for checked in examined:
                for _digest, problem in checked.problems:
                    raise problem
                total += checked.bytes
        return total

    def examine(self, digests: Iterable[str]) -> Generator[Checked, None, None]:
        """Read every content once, in the order in which packs have them, and say how they are. Raises StoreError."""
        wanted = {self._raw(digest) for digest in digests}
        windows: list[tuple[Pack, list[tuple[Place, bytes]]]] = []
        with files.explained(self.path):
            for pack, rows in self.packs.locate(wanted):
                wanted.difference_update(digest for _place, digest in rows)
                windows += [(pack, window) for window in _windows(rows)]
        pool = ThreadPoolExecutor(VERIFIERS)
        try:
            others = pool.map(self._check, sorted(wanted))
            for pack, rows in windows:  # not in the pool: threads that hash 4 KiB at a time are slower than one
                yield self._check_window(pack, rows)
            yield from others
        finally:
            pool.shutdown(cancel_futures=True)

    # --- writing

    def put(self, data: bytes) -> str:
        """Keep `data`, and return its digest. Raises NoSpace, StoreError."""
        raw = hashlib.sha256(data).digest()
        try:
            if len(data) > SMALL:
                self._put_large(raw, data)
            else:
                self._put_small(raw, data)
        except OSError as error:
            raise files.explain(self.path, error, "a content", len(data)) from error
        return raw.hex()

    def put_pieces(self, write: Callable[[Callable[[bytes], None]], T], head: bytes = b"") -> tuple[str, T]:
        """Keep `head` and the pieces that `write` gives to what it is called with, without having all in memory; the
        digest, and what `write` returns. Raises NoSpace, StoreError, and what `write` raises."""
        hasher, pieces, size = hashlib.sha256(head), [head], len(head)
        with self._temporary() as temporary:

            def take(piece: bytes) -> None:
                nonlocal size
                hasher.update(piece)
                pieces.append(piece)
                size += len(piece)
                if size > SMALL:
                    data = b"".join(pieces)
                    pieces.clear()
                    with files.explained(self.path, "a content", len(data)):
                        files.write_all(temporary.fd, data, size - len(data))

            result = write(take)
            if size <= SMALL:
                return self.put(b"".join(pieces)), result
            with files.explained(self.path, "a content", size):
                self._name(temporary, hasher.digest(), size)
        return hasher.hexdigest(), result

    def put_fd(self, fd: int) -> tuple[str, int]:
        """Keep what can be read from `fd` from offset 0 to its end (holes kept); return digest and size.

        Moves the position of `fd`. Raises NoSpace, StoreError; OSError of reading `fd`.
        """
        stat = os.fstat(fd)
        data = stream.small(fd, stat, SMALL)
        if data is not None:
            return self.put(data), len(data)
        size = stat.st_size
        if size <= SMALL and not stream.has_holes(fd, stat):  # it grew, and may go on; what is in /proc has no size
            size = os.fstat(fd).st_size or stream.ENDLESS
        with self._temporary() as temporary:
            raw, size = self._fill(temporary, fd, size)
            with files.explained(self.path, "a content", size):
                self._name(temporary, raw, size)
        return raw.hex(), size

    def put_again(self, data: bytes) -> str:
        """As `put`, of a small content that is there already and damaged. Raises NoSpace, StoreError."""
        raw = hashlib.sha256(data).digest()
        with self._lock, files.explained(self.path, "a content", len(data)):
            if not self._writers.has(raw):
                self._writers.add(raw, data)
        return raw.hex()

    def adopt(self, pack: Pack) -> None:
        """Have a whole pack of another store, unchecked. Raises NoSpace, StoreError."""
        for source in (pack.path, pack.index_path):
            with self._temporary() as temporary, files.explained(self.path, "a pack"):
                with open(source, "rb", buffering=0) as file:
                    size = os.fstat(file.fileno()).st_size
                    _digest, _size, refused = stream.copy_whole(file.fileno(), temporary.fd, size)
                if refused:
                    raise OSError(refused, os.strerror(refused))
                temporary.name(os.path.join(self.packs.directory, os.path.basename(source)))
        with self._lock, files.explained(self.path):
            self._unsynced.add(self.packs.directory)
            self.packs.refresh()

    def flush(self) -> None:
        """Put everything on disk, under its name: a manifest may name it now. Raises NoSpace, StoreError."""
        with self._lock, files.explained(self.path, "a pack", self._writers.size):
            self._writers.publish()
            for directory in list(self._unsynced):
                files.sync_directory(directory)
                self._unsynced.discard(directory)

    def forget(self) -> None:
        """Give up what was not flushed, and look at the directory again for everything: others may have changed it."""
        with self._lock, files.explained(self.path):
            self._listed.clear()
            self.packs.forget()
            self._writers.forget()

    # --- by the thousand, for the native kernel

    def lacking(self, digests: bytes) -> bytes:
        """A flag for each of the digests (32 bytes each): 1 where the content is not there. Raises StoreError."""
        native, step = self.packed(), AT_ONCE * DIGEST
        flags = bytearray()
        for at in range(0, len(digests), step):
            some = digests[at : at + step]
            flags += native.lacking(some) if native is not None else b"\1" * (len(some) // DIGEST)
        at = flags.find(1)
        while at >= 0:
            flags[at] = not self.has(digests[at * DIGEST : (at + 1) * DIGEST].hex())
            at = flags.find(1, at + 1)
        return bytes(flags)

    def packed(self) -> Any:
        """Published packs as the native kernel reads them; None without one. Raises StoreError."""
        with files.explained(self.path):
            return self.packs.native()

    def receive(self, read: Callable[[Any, Callable[[], Any], int, int], None]) -> bool:
        """Take contents from threads of the native kernel: `read` is called with the packs there are, with what gives
        the one to write to, with how large a pack may be, and how many threads to use. Whether that can be done. Raises
        NoSpace, StoreError."""
        packs = self.packed()
        if packs is None:
            return False
        with files.explained(self.path, "a piece of a pack", writers.PIECE):
            read(packs, self._writers.following, writers.PACK_LIMIT, selected.reading_threads())
        with self._lock, files.explained(self.path):
            if self.packs.all():
                self._unsynced.add(self.packs.directory)  # as _is_kept has it
        return True

    # --- inside

    def _raw(self, digest: str) -> bytes:
        try:
            raw = bytes.fromhex(digest)
        except ValueError:
            raw = b""
        if len(raw) != hashlib.sha256().digest_size:
            raise ContentMissing(digest=digest, path=self.path)
        return raw

    def object_path(self, digest: str) -> str:
        """Where the large content would be. Raises ContentMissing for what is no digest."""
        return self._object_path(self._raw(digest).hex())

    def _object_path(self, digest: str) -> str:
        return os.path.join(self.objects, digest[:2], digest)

    def _packed(self, raw: bytes) -> bool:
        with self._lock:
            return self._writers.has(raw) or self.packs.find(raw) is not None

    def _unpublished(self, raw: bytes) -> bytes | None:
        with self._lock, files.explained(self.path):
            found = self._writers.get(raw)
        if found is None:
            return None
        data, path = found
        if hashlib.sha256(data).digest() != raw:
            raise _damaged(path, raw)
        return data

    def _find(self, raw: bytes) -> tuple[_Source, Place]:
        found = self.packs.find(raw)
        if found:
            return found
        path = self._object_path(raw.hex())
        return _Object(path), Place(0, os.stat(path).st_size)

    def _reading(self, raw: bytes, read: Callable[[_Source, Place], T]) -> T:
        """What `read` makes of a published content; asked twice, as another process may be joining packs meanwhile."""
        with files.explained(self.path):
            try:
                return read(*self._find(raw))
            except FileNotFoundError:
                self.packs.refresh()
            try:
                return read(*self._find(raw))
            except FileNotFoundError:  # a damaged index hides what its pack has: then that is the message
                raise self.packs.damage() or ContentMissing(digest=raw.hex(), path=self.path) from None

    def _copy_object(self, raw: bytes, source: int, target: int, sparse: bool) -> int:
        status = os.fstat(source)
        size = status.st_size
        os.ftruncate(target, 0)
        try:
            if stream.clone(source, target):
                (digest, _size), refused = stream.hashed(source, size), 0
            elif sparse or stream.has_holes(source, status):
                digest, refused = stream.copy_dense(source, target, size, sparse)
            else:
                digest, _size, refused = stream.copy_whole(source, target, size)
        except OSError as error:
            raise files.explain(self.path, error) from error
        if refused:
            raise OSError(refused, os.strerror(refused))  # it is the target's
        if digest != raw:
            raise _damaged(self._object_path(raw.hex()), raw)
        os.ftruncate(target, size)
        return size

    def _check(self, raw: bytes) -> Checked:
        try:
            data = self._unpublished(raw)
            if data is not None:
                return Checked(1, len(data))
            return Checked(1, self._reading(raw, lambda source, place: _read_through(source, place, raw)))
        except StoreError as problem:
            return Checked(0, 0, ((raw.hex(), problem),))

    def _check_window(self, pack: Pack, rows: list[tuple[Place, bytes]]) -> Checked:
        start = rows[0][0].offset
        try:
            view = memoryview(pack.read(Place(start, sum(rows[-1][0]) - start)))
        except (OSError, StoreCorrupt):
            return _sum([self._check(raw) for _place, raw in rows])  # which of them can be read?
        good = size = 0
        again = []
        for (offset, length), raw in rows:
            if hashlib.sha256(view[offset - start : offset - start + length]).digest() == raw:
                good += 1
                size += length
            else:
                again.append(self._check(raw))
        return _sum([Checked(good, size), *again])

    def _put_small(self, raw: bytes, data: bytes) -> None:
        with self._lock:
            if not self._is_kept(raw):
                self._writers.add(raw, data)

    def _put_large(self, raw: bytes, data: bytes) -> None:
        with self._temporary() as temporary:
            files.write_all(temporary.fd, data, 0)
            self._name(temporary, raw, len(data))

    def _is_kept(self, raw: bytes) -> bool:
        """Whether a small content is there already; then its name is synced with the next flush, as if it were new."""
        if self._writers.has(raw):
            return True
        if self.packs.find(raw):
            self._unsynced.add(self.packs.directory)  # whoever published it may have been killed before its sync
            return True
        digest = raw.hex()
        directory = os.path.join(self.objects, digest[:2])
        if digest[:2] not in self._listed:  # one listing instead of a stat each: those cost a round trip on a network
            self._listed[digest[:2]] = set(files.names(directory))
        if digest in self._listed[digest[:2]]:
            self._unsynced.add(directory)
            return True
        return False

    @contextmanager
    def _temporary(self) -> Iterator[Temporary]:
        with files.explained(self.path, "a content"):
            temporary = self._temporaries.file()
        try:
            yield temporary
        finally:
            with files.explained(self.path):
                temporary.close()

    def _fill(self, temporary: Temporary, fd: int, size: int) -> tuple[bytes, int]:
        """Copy the first `size` bytes of `fd`; digest and size of what was there."""
        needed = 0 if size == stream.ENDLESS else size
        before = os.fstat(fd)
        if needed and stream.clone(fd, temporary.fd):
            if unchanged := _hashed_since(fd, before, temporary.fd):
                return unchanged
            with files.explained(self.path):
                return stream.hashed(temporary.fd, os.fstat(temporary.fd).st_size)
        direct = files.open_direct(temporary.fd, temporary.path) if LARGE < size < stream.ENDLESS else -1
        try:
            raw, size, refused = stream.copy_whole(fd, temporary.fd, size, direct)
        finally:
            if direct >= 0:
                os.close(direct)
        with files.explained(self.path, "a content", needed):
            if refused:
                raise OSError(refused, os.strerror(refused))
            os.ftruncate(temporary.fd, size)  # a hole at the end
        return raw, size

    def _name(self, temporary: Temporary, raw: bytes, size: int) -> None:
        digest = raw.hex()
        target = self._object_path(digest)
        directory = os.path.dirname(target)
        if self._packed(raw):
            directory = self.packs.directory
        elif _size(target) != size:
            files.make_directory(directory)
            temporary.name(target)
            with self._lock:
                self._listed.get(digest[:2], set()).add(digest)
                self._new_bytes += min(size, os.fstat(temporary.fd).st_blocks * 512)
        with self._lock:
            self._unsynced.add(directory)


def _hashed_since(source: int, before: os.stat_result, clone: int) -> tuple[bytes, int] | None:
    """Digest and size of `source`, if those are what its reflink `clone` has: nothing changed it since `before`.

    Mostly it is in memory, and nothing of the clone is. Writes through a mapping are seen, too: to clone is to write
    out first, and from then on the next write to each page gives another ctime.
    """
    if not is_fine(clone):
        return None
    digest, size = stream.hashed(source, before.st_size)
    sizes = {size, before.st_size, os.fstat(clone).st_size}
    now = os.fstat(source)
    same = (now.st_size, now.st_mtime_ns, now.st_ctime_ns) == (size, before.st_mtime_ns, before.st_ctime_ns)
    return (digest, size) if same and len(sizes) == 1 else None


def _checked(source: _Source, place: Place, raw: bytes) -> bytes:
    data = source.read(place)
    if hashlib.sha256(data).digest() != raw:
        raise _damaged(source.path, raw, place.offset)
    return data


def _open_or_get(source: _Source, place: Place, raw: bytes) -> bytes | BinaryIO:
    """A small content, or the open file of a large one."""
    if isinstance(source, Pack):
        return _checked(source, place, raw)
    return files.retrying(lambda: open(source.path, "rb", buffering=0))


def _read_through(source: _Source, place: Place, raw: bytes) -> int:
    """Size of a content that is as its digest says."""
    opened = _open_or_get(source, place, raw)
    if isinstance(opened, bytes):
        return len(opened)
    with opened:
        digest, size = stream.hashed(opened.fileno(), os.fstat(opened.fileno()).st_size)
    if digest != raw:
        raise _damaged(source.path, raw)
    return size


def _damaged(path: str, raw: bytes, offset: int = 0) -> StoreCorrupt:
    where = f" at byte {offset}" if offset else ""
    return StoreCorrupt(path=path, problem=f"content {raw.hex()}{where} reads as something else")


def _split(digests: bytes) -> list[bytes]:
    return [digests[at : at + DIGEST] for at in range(0, len(digests), DIGEST)]


def _size(path: str) -> int:
    """Size of the file `path`; -1 when it isn't there."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return -1


def _sum(parts: list[Checked]) -> Checked:
    problems = tuple(problem for part in parts for problem in part.problems)
    return Checked(sum(part.good for part in parts), sum(part.bytes for part in parts), problems)


def _windows(rows: list[tuple[Place, bytes]]) -> Iterator[list[tuple[Place, bytes]]]:
    """Rows of one pack, sorted by place, in groups that lie close together."""
    group: list[tuple[Place, bytes]] = []
    for row in rows:
        place = row[0]
        if group and (
            place.offset + place.length - group[0][0].offset > WINDOW or place.offset - sum(group[-1][0]) > GAP
        ):
            yield group
            group = []
        group.append(row)
    if group:
        yield group
