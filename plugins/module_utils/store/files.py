# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of the store: closed to others, on disk before they are named; what can go wrong, in one sentence."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import time
from functools import lru_cache
from typing import Callable, TypeVar
from urllib.parse import quote, unquote

from ..errors import NoSpace, StoreError
from ..present import is_directory

T = TypeVar("T")

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
ANSWER_SECONDS = 30.0  # after so long without an answer, a file system counts as dead
PLAIN = ("ext4", "xfs")  # file systems that are written past the page cache
STALE_TRIES = 5  # GlusterFS: ESTALE is rare, and gone with the next try

_REMEDIES = {
    errno.EACCES: "Run with `become: true`, or name a `store` that this user owns.",
    errno.EPERM: "Run with `become: true`, or name a `store` that this user owns.",
    errno.EROFS: "Its file system is mounted read-only: remount it, or name another `store`.",
    errno.ENOTCONN: "Its file system is not reachable: check the mount, then run again.",
    errno.EIO: "Its file system or disk fails: check the kernel's log, then run again.",
    errno.ENOLCK: "Its file system has no locks: mount it with them, or name another `store`.",
    errno.ENOSYS: "Its file system lacks what a store needs: name another `store`.",
}


def encode_name(name: str) -> str:
    """A host or a resource as one name of a file: percent-encoded, so that no '/', '~' or leading '.' is left."""
    quoted = quote(name, safe="").replace("~", "%7E")
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


def decode_name(name: str) -> str:
    """What `encode_name` was given."""
    return unquote(name)


def explain(path: str, error: OSError, what: str = "it", needed: int = 0) -> StoreError:
    """What `error` means for the store at `path`: NoSpace (`what` needs `needed` bytes), or another StoreError."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _no_space(path, what, needed)
    where = f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, (str, bytes)) else ""
    remedy = _REMEDIES.get(error.errno or 0, "Check this path, or name another `store`.")
    return StoreError(path=path, problem=f"{error.strerror or error}{where}", remedy=remedy)


class explained:  # not made of a generator: that is three times as slow, and contents enter it by the 100,000
    """A context that raises what `explain` says instead of an OSError."""

    __slots__ = ("_facts", "_path")

    def __init__(self, path: str, what: str = "it", needed: int = 0) -> None:
        self._path = path
        self._facts = what, needed

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raise explain(self._path, error, *self._facts) from error


def _no_space(path: str, what: str, needed: int) -> StoreError:
    stat = os.statvfs(_existing(path))
    if stat.f_files and not stat.f_favail:
        return StoreError(
            path=path,
            problem="its file system has no inodes left",
            remedy="Remove files there, or name another `store`; nothing was changed.",
        )
    return NoSpace(path=path, where=f"The store {path}", free=stat.f_bavail * stat.f_frsize, what=what, needed=needed)


def _existing(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def retrying(call: Callable[[], T]) -> T:
    """What `call` returns; tried again when the file handle was stale, which a replicated file system may say once."""
    for attempt in range(1, STALE_TRIES):
        try:
            return call()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        time.sleep(0.02 * attempt)
    return call()


def answered(path: str, call: Callable[[], T], seconds: float = ANSWER_SECONDS) -> T:
    """What `call` returns, or the OSError that it raises.

    Raises StoreError when that takes longer than `seconds`: CephFS that lost too many nodes blocks without an error.
    """
    outcome: list[T] = []
    raised: list[OSError] = []

    def work() -> None:
        try:
            outcome.append(call())
        except OSError as error:
            raised.append(error)  # and raised below, in the caller's thread

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not outcome:
        raise StoreError(
            path=path,
            problem=f"its file system did not answer within {seconds:.0f} s",
            remedy="Check the mount, then run again.",
        )
    return outcome[0]


def make_directory(path: str) -> None:
    """Make `path` and what is missing above it, 0700 whatever the umask; what is there already stays as it is.

    The name is on disk when this returns. Raises OSError.
    """
    for left in reversed(range(STALE_TRIES)):
        try:
            os.mkdir(path, DIRECTORY_MODE)
            os.chmod(path, DIRECTORY_MODE)
        except FileExistsError:
            return
        except FileNotFoundError:
            if not left:
                raise  # some file systems, such as /proc, refuse a name so
            make_directory(os.path.dirname(path))
            continue  # another host may have removed the empty parent meanwhile, or a sweep the new directory
        sync_directory(os.path.dirname(path))
        return


def sync_directory(path: str) -> None:
    """Put the names in `path` on disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have nothing to sync for a directory
            raise
    finally:
        os.close(fd)


def open_new(path: str, flags: int = os.O_EXCL) -> int:
    """A descriptor, for reading and writing, of the new file `path`, 0600 whatever the umask. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags, FILE_MODE)
    os.fchmod(fd, FILE_MODE)
    return fd


@lru_cache(maxsize=16)
def _is_plain(device: int) -> bool:
    """Whether its file system has nothing to do with data but to write it to a disk: a network is faster when it may
    collect writes, and what compresses doesn't do so past the page cache."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = [line for line in file if line.split(" ", 3)[2] == number]
    except OSError:
        return False
    return bool(lines) and lines[0].partition(" - ")[2].split(" ", 1)[0] in PLAIN


def open_direct(fd: int, path: str) -> int:
    """Another descriptor of the file `fd`, at `path`, that writes past the page cache; -1 where there is no such thing.

    So neither that memory nor what others have in it goes into copies that nobody will read soon.
    """
    if not _is_plain(os.fstat(fd).st_dev):
        return -1
    try:
        direct = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_NOFOLLOW)
    except OSError:
        return -1
    if os.path.samestat(os.fstat(direct), os.fstat(fd)):
        return direct
    os.close(direct)
    return -1


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` to `fd` at `offset`. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        offset += written
        view = view[written:]


def publish(path: str, data: bytes, temporary: str | None = None) -> None:
    """Make `path` hold `data`, whole or not at all, and on disk when this returns. Its directory is made.

    It is written to `temporary` first (default: beside it, with .tmp at the end); two at the same time need two of
    these. Raises OSError.
    """
    make_directory(os.path.dirname(path))
    temporary = temporary or f"{path}.tmp"
    fd = open_new(temporary, os.O_TRUNC)
    try:
        write_all(fd, data, 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    sync_directory(os.path.dirname(path))


def read(path: str) -> bytes:
    """All of `path`. Raises OSError."""
    return retrying(lambda: _read(path))


def digest(path: str) -> str:
    """SHA-256 of all of `path`, hexadecimal. Raises OSError."""
    return hashlib.sha256(read(path)).hexdigest()


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def names(path: str) -> list[str]:
    """The names in the directory `path`, sorted; none when it isn't there. Raises OSError."""
    try:
        return retrying(lambda: sorted(os.listdir(path)))
    except (FileNotFoundError, NotADirectoryError):
        return []


def directories(path: str) -> list[str]:
    """The names of the directories in the directory `path`, sorted; none when it isn't there. Raises OSError."""
    return [name for name in names(path) if is_directory(os.path.join(path, name))]


def unlink(path: str) -> bool:
    """Remove the file `path`; whether it was there. Raises OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def remove(path: str) -> None:
    """Remove `path` and everything in it, directories that are closed to their owner too. Raises OSError."""
    if os.path.islink(path) or not os.path.isdir(path):
        unlink(path)
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        _open_directories(path)
        shutil.rmtree(path)


def _open_directories(path: str) -> None:
    os.chmod(path, DIRECTORY_MODE)
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _open_directories(entry.path)
