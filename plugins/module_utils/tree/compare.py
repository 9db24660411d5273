# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between a tree now and its shadow; nothing is changed by looking."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from typing import Any, Protocol

from ..kernel import selected
from ..kernel.hashing import sha256_fd
from ..providers.base import Contents
from . import entry as listing
from . import messages, metadata, native, statindex
from .entry import Entry
from .rootfs import RootFs, magic
from .scan import Scan, TreeOptions, open_root, scan
from .written import Written

CREATE = "create"
REPLACE = "replace"
REMOVE = "remove"
METADATA = "metadata"


@dataclass(frozen=True)
class Difference:
    """One name that a restore would change: `action` as in providers.base.Change, `why` in words for people.

    `entry` is what the shadow has there (None: nothing), `live` what is there now (None: nothing).
    """

    action: str
    path: bytes
    entry: Entry | None
    live: os.stat_result | None
    why: tuple[str, ...] = ()

    @property
    def is_directory_time(self) -> bool:
        """Whether it is but the time of a directory, which every name that comes or goes in it sets."""
        return self.why == ("mtime",) and self.entry is not None and self.entry.kind == "d"


class Bulk(Protocol):
    """What is made all at once: entries of which there is nothing, and files that differ. The native kernel knows them,
    and makes most of them."""

    def counts(self) -> tuple[int, int, int]:
        """How many names there were, how many bytes their files have, and those without holes of them."""

    def missing(self) -> list[int]:
        """Numbers of the entries that are still to be made, in order."""

    def misses(self, path: bytes) -> bool:
        """Whether there was nothing at the path, and should have been."""

    def parents(self) -> list[bytes]:
        """Paths of the directories that were there, and miss something."""

    def make_directories(self) -> None:
        """Make those that are missing, so that only we may enter them."""

    def replace(self, path: bytes) -> bool:
        """Have `make_files` replace what differs there; whether that is a file with one name, and is to be a file."""

    def make_files(self, packs: Any, prefix: bytes, threads: int, remember: bool) -> int:
        """Make small files that are missing, or to be replaced; how many bytes they have. `prefix` is that of temporary
        names. Whether to `remember` them: see `written`."""

    def written(self) -> bytes:
        """What was made, for the next comparison with this listing; see Written."""

    def made(self) -> dict[bytes, tuple[int, int]]:
        """Device and inode of the directories that were made, by path."""

    def finish(self) -> list[bytes]:
        """Give the directories that were made their metadata; the paths of those for which that failed."""


@dataclass(frozen=True)
class Comparison:
    """A tree held against its shadow. `explicit` are differences, sorted by path; `bulk` has those that are but names
    to create, if the native kernel looked. `conflicts` are what a restore refuses and why.

    `entries` are by path; `links` are other names of files, `link_counts` says how many a file has, by its first name.
    """

    entries: Mapping[bytes, Entry]
    found: Scan
    explicit: tuple[Difference, ...]
    conflicts: tuple[tuple[bytes, str], ...]
    links: tuple[Entry, ...]
    bulk: Bulk | None = None

    @property
    def link_counts(self) -> Counter[bytes]:
        """How many other names the shadow has for a file, by its first name."""
        return Counter(entry.target for entry in self.links)

    @property
    def differences(self) -> Differences:
        """All of them, sorted by path."""
        return Differences(self)

    def entries_of(self, numbers: Iterable[int]) -> Iterator[Entry]:
        """The entries with these numbers, one by one."""
        entries = self.entries
        return map(entries.numbered, numbers) if isinstance(entries, NativeEntries) else iter(())

    @property
    def bytes(self) -> int:
        """How many bytes of contents a restore would write."""
        explicit = sum(d.entry.size for d in self.explicit if d.entry and d.action in (CREATE, REPLACE))
        return explicit + (self.bulk.counts()[1] if self.bulk else 0)


class Differences(Sequence[Difference]):
    """What differs, sorted by path; those that are only missing are put into words one by one."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        bulk = comparison.bulk
        self._size = len(comparison.explicit) + (bulk.counts()[0] if bulk else 0)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Difference]:
        return merge(self._comparison.explicit, self._missing(), key=lambda difference: difference.path)

    def __getitem__(self, index: Any) -> Any:
        found = list(islice(self, index.stop if isinstance(index, slice) else index + 1))
        return found[index]

    def _missing(self) -> Iterator[Difference]:
        bulk = self._comparison.bulk
        for entry in self._comparison.entries_of(bulk.missing() if bulk else ()):
            yield Difference(CREATE, entry.path, entry, None)


class NativeEntries(Mapping[bytes, Entry]):
    """The entries of a native listing; each is read when it is asked for."""

    def __init__(self, lines: Any) -> None:
        self.lines = lines

    def numbered(self, number: int) -> Entry:
        """The entry of one line."""
        return listing.parse_line(self.lines.line(number))

    def __getitem__(self, path: bytes) -> Entry:
        number = self.lines.find(path)
        if number is None:
            raise KeyError(path)
        return self.numbered(number)

    def __contains__(self, path: object) -> bool:
        return self.lines.find(path) is not None

    def __iter__(self) -> Iterator[bytes]:
        return (self.numbered(number).path for number in range(len(self.lines)))

    def __len__(self) -> int:
        return len(self.lines)


def compare(
    root: bytes, tree: str, stats: str | None, contents: Contents, options: TreeOptions, written: Written | None = None
) -> Comparison:
    """As `compare_open`, for the tree at `root`. Raises Unsupported too."""
    with open_root(root, options) as fs:
        return compare_open(fs, tree, stats, contents, options, written)


def compare_open(
    fs: RootFs, tree: str, stats: str | None, contents: Contents, options: TreeOptions, written: Written | None = None
) -> Comparison:
    """As `compare_found`, for what is found now. Raises SourceUnreadable too."""
    return compare_found(fs, scan(fs, options), tree, stats, contents, options, written)


def compare_found(
    fs: RootFs,
    found: Scan,
    tree: str,
    stats: str | None,
    contents: Contents,
    options: TreeOptions,
    written: Written | None = None,
) -> Comparison:
    """Hold what was found at `fs` against the listing `tree` and its stat index. What neither the index can prove nor
    what was `written` there just now is read.

    Raises SourceUnreadable, ContentMissing, StoreCorrupt, StoreFormatUnknown.
    """
    if written is not None and (written.root, written.tree) != (fs.resolved, tree):
        written = None
    kernel = selected.kernel()
    lines = native.load_listing(kernel, contents, tree, stats) if kernel and found.tree is not None else None
    if kernel and lines is not None:
        known = written.native(lines) if written else None
        bulk = kernel.Comparison(found.tree, lines, native.is_root(), selected.threads(), known)
        return _Compare(fs, NativeEntries(lines), bulk, options, found).run_native(lines, bulk)
    entries = listing.decode(contents.get(tree))
    index = statindex.load(contents, stats, tree, len(entries))
    return _Compare(fs, {entry.path: entry for entry in entries}, index, options, found, written).run()


class _Index(Protocol):
    """What proves that nothing changed."""

    def same(self, number: int, st: os.stat_result) -> bool:
        """Whether the entry of line `number` is what it was when it was shadowed."""


class _Compare:
    """One pass over both; the entries come first names before other names of the same file."""

    def __init__(
        self,
        fs: RootFs,
        entries: Mapping[bytes, Entry],
        index: _Index | None,
        options: TreeOptions,
        found: Scan,
        written: Written | None = None,
    ) -> None:
        self._fs = fs
        self._entries = entries
        self._index = index
        self._options = options
        self._found = found
        self._written = written
        self._differences: list[Difference] = []
        self._conflicts: list[tuple[bytes, str]] = []
        self._inodes: dict[bytes, tuple[int, int]] = {}  # of each file that stays where it is
        self._claimed: set[tuple[int, int]] = set()

    def run(self) -> Comparison:
        for number, entry in enumerate(self._entries.values()):
            self._options.progress.part(number, len(self._entries))
            self._entry(number, entry)
        extra = (path for path in self._found.nodes if path not in self._entries)
        return self._concluded(extra, (entry for entry in self._entries.values() if entry.kind == "h"), None)

    def run_native(self, lines: Any, bulk: Any) -> Comparison:
        """The same, where the native kernel has looked, and left some over."""
        for number in bulk.undecided():
            self._entry(number, listing.parse_line(lines.line(number)))
        extra = map(self._found.tree.path, bulk.extra())
        links = (listing.parse_line(lines.line(number)) for number in lines.links())
        return self._concluded(extra, links, bulk)

    def _concluded(self, extra: Iterable[bytes], links: Iterable[Entry], bulk: Bulk | None) -> Comparison:
        for path in extra:
            if path not in self._found.holding:
                self._differences.append(Difference(REMOVE, path, None, self._found.nodes[path]))
        self._check_root(self._entries)
        self._differences.sort(key=lambda difference: difference.path)
        return Comparison(
            self._entries, self._found, tuple(self._differences), tuple(self._conflicts), tuple(links), bulk
        )

    def _check_root(self, wanted: Mapping[bytes, Entry]) -> None:
        """To remove a root on which something was mounted would empty what was mounted."""
        live = self._found.nodes.get(b"")
        if not live or not stat.S_ISDIR(live.st_mode) or (b"" in wanted and wanted[b""].kind == "d"):
            return
        if live.st_dev != os.fstat(self._fs.parent_fd).st_dev:
            self._conflicts.append((b"", "something is mounted on it, and it is no directory in the shadow"))

    def _entry(self, number: int, entry: Entry) -> None:
        live = self._found.nodes.get(entry.path)
        if live is None:
            if entry.path in self._found.skipped:
                self._conflicts.append((entry.path, "something is mounted on it now"))
            self._differ(CREATE, entry, None)
            return
        kind = metadata.kind_of(live)
        inode = (live.st_dev, live.st_ino)
        if entry.kind == "h":
            if self._inodes.get(entry.target) != inode:
                self._refuse_kept(entry, kind)
                self._differ(REPLACE, entry, live, ("hard link",))
            return
        if kind != entry.kind:
            self._refuse_kept(entry, kind)
            self._differ(REPLACE, entry, live, ("kind",))
            return
        if kind != "d" and live.st_nlink > 1:
            if inode in self._claimed:
                self._differ(REPLACE, entry, live, ("hard link",))
                return
            self._claimed.add(inode)
        proven = self._index is not None and self._index.same(number, live)
        proven = proven or (self._written is not None and self._written.proves(entry, live))
        if proven or self._look(entry, live):
            self._inodes[entry.path] = inode

    def _refuse_kept(self, entry: Entry, kind: str) -> None:
        if kind == "d" and entry.path in self._found.holding:
            self._conflicts.append((entry.path, "it is a directory now, and holds what is excluded or mounted"))

    def _differ(self, action: str, entry: Entry, live: os.stat_result | None, why: tuple[str, ...] = ()) -> None:
        self._differences.append(Difference(action, entry.path, entry, live, why))

    def _look(self, entry: Entry, live: os.stat_result) -> bool:
        """Note what differs from the entry, which is of the same kind; whether the live inode may stay."""
        try:
            body, meta = self._read(entry, live)
        except PermissionError:
            body, meta = ("can't be read",), ()
        except OSError as error:
            if error.errno not in messages.GONE:
                path = messages.join(self._fs.root, entry.path)
                raise messages.unreadable(self._options.name, path, error) from error
            body, meta = ("kind",), ()
        if entry.path in self._found.partial:
            meta = tuple(word for word in meta if word != "mtime")  # what we leave alone sets it all the time
        if body and entry.kind != "d":
            self._differ(REPLACE, entry, live, body + meta)
            return False
        if body or meta:
            self._differ(METADATA, entry, live, body + meta)
        return True

    def _read(self, entry: Entry, live: os.stat_result) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """In what the thing itself differs, and in what its metadata does."""
        if entry.kind == "d":
            fd = self._fs.dir(entry.path)
            return (), metadata.differences(entry, live, metadata.read_xattrs(fd))
        if entry.kind == "f":
            return self._read_file(entry, live)
        fd = self._fs.pin(entry.path)
        try:
            other = entry.kind == "l" and os.readlink(b"", dir_fd=fd) != entry.target
            other = other or (entry.kind in "cb" and live.st_rdev != entry.rdev)
            meta = metadata.differences(entry, live, metadata.read_xattrs(magic(fd)))
            return ("target",) if other else (), meta
        finally:
            os.close(fd)

    def _read_file(self, entry: Entry, live: os.stat_result) -> tuple[tuple[str, ...], tuple[str, ...]]:
        fd = self._fs.open_file(entry.path)
        try:
            meta = metadata.differences(entry, live, metadata.read_xattrs(fd))
            same = live.st_size == entry.size and sha256_fd(fd, entry.size) == (entry.digest, entry.size)
            return () if same else ("contents",), meta
        finally:
            os.close(fd)
