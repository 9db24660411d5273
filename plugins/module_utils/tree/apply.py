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
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from ..ctimes import has_fine_clock
from ..errors import ChangedBeforeRestore, ChangedSinceKept, NoSpace, RestoreFailed
from ..kernel import selected
from ..providers.base import Contents, Outcome
from . import messages, native
from .compare import CREATE, METADATA, REMOVE, REPLACE, Bulk, Comparison, Difference, compare_open
from .entry import Entry, parent_of
from .kept import Kept, is_beginning
from .rootfs import DIRECTORY, ForeignLink, RootFs
from .scan import TreeOptions, require_proc
from .write import Changed, Writer
from .written import Written

METHOD = "in place"
BLOCK = 512  # of st_blocks
LATE_SHOWN = 5
FLUSH = 0.25  # seconds between two syncs on the way
T = TypeVar("T")


@dataclass(frozen=True)
class Guard:
    """What a restore must not lose. `kept` are the digests of the tree and the stat index of the failed state, if that
    was kept; `begin` is called before the first change.
    """

    kept: tuple[str, str] | None = None
    begin: Callable[[], None] = lambda: None


def apply(
    root: bytes, tree: str, stats: str | None, contents: Contents, options: TreeOptions, guard: Guard | None = None
) -> Outcome:
    """As `apply_written`, for who does not validate it."""
    return apply_written(root, tree, stats, contents, options, guard or Guard())[0]


def apply_written(
    root: bytes, tree: str, stats: str | None, contents: Contents, options: TreeOptions, guard: Guard
) -> tuple[Outcome, Written]:
    """Make the tree at `root` equal to the listing `tree`; `stats` is the digest of its stat index, if there is one.

    It is on disk when this returns. Raises RestoreFailed; NoSpace, when nothing was changed; ChangedSinceKept;
    SourceUnreadable, Unsupported, and what `contents` raises.
    """
    with _open(root, options) as fs:
        comparison = compare_open(fs, tree, stats, contents, options)
        job = _Apply(fs, comparison, contents, options, guard)
        outcome = job.run()
        return outcome, job.written(tree)


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

    def __init__(
        self, fs: RootFs, comparison: Comparison, contents: Contents, options: TreeOptions, guard: Guard
    ) -> None:
        self._fs = fs
        self._comparison = comparison
        self._options = options
        self._contents = contents
        self._guard = guard
        self._writer = Writer(fs, contents, comparison.found.nodes)
        self._names = comparison.link_counts
        self._rewritten: set[bytes] = set()
        self._bytes = 0

    def run(self) -> Outcome:
        changed = len(self._comparison.differences)
        if self._fs.parent is None and not changed:
            return Outcome(0, 0, METHOD)  # there is nothing, and there was nothing
        self._refuse_conflicts()
        self._refuse_unkept()
        with self._told():
            self._check_space()
            disk = self._open_disk()
        try:
            if changed:
                self._guard.begin()
                self._writer.remember = disk is not None and has_fine_clock(disk)
            with _flushing(disk):
                self._change()
            with self._told():
                _sync(disk)
        finally:
            if disk is not None:
                os.close(disk)
        return Outcome(changed, self._bytes, METHOD)

    def written(self, tree: str) -> Written:
        """What it wrote of the listing `tree`."""
        bulk = self._comparison.bulk if self._writer.remember else None
        return Written(self._fs.resolved or b"", tree, self._writer.written, bulk.written() if bulk else b"")

    def _change(self) -> None:
        comparison, writer = self._comparison, self._writer
        with self._told():
            writer.remove_temporaries_beside()
        self._each(comparison.found.temporaries, lambda path: path, lambda path: writer.remove(path, directory=False))
        # What is in a directory goes before the directory, and comes after it.
        self._each(reversed(comparison.explicit), _path_of, self._clear)
        bulk = comparison.bulk
        packs = native.packed(self._contents) if bulk else None
        replaced = self._replaced(bulk) if bulk and packs is not None else set()
        self._each((one for one in comparison.explicit if one.path not in replaced), _path_of, self._make)
        if bulk:
            self._make_bulk(bulk, packs)
        differing = {difference.path for difference in comparison.explicit}
        affected = [
            link
            for link in comparison.links
            if link.path in differing
            or link.target in self._rewritten
            or (bulk and (bulk.misses(link.path) or bulk.misses(link.target)))
        ]
        self._each(affected, _path_of, writer.link)
        touched = writer.touched.union(self._finish_missing(bulk) if bulk else ())
        # One that is no entry went, or is only kept for what is excluded in it.
        ends = (comparison.entries.get(path) for path in sorted(touched, reverse=True))
        directories = [entry for entry in ends if entry and entry.kind == "d"]
        self._each(directories, _path_of, lambda entry: writer.finish(entry, self._live(entry.path)))

    def _replaced(self, bulk: Bulk) -> set[bytes]:
        """Paths of files that differ and are replaced with those that are missing."""
        replaced = {
            one.path
            for one in self._comparison.explicit
            if one.action == REPLACE and one.entry and one.entry.kind == "f" and bulk.replace(one.path)
        }
        self._rewritten |= replaced
        self._writer.touched.update(map(parent_of, replaced - {b""}))
        return replaced

    def _make_bulk(self, bulk: Bulk, packs: Any) -> None:
        """Make what there is nothing of, and what is to be replaced with it; most of it at once."""
        if packs is not None:
            bulk.make_directories()
            self._writer.made.update(bulk.made())
            self._bytes += bulk.make_files(packs, self._writer.prefix, selected.threads(), self._writer.remember)
        large = []
        for entry in self._comparison.entries_of(bulk.missing()):
            if entry.kind == "f":
                large.append(entry)  # their directories come first
            else:
                self._each([entry], _path_of, lambda one: self._make(Difference(CREATE, one.path, one, None)))
        self._rewritten.update(entry.path for entry in large)
        with ThreadPoolExecutor(selected.threads()) as pool:
            self._bytes += sum(pool.map(self._write_file, large))
        self._writer.touched.update(bulk.parents())

    def _finish_missing(self, bulk: Bulk) -> list[bytes]:
        """Give the directories that were made at once their metadata; those that still need it."""
        # Who is not root can't enter every directory again after that, and needs them all in one order.
        return bulk.finish() if native.is_root() else list(bulk.made())

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

    def _refuse_unkept(self) -> None:
        """Raise ChangedBeforeRestore for what is to be replaced or removed and is not as it was kept."""
        explicit = self._comparison.explicit
        lost = [one for one in explicit if one.action in (REPLACE, REMOVE) and one.live and _has_content(one.live)]
        if not lost or self._guard.kept is None:
            return
        kept = Kept(self._contents, *self._guard.kept, map(_path_of, lost))
        with self._told():
            late = [one.path for one in lost if one.live and not self._is_safe(kept, one, one.live)]
        if late:
            shown = ", ".join(messages.printable(messages.join(self._fs.root, path)) for path in late[:LATE_SHOWN])
            rest = f" and {len(late) - LATE_SHOWN} more" if len(late) > LATE_SHOWN else ""
            problem = "changed after its failed state was kept"
            raise ChangedBeforeRestore(name=self._options.name, path=f"{shown}{rest}", problem=problem)

    def _is_safe(self, kept: Kept, difference: Difference, live: os.stat_result) -> bool:
        """Whether what is there now can go: it was kept, or the shadow has it."""
        if kept.has(self._fs, difference.path, live, self._options.allow_unstable):
            return True
        entry = difference.entry
        return entry is not None and entry.kind == "f" and is_beginning(self._fs, entry, live, self._contents)

    def _unkept(self, path: bytes, problem: str) -> ChangedSinceKept:
        where = messages.printable(messages.join(self._fs.root, path))
        return ChangedSinceKept(name=self._options.name, path=where, problem=problem)

    def _check_space(self) -> None:
        """Raise NoSpace when the disk would be full on the way; each file is there twice for a moment."""
        level = peak = 0
        explicit, bulk = self._comparison.explicit, self._comparison.bulk
        for difference in explicit:
            if difference.action == REMOVE:
                level -= _freed(difference)
        for difference in explicit:
            entry = difference.entry
            if entry is not None and entry.kind == "f" and difference.action != METADATA and not entry.sparse:
                peak = max(peak, level + entry.size)
                level += entry.size - _freed(difference)
        peak = max(peak, level + (bulk.counts()[2] if bulk else 0))
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
        if isinstance(error, Changed):
            return self._unkept(path, messages.reason(error))
        return messages.not_restored(self._options.name, messages.join(self._fs.root, path), error)


def _path_of(item: Difference | Entry) -> bytes:
    return item.path


def _has_content(live: os.stat_result) -> bool:
    return stat.S_ISREG(live.st_mode) or stat.S_ISLNK(live.st_mode)


def _freed(difference: Difference) -> int:
    live = difference.live
    if live is None or not stat.S_ISREG(live.st_mode) or live.st_nlink > 1:
        return 0
    return live.st_blocks * BLOCK


@contextmanager
def _flushing(disk: int | None) -> Iterator[None]:
    """Have what is written go to the disk meanwhile: there is the less to wait for at the end."""
    try:
        # What one descriptor was told of errors, it is not told again: that of the caller has to learn of them.
        own = os.open(b".", DIRECTORY, dir_fd=disk) if disk is not None else -1
    except OSError:
        own = -1  # then there is the more to wait for
    if own < 0:
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_flush_until, args=(done, own), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        os.close(own)


def _flush_until(done: threading.Event, disk: int) -> None:
    while not done.wait(FLUSH):
        try:
            _sync(disk)
        except OSError:
            return  # the last sync says so


def _sync(disk: int | None) -> None:
    """Write the file system that `disk` is on to the disk, or all of them. Raises OSError."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if disk is None or syncfs is None:
        os.sync()
    elif syncfs(disk) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
