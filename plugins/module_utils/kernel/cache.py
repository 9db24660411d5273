# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a host keeps the kernel's file between tasks: a directory that nobody else can write, checked from / down."""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

PREFIX = "umbra_kernel."
DIRECTORY = "umbra"
MAX_BYTES = 4 << 20  # a kernel has a twentieth of that; what is larger is not read
MAX_LINKS = 40  # as Linux has it
DAY = 86400.0  # seconds that a file of another version is kept: another controller may be using it
DIR_FLAGS = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", 0)  # O_PATH: none is read


class Refused(Exception):
    """Somebody else could have a hand in what is there: it is not used, and nothing is tried in its place."""


class Unusable(Exception):
    """Nothing can be kept there, and that is no fault: another place may do."""


@dataclass(frozen=True)
class Directory:
    """A checked directory: its path, and the descriptor that every use of it goes through."""

    path: str
    fd: int


def places(remote_tmp: str | None) -> list[str]:
    """Where the file may be kept, the best first: the user's cache, else beside Ansible's temporary directory."""
    bases = [_cache_home()]
    if remote_tmp:
        bases.append(os.path.expanduser(os.path.expandvars(remote_tmp)))
    return [os.path.join(base, DIRECTORY) for base in bases if os.path.isabs(base)]


def _cache_home() -> str:
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):
        return given
    try:
        home = pwd.getpwuid(os.geteuid()).pw_dir  # and not $HOME, which some ways to become leave as it was
    except KeyError:  # a container's user without a name
        home = os.path.expanduser("~")
    return os.path.join(home, ".cache")


def name(platform: str, sha256: str) -> str:
    """The file's name: platforms may share a home, and versions a host."""
    return f"{PREFIX}{platform}.{sha256[:16]}.so"


def look(place: str, file: str, sha256: str) -> bytes | None:
    """The contents of `file` in `place` if they have that SHA-256; None if `keep` should put it there.

    Changes nothing. Raises Refused, and Unusable if `keep` could not put it there; OSError of a failing disk.
    """
    with _directory(place) as (directory, missing):
        if not missing:
            content = _read(directory, file)
            if content is not None and hashlib.sha256(content).hexdigest() == sha256:
                return content
        effective = os.access in os.supports_effective_ids
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=directory.fd, effective_ids=effective):
            raise Unusable(f"{directory.path} can't be written")
        return None


def keep(place: str, file: str, content: bytes) -> None:
    """Put `file` into `place` by rename, and let go of old files of its platform.

    Raises Refused, Unusable, OSError of a failing disk.
    """
    with _directory(place) as (directory, missing):
        _make(directory, missing)
    with _directory(place) as (directory, missing):
        if missing:
            raise Unusable(f"{place} could not be made")
        _read(directory, file)  # refuses what is no file of ours
        _write(directory, file, content)
        with suppress(OSError):  # what can't be removed does no harm
            _forget_old(directory, file)


def _make(directory: Directory, missing: list[str]) -> None:
    fd = os.dup(directory.fd)
    try:
        for part in missing:
            with suppress(FileExistsError):  # another task of this user was first
                os.mkdir(part, 0o700, dir_fd=fd)
            below = os.open(part, DIR_FLAGS, dir_fd=fd)
            os.close(fd)
            fd = below
    except OSError as error:
        raise Unusable(f"{directory.path}: {error.strerror}") from error
    finally:
        os.close(fd)


def _write(directory: Directory, file: str, content: bytes) -> None:
    temporary = f"{file}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(temporary, flags, 0o600, dir_fd=directory.fd)
        with os.fdopen(fd, "wb") as target:
            target.write(content)  # not synced: a file that a crash damaged is sent again
        os.rename(temporary, file, src_dir_fd=directory.fd, dst_dir_fd=directory.fd)
    except OSError as error:
        with suppress(OSError):  # the first error is the one to tell
            os.unlink(temporary, dir_fd=directory.fd)
        raise Unusable(f"{directory.path}: {error.strerror}") from error


def _forget_old(directory: Directory, file: str) -> None:
    platform = file[len(PREFIX) :].split(".", 1)[0]
    listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory.fd)
    try:
        for other in os.listdir(listing):
            if other == file or not other.startswith(f"{PREFIX}{platform}."):
                continue
            with suppress(FileNotFoundError):  # another task of this user was first
                if os.stat(other, dir_fd=listing, follow_symlinks=False).st_mtime < time.time() - DAY:
                    os.unlink(other, dir_fd=listing)
    finally:
        os.close(listing)


def _read(directory: Directory, file: str) -> bytes | None:
    """All of it, read once; None if it isn't there or is too large to be one of ours."""
    path = os.path.join(directory.path, file)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(file, flags, dir_fd=directory.fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(f"{path} is not a file of ours: {error.strerror}") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(f"{path} is not a file of ours: it is no plain file")
        _check(path, status)
        with os.fdopen(fd, "rb", closefd=False) as source:
            content = source.read(MAX_BYTES + 1)
    finally:
        os.close(fd)
    return content if len(content) <= MAX_BYTES else None


@contextmanager
def _directory(path: str) -> Iterator[tuple[Directory, list[str]]]:
    """The deepest directory of `path` that there is, and the names below it that there are not.

    Every directory on the way is checked before anything is looked up in it, so that what others could exchange is
    never followed; the last one must be no link. Raises Refused, Unusable.
    """
    todo = [part for part in path.split("/") if part][::-1]
    links = 0
    here = Directory("/", os.open("/", DIR_FLAGS))
    try:
        while True:
            _check(here.path, os.fstat(here.fd))
            if not todo:
                break
            part = todo.pop()
            below = os.path.join(here.path, part)
            try:
                status = os.stat(part, dir_fd=here.fd, follow_symlinks=False)
                if stat.S_ISLNK(status.st_mode):
                    _check_link(below, status, last=not todo)
                    target = os.readlink(part, dir_fd=here.fd)
                    links += 1
                    if links > MAX_LINKS:
                        raise Unusable(f"{path} has too many links")
                    todo += [step for step in target.split("/") if step][::-1]
                    below, part = ("/", "/") if target.startswith("/") else (here.path, ".")
                fd = os.open(part, DIR_FLAGS, dir_fd=here.fd)
            except FileNotFoundError:
                todo.append(part)
                break
            except NotADirectoryError:
                raise Refused(f"{below} is not a directory") from None
            except OSError as error:
                raise Unusable(f"{below}: {error.strerror}") from error
            os.close(here.fd)
            here = Directory(os.path.normpath(below), fd)
        yield here, todo[::-1]
    finally:
        os.close(here.fd)


def _check(path: str, status: os.stat_result) -> None:
    _check_owner(path, status)
    if status.st_mode & 0o022:  # a sticky bit does not help: names that aren't there yet are anybody's
        raise Refused(f"{path} can be written by other users (mode {stat.S_IMODE(status.st_mode):04o})")


def _check_link(path: str, status: os.stat_result, last: bool) -> None:
    if last:
        raise Refused(f"{path} is a symbolic link")
    _check_owner(path, status)


def _check_owner(path: str, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise Refused(f"{path} belongs to another user (uid {status.st_uid})")
