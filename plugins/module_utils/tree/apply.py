# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a tree back: only what differs is written.

Nothing is written down on the way: whenever it is killed, the next run sees what still differs, and goes on. All it can
leave behind are names of its own, `.umbra-tmp-` and 24 hexadecimal digits, which the next run removes.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from ..errors import NoSpace, RestoreFailed
from ..kernel import selected
from ..providers.base import Contents, Outcome
from . import messages, native
from .compare import CREATE, METADATA, REMOVE, Comparison, Difference, Missing, compare_open
from .entry import Entry
from .rootfs import DIRECTORY, ForeignLink, RootFs
from .scan import TreeOptions, require_proc
from .write import Writer

METHOD = "in place"
BLOCK = 512  # of st_blocks
T = TypeVar("T")


def apply(root: bytes, tree: str, stats: str | None, contents: Contents, options: TreeOptions) -> Outcome:
    """Make the tree at `root` equal to the listing `tree`; `stats` is the digest of its stat index, if there is one.

    It is on disk when this returns. Raises RestoreFailed; NoSpace, when nothing was changed; SourceUnreadable,
    Unsupported, and what `contents` raises.
    """
    with _open(root, options) as fs:
        return _Apply(fs, compare_open(fs, tree, stats, contents, options), contents, options).run()


def extract(directory: bytes, tree: str, contents: Contents, name: str = "") -> Outcome:
    """Lay the tree out in `directory`, which is empty and private. Raises as `apply`."""
    return apply(directory, tree, None, contents, TreeOptions(name=name))


def _open(root: bytes, options: TreeOptions) -> RootFs:
    require_proc(options)
    try:
        return RootFs(root, options.one_file_system, own_links=True)
    except ForeignLink as error:
        problem = f"{messages.printable(root)}: {messages.reason(error)}"
        remedy = "Look where it leads; then restore as its owner, or remove it."
        raise RestoreFailed(name=options.name, problem=problem, remedy=remedy) from error
    except OSError as error:
        raise messages.not_restored(options.name, root, error) from error


class _Apply:
    """One restore: what must go, directories and what is in them, other names of files, directories' metadata."""

    def __init__(self, fs: RootFs, comparison: Comparison, contents: Contents, options: TreeOptions) -> None:
        self._fs = fs
        self._comparison = comparison
        self._options = options
        self._contents = contents
        self._writer = Writer(fs, contents)
        self._names = comparison.link_counts
        self._rewritten: set[bytes] = set()
        self._bytes = 0

    def run(self) -> Outcome:
        changed = len(self._comparison.differences)
        if self._fs.parent is None and not changed:
            return Outcome(0, 0, METHOD)  # there is nothing, and there was nothing
        self._refuse_conflicts()
        with self._told():
            self._check_space()
            disk = self._open_disk()
        try:
            self._change()
            with self._told():
                _sync(disk)
        finally:
            if disk is not None:
                os.close(disk)
        return Outcome(changed, self._bytes, METHOD)

    def _change(self) -> None:
        comparison, writer = self._comparison, self._writer
        with self._told():
            writer.remove_temporaries_beside()
        self._each(comparison.found.temporaries, lambda path: path, lambda path: writer.remove(path, directory=False))
        # What is in a directory goes before the directory, and comes after it.
        self._each(reversed(comparison.explicit), _path_of, self._clear)
        self._each(comparison.explicit, _path_of, self._make)
        missing = comparison.missing
        if missing:
            self._make_missing(missing)
        differing = {difference.path for difference in comparison.explicit}
        affected = [
            link
            for link in comparison.links
            if link.path in differing
            or link.target in self._rewritten
            or (missing and (missing.misses(link.path) or missing.misses(link.target)))
        ]
        self._each(affected, _path_of, writer.link)
        touched = writer.touched.union(self._finish_missing(missing) if missing else ())
        # One that is no entry went, or is only kept for what is excluded in it.
        ends = (comparison.entries.get(path) for path in sorted(touched, reverse=True))
        directories = [entry for entry in ends if entry and entry.kind == "d"]
        self._each(directories, _path_of, lambda entry: writer.finish(entry, self._live(entry.path)))

    def _make_missing(self, missing: Missing) -> None:
        """Make what there is nothing of, most of it at once."""
        packs = native.packed(self._contents)
        if packs is not None:
            missing.make_directories()
            self._writer.made.update(missing.made())
            self._bytes += missing.make_files(packs, self._writer.prefix, selected.threads())
        large = []
        for entry in self._comparison.entries_of(missing.missing()):
            if entry.kind == "f":
                large.append(entry)  # their directories come first
            else:
                self._each([entry], _path_of, lambda one: self._make(Difference(CREATE, one.path, one, None)))
        self._rewritten.update(entry.path for entry in large)
        with ThreadPoolExecutor(selected.threads()) as pool:
            self._bytes += sum(pool.map(self._write_file, large))
        self._writer.touched.update(missing.parents())

    def _finish_missing(self, missing: Missing) -> list[bytes]:
        """Give the directories that were made at once their metadata; those that still need it."""
        # Who is not root can't enter every directory again after that, and needs them all in one order.
        return missing.finish() if native.is_root() else list(missing.made())

    def _each(self, items: Iterable[T], path_of: Callable[[T], bytes], act: Callable[[T], object]) -> None:
        """Do the same for all; what the system refuses is told with its path."""
        for item in items:
            try:
                act(item)
            except OSError as error:
                raise self._failed(path_of(item), error) from error

    def _clear(self, difference: Difference) -> None:
        """Remove what is not in the shadow, and what can't be renamed over."""
        if difference.live is None:
            return
        directory = stat.S_ISDIR(difference.live.st_mode)
        if difference.entry is None or directory != (difference.entry.kind == "d"):
            self._writer.remove(difference.path, directory)

    def _make(self, difference: Difference) -> None:
        entry = difference.entry
        if entry is None or entry.kind == "h":
            return
        if entry.kind == "d":
            if difference.action == METADATA:
                self._writer.touched.add(entry.path)
            else:
                self._writer.directory(entry.path)
            return
        if difference.action == METADATA and difference.live is not None:
            names = 1 + self._names[entry.path]
            if self._writer.repair(entry, difference.live, names):
                return
        self._write(entry)

    def _write(self, entry: Entry) -> None:
        self._rewritten.add(entry.path)
        if entry.kind == "f":
            self._bytes += self._writer.file(entry)
        else:
            self._writer.special(entry)

    def _write_file(self, entry: Entry) -> int:
        try:
            return self._writer.file(entry)
        except OSError as error:
            raise self._failed(entry.path, error) from error

    def _live(self, path: bytes) -> os.stat_result | None:
        """The directory that was there when we looked, None when there was none."""
        live = self._comparison.found.nodes.get(path)
        return live if live and stat.S_ISDIR(live.st_mode) else None

    def _refuse_conflicts(self) -> None:
        for path, problem in self._comparison.conflicts:
            full = messages.printable(messages.join(self._fs.root, path))
            remedy = "Nothing was changed. Unmount it, or move it away, and run again."
            raise RestoreFailed(name=self._options.name, problem=f"{full}: {problem}", remedy=remedy)

    def _check_space(self) -> None:
        """Raise NoSpace when the disk would be full on the way; each file is there twice for a moment."""
        level = peak = 0
        explicit, missing = self._comparison.explicit, self._comparison.missing
        for difference in explicit:
            if difference.action == REMOVE:
                level -= _freed(difference)
        for difference in explicit:
            entry = difference.entry
            if entry is not None and entry.kind == "f" and difference.action != METADATA and not entry.sparse:
                peak = max(peak, level + entry.size)
                level += entry.size - _freed(difference)
        peak = max(peak, level + (missing.counts()[2] if missing else 0))
        disk = os.fstatvfs(self._disk())
        free = disk.f_frsize * (disk.f_bfree if os.geteuid() == 0 else disk.f_bavail)
        if peak > free:
            where = messages.printable(self._fs.root)
            raise NoSpace(where=where, free=free, what=f"restoring {self._options.name}", needed=peak)

    def _disk(self) -> int:
        """A descriptor on the file system that is written to, ours until the next change of directory."""
        root = self._comparison.found.nodes.get(b"")
        return self._fs.dir(b"") if root is not None and stat.S_ISDIR(root.st_mode) else self._fs.at(b"")[0]

    def _open_disk(self) -> int | None:
        """What `_sync` needs. It is opened before the first write, so that it is told of errors in writing back."""
        if not self._options.one_file_system:
            return None
        try:
            return os.open(b".", DIRECTORY, dir_fd=self._disk())
        except PermissionError:
            return None  # of a directory that may not be listed; then everything is synced

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failed(b"", error) from error

    def _failed(self, path: bytes, error: OSError) -> RestoreFailed:
        return messages.not_restored(self._options.name, messages.join(self._fs.root, path), error)


def _path_of(item: Difference | Entry) -> bytes:
    return item.path


def _freed(difference: Difference) -> int:
    live = difference.live
    if live is None or not stat.S_ISREG(live.st_mode) or live.st_nlink > 1:
        return 0
    return live.st_blocks * BLOCK


def _sync(disk: int | None) -> None:
    """Write the file system that `disk` is on to the disk, or all of them. Raises OSError."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if disk is None or syncfs is None:
        os.sync()
    elif syncfs(disk) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
