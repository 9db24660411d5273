# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in a tree now: every name with what stat says of it, and what is left out and must be left alone."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import SourceUnreadable, Unsupported
from ..kernel import load, selected
from ..progress import Progress
from . import messages
from .entry import parent_of
from .exclude import Excludes
from .rootfs import ForeignLink, RootFs, has_proc

MOUNTS = "/proc/self/mountinfo"
MOMENT = 2.0  # seconds
TEMPORARY = re.compile(rb"\.umbra-tmp-[0-9a-f]{24}")
_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class TreeOptions:
    """How a tree is looked at. `name` is the resource's, for messages. `untouched` are directories (absolute) that are
    never entered, whatever the patterns say: the store itself. `progress` is told how far it is."""

    exclude: tuple[str, ...] = ()
    one_file_system: bool = True
    allow_unstable: bool = False
    name: str = ""
    untouched: tuple[bytes, ...] = ()
    progress: Progress = field(default_factory=Progress, compare=False)


@dataclass
class Scan:
    """A tree as it is now. Paths as in Entry.

    `nodes` has every name that counts. `partial` are directories that hold a name which does not (excluded, a mount
    point), `holding` these and all above them: they can't be removed. `skipped` are the mount points, `temporaries`
    files that a killed restore left behind; neither is in `nodes`. `tree` is the native kernel's, if that looked.
    """

    nodes: Mapping[bytes, os.stat_result] = field(default_factory=dict)
    partial: set[bytes] = field(default_factory=set)
    holding: set[bytes] = field(default_factory=set)
    skipped: set[bytes] = field(default_factory=set)
    temporaries: list[bytes] = field(default_factory=list)
    tree: Any = None

    def leave_out(self, path: bytes) -> None:
        """Note that `path` is there, and none of ours."""
        path = parent_of(path)
        self.partial.add(path)
        while path not in self.holding:
            self.holding.add(path)
            path = parent_of(path)


class Look:
    """A tree as it is now, and the root, held open: who goes on with it at once need not look again. It began after
    `started` (nanoseconds since the epoch). Raises as `open_root` and `scan`."""

    def __init__(self, root: bytes, options: TreeOptions) -> None:
        self.started = time.time_ns()
        self.fs = open_root(root, options)
        try:
            self.found = scan(self.fs, options)
        except BaseException:
            self.fs.close()
            raise
        self._ended = time.monotonic()

    def is_fresh(self) -> bool:
        """Whether it was but a moment ago."""
        return time.monotonic() - self._ended < MOMENT

    def __enter__(self) -> Look:
        return self

    def __exit__(self, *dummy: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the root. May be repeated."""
        self.fs.close()


def open_root(root: bytes, options: TreeOptions) -> RootFs:
    """The root, to be looked at. Raises SourceUnreadable, Unsupported."""
    require_proc(options)
    try:
        return RootFs(root, options.one_file_system)
    except ForeignLink as error:
        problem = f"the way to {messages.printable(root)} leads through a symlink that is not root's, to a directory"
        problem += " of somebody else than its owner"
        remedy = "Name the path without that symlink, or make the symlink root's (chown -h root)."
        raise Unsupported(name=options.name, problem=problem, remedy=remedy) from error
    except OSError as error:
        raise messages.unreadable(options.name, root, error) from error


def require_proc(options: TreeOptions) -> None:
    """Raise Unsupported where there is no /proc: without it, attributes would be lost silently."""
    if not has_proc():
        raise Unsupported(name=options.name, problem="/proc is not mounted here", remedy="Mount it.")


def scan(fs: RootFs, options: TreeOptions) -> Scan:
    """Look at the whole tree; an absent root is an empty one. Raises SourceUnreadable."""
    scanner = _Scanner(fs, options)
    kernel = selected.kernel()
    return (scanner.run_native(kernel) if kernel and fs.parent_fd >= 0 else None) or scanner.run()


class Nodes(Mapping[bytes, os.stat_result]):
    """The nodes of a native tree, by path."""

    def __init__(self, tree: Any) -> None:
        self._tree = tree

    def __getitem__(self, path: bytes) -> os.stat_result:
        found: os.stat_result | None = self._tree.find(path)
        if found is None:
            raise KeyError(path)
        return found

    def __iter__(self) -> Iterator[bytes]:
        return map(self._tree.path, range(len(self._tree)))

    def __len__(self) -> int:
        return len(self._tree)


def mount_points(root: bytes) -> frozenset[bytes]:
    """Paths relative to `root` (without symlinks) on which something is mounted; empty where /proc can't tell."""
    prefix = root.rstrip(b"/") + b"/"
    try:
        with open(MOUNTS, "rb") as file:
            points = [_OCTAL.sub(_byte, line.split(b" ", 5)[4]) for line in file]
    except OSError:
        return frozenset()  # directories on other devices are still told apart
    return frozenset(point[len(prefix) :] for point in points if point.startswith(prefix) and point != prefix)


def _byte(match: re.Match[bytes]) -> bytes:
    return bytes([int(match.group(1), 8)])


class _Scanner:
    """One walk, depth first, so that the directories above stay open."""

    def __init__(self, fs: RootFs, options: TreeOptions) -> None:
        self._fs = fs
        self._name = options.name
        self._excludes = Excludes(options.exclude)
        self._one = options.one_file_system
        self._mounts = mount_points(fs.resolved) if self._one and fs.resolved else frozenset()
        self._untouched = frozenset(filter(None, map(_identity, options.untouched)))
        self._device = -1
        self._nodes: dict[bytes, os.stat_result] = {}
        self._found = Scan(self._nodes)

    def run_native(self, kernel: Any) -> Scan | None:
        """The same by the native kernel; None where that found something odd."""
        fs, matches = self._fs, self._excludes.matches if self._excludes else None
        load.trim_memory()  # what the last tree left
        tree = kernel.scan(fs.parent_fd, fs.name, self._one, self._mounts, self._untouched, matches, selected.threads())
        if tree is None:
            return None
        found = Scan(Nodes(tree), tree=tree)
        for kind, path in tree.left_out():
            if kind == "t":
                found.temporaries.append(path)
                continue
            if kind == "m":
                found.skipped.add(path)
            found.leave_out(path)
        return found

    def run(self) -> Scan:
        try:
            root = self._fs.lstat(b"")
        except OSError as error:
            if error.errno == errno.ENOENT:
                return self._found
            raise messages.unreadable(self._name, self._fs.root, error) from error
        self._device = root.st_dev
        self._nodes[b""] = root
        if not stat.S_ISDIR(root.st_mode):
            return self._found
        pending = [b""]
        while pending:
            path = pending.pop()
            pending += reversed(self._directory(path))
        return self._found

    def _directory(self, path: bytes) -> list[bytes]:
        """Note what is in one directory; the directories in it, in order."""
        try:
            fd = self._fs.dir(path)
            names = os.listdir(fd)
        except OSError as error:
            if error.errno not in messages.GONE or not path:
                raise self._unreadable(path, error) from error
            self._look_again(path)
            return []
        prefix = path + b"/" if path else b""
        deeper = []
        for name in names:
            raw = os.fsencode(name)
            child = prefix + raw
            try:
                st = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._unreadable(child, error) from error
            if self._counts(child, raw, st):
                self._nodes[child] = st
                if stat.S_ISDIR(st.st_mode):
                    deeper.append(child)
        return sorted(deeper)

    def _look_again(self, path: bytes) -> None:
        """The directory went away, or something else took its name."""
        del self._nodes[path]
        try:
            st = self._fs.lstat(path)
        except OSError:
            return  # then it went away
        if not stat.S_ISDIR(st.st_mode):
            self._nodes[path] = st

    def _counts(self, path: bytes, name: bytes, st: os.stat_result) -> bool:
        directory = stat.S_ISDIR(st.st_mode)
        if name.startswith(b".umbra-tmp-") and not directory and TEMPORARY.fullmatch(name):
            self._found.temporaries.append(path)
            return False
        if path in self._mounts or (directory and self._is_foreign(st)):
            self._found.skipped.add(path)
        elif not (self._excludes and self._excludes.matches(path, name)):
            return True
        self._found.leave_out(path)
        return False

    def _is_foreign(self, st: os.stat_result) -> bool:
        # Only directories tell: on an overlay, files have devices of their own.
        return (self._one and st.st_dev != self._device) or (st.st_dev, st.st_ino) in self._untouched

    def _unreadable(self, path: bytes, error: OSError) -> SourceUnreadable:
        return messages.unreadable(self._name, messages.join(self._fs.root, path), error)


def _identity(path: bytes) -> tuple[int, int] | None:
    try:
        st = os.stat(path)
    except OSError:
        return None  # it is not there, so it can't be entered either
    return st.st_dev, st.st_ino
