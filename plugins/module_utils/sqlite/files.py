# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that a database consists of: kept byte for byte when SQLite can't read them, put in place, taken away."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..present import is_there
from ..providers.base import Contents
from ..tree import metadata, rootfs
from ..tree.entry import Entry
from .database import ATTEMPTS, SIDECARS, Busy, open_file, state
from .owner import Identity, acting_as

DATABASE = ""
KEPT = (DATABASE, "-wal", "-journal")  # the -shm is made anew out of the -wal
CHUNK = 1 << 20


@dataclass(frozen=True)
class Facts:
    """Owner, mode and extended attributes of a database's file; its times are SQLite's business."""

    entry: Entry

    @classmethod
    def of(cls, path: str) -> Facts:
        """Those of the file at `path`. Raises Broken, OSError."""
        with open_file(path) as file:
            found, xattrs = os.fstat(file.fileno()), metadata.read_xattrs(file.fileno())
        return cls(Entry(b"", "f", stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, xattrs=xattrs))

    def to_list(self) -> list[Any]:
        """JSON-ready."""
        entry = self.entry
        return [entry.mode, entry.uid, entry.gid, [[name, value.hex()] for name, value in entry.xattrs]]

    @classmethod
    def from_list(cls, raw: Sequence[Any]) -> Facts:
        """What `to_list` wrote."""
        mode, uid, gid, xattrs = raw
        pairs = tuple((name, bytes.fromhex(value)) for name, value in xattrs)
        return cls(Entry(b"", "f", mode, uid, gid, xattrs=pairs))

    @property
    def text(self) -> str:
        """For people."""
        entry = self.entry
        attributes = "".join(f", {name}={value.hex()}" for name, value in entry.xattrs)
        return f"owner {entry.uid}:{entry.gid}, mode {entry.mode:04o}{attributes}"

    def differences(self, path: str) -> tuple[str, ...]:
        """In what the file at `path` differs, in words. Raises Broken, OSError."""
        with open_file(path) as file:
            found, xattrs = os.fstat(file.fileno()), metadata.read_xattrs(file.fileno())
        return metadata.differences(self.entry._replace(mtime_ns=found.st_mtime_ns), found, xattrs)

    def put_back(self, path: str) -> None:
        """Give them to the file at `path`; only what differs is written. Raises Broken, OSError."""
        with _beside(path) as fs:
            fd = fs.open_file(b"")
            try:
                self.give(fd)
            finally:
                os.close(fd)

    def give(self, fd: int) -> None:
        """Give them to a file that is open. Raises OSError."""
        found = os.fstat(fd)
        if found.st_nlink != 1:
            raise OSError(errno.EMLINK, "it has another name elsewhere")  # whose, nobody knows
        metadata.put_back(fd, self.entry._replace(mtime_ns=found.st_mtime_ns), found)


def keep(path: str, contents: Contents, who: Identity | None = None) -> dict[str, str]:
    """The digests of the files that are there, by suffix, read as `who` and kept in `contents`. Raises Unusable,
    OSError."""
    for _attempt in range(ATTEMPTS):
        before = state(path)
        kept = {}
        for suffix in present(path):
            with acting_as(who):
                file = open_file(path + suffix)
            with file:
                kept[suffix], _size = contents.put_fd(file.fileno())
        if state(path) == before:
            return kept
    raise Busy(f"was written to each time it was read, {ATTEMPTS} times")


def present(path: str) -> list[str]:
    """Which of the files are there, by suffix."""
    return [suffix for suffix in KEPT if is_there(path + suffix)]


def digests(path: str) -> dict[str, str]:
    """The SHA-256 of each file that is there, by suffix. Raises OSError."""
    found = {}
    for suffix in present(path):
        digest = hashlib.sha256()
        with open_file(path + suffix) as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        found[suffix] = digest.hexdigest()
    return found


def replace(
    path: str, wanted: Mapping[str, str], facts: Facts, parents: Iterable[Sequence[int]], contents: Contents
) -> None:
    """Put the contents `wanted` (digests by suffix) in the place of all files of the database.

    Killed at any moment, what is there differs from the shadow, so that it is done again. Raises OSError, StoreError.
    """
    rootfs.make_parents(os.fsencode(os.path.dirname(path)), parents)
    with _beside(path) as fs:
        for suffix, digest in wanted.items():
            _extract(fs, _name(_temporary(path)) + suffix, digest, facts, contents)
        # A journal of the old database must never meet the new one: SQLite would play it back into that.
        _remove(fs, [_name(path) + suffix for suffix in (DATABASE, *SIDECARS) if suffix or suffix not in wanted])
        for suffix in wanted:
            fd = fs.parent_fd
            os.rename(_name(_temporary(path)) + suffix, _name(path) + suffix, src_dir_fd=fd, dst_dir_fd=fd)
        _sync(fs)


def remove(path: str, suffixes: Iterable[str] = (DATABASE, *SIDECARS)) -> int:
    """Remove the database's files, for good; how many there were. Raises OSError.

    The database itself goes first: without its journals it would be another one.
    """
    with _beside(path) as fs:
        removed = _remove(fs, [_name(path) + suffix for suffix in suffixes])
        if removed:
            _sync(fs)
        return removed


def clean(path: str) -> None:
    """Remove what a killed `replace` left beside the database. Raises OSError."""
    with _beside(path) as fs:
        _remove(fs, [_name(_temporary(path)) + suffix for suffix in KEPT])


def _beside(path: str) -> rootfs.RootFs:
    """The directory of the database, held: its owner may exchange it, and names in it, at any moment."""
    return rootfs.RootFs(os.fsencode(path), one_device=False, own_links=True)


def _remove(fs: rootfs.RootFs, names: Iterable[str]) -> int:
    removed = 0
    for name in names if fs.parent_fd >= 0 else ():
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=fs.parent_fd)
            removed += 1
    return removed


def _name(path: str) -> str:
    return os.path.basename(path)


def _temporary(path: str) -> str:
    tag = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return os.path.join(os.path.dirname(path), f".umbra-{tag}")


def _extract(fs: rootfs.RootFs, name: str, digest: str, facts: Facts, contents: Contents) -> None:
    _remove(fs, [name])
    fd = os.open(name, rootfs.NEW, 0o600, dir_fd=fs.parent_fd)
    try:
        contents.copy_to(digest, fd)
        facts.give(fd)
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync(fs: rootfs.RootFs) -> None:
    fd = os.open(b".", rootfs.DIRECTORY, dir_fd=fs.parent_fd)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
