# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One SQLite database that others may have open: reading it without a trace, copying it, writing over it."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, TypeVar
from urllib.parse import quote

from ..present import is_there
from ..tree import rootfs
from .owner import acting_as

try:
    import sqlite3
except ImportError:  # a Python built without it: `require` says so where a database is asked for
    sqlite3 = None  # type: ignore[assignment]

MAGIC = b"SQLite format 3\0"
JOURNAL_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
SIDECARS = ("-journal", "-wal", "-shm")
WAL, ROLLBACK = "wal", "delete"
SHARED, IMMUTABLE, APART = "shared", "immutable", "apart"

CHUNK_PAGES = 2048  # between two chunks of a copy, writers get their turn
ATTEMPTS = 4
RESTARTS = 3  # how often a copy may begin again because somebody wrote, before it holds a lock to its end
PAUSE = 0.05  # seconds between two tries for a lock
TICK = 0.03  # seconds after which another write surely gives a file another mtime
BUSY = (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED
FIRST_READ = "SELECT count(*) FROM sqlite_master"  # BEGIN alone takes no lock

T = TypeVar("T")


class Unusable(Exception):
    """SQLite can't do it now; the text ends a sentence that begins with the database."""


class Broken(Unusable):
    """The file is no database, or a damaged one."""


class Busy(Unusable):
    """Another process holds a lock, or kept writing."""


class Denied(Unusable):
    """The user whose rights are used may not."""


class Full(Unusable):
    """The file system is full."""


@dataclass(frozen=True)
class Header:
    """What the first bytes of a database say. `page_size` is 0 for an empty file, which is an empty database."""

    page_size: int
    journal_mode: str

    @classmethod
    def read(cls, path: str) -> Header:
        """The header of the file at `path`. Raises Broken, OSError.

        Never call it while this process has `path` open with SQLite: closing a file drops all its process's locks.
        """
        with open_file(path) as file:
            start = file.read(32)
        if start and (start[:16] != MAGIC or len(start) < 32):
            raise Broken("is not a SQLite database, or an encrypted one")
        size = int.from_bytes(start[16:18], "big")
        return cls(65536 if size == 1 else size, WAL if start[18:19] == b"\2" else ROLLBACK)


@dataclass(frozen=True)
class Live:
    """A database opened for reading, and how: shared with others, immutable (nobody has it open), or a copy apart."""

    connection: sqlite3.Connection
    header: Header
    how: str

    @property
    def bytes(self) -> int:
        """Size of the database, what is only in the write-ahead log included."""
        pages, size = (self.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        return int(pages * size)


def require() -> bool:
    """Whether this Python can open SQLite databases at all."""
    return sqlite3 is not None


def open_file(path: str) -> BinaryIO:
    """Open a regular file for reading, and nothing else, without waiting. Raises Broken, OSError."""
    fd = os.open(path, rootfs.READ)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return os.fdopen(fd, "rb")
    os.close(fd)
    raise Broken("is not a regular file")


@contextmanager
def translated() -> Iterator[None]:
    """Turn what SQLite raises into Unusable, or the subclass that fits."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = " ".join(str(error).split())
        if "locked" in text or "locking protocol" in text:
            raise Busy("is locked") from error
        if "disk is full" in text:
            raise Full("does not fit on its file system") from error
        if any(words in text for words in ("not a database", "malformed", "unsupported file format", "corrupt")):
            raise Broken(f"is damaged ({text})") from error
        denied = any(words in text for words in ("readonly database", "unable to open", "access permission"))
        raise (Denied if denied else Unusable)(f"can't be used by SQLite ({text})") from error


def connect(path: str, mode: str, timeout: float = 0.0, immutable: bool = False) -> closing[sqlite3.Connection]:
    """Open `path` for a `with`; `mode` is ro, rw or rwc; `timeout` is how long to wait for a lock, in seconds."""
    uri = f"file:{quote(os.fsencode(path))}?mode={mode}{'&immutable=1' if immutable else ''}"
    return closing(sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None))


def look(path: str, workdir: str, timeout: float, use: Callable[[Live], T]) -> T:
    """What `use` finds in the live database. Nothing beside it is left behind, and it is not written to.

    `use` may be called again when somebody wrote meanwhile. Raises Unusable, OSError.
    """
    with translated():
        for _attempt in range(ATTEMPTS):
            header = Header.read(path)
            way = _way(path, header)
            if way == IMMUTABLE:
                done, found = _look_immutable(path, header, use)
                if done:
                    return found  # type: ignore[return-value]
            elif way == SHARED:
                with connect(path, "ro", timeout) as connection:
                    if _begin(connection, path):
                        return use(Live(connection, header, SHARED))
                way = APART
            if way == APART and (copy := _copy_apart(path, workdir)):
                with acting_as(None), connect(copy, "rw", timeout) as connection:
                    connection.execute(FIRST_READ).fetchone()  # what was cut off is rolled back here
                    return use(Live(connection, Header.read(copy), APART))
    raise Busy(f"was written to each time it was read, {ATTEMPTS} times")


def _way(path: str, header: Header) -> str:
    """How to read without leaving a -wal or -shm behind that was not there, and without repairing what is broken."""
    if _size(path + "-wal") is None:
        return IMMUTABLE if header.journal_mode == WAL else SHARED
    if _size(path + "-shm") is not None:
        return SHARED
    return APART if _size(path + "-wal") else IMMUTABLE


def _look_immutable(path: str, header: Header, use: Callable[[Live], T]) -> tuple[bool, T | None]:
    """Read a database that nobody has open; not done when somebody opened it meanwhile."""
    time.sleep(max(0.0, min(TICK, TICK - (time.time() - os.stat(path).st_mtime))))
    before = state(path)
    try:
        with connect(path, "ro", immutable=True) as connection:
            found = use(Live(connection, header, IMMUTABLE))
    except (sqlite3.DatabaseError, Broken):
        if state(path) == before:
            raise
        return False, None
    return state(path) == before, found


def _begin(connection: sqlite3.Connection, path: str) -> bool:
    """Begin to read. False when that needs a repair first, which is a write."""
    try:
        if _size(path + "-wal") is not None:
            connection.execute("BEGIN")  # a snapshot of the log, which hinders nobody
        connection.execute(FIRST_READ).fetchone()
    except sqlite3.OperationalError as error:
        if any(words in str(error) for words in ("readonly", "unable to open", "disk I/O")):
            return False
        raise
    return True


def _copy_apart(path: str, workdir: str) -> str | None:
    """A plain copy of the database and its journals in `workdir`; None when they changed meanwhile."""
    before = state(path)
    copy = os.path.join(workdir, "apart")
    for suffix in ("", "-journal", "-wal"):
        with acting_as(None):
            if is_there(copy + suffix):
                os.unlink(copy + suffix)
        if _size(path + suffix) is not None:
            _copy_file(path + suffix, copy + suffix)
    if _super_journal(copy + "-journal"):
        raise Broken("has a journal that belongs to several databases: open it once with its own program")
    return copy if state(path) == before else None


def _copy_file(path: str, copy: str) -> None:
    with open_file(path) as source, acting_as(None), open(copy, "xb") as target:
        shutil.copyfileobj(source, target)


def _super_journal(path: str) -> bool:
    """Whether the journal names another one: SQLite would remove the file of that name, whatever it is."""
    with acting_as(None):
        if not is_there(path):
            return False
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - len(JOURNAL_MAGIC)))
            return file.read() == JOURNAL_MAGIC


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


def copy_out(live: Live, path: str, timeout: float) -> None:
    """Copy the live database to the new file `path`. Writers wait for a chunk at most, unless they never pause."""
    with translated():
        for restarts in (RESTARTS, None):
            with acting_as(None):
                if is_there(path):
                    os.unlink(path)
                opened = connect(path, "rwc", timeout)
            with opened as target:
                target.execute("PRAGMA synchronous=OFF")  # the store makes it durable
                target.execute("PRAGMA journal_mode=OFF")
                if restarts is None and not live.connection.in_transaction:
                    live.connection.execute("BEGIN")
                    live.connection.execute(FIRST_READ).fetchone()
                try:
                    live.connection.backup(
                        target, pages=CHUNK_PAGES, progress=_Patience(timeout, restarts), sleep=PAUSE
                    )
                    return
                except _Restarted:
                    pass  # again, and this time with a lock


def copy_in(source: str, path: str, journal_mode: str, timeout: float) -> None:
    """Write the database file `source` over the live one, in one transaction: others that have it open see it at once.

    Killed in between, SQLite takes all of it back when the database is next opened. `source` is read as
    ourselves, whoever we act as. Raises Unusable.
    """
    with acting_as(None), translated():
        opened = connect(source, "ro", immutable=True)
    with translated(), opened as shadow, connect(path, "rw", timeout) as live:
        if len({one.execute("PRAGMA page_size").fetchone()[0] for one in (shadow, live)}) > 1:
            switch(live, ROLLBACK, timeout)  # SQLite changes a page size in this mode only
        shadow.backup(live, pages=CHUNK_PAGES, progress=_Patience(timeout, None), sleep=PAUSE)
        switch(live, journal_mode, timeout)


def refuse_locked(path: str, timeout: float) -> None:
    """Raise Busy when somebody has a lock on the live database for `timeout` seconds.

    One that SQLite can't lock at all, since it can't write to it, is locked by nobody that could.
    """
    try:
        with translated(), connect(path, "rw", timeout) as live:
            live.execute("BEGIN EXCLUSIVE")
            live.execute("ROLLBACK")
    except Busy:
        raise
    except Unusable:
        pass  # it is read-only, or of another release: that is why it is replaced


def set_journal_mode(path: str, journal_mode: str, timeout: float) -> None:
    """Give the live database that journal mode (wal or delete). Raises Unusable."""
    with translated(), connect(path, "rw", timeout) as live:
        switch(live, journal_mode, timeout)


def switch(live: sqlite3.Connection, journal_mode: str, timeout: float) -> None:
    """As `set_journal_mode`; SQLite itself does not wait for the lock that this needs."""
    deadline = time.monotonic() + timeout
    while live.execute("PRAGMA journal_mode").fetchone()[0] != journal_mode:
        try:
            live.execute(f"PRAGMA journal_mode={journal_mode}")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE)


def integrity(connection: sqlite3.Connection) -> tuple[list[str], str]:
    """What is wrong in the database (at most 5 findings), and how far that was checked.

    A database may need functions or collations that only its application has: what needs them is not checked then.
    """
    reason = ""
    for check in ("integrity_check", "quick_check"):
        try:
            found = [row[0] for row in connection.execute(f"PRAGMA {check}(5)")]
        except sqlite3.OperationalError as error:
            if "no such" not in str(error) and "unknown" not in str(error):
                raise
            reason = f" ({error})"
            continue
        return [text for text in found if text != "ok"], check + reason
    return [], f"none{reason}"


class _Restarted(Exception):
    """A copy began again more often than it may."""


class _Patience:
    """Watches a backup: gives up on a lock that is not had in time, and on a copy that never comes to its end."""

    def __init__(self, timeout: float, restarts: int | None) -> None:
        self._timeout, self._restarts = timeout, restarts
        self._moved = time.monotonic()
        self._remaining: int | None = None

    def __call__(self, status: int, remaining: int, total: int) -> None:
        now = time.monotonic()
        if status in BUSY:
            if now - self._moved > self._timeout:
                raise Busy(f"was locked for {self._timeout:.0f} s")
            return
        self._moved = now
        if self._remaining is not None and remaining >= self._remaining and self._restarts is not None:
            self._restarts -= 1
            if self._restarts < 0:
                raise _Restarted
        self._remaining = remaining


def state(path: str) -> list[tuple[int, ...] | None]:
    """What stat says of the database and its journals: the same before and after, nobody wrote in between."""
    states: list[tuple[int, ...] | None] = []
    for suffix in ("", "-journal", "-wal"):
        try:
            found = os.stat(path + suffix)
            states.append((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))
        except FileNotFoundError:
            states.append(None)
    return states


def holders(path: str) -> list[str]:
    """Other processes that have `path` open, or a file that was removed from there, as "name (pid 12)"."""
    try:
        found = os.stat(path)
        wanted: tuple[int, int] | None = (found.st_dev, found.st_ino)
    except FileNotFoundError:
        wanted = None
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()] if os.path.isdir("/proc") else []
    return [_process(pid) for pid in sorted(pids) if pid != os.getpid() and _has_open(pid, path, wanted)]


def _has_open(pid: int, path: str, wanted: tuple[int, int] | None) -> bool:
    directory = f"/proc/{pid}/fd"
    try:
        for number in os.listdir(directory):
            link = os.path.join(directory, number)
            target = os.readlink(link)
            if target == f"{path} (deleted)":
                return True
            if wanted and target.startswith("/"):
                found = os.stat(link)
                if (found.st_dev, found.st_ino) == wanted:
                    return True
    except OSError:  # it has ended meanwhile, or belongs to somebody else and nobody but root may look
        return False
    return False


def _process(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return f"{file.read().strip()} (pid {pid})"
    except OSError:  # it has ended meanwhile
        return f"pid {pid}"
