# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may change the store now: one verb per host, or garbage collection. A dead holder's lock falls by itself."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from ..errors import StoreLocked
from ..present import is_there
from . import files

POLL_SECONDS = 0.05  # doubled with every try
POLL_SECONDS_MOST = 1.0
TRIES = 3  # whoever only asks who holds a lock, has it for a moment
MOMENT = 0.005  # seconds
COLLECTION = "gc~.lock"  # no encoded name of a host has a '~'
VERSIONS = "versions~.lock"


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: what it does, for which update (empty: all), and which process that is, where, since when."""

    verb: str
    update_id: str
    pid: int = field(default_factory=os.getpid)
    machine: str = field(default_factory=lambda: os.uname().nodename)
    since: float = field(default_factory=time.time)
    doing: str = ""  # and how far it is

    def __str__(self) -> str:
        if not self.verb:
            return "another process"
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since))
        update = f" of update {self.update_id}" if self.update_id else ""
        doing = f": {self.doing}" if self.doing else ""
        return f"{self.verb}{update} by pid {self.pid} on {self.machine} since {when}{doing}"


UNNAMED = Holder("", "", 0, "", 0.0)


def hold(fd: int, path: str, exclusive: bool = True) -> bool:
    """Lock `fd`, opened as `path`, without waiting; whether that worked, and `path` still names it. Raises OSError."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        here, there = os.fstat(fd), os.stat(path, follow_symlinks=False)
    except (BlockingIOError, FileNotFoundError):
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


class Locks:
    """The locks of the store at `path`, as `host` takes them."""

    def __init__(self, path: str, host: str) -> None:
        self._store = path
        self._directory = os.path.join(path, "locks")
        self._host = f"{files.encode_name(host)}.lock"
        self._held: tuple[int, Holder] | None = None  # the lock of this host, while it is ours

    def make(self) -> None:
        """Make the lock of garbage collection, so that to read a store needs no writing. Raises OSError."""
        files.make_directory(self._directory)
        os.close(files.open_new(os.path.join(self._directory, COLLECTION), 0))

    @contextmanager
    def working(self, verb: str, update_id: str, wait: float) -> Iterator[None]:
        """Alone on this host, without garbage collection anywhere. Raises StoreLocked after `wait` s, StoreError."""
        end = time.monotonic() + wait
        holder = Holder(verb, update_id)
        with self._alone(self._host, holder, wait) as held:
            fd = self._wait(COLLECTION, False, max(0.0, end - time.monotonic()))
            self._held = held, holder
            try:
                yield
            finally:
                self._held = None
                os.close(fd)

    def tell(self, doing: str) -> None:
        """Say in the lock what its holder does now, and how far it is, for whoever waits or asks. Never fails."""
        if self._held:
            fd, holder = self._held
            with suppress(OSError):  # nothing depends on it
                _write(fd, replace(holder, doing=doing))

    def holder(self) -> str:
        """Who works on this host now, and on what; empty when nobody does, or it can't be known."""
        current = self.current()
        return str(current) if current else ""

    def current(self) -> Holder | None:
        """As `holder`, in parts; one without a verb when it has not written its name yet."""
        path = os.path.join(self._directory, self._host)
        try:
            return (_read(path) or UNNAMED) if _held(path) else None
        except OSError:
            return None  # a file system without locks

    @contextmanager
    def collecting(self, verb: str, wait: float) -> Iterator[None]:
        """Alone in the whole store. Raises StoreLocked after `wait` seconds, StoreError."""
        with self._alone(COLLECTION, Holder(verb, ""), wait):
            yield

    @contextmanager
    def versioning(self, update_id: str, wait: float) -> Iterator[None]:
        """Alone in the Git history. Raises StoreLocked after `wait` seconds, StoreError."""
        with self._alone(VERSIONS, Holder("versions", update_id), wait):
            yield

    @contextmanager
    def reading(self, wait: float) -> Iterator[None]:
        """No garbage collection meanwhile; nothing is written, so this works on a read-only file system too.

        Raises StoreLocked after `wait` seconds, StoreError.
        """
        with files.explained(self._store):
            locked = is_there(os.path.join(self._directory, COLLECTION))
        if not locked:
            yield  # a copy of a store, without its locks: nobody collects there
            return
        fd = self._wait(COLLECTION, False, wait, os.O_RDONLY)
        try:
            yield
        finally:
            os.close(fd)

    @contextmanager
    def _alone(self, name: str, holder: Holder, wait: float) -> Iterator[int]:
        fd = self._wait(name, True, wait)
        try:
            with files.explained(self._store):
                _write(fd, holder)
            yield fd
        finally:
            with suppress(OSError):  # the name of a holder that is gone harms nobody: the lock itself is given back
                _write(fd, None)
            os.close(fd)

    def _wait(self, name: str, exclusive: bool, wait: float, flags: int = os.O_RDWR | os.O_CREAT) -> int:
        path = os.path.join(self._directory, name)
        started, pause, tries = time.monotonic(), POLL_SECONDS, 0
        with files.explained(self._store):
            files.make_directory(self._directory)
            while True:
                fd = files.retrying(lambda: os.open(path, flags | os.O_NOFOLLOW, files.FILE_MODE))
                try:
                    if flags & os.O_CREAT:
                        os.fchmod(fd, files.FILE_MODE)
                    if hold(fd, path, exclusive):
                        return fd
                except OSError:
                    os.close(fd)
                    raise
                os.close(fd)
                waited, tries = time.monotonic() - started, tries + 1
                if waited >= wait and tries >= TRIES:
                    raise StoreLocked(path=self._store, holder=self._holder(name), waited=waited)
                time.sleep(min(pause, max(wait - waited, MOMENT)))
                pause = min(2 * pause, POLL_SECONDS_MOST)

    def _holder(self, name: str) -> str:
        """Who holds the lock `name`, as text; when it is shared (by hosts that work), who holds any of the others."""
        path = os.path.join(self._directory, name)
        others = [os.path.join(self._directory, each) for each in files.names(self._directory)]
        holders = [_read(each) for each in ([path] if _held(path) else others) if _held(each)]
        return "; ".join(str(holder) for holder in holders if holder) or "another process"


def _write(fd: int, holder: Holder | None) -> None:
    """Note the holder in its lock, for the message that others get."""
    try:
        line = json.dumps(vars(holder)).encode() + b"\n" if holder else b""
        os.pwrite(fd, line, 0)  # who reads meanwhile finds the line before, or this one
        os.ftruncate(fd, len(line))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # the way back must not need a free block for a message
            raise


def _read(path: str) -> Holder | None:
    try:
        return Holder(**json.loads(files.read(path).partition(b"\n")[0]))
    except (OSError, ValueError, TypeError, RecursionError):
        return None  # it ended just now, or has not written its name yet


def _held(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return not hold(fd, path, exclusive=False)
    finally:
        os.close(fd)
