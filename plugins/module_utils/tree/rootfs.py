# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Access below one root that can't be led out of it: names are opened one by one, and no symlink is ever followed."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import NamedTuple

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a fifo or a device that took the place of a file must not make us wait.
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
MAX_OPEN = 64
MAX_LINKS = 40


class ForeignLink(PermissionError):
    """The way to a root leads through a symlink that someone else could turn elsewhere."""


class Located(NamedTuple):
    """A directory opened by name: its descriptor, its path without symlinks, and who owns those met on the way.

    `strangers` are those of them, but for root, who led to a directory that is not their own.
    """

    fd: int
    path: bytes
    link_owners: frozenset[int]
    strangers: frozenset[int]


def locate(path: bytes) -> Located:
    """Open the directory `path` (absolute), following symlinks as the kernel does. Raises OSError."""
    todo: deque[bytes | int] = deque(path.split(b"/"))  # a number: here ends what a link of that user says
    names: list[bytes] = []
    owners: set[int] = set()
    strangers: set[int] = set()
    links = 0
    fd = os.open(b"/", DIRECTORY)
    try:
        while todo:
            name = todo.popleft()
            if isinstance(name, int):
                if os.fstat(fd).st_uid != name:
                    strangers.add(name)
                continue
            if name in (b"", b"."):
                continue
            found = os.open(name, PATH, dir_fd=fd)
            st = os.fstat(found)
            if stat.S_ISLNK(st.st_mode):
                target = os.readlink(b"", dir_fd=found)
                os.close(found)
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                owners.add(st.st_uid)
                if st.st_uid:
                    todo.appendleft(st.st_uid)
                todo.extendleft(reversed(target.split(b"/")))
                if not target.startswith(b"/"):
                    continue
                found, names = os.open(b"/", DIRECTORY), []
            elif name == b"..":
                names = names[:-1]
            else:
                names.append(name)
            os.close(fd)
            fd = found
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except BaseException:
        os.close(fd)
        raise
    return Located(fd, b"/" + b"/".join(names), frozenset(owners), frozenset(strangers))


class RootFs:
    """One root, opened by its parent directory; the root itself may be of any kind, or absent, and so may its parent.

    Paths are relative to the root, b"" is the root. Every method raises OSError, without a useful file name in it.
    With `one_device`, directories of other file systems are refused (EXDEV). As root, a symlink on the way to the root
    is followed only when it is root's, or leads to a directory of its owner; with `own_links` only when it is root's:
    who owns another could lead us anywhere (ForeignLink).
    """

    def __init__(self, root: bytes, one_device: bool, own_links: bool = False) -> None:
        directory, dummy, name = root.rstrip(b"/").rpartition(b"/")
        if name in (b".", b".."):
            raise OSError(errno.EINVAL, "a path that ends with a dot can't be a root")
        self.root = root
        self.name = name or b"."
        self.parent: bytes | None = None
        self.parent_fd = -1
        self._one_device = one_device
        self._device = -1
        self._names: list[bytes] = []
        self._fds: list[int] = []  # of the root and of each of _names; -1 where it was closed to keep few open
        self._closed = 0  # how many are -1; they are at 1, 2, ...
        self._at: bytes | None = None
        self._open_parent(directory, own_links)

    def _open_parent(self, directory: bytes, own_links: bool) -> None:
        try:
            found = locate(directory)
        except (FileNotFoundError, NotADirectoryError):
            return  # then the root is absent too
        if os.geteuid() == 0 and (found.link_owners - {0} if own_links else found.strangers):
            os.close(found.fd)
            raise ForeignLink(errno.EACCES, "the way there leads through a symlink that is not root's")
        self.parent_fd, self.parent = found.fd, found.path

    def __enter__(self) -> RootFs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything. May be repeated."""
        self.forget()
        held, self.parent_fd = self.parent_fd, -1
        if held >= 0:
            os.close(held)

    @property
    def resolved(self) -> bytes | None:
        """The absolute path of the root without symlinks, None when its parent is absent."""
        if self.parent is None:
            return None
        return os.path.normpath(os.path.join(self.parent, self.name))

    def forget(self) -> None:
        """Close every directory; they are opened again by name."""
        for fd in self._fds:
            if fd >= 0:
                os.close(fd)
        self._names, self._fds, self._closed, self._at = [], [], 0, None

    def dir(self, path: bytes) -> int:
        """A descriptor of the directory `path`, ours until the next call."""
        if path == self._at:
            return self._fds[-1]
        self._at = None
        names = path.split(b"/") if path else []
        self._pop_to(_common(self._names, names))
        if not self._fds:
            self._push_root()
        for name in names[len(self._names) :]:
            self._push(name)
        self._at = path
        return self._fds[-1]

    def _pop_to(self, depth: int) -> None:
        while len(self._names) > depth:
            self._names.pop()
            fd = self._fds.pop()
            if fd >= 0:
                os.close(fd)
        if self._closed and len(self._fds) <= self._closed + 1:
            self.forget()  # all that is left, but for the root, was closed

    def _push_root(self) -> None:
        fd = os.open(self.name, DIRECTORY, dir_fd=self._parent_fd())
        self._fds.append(fd)
        self._device = os.fstat(fd).st_dev

    def _push(self, name: bytes) -> None:
        fd = os.open(name, DIRECTORY, dir_fd=self._fds[-1])
        self._fds.append(fd)
        self._names.append(name)
        if len(self._fds) - self._closed > MAX_OPEN:
            self._closed += 1
            os.close(self._fds[self._closed])
            self._fds[self._closed] = -1
        if self._one_device and os.fstat(fd).st_dev != self._device:
            raise OSError(errno.EXDEV, "is on another file system")

    def _parent_fd(self) -> int:
        if self.parent_fd < 0:
            raise FileNotFoundError(errno.ENOENT, "the directory it belongs in is missing")
        return self.parent_fd

    def at(self, path: bytes) -> tuple[int, bytes]:
        """The directory that holds `path`, ours until the next call, and its name there."""
        if not path:
            return self._parent_fd(), self.name
        directory, dummy, name = path.rpartition(b"/")
        return self.dir(directory), name

    def lstat(self, path: bytes) -> os.stat_result:
        """What stat says of `path` itself."""
        fd, name = self.at(path)
        return os.stat(name, dir_fd=fd, follow_symlinks=False)

    def open_file(self, path: bytes) -> int:
        """Open a regular file for reading; the caller closes it. Anything else is refused (ENXIO), never waited for."""
        fd, name = self.at(path)
        opened = os.open(name, READ, dir_fd=fd)
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            os.close(opened)
            raise OSError(errno.ENXIO, "is no regular file any more")
        return opened

    def pin(self, path: bytes) -> int:
        """Hold whatever `path` is (a symlink is held itself), without opening it; the caller closes it. See `magic`."""
        fd, name = self.at(path)
        return os.open(name, PATH, dir_fd=fd)


def magic(fd: int) -> bytes:
    """A path that stands for what `fd` holds: calls that take no descriptor of this sort take it."""
    return b"/proc/self/fd/%d" % fd


def has_proc() -> bool:
    """Whether `magic` works here."""
    return os.path.isdir("/proc/self/fd")


def _common(old: Sequence[bytes], new: Sequence[bytes]) -> int:
    """How many names at their beginning are equal."""
    if new[: len(old)] == old:
        return len(old)
    for number, (one, other) in enumerate(zip(old, new)):
        if one != other:
            return number
    return min(len(old), len(new))


def parents(path: bytes) -> list[tuple[int, int, int]]:
    """Mode, uid and gid of each component of the directory `path` (without symlinks), top first. Raises OSError."""
    found = []
    fd = os.open(b"/", DIRECTORY)
    try:
        for name in filter(None, path.split(b"/")):
            deeper = os.open(name, PATH | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = deeper
            st = os.fstat(fd)
            found.append((stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid))
    finally:
        os.close(fd)
    return found


def make_parents(path: bytes, recorded: Iterable[Sequence[int]]) -> int:
    """Make what is missing of the directory `path`, as `parents` recorded it; how many were made. Raises OSError."""
    made = 0
    fd = os.open(b"/", DIRECTORY)
    try:
        for name, (mode, uid, gid) in zip(filter(None, path.split(b"/")), recorded):
            try:
                deeper = os.open(name, PATH | os.O_DIRECTORY, dir_fd=fd)
            except FileNotFoundError:
                deeper = _make_directory(fd, name, mode, uid, gid)
                made += 1
            os.close(fd)
            fd = deeper
    finally:
        os.close(fd)
    return made


def _make_directory(parent: int, name: bytes, mode: int, uid: int, gid: int) -> int:
    fd = make_directory(parent, name)
    try:
        st = os.fstat(fd)
        if (st.st_uid, st.st_gid) != (uid, gid):
            os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
    except BaseException:
        os.close(fd)
        raise
    return fd


def make_directory(parent: int, name: bytes) -> int:
    """Make a directory that only we can enter; its descriptor. Raises OSError."""
    os.mkdir(name, 0o700, dir_fd=parent)
    fd = os.open(name, DIRECTORY, dir_fd=parent)
    try:
        st = os.fstat(fd)
        # Who may rename it could have put another in its place, which we may enter and he may not.
        if st.st_uid != os.geteuid() or st.st_mode & 0o777 != 0o700 or os.listdir(fd):
            raise taken()
    except BaseException:
        os.close(fd)
        raise
    return fd


def taken() -> OSError:
    """What we made is not there any more, and something else is."""
    return OSError(errno.EAGAIN, "something else took its place while it was made")
