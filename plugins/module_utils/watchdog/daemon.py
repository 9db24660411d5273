# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The switch where no systemd is: a daemon of ours, which outlives the session that started it; and who watches now."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from ..store import files
from ..store.locks import hold

LOCK = "watchdog.lock"
LOG = "watchdog.log"  # what a watcher says that could not begin
OOM_SCORE = -900
TRIES, MOMENT = 20, 0.05  # seconds
START_SECONDS = 180.0  # for a watcher to load the engine
PID_BYTES = 16


def prepare(directory: str) -> None:
    """Make the lock with room for a pid, so that who watches later needs no free block. Raises OSError."""
    fd = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, files.FILE_MODE)
    try:
        if not os.fstat(fd).st_size:
            files.write_all(fd, b" " * PID_BYTES, 0)
            os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def watching(directory: str) -> Iterator[int | None]:
    """Be the one that watches the update in `directory`: a descriptor of the lock, or None when there is another.

    Raises OSError.
    """
    path = os.path.join(directory, LOCK)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, files.FILE_MODE)
    try:
        if _held(fd, path):
            with suppress(OSError):  # who it is, is only told; that somebody watches is what the lock says
                os.pwrite(fd, f"{os.getpid()}\n".encode().rjust(PID_BYTES), 0)
            yield fd
        else:
            yield None
    finally:
        os.close(fd)


def _held(fd: int, path: str) -> bool:
    for dummy in range(TRIES):
        if hold(fd, path):
            return True
        time.sleep(MOMENT)  # whoever only asks who watches, has the lock for a moment
    return False


def let_go(fd: int) -> None:
    """Watch no more, from now on and not only when the process has ended. Raises OSError."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def is_gone(fd: int, directory: str) -> bool:
    """Whether the update whose lock is held as `fd` is not in `directory` any more: dropped, or followed by another
    attempt. A file system that went away is none of these."""
    try:
        here, there = os.fstat(fd), os.stat(os.path.join(directory, LOCK), follow_symlinks=False)
    except FileNotFoundError:
        return os.fstat(fd).st_nlink == 0
    except OSError:
        return False
    return (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino)


def watcher(directory: str) -> int | None:
    """The process that watches the update in `directory` now (0: it can't be known); None when nobody does.

    Raises OSError.
    """
    path = os.path.join(directory, LOCK)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        if hold(fd, path, exclusive=False):
            return None
        return int(os.pread(fd, PID_BYTES, 0))
    except ValueError:
        return 0
    finally:
        os.close(fd)


def start(argv: Sequence[str], directory: str) -> None:
    """Start a watcher: in a session of its own, without our descriptors, in /. What it can't begin for is in LOG.

    Raises OSError.
    """
    log = os.open(os.path.join(directory, LOG), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, files.FILE_MODE)
    try:
        subprocess.Popen(  # pylint: disable=consider-using-with,ansible-bad-function  # it is to outlive this process
            list(argv),
            cwd="/",
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ).wait(START_SECONDS)
    finally:
        os.close(log)


def detach() -> None:
    """Become a daemon: not the leader of the session, so that no terminal is ever its own; hard to kill for memory."""
    if os.fork():
        os._exit(0)  # the caller waits for this one
    os.chdir("/")
    os.umask(0o077)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(OOM_SCORE))  # root alone may


def close_output() -> None:
    """Say nothing more to the log of the beginning."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def said(directory: str) -> str:
    """The last words of a watcher that could not begin."""
    try:
        lines = files.read(os.path.join(directory, LOG)).decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
