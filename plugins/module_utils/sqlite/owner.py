# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a database is, and with whose rights it is used.

SQLite opens files by their names, and follows what a database's own journal says; whoever owns the directory may
exchange them at any moment. So where we are root, SQLite gets the rights of that user, and no others.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import pwd
import signal
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from ..tree import rootfs

OVERFLOW = 65534  # nobody's group
SUFFIXES = ("", "-journal", "-wal", "-shm")
PAUSE = 0.2  # seconds
AGAIN = signal.SIGURG  # it never ends a process
UNCHANGED = -1  # what setfsuid takes for a question
# setgroups of the C library is for all threads of the process; the call itself is for the thread that makes it.
_SETGROUPS = {"x86_64": 116, "aarch64": 159, "riscv64": 159, "ppc64le": 81, "ppc64": 81, "s390x": 206, "armv7l": 206}


class Identity(NamedTuple):
    """Who does something with files."""

    uid: int
    gid: int
    groups: Sequence[int]


class Place(NamedTuple):
    """A database: its path without symlinks, whose rights it is used with (None: ours), who owns the symlinks on the
    way and at its end, and which of these users, root aside, lead to a directory that is not their own."""

    path: str
    who: Identity | None
    link_owners: frozenset[int]
    strangers: frozenset[int]


def find(path: str) -> Place:
    """The place of the database `path`, which need not be there. Raises OSError."""
    owners: set[int] = set()
    strangers: set[int] = set()
    leads: int | None = None
    for dummy in range(rootfs.MAX_LINKS):
        directory, name = os.path.split(path)
        try:
            found = rootfs.locate(os.fsencode(directory))
        except (FileNotFoundError, NotADirectoryError):
            return Place(os.path.realpath(path), None, frozenset(owners), frozenset(strangers))
        try:
            owners |= found.link_owners
            strangers |= found.strangers
            owner = os.fstat(found.fd).st_uid
            if leads not in (None, owner):
                strangers.add(leads)
            path = os.path.join(os.fsdecode(found.path), name)
            try:
                link = os.stat(name, dir_fd=found.fd, follow_symlinks=False)
            except FileNotFoundError:
                return Place(path, identity(owner), frozenset(owners), frozenset(strangers))
            if not stat.S_ISLNK(link.st_mode):
                return Place(path, identity(owner), frozenset(owners), frozenset(strangers))
            owners.add(link.st_uid)
            leads = link.st_uid or None
            path = os.path.join(os.path.dirname(path), os.readlink(name, dir_fd=found.fd))
        finally:
            os.close(found.fd)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def identity(uid: int) -> Identity | None:
    """Who that user is; None when we have to be nobody else."""
    if os.geteuid() != 0 or uid == 0:
        return None
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return Identity(uid, OVERFLOW, ())
    return Identity(uid, user.pw_gid, tuple(os.getgrouplist(user.pw_name, user.pw_gid)))


class _Own(threading.local):
    """Of each thread: who it acts as, and who it was before."""

    who: Identity | None = None
    root = Identity(0, 0, ())


_own = _Own()


@contextmanager
def acting_as(who: Identity | None) -> Iterator[None]:
    """Open, read and write files with the rights of `who` (None: our own), in this thread. Raises OSError."""
    before = _own.who
    if who == before:
        yield
        return
    if before is None:
        _own.root = Identity(0, os.getegid(), tuple(os.getgroups()))
    try:
        _become(who)  # what fails may have gone half the way
        yield
    finally:
        _become(before)


@contextmanager
def using(place: Place) -> Iterator[None]:
    """Use the database with the rights that `place` says, and don't wait for ever when a fifo takes the name of one of
    its files: SQLite opens them as if they were files."""
    if place.who is None:
        yield
        return
    _have_handler()
    done, waiting = threading.Event(), (threading.get_ident(), threading.get_native_id())
    thread = threading.Thread(target=_open_fifos, args=(place.path, done, *waiting), daemon=True)
    thread.start()
    try:
        with acting_as(place.who):
            yield
    finally:
        done.set()
        thread.join()


def _open_fifos(path: str, done: threading.Event, ident: int, native: int) -> None:
    """Who waits for a writer of a fifo has one for a moment, and then comes to its end. (Its owner may have made it so
    that he himself can't write it, therefore as root.) Where the fifo was moved away meanwhile, nobody finds it: so
    the thread that waits gets a signal, with which the system looks for the name anew."""
    while not done.wait(PAUSE):
        if _sleeps(native):
            signal.pthread_kill(ident, AGAIN)
        with suppress(OSError), rootfs.RootFs(os.fsencode(path), one_device=False, own_links=True) as fs:
            for suffix in SUFFIXES:
                _open_fifo(os.path.basename(path) + suffix, fs.parent_fd)


def _sleeps(native: int) -> bool:
    """Whether the thread waits for something that a signal may end."""
    try:
        with open(f"/proc/self/task/{native}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2].startswith(b"S")
    except OSError:
        return False


def _have_handler() -> None:
    """A signal that nobody has a handler for interrupts nothing. That of Python could be set by its main thread alone;
    one of the C library that does nothing serves as well, and restarts what it interrupted."""
    if signal.getsignal(AGAIN) is signal.SIG_DFL:
        library = ctypes.CDLL(None)
        library.signal.argtypes, library.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
        library.signal(AGAIN, ctypes.cast(library.getpid, ctypes.c_void_p))


def _open_fifo(name: str, directory: int) -> None:
    with suppress(OSError):  # there is none, or nobody waits
        if stat.S_ISFIFO(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            os.close(os.open(name, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory))


def _become(who: Identity | None) -> None:
    """From one user to another the way leads over root, who may be in any group."""
    uid, gid, groups = who or _own.root
    library = ctypes.CDLL(None, use_errno=True)
    library.setfsuid(0)
    number = _SETGROUPS.get(platform.machine())
    if number is not None:
        library.syscall(ctypes.c_long(number), ctypes.c_long(len(groups)), (ctypes.c_uint32 * len(groups))(*groups))
    library.setfsgid(gid)
    library.setfsuid(uid)
    if (library.setfsuid(UNCHANGED), library.setfsgid(UNCHANGED)) != (uid, gid):
        raise OSError(errno.EPERM, f"root may not act as user {uid} here")
    _own.who = who
