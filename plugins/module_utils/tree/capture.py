# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shadow a tree: what is there becomes a listing and contents; what did not change since last time is not read."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from ..errors import UmbraError, Unstable
from ..kernel import selected
from ..providers.base import Contents, Estimate
from . import messages, metadata, native, statindex
from .entry import Entry, format_line, join_lines, parent_of
from .rootfs import RootFs, magic
from .scan import Look, Scan, TreeOptions, open_root, scan

ATTEMPTS = 3
LARGE = 128 << 10  # bytes of what the native kernel leaves over because of its size
SHOWN = 20  # paths of one sort
BLOCK = 512  # of st_blocks


@dataclass(frozen=True)
class Captured:
    """A tree that was shadowed: digests of its listing and stat index, its size, and how many files had to be read.

    `skipped` are the first mount points that were not entered, as printable paths. `incremental` says whether last
    time's generation was of use. `unstable` are the first paths that changed each time they were read, and were
    taken as they are. `parent` is the directory that holds the root, without symlinks, or None.
    """

    tree: str
    stat: str
    bytes: int
    items: int
    read_items: int
    skipped: tuple[str, ...] = ()
    incremental: bool = False
    unstable: tuple[str, ...] = ()
    parent: str | None = None


def capture(
    root: bytes,
    contents: Contents,
    options: TreeOptions,
    previous: tuple[str, str] | None = None,
    allow: Callable[[Estimate], None] | None = None,
) -> Captured:
    """Shadow the tree at `root` into `contents`; `previous` are the digests of the tree and stat index of last time.

    An absent root gives an empty listing. `allow` is told how big the tree is before anything is kept, and refuses by
    raising. Raises SourceUnreadable, Unstable, Unsupported, and what `contents` raises.
    """
    with Look(root, options) as look:
        if allow:
            allow(_size(look.found))
        return capture_found(look, contents, options, previous)


def capture_found(
    look: Look, contents: Contents, options: TreeOptions, previous: tuple[str, str] | None = None
) -> Captured:
    """The same for what was found when we looked: what came since is not in it, and what has changed since may be in it
    as it was; then its stat is in the index as it was, too."""
    fs, found, started = look.fs, look.found, look.started
    captured = None
    if found.tree is not None:
        captured = _NativeCapture(fs, contents, options, previous).run(found, started)
    captured = captured or _Capture(fs, contents, options, previous).run(found, started)
    return replace(captured, parent=os.fsdecode(fs.parent) if fs.parent is not None else None)


def estimate(root: bytes, options: TreeOptions) -> Estimate:
    """Size of the tree at `root`, by stat alone; no items when it is absent. Raises SourceUnreadable, Unsupported."""
    with open_root(root, options) as fs:
        found = scan(fs, options)
        if os.geteuid() != 0:
            _check_access(fs, found.nodes, options)
    return _size(found)


def _size(found: Scan) -> Estimate:
    if found.tree is not None:
        size, numbers = found.tree.sizes()
        candidates: Iterable[os.stat_result] = map(found.tree.stat, numbers)
    else:
        size, candidates = 0, found.nodes.values()
    seen: set[tuple[int, int]] = set()
    for st in candidates:
        if stat.S_ISREG(st.st_mode) and (st.st_nlink == 1 or (st.st_dev, st.st_ino) not in seen):
            seen.add((st.st_dev, st.st_ino))
            size += st.st_size
    return Estimate(size, len(found.nodes))


def _check_access(fs: RootFs, nodes: Mapping[bytes, os.stat_result], options: TreeOptions) -> None:
    for path in sorted(nodes):
        if stat.S_ISREG(nodes[path].st_mode):
            try:
                os.close(fs.open_file(path))
            except OSError as error:
                if error.errno not in messages.GONE:
                    raise messages.unreadable(options.name, messages.join(fs.root, path), error) from error


class _Lines(Protocol):
    """The last shadow of a tree."""

    def line(self, path: bytes, st: os.stat_result) -> str | None:
        """The line of the entry when it did not change and the store still has its content, else None."""


class _Capture:
    """One pass over a tree. Each entry is read from one descriptor, so that it is of one thing at one moment."""

    def __init__(self, fs: RootFs, contents: Contents, options: TreeOptions, previous: tuple[str, str] | None) -> None:
        self._fs = fs
        self._contents = contents
        self._options = options
        self._previous = previous
        self._generation: _Lines | None = None
        self._lines: list[str] = []
        self._stats: list[str] = []
        self._directories: set[bytes] = set()
        self._firsts: dict[tuple[int, int], bytes] = {}
        self._bytes = 0
        self._read_items = 0
        self._opening = threading.Lock()  # a RootFs is for one thread at a time
        self._unsettled: list[bytes] = []  # paths of what was taken although it changed
        self._looked_at = 0  # entries that were not taken over as they were

    def run(self, found: Scan, started: int) -> Captured:
        """Shadow what was found; it was looked at after `started`, nanoseconds since the epoch."""
        if self._previous:
            self._generation = statindex.Generation.load(self._contents, *self._previous)
        for number, path in enumerate(sorted(found.nodes)):
            self._options.progress.part(number, len(found.nodes))
            if not path or parent_of(path) in self._directories:  # else its directory went away meanwhile
                self._add(path, found.nodes[path])
        tree = self._contents.put(join_lines(self._lines))
        lines = "\n".join((*self._stats, "")).encode("ascii")
        index = partial(self._contents.put, statindex.encode(tree, started, lines))
        return self._captured(found, tree, index, len(self._lines))

    def _captured(self, found: Scan, tree: str, put_index: Callable[[], str], items: int) -> Captured:
        if self._previous and self._generation and tree == self._previous[0] and not self._looked_at:
            index = self._previous[1]  # it proves as much as a new one would
        else:
            index = put_index()
        skipped, unstable = self._shown(found.skipped), self._shown(self._unsettled)
        incremental = self._generation is not None
        return Captured(tree, index, self._bytes, items, self._read_items, skipped, incremental, unstable)

    def _shown(self, paths: Iterable[bytes]) -> tuple[str, ...]:
        return tuple(messages.printable(self._full(path)) for path in sorted(paths)[:SHOWN])

    def _add(self, path: bytes, st: os.stat_result) -> None:
        try:
            line, st, size = self._line(path, st)
        except OSError as error:
            if error.errno not in messages.GONE:
                raise messages.unreadable(self._options.name, self._full(path), error) from error
            self._accept_gone(path)
            return
        self._lines.append(line)
        self._stats.append(statindex.stat_line(st))
        self._bytes += size
        if stat.S_ISDIR(st.st_mode):
            self._directories.add(path)

    def _accept_gone(self, path: bytes) -> None:
        """What vanished is left out; but what became another kind of thing was never looked at as what it is now."""
        try:
            self._fs.lstat(path)
        except OSError:
            return
        self._accept_unstable(path)

    def _line(self, path: bytes, st: os.stat_result) -> tuple[str, os.stat_result, int]:
        """The entry's line, what stat said when it was read, and how many bytes of contents it has."""
        if st.st_nlink > 1 and not stat.S_ISDIR(st.st_mode):
            first = self._firsts.get((st.st_dev, st.st_ino))
            if first is not None:
                return format_line(Entry(path, "h", target=first)), st, 0
        line = self._generation.line(path, st) if self._generation else None
        size = st.st_size if stat.S_ISREG(st.st_mode) else 0
        if line is None:
            self._looked_at += 1
            entry, st = self._read(path, st)
            line, size = format_line(entry), entry.size
        if st.st_nlink > 1 and not stat.S_ISDIR(st.st_mode):
            self._firsts.setdefault((st.st_dev, st.st_ino), path)
        return line, st, size

    def _read(self, path: bytes, st: os.stat_result) -> tuple[Entry, os.stat_result]:
        if stat.S_ISREG(st.st_mode):
            return self._read_file(path)
        if stat.S_ISDIR(st.st_mode):
            fd = self._fs.dir(path)
            st = os.fstat(fd)
            return metadata.entry_of(path, st, metadata.read_xattrs(fd)), st
        fd = self._fs.pin(path)
        try:
            if stat.S_IFMT(os.fstat(fd).st_mode) != stat.S_IFMT(st.st_mode):
                raise OSError(errno.ENXIO, "is of another kind now")
            st = os.fstat(fd)
            target = os.readlink(b"", dir_fd=fd) if stat.S_ISLNK(st.st_mode) else b""
            return metadata.entry_of(path, st, metadata.read_xattrs(magic(fd)))._replace(target=target), st
        finally:
            os.close(fd)

    def _read_file(self, path: bytes) -> tuple[Entry, os.stat_result]:
        """Read a file until it was the same before and after. Raises OSError, Unstable."""
        for dummy in range(ATTEMPTS):
            with self._opening:
                fd = self._fs.open_file(path)
            try:
                before, settled = _settle(fd)
                xattrs = metadata.read_xattrs(fd)
                sparse = _has_holes(fd, before)
                digest, size = self._contents.put_fd(fd)
                after = os.fstat(fd)
            finally:
                os.close(fd)
            with self._opening:
                self._read_items += 1
            if settled and statindex.stat_line(before) == statindex.stat_line(after) and size == before.st_size:
                break
        else:
            self._accept_unstable(path)
        return metadata.entry_of(path, before, xattrs)._replace(size=size, digest=digest, sparse=sparse), before

    def _accept_unstable(self, path: bytes) -> None:
        if not self._options.allow_unstable:
            where = messages.printable(self._full(path))
            raise Unstable(name=self._options.name, path=where, attempts=ATTEMPTS)
        with self._opening:
            self._unsettled.append(path)

    def _full(self, path: bytes) -> bytes:
        return messages.join(self._fs.root, path)


class _NativeCapture(_Capture):
    """The same by the native kernel; what that leaves over is done as in the pure twin."""

    _ahead: dict[bytes, tuple[Entry, os.stat_result] | None]  # large files that were read before their turn

    def run(self, found: Scan, started: int) -> Captured | None:  # type: ignore[override]
        """As in _Capture; None when a directory went away meanwhile: then all has to be done again."""
        kernel = selected.kernel()
        tree = found.tree
        if kernel is None:
            return None
        listing = native.load_generation(kernel, self._contents, *self._previous) if self._previous else None
        capture = kernel.Capture(tree, listing, native.is_root())
        same = capture.match()
        if same:
            same -= capture.lost(native.lacking(self._contents, capture.digests()))
        if self._previous and listing is not None and same == len(tree) == len(listing):
            size, dummy = tree.sizes()
            return Captured(*self._previous, size, same, 0, self._shown(found.skipped), True)
        self._generation = _NativeLines(capture, self._contents) if listing is not None else None
        native.read(self._contents, capture)
        left = capture.others()
        self._read_ahead(tree, left, capture)
        lines = {}
        for number in left:
            if isinstance(self._generation, _NativeLines):
                self._generation.number = number
            path, st = tree.path(number), tree.stat(number)
            before, self._bytes = len(self._lines), 0
            self._add(path, st)
            if len(self._lines) > before:
                lines[number] = (self._lines[-1].encode() + b"\n", self._stats[-1].encode() + b"\n", self._bytes)
            elif stat.S_ISDIR(st.st_mode):
                return None
        digest, self._bytes = native.put_pieces(self._contents, partial(capture.write, lines, False))
        self._read_items += capture.files_read()
        self._looked_at += len(tree) - same - len(left)

        def put_index() -> str:
            head = statindex.header(digest, started)
            return native.put_pieces(self._contents, partial(capture.write, lines, True), head)[0]

        return self._captured(found, digest, put_index, len(tree) - len(left) + len(lines))

    def _read_ahead(self, tree: Any, left: Iterable[int], capture: Any) -> None:
        """Read large files that have one name, several at a time; what goes wrong is met again, and told, in order."""
        large = []
        for number in left:
            st = tree.stat(number)
            if stat.S_ISREG(st.st_mode) and st.st_nlink == 1 and st.st_size > LARGE and not capture.line_of(number):
                large.append(tree.path(number))
        with ThreadPoolExecutor(selected.threads()) as pool:
            self._ahead = dict(zip(large, pool.map(self._try, large)))

    def _try(self, path: bytes) -> tuple[Entry, os.stat_result] | None:
        try:
            return super()._read_file(path)
        except (OSError, UmbraError):
            return None

    def _read_file(self, path: bytes) -> tuple[Entry, os.stat_result]:
        return self._ahead.pop(path, None) or super()._read_file(path)


class _NativeLines:
    """The last shadow as the native kernel knows it, for the node `number`."""

    def __init__(self, capture: Any, contents: Contents) -> None:
        self.number = 0
        self._capture, self._contents = capture, contents

    def line(self, path: bytes, st: os.stat_result) -> str | None:
        """The line of the node when stat proves that it did not change, and the store has its content."""
        line: str | None = self._capture.line_of(self.number)
        if line is not None and line[0] == "f" and not self._contents.has(line.split(" ", 8)[7]):
            return None
        return line


def _settle(fd: int) -> tuple[os.stat_result, bool]:
    """What stat says of a file, and whether its ctime is so old that the next change must give it another one."""
    st = os.fstat(fd)
    if not _is_fresh(st):
        return st, True
    time.sleep(statindex.MARGIN / statindex.SECOND)
    st = os.fstat(fd)
    return st, not _is_fresh(st)


def _is_fresh(st: os.stat_result) -> bool:
    return 0 <= time.time_ns() - st.st_ctime_ns < statindex.MARGIN


def _has_holes(fd: int, st: os.stat_result) -> bool:
    # Few blocks alone prove nothing: file systems keep small files in the inode, and compress.
    return st.st_blocks * BLOCK < st.st_size and os.lseek(fd, 0, os.SEEK_HOLE) < st.st_size
