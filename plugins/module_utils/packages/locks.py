# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lock files of package managers: taken with patience, and whoever holds one is named."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import RestoreFailed

_POLL = 0.2
# A POSIX lock belongs to the process: two threads would both get it, and the first to close the file would drop it.
_here = threading.Lock()


@contextmanager
def held(name: str, path: str, others: tuple[str, ...], timeout: float) -> Iterator[None]:
    """Hold the lock file `path`, once nobody holds one of `others`. Raises RestoreFailed after `timeout` seconds."""
    with _alone(name, path, timeout):
        fd = _open(name, path)
        try:
            _wait(name, (path, *others), timeout, lambda: _take(fd))
            yield
        finally:
            os.close(fd)


@contextmanager
def waited(name: str, path: str, timeout: float) -> Iterator[None]:
    """Go on when nobody holds the lock file `path`, and leave it to programs of our own. Raises as `held`."""
    with _alone(name, path, timeout):
        _wait(name, (path,), timeout, lambda: True)
        yield


@contextmanager
def _alone(name: str, path: str, timeout: float) -> Iterator[None]:
    if not _here.acquire(timeout=timeout):
        raise _busy(name, path, f"another resource of this run (process {os.getpid()})", timeout)
    try:
        yield
    finally:
        _here.release()


def _wait(name: str, paths: tuple[str, ...], timeout: float, take: Callable[[], bool]) -> None:
    until = time.monotonic() + timeout
    while not take() or any(map(_holder, paths)):
        if time.monotonic() > until:
            who = next(filter(None, map(_holder, paths)), "a process that can't be seen from here")
            raise _busy(name, paths[0], who, timeout)
        time.sleep(_POLL)


def _open(name: str, path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    except OSError as error:
        raise RestoreFailed(
            name=name, problem=f"{path}: {(error.strerror or str(error)).lower()}", remedy="Run with `become: true`."
        ) from error


def _take(fd: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX allows either
        return False
    return True


def _holder(path: str) -> str:
    """Who else holds a POSIX lock on `path`, for people; empty when nobody does."""
    try:
        inode = str(os.stat(path).st_ino)
    except FileNotFoundError:
        return ""
    with open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            fields = line.split()
            if fields[1] == "POSIX" and fields[5].rpartition(":")[2] == inode and fields[4] != str(os.getpid()):
                return _describe(fields[4])
    return ""


def _describe(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        words = "a process that can't be looked at"
    return f"process {pid} ({words[:80]})"


def _busy(name: str, path: str, who: str, timeout: float) -> RestoreFailed:
    return RestoreFailed(
        name=name,
        problem=f"{path} is held by {who}; waited {timeout:.0f} s",
        remedy="Wait for it to end, or look at that process, then run again: it goes on where it stopped.",
    )
