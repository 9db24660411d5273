# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Differences in words: what a restore would change, for check mode and diff."""

from __future__ import annotations

import os

from ..providers.base import Change, Contents, Drift
from . import messages, metadata
from .compare import METADATA, Comparison, Difference, compare_found
from .entry import Entry
from .rootfs import RootFs, magic
from .scan import Look, TreeOptions

SHOWN = 100
TEXT = 8192  # bytes; contents that are larger are told by size and digest
NAMES = {
    "f": "file",
    "d": "directory",
    "l": "symlink",
    "h": "hard link",
    "p": "fifo",
    "c": "character device",
    "b": "block device",
    "s": "socket",
}


def drift(root: bytes, tree: str, stats: str | None, contents: Contents, options: TreeOptions) -> Drift:
    """What `apply` would change, the first of it spelled out; changes nothing. Raises as `compare`."""
    with Look(root, options) as look:
        return drift_found(look, tree, stats, contents, options)


def drift_found(look: Look, tree: str, stats: str | None, contents: Contents, options: TreeOptions) -> Drift:
    """The same for what was found when we looked. Raises as `compare_found`."""
    comparison = compare_found(look.fs, look.found, tree, stats, contents, options)
    return _Words(look.fs, comparison, contents, options).drift()


def summary(root: bytes, differences: tuple[Difference, ...], shown: int = 5) -> str:
    """The first of some differences in one line."""
    first = [
        f"{messages.printable(messages.join(root, d.path))} ({', '.join(d.why) or d.action})"
        for d in differences[:shown]
    ]
    rest = len(differences) - len(first)
    return "; ".join(first) + (f"; and {rest} more" if rest else "")


class _Words:
    """Reads what it shows: small texts on both sides."""

    def __init__(self, fs: RootFs, comparison: Comparison, contents: Contents, options: TreeOptions) -> None:
        self._fs = fs
        self._comparison = comparison
        self._contents = contents
        self._options = options

    def drift(self) -> Drift:
        differences = self._comparison.differences
        changes = tuple(self._change(difference) for difference in differences[:SHOWN])
        return Drift(len(differences), changes, self._comparison.bytes)

    def _change(self, difference: Difference) -> Change:
        what = messages.printable(messages.join(self._fs.root, difference.path))
        before, after = "", ""
        if difference.action == METADATA and difference.entry is not None:
            before, after = self._live_metadata(difference.entry), metadata.describe(difference.entry)
        else:
            if difference.live is not None:
                before = self._live(difference.path, difference.live)
            if difference.entry is not None:
                after = self._shadowed(difference.entry)
        return Change(difference.action, what, before, after)

    def _live_metadata(self, entry: Entry) -> str:
        try:
            held = self._fs.pin(entry.path)
        except OSError:
            return ""  # it went away since it was compared
        try:
            return metadata.describe(metadata.entry_of(entry.path, os.fstat(held), metadata.read_xattrs(magic(held))))
        except OSError as error:
            return messages.reason(error)
        finally:
            os.close(held)

    def _live(self, path: bytes, live: os.stat_result) -> str:
        kind = metadata.kind_of(live)
        try:
            if kind == "l":
                fd, name = self._fs.at(path)
                return "-> " + messages.printable(os.readlink(name, dir_fd=fd))
            if kind == "f" and live.st_size <= TEXT:
                return _text(self._read(path)) or f"file of {live.st_size} bytes"
        except OSError as error:
            return f"{NAMES[kind]}: {messages.reason(error)}"
        return f"file of {live.st_size} bytes" if kind == "f" else NAMES[kind]

    def _read(self, path: bytes) -> bytes:
        fd = self._fs.open_file(path)
        try:
            return os.read(fd, TEXT + 1)
        finally:
            os.close(fd)

    def _shadowed(self, entry: Entry) -> str:
        if entry.kind in "lh":
            return ("-> " if entry.kind == "l" else "hard link to ") + messages.printable(entry.target)
        if entry.kind != "f":
            return NAMES[entry.kind]
        text = _text(self._contents.get(entry.digest)) if entry.size <= TEXT else ""
        return text or f"file of {entry.size} bytes, SHA-256 {entry.digest}"


def _text(data: bytes) -> str:
    """`data` when a person can read it, else nothing."""
    try:
        text = data.decode("utf-8") if len(data) <= TEXT else ""
    except UnicodeDecodeError:
        return ""
    return "" if "\0" in text else text
