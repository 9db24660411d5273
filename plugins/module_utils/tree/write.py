# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make one thing in a tree: each is made whole beside its name, and then renamed over it."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import secrets
import stat
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Callable

from ..providers.base import Contents
from . import metadata
from .entry import Entry, parent_of
from .rootfs import DIRECTORY, NEW, PATH, RootFs, magic, make_directory, taken
from .scan import TEMPORARY

PREFIX = b".umbra-tmp-"
RENAME_NOREPLACE = 1
FORMATS = {kind: form for form, kind in metadata.KINDS.items()}


class Changed(OSError):
    """A name has not what it had when the tree was looked at, so that what it has now is nowhere kept."""


class Writer:
    """Changes one tree, and knows which directories it changed (`touched`). Every method raises OSError, and Changed
    rather than replace or remove what `seen` (by path) does not know.

    No name is trusted to be what it was a moment ago: what gets an owner, a mode or attributes is held by a descriptor,
    and is of the kind it should be, without names elsewhere.
    """

    def __init__(self, fs: RootFs, contents: Contents, seen: Mapping[bytes, os.stat_result]) -> None:
        self.touched: set[bytes] = set()
        self.written: dict[bytes, tuple[int, int, int]] = {}  # device, inode and ctime of files, in their places
        self.remember = False  # whether they are noted there
        self._seen = seen
        self._fs = fs
        self._contents = contents
        self.made: dict[bytes, tuple[int, int]] = {}  # device and inode of the directories that were made
        self._unprivileged = os.geteuid() != 0
        self._walking = threading.Lock()
        # Two roots may lie in one directory: this tells their temporary names apart.
        self.prefix = PREFIX + hashlib.sha256(fs.resolved or b"").hexdigest()[:8].encode("ascii")

    def remove(self, path: bytes, directory: bool) -> None:
        """Remove one name; a directory has to be empty. It may be gone already."""
        fd, name = self._directory_of(path)
        try:
            if directory:
                os.rmdir(name, dir_fd=fd)
                return
            seen = self._seen.get(path)
            if seen is not None:  # else it is a temporary of ours
                _require_as_seen(fd, name, seen)
            os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            return  # what we want

    def remove_temporaries_beside(self) -> None:
        """Remove what a killed restore of this very root left in the directory that holds it."""
        try:
            fd = os.open(b".", DIRECTORY, dir_fd=self._fs.parent_fd)
        except PermissionError:
            return  # who may not list it could not have left anything there
        try:
            for name in map(os.fsencode, os.listdir(fd)):
                if name.startswith(self.prefix) and TEMPORARY.fullmatch(name):
                    os.unlink(name, dir_fd=fd)
        finally:
            os.close(fd)

    def directory(self, path: bytes) -> None:
        """Make a directory that only we can enter; `finish` gives it its metadata."""
        fd, name = self._directory_of(path)
        made = make_directory(fd, name)
        self.made[path] = _identity(os.fstat(made))
        os.close(made)
        self.touched.add(path)

    def finish(self, entry: Entry, live: os.stat_result | None) -> None:
        """Give a directory its metadata: the one that we made, or that was `live` when we looked."""
        fd = self._fs.dir(entry.path)
        st = os.fstat(fd)
        expected = self.made.get(entry.path) or (live and _identity(live))
        if expected != _identity(st):
            raise taken()
        metadata.put_back(fd, entry, st)

    def file(self, entry: Entry) -> int:
        """Write a regular file; its size. Safe to use from several threads. Raises ContentMissing, StoreCorrupt too."""

        held = (0, 0)

        def make(fd: int, temporary: bytes) -> None:
            nonlocal held
            opened = os.open(temporary, NEW, 0o600, dir_fd=fd)
            try:
                self._contents.copy_to(entry.digest, opened, sparse=entry.sparse)
                st = os.fstat(opened)
                held = _identity(st)
                metadata.put_back(opened, entry, st)
            finally:
                os.close(opened)

        with self._walking:
            fd, name = self._directory_of(entry.path)
            fd = os.dup(fd)  # the next directory may close it
        try:
            self._replace_at(fd, name, make, self._seen.get(entry.path))
            if self.remember:
                self._note(fd, name, entry.path, held)
        finally:
            os.close(fd)
        return entry.size

    def _note(self, fd: int, name: bytes, path: bytes, held: tuple[int, int]) -> None:
        """Note the file in its place: it got its ctime there."""
        try:
            st = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return  # it went again: validation will tell
        if _identity(st) == held:
            self.written[path] = (*held, st.st_ctime_ns)

    def special(self, entry: Entry) -> None:
        """Make a symlink, a fifo, a device or a socket."""

        def make(fd: int, temporary: bytes) -> None:
            if entry.kind == "l":
                os.symlink(entry.target, temporary, dir_fd=fd)
            else:
                os.mknod(temporary, FORMATS[entry.kind] | 0o600, entry.rdev, dir_fd=fd)
            held = os.open(temporary, PATH, dir_fd=fd)
            try:
                st = os.fstat(held)
                if metadata.kind_of(st) != entry.kind or st.st_nlink != 1:
                    raise taken()
                metadata.put_back(magic(held), entry, st)
            finally:
                os.close(held)

        self._replace(entry.path, make)

    def link(self, entry: Entry) -> bool:
        """Make another name of the file `entry.target`; whether it was not one already."""
        first = self._fs.lstat(entry.target)
        try:
            now = self._fs.lstat(entry.path)
        except FileNotFoundError:
            now = None
        if now and (now.st_dev, now.st_ino) == (first.st_dev, first.st_ino):
            return False
        source, name = self._fs.at(entry.target)
        source = os.dup(source)  # the next directory may close it
        try:
            self._replace(
                entry.path,
                lambda fd, new: os.link(name, new, src_dir_fd=source, dst_dir_fd=fd, follow_symlinks=False),
            )
        finally:
            os.close(source)
        return True

    def repair(self, entry: Entry, live: os.stat_result, names: int) -> bool:
        """Give what is there (`live`) its metadata, when it is there still and all its `names` are in the tree."""
        held = self._fs.pin(entry.path)
        try:
            st = os.fstat(held)
            if (st.st_dev, st.st_ino, st.st_nlink) != (live.st_dev, live.st_ino, names):
                return False
            metadata.put_back(magic(held), entry, st)
        finally:
            os.close(held)
        return True

    def _replace(self, path: bytes, make: Callable[[int, bytes], None]) -> None:
        self._replace_at(*self._directory_of(path), make, self._seen.get(path))

    def _replace_at(
        self, fd: int, name: bytes, make: Callable[[int, bytes], None], seen: os.stat_result | None
    ) -> None:
        temporary = self.prefix + secrets.token_hex(8).encode("ascii")
        try:
            make(fd, temporary)
            _put_in_place(fd, temporary, name, seen)
        except BaseException:
            self._discard(fd, temporary)
            raise

    @staticmethod
    def _discard(fd: int, temporary: bytes) -> None:
        try:
            os.unlink(temporary, dir_fd=fd)
        except OSError:
            return  # it was not made yet; or it stays, and the next run removes it

    def _directory_of(self, path: bytes) -> tuple[int, bytes]:
        """As RootFs.at, for a change of that directory."""
        fd, name = self._fs.at(path)
        if path:
            parent = parent_of(path)
            if parent in self.made and self.made[parent] != _identity(os.fstat(fd)):
                raise taken()
            self.touched.add(parent)
            if self._unprivileged:
                _make_writable(fd)
        return fd, name


def _put_in_place(fd: int, temporary: bytes, name: bytes, seen: os.stat_result | None) -> None:
    """Rename, over nothing but what was `seen`. Raises Changed."""
    if seen is not None and not stat.S_ISDIR(seen.st_mode):  # a directory was removed before
        try:
            _require_as_seen(fd, name, seen)
            os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
            return
        except FileNotFoundError:
            pass  # it went, and something else may come
    try:
        _rename_new(fd, temporary, name)
    except FileExistsError as error:
        raise Changed(errno.EEXIST, "something came there after its failed state was kept") from error


def _require_as_seen(fd: int, name: bytes, seen: os.stat_result) -> None:
    if not is_as_seen(os.stat(name, dir_fd=fd, follow_symlinks=False), seen):
        raise Changed(errno.ESTALE, "it changed after its failed state was kept")


def is_as_seen(now: os.stat_result, seen: os.stat_result) -> bool:
    """Whether what can get lost with it is as it was: the content of a file, the text of a symlink."""
    kind = stat.S_IFMT(now.st_mode)
    if kind != stat.S_IFMT(seen.st_mode):
        return False
    if kind not in (stat.S_IFREG, stat.S_IFLNK):
        return True  # a socket or a fifo holds nothing, and whoever listens there makes it anew
    if _identity(now) != _identity(seen):
        return False
    if seen.st_nlink > 1:
        return now.st_size == seen.st_size  # with each other name that is replaced, it changes
    return (now.st_size, now.st_mtime_ns, now.st_ctime_ns) == (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


def _rename_new(fd: int, temporary: bytes, name: bytes) -> None:
    """Rename to a name that is free. Raises FileExistsError when it is not."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        if renameat2(fd, temporary, fd, name, RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.ENOSYS, errno.EINVAL):
            raise OSError(number, os.strerror(number))
    try:  # a C library, a kernel or a file system that can't
        os.link(temporary, name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:
        _rename_to_free(fd, temporary, name)
        return
    with suppress(OSError):  # it is in its place; a temporary that stays, the next run removes
        os.unlink(temporary, dir_fd=fd)


def _rename_to_free(fd: int, temporary: bytes, name: bytes) -> None:
    """The same where there are no hard links either: as near as can be."""
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _identity(st: os.stat_result) -> tuple[int, int]:
    return st.st_dev, st.st_ino


def _make_writable(fd: int) -> None:
    """The owner of a read-only directory may change it after all; its mode is put back with its times."""
    st = os.fstat(fd)
    if st.st_mode & 0o300 != 0o300 and st.st_uid == os.geteuid():
        os.fchmod(fd, stat.S_IMODE(st.st_mode) | 0o700)
