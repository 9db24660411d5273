# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between a tree now and its shadow; nothing is changed by looking."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass

from ..kernel.hashing import sha256_fd
from ..providers.base import Contents
from . import entry as listing
from . import messages, metadata, statindex
from .entry import Entry
from .rootfs import RootFs, magic
from .scan import Scan, TreeOptions, open_root, scan

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


@dataclass(frozen=True)
class Comparison:
    """A tree held against its shadow. `differences` are sorted by path; `conflicts` are what a restore refuses and why.

    `links` says how many other names the shadow has for a file, by its first name.
    """

    entries: dict[bytes, Entry]
    found: Scan
    differences: tuple[Difference, ...]
    conflicts: tuple[tuple[bytes, str], ...]
    links: Counter[bytes]

    @property
    def bytes(self) -> int:
        """How many bytes of contents a restore would write."""
        return sum(d.entry.size for d in self.differences if d.entry and d.action in (CREATE, REPLACE))


def compare(root: bytes, tree: str, stats: str | None, contents: Contents, options: TreeOptions) -> Comparison:
    """As `compare_open`, for the tree at `root`. Raises Unsupported too."""
    with open_root(root, options) as fs:
        return compare_open(fs, tree, stats, contents, options)


def compare_open(fs: RootFs, tree: str, stats: str | None, contents: Contents, options: TreeOptions) -> Comparison:
    """Hold the tree at `fs` against the listing `tree` and its stat index. What the index can't prove is read.

    Raises SourceUnreadable, ContentMissing, StoreCorrupt, StoreFormatUnknown.
    """
    entries = listing.decode(contents.get(tree))
    index = statindex.load(contents, stats, tree, len(entries))
    return _Compare(fs, entries, index, options).run()


class _Compare:
    """One pass over both; the entries come first names before other names of the same file."""

    def __init__(
        self, fs: RootFs, entries: list[Entry], index: statindex.StatIndex | None, options: TreeOptions
    ) -> None:
        self._fs = fs
        self._entries = entries
        self._index = index
        self._options = options
        self._found = scan(fs, options)
        self._differences: list[Difference] = []
        self._conflicts: list[tuple[bytes, str]] = []
        self._inodes: dict[bytes, tuple[int, int]] = {}  # of each file that stays where it is
        self._claimed: set[tuple[int, int]] = set()

    def run(self) -> Comparison:
        wanted = {entry.path: entry for entry in self._entries}
        for number, entry in enumerate(self._entries):
            self._entry(number, entry)
        for path, live in self._found.nodes.items():
            if path not in wanted and path not in self._found.holding:
                self._differences.append(Difference(REMOVE, path, None, live))
        self._check_root(wanted)
        self._differences.sort(key=lambda difference: difference.path)
        links = Counter(entry.target for entry in self._entries if entry.kind == "h")
        return Comparison(wanted, self._found, tuple(self._differences), tuple(self._conflicts), links)

    def _check_root(self, wanted: dict[bytes, Entry]) -> None:
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
            same = live.st_size == entry.size and sha256_fd(fd) == (entry.digest, entry.size)
            return () if same else ("contents",), meta
        finally:
            os.close(fd)
