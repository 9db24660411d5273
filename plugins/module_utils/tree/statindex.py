# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stat index, "umbra-stat 1": what stat said of each line of a listing, so that unchanged is known without reading.

The second line is the digest of the listing, and when its scan began (nanoseconds since the epoch). Then one line for
each line of the listing, in its order: device, inode, size, mtime and ctime (nanoseconds).
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import ContentMissing, StoreCorrupt, StoreFormatUnknown
from ..providers.base import Contents
from . import entry as listing

FORMAT = "umbra-stat 1"
WHERE = "a stat index"
SECOND = 1_000_000_000
HEAD_MOST = 200  # bytes
# A change this soon after the scan began may leave ctime as it was: clocks of file systems tick this coarsely.
MARGIN = 20_000_000
MARGIN_WHOLE_SECONDS = 2 * SECOND


def stat_line(st: os.stat_result) -> str:
    """The line of one entry."""
    return f"{st.st_dev} {st.st_ino} {st.st_size} {st.st_mtime_ns} {st.st_ctime_ns}"


def is_racy(ctime_ns: int, started_ns: int) -> bool:
    """Whether what was read after `started_ns` may have changed later without another ctime."""
    return ctime_ns > started_ns - (MARGIN if ctime_ns % SECOND else MARGIN_WHOLE_SECONDS)


def header(tree: str, started_ns: int) -> bytes:
    """What the index of the listing with digest `tree` begins with."""
    return f"{FORMAT}\n{tree} {started_ns}\n".encode("ascii")


def encode(tree: str, started_ns: int, lines: bytes) -> bytes:
    """The index of the listing with digest `tree`; `lines` are all of them, each with its end."""
    return header(tree, started_ns) + lines


@dataclass(frozen=True)
class StatIndex:
    """An index that was read: `lines` as in the listing it belongs to."""

    started_ns: int
    lines: Sequence[str]

    def same(self, number: int, st: os.stat_result) -> bool:
        """Whether the entry of line `number` (from 0) is proven to be what it was when it was shadowed."""
        return self.lines[number] == stat_line(st) and not is_racy(st.st_ctime_ns, self.started_ns)


def decode(data: bytes, tree: str, entries: int) -> StatIndex:
    """The index of the listing `tree`, which has so many entries. Raises StoreCorrupt, StoreFormatUnknown."""
    try:
        form, head, *lines, end = data.decode("ascii").split("\n")
        of, started = head.split(" ")
        index = StatIndex(int(started), lines)
    except ValueError as error:
        raise StoreCorrupt(path=WHERE, problem="it is no stat index") from error
    if form != FORMAT:
        raise StoreFormatUnknown(path=WHERE, found=form[:80], known=FORMAT)
    if of != tree or len(lines) != entries or end:
        raise StoreCorrupt(path=WHERE, problem="it does not belong to its listing")
    return index


def some_lines(blocks: Iterable[bytes], tree: str, numbers: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Lines of the index of the listing `tree`, with their numbers: those in `numbers` (from 0, ascending), for who
    needs a few of very many. `blocks` are the index, in whole lines.

    Raises StoreCorrupt, StoreFormatUnknown.
    """
    first, done = -2, 0  # the head has two lines
    for block in blocks:
        if first < 0:
            _check_head(block, tree)
        after = first + block.count(b"\n")
        until = bisect_left(numbers, after, done)
        lines = block.split(b"\n") if until > done else []
        yield from ((number, lines[number - first]) for number in numbers[done:until])
        first, done = after, until


def _check_head(data: bytes, tree: str) -> None:
    form, head = data[: len(FORMAT) + len(tree) + 2].partition(b"\n")[::2]
    if form != FORMAT.encode("ascii"):
        raise StoreFormatUnknown(path=WHERE, found=form[:80].decode("ascii", "replace"), known=FORMAT)
    if not head.startswith(tree.encode("ascii") + b" ") or data.count(b"\n", 0, HEAD_MOST) < 2:
        raise StoreCorrupt(path=WHERE, problem="it does not belong to its listing")


def load(contents: Contents, stats: str | None, tree: str, entries: int) -> StatIndex | None:
    """The index in the store; None when there is none that can be used, which costs reading but loses nothing."""
    if stats is None:
        return None
    try:
        return decode(contents.get(stats), tree, entries)
    except (ContentMissing, StoreCorrupt, StoreFormatUnknown):
        return None  # an index only saves work


class Generation:
    """The last shadow of a tree, line by line: what is unchanged since then is taken over as it is."""

    def __init__(self, lines: Sequence[str], index: StatIndex, contents: Contents) -> None:
        self._lines = lines
        self._index = index
        self._contents = contents
        self._number = {line.split(" ", 6)[5]: number for number, line in enumerate(lines)}

    @classmethod
    def load(cls, contents: Contents, tree: str, stats: str) -> Generation | None:
        """The generation in the store, or None when it is not whole there any more."""
        try:
            lines = listing.split_lines(contents.get(tree))
            index = load(contents, stats, tree, len(lines))
            return cls(lines, index, contents) if index else None
        except (ContentMissing, StoreCorrupt, StoreFormatUnknown, IndexError):
            return None  # then everything is read again

    def line(self, path: bytes, st: os.stat_result) -> str | None:
        """The line of the entry when it did not change and the store still has its content, else None."""
        number = self._number.get(listing.escape(path))
        if number is None or not self._index.same(number, st):
            return None
        line = self._lines[number]
        if line[0] == "f" and not all(map(self._contents.has, line.split(" ", 8)[7:8])):
            return None
        return None if line[0] == "h" else line  # what a hard link is called depends on the other names
