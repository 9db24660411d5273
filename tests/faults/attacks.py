# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the owner of a tree may do to it while root works there, and how it is known that nobody else paid for it."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import sqlite3
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.tree.trees import NOBODY, temporaries

_LIBC = ctypes.CDLL(None, use_errno=True)
_EXCHANGE = 2  # RENAME_EXCHANGE
_AT_FDCWD = -100
_ALL_EVENTS = 0xFFF
PATIENCE = 60.0  # seconds
_EVENT = struct.Struct("iIII")
# Names that FileWorld and SqliteWorld have, so that whoever is led astray finds something.
_DATABASE = ("it", "it-wal", "it-shm", "it-journal")
_TREE = ("app.conf", "secret", "tool", "tool-2", "large", "inner/file", "deep/er", "etc/app.conf", "bin/tool")
_FILES = (*_DATABASE, *_TREE)


class Victim:
    """Somebody else's directory. Whoever opens, lists, reads or changes anything in it is noticed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        with closing(sqlite3.connect(path / "it")) as opened, opened as connection:
            connection.execute("create table secrets (text)")
            connection.execute("insert into secrets values ('what only the victim has')")
        for name in _FILES[1:]:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(b"what only the victim has: " + name.encode() + bytes(100))
            (path / name).chmod(0o640)
        (path / "it").chmod(0o640)
        self._contents = [hashlib.sha256((path / name).read_bytes()).hexdigest() for name in _FILES]
        self._watch = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for place in (path, *(each for each in path.rglob("*") if each.is_dir())):
            place.chmod(0o711)  # so that the owner of the tree can't list it, and whoever does is root
            # Only directories: what is done through another hard link is not done here.
            if _LIBC.inotify_add_watch(self._watch, os.fsencode(place), _ALL_EVENTS) < 0:
                raise OSError(ctypes.get_errno(), "inotify_add_watch")
        self._before = self._picture()
        self.events()

    def close(self) -> None:
        """Look no more."""
        os.close(self._watch)

    def events(self) -> list[str]:
        """What was done there since the last call."""
        found = []
        with suppress(BlockingIOError):
            while data := os.read(self._watch, 1 << 16):
                at = 0
                while at < len(data):
                    _watch, mask, _cookie, size = _EVENT.unpack_from(data, at)
                    at += _EVENT.size + size
                    found.append(f"{mask:#x} {data[at - size : at].rstrip(bytes(1)).decode()}")
        return found

    def harm(self, store: Path, planted: bool = False) -> list[str]:
        """What was done to it, and what of it is in the store, where its content was not `planted` in the tree."""
        found = self.events()
        if self._picture() != self._before:
            found.append("it is not as it was")
        self.events()
        if store.exists() and not planted:
            contents = Store.open(str(store), "web1").contents
            found += [f"in the store: {digest}" for digest in self._contents if contents.has(digest)]
        return found

    def _picture(self) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = []
        for path in sorted(self.path.rglob("*")):
            st = path.lstat()
            body = path.read_bytes() if path.is_file() else b""
            found.append((path, st.st_mode, st.st_uid, st.st_gid, st.st_ino, st.st_mtime_ns, body))
        return found


@contextmanager
def owner() -> Iterator[None]:
    """Be the unprivileged user who owns the tree."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def give(*places: Path) -> None:
    """The owner gets everything there."""
    for place in places:
        for path in (place, *place.rglob("*")):
            mode = stat.S_IMODE(path.lstat().st_mode)
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
            if not path.is_symlink():
                path.chmod(mode)


class Attacker:
    """The owner of the tree at `place`. `aside` is a directory of the same user, where things are put away."""

    def __init__(self, place: Path, aside: Path, victim: Victim) -> None:
        self.place, self.aside, self.victim = place, aside, victim
        self.failures: list[str] = []
        self._number = 0

    def _away(self, path: Path) -> None:
        self._number += 1
        with suppress(FileNotFoundError, NotADirectoryError):
            path.rename(self.aside / f"{self._number}")

    def _target(self, path: Path) -> Path:
        found = self.victim.path / path.name
        return found if found.exists() and path.name not in ("etc", "bin") else self.victim.path

    def link(self, path: Path) -> None:
        """A symlink to the victim takes its place."""
        target = self._target(path)
        with owner():
            self._away(path)
            path.symlink_to(target)

    def exchange(self, path: Path) -> None:
        """The same in one step."""
        target = self._target(path)
        with owner():
            self._number += 1
            other = self.aside / f"{self._number}"
            other.symlink_to(target)
            exchange(other, path)

    def hard_link(self, path: Path) -> None:
        """Another name of a victim's file takes its place. Root plants it for the owner, who may do so himself where
        fs.protected_hardlinks is 0."""
        with owner():
            self._away(path)
        os.link(self.victim.path / "secret", path)

    def fifo(self, path: Path) -> None:
        """Whoever opens it carelessly waits for ever."""
        with owner():
            self._away(path)
            os.mkfifo(path)

    def device(self, path: Path) -> None:
        """One that root has left there."""
        with owner():
            self._away(path)
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))

    def up(self, path: Path) -> None:
        """It is moved out of the tree, and what is done to it from then on is done outside."""
        with owner():
            self._away(path)

    def up_and_down(self, path: Path) -> None:
        """Something else of the same kind takes its place."""
        with owner():
            directory = path.is_dir() and not path.is_symlink()
            self._away(path)
            if directory:
                path.mkdir()
                (path / "app.conf").symlink_to(self.victim.path / "app.conf")
                (path / "inner").symlink_to(self.victim.path)
            else:
                path.write_text("late")

    def shut(self, path: Path) -> None:
        """Nobody may look."""
        with owner():
            path.chmod(0)

    def deep(self, path: Path) -> None:
        """Directories below each other, more than one wants to hold open."""
        with owner():
            self._away(path)
            path.mkdir()
            (path / "/".join(["d"] * 150)).mkdir(parents=True)

    def temporary(self, path: Path) -> None:
        """What a restore is about to finish is a symlink, or a hard link, to what the victim has."""
        del path
        for found in [*temporaries(self.place), *self.place.glob(".umbra-*")]:
            with owner():
                self._away(found)
            if self._number % 2:
                os.link(self.victim.path / "secret", found)
            else:
                found.symlink_to(self.victim.path / "secret")

    def strike(self, kind: str, name: str) -> Callable[[], None]:
        """What does it; the system may refuse (then that is so), but nothing else may fail."""
        act: Callable[[Path], None] = getattr(self, kind)

        def do() -> None:
            try:
                act(self.place / name if name else self.place)
            except FileExistsError:
                pass  # it was made in that moment: one strike less
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EACCES, errno.ENOTEMPTY):
                    self.failures.append(f"{kind}: {error}")
            except Exception as error:  # noqa: BLE001  # the tracer's C code can't tell of it
                self.failures.append(f"{kind}: {error!r}")

        return do

    def clear(self) -> None:
        """What was put away is gone."""
        shutil.rmtree(self.aside, ignore_errors=True)
        self.aside.mkdir()
        os.chown(self.aside, NOBODY, NOBODY)


KINDS = ("link", "exchange", "hard_link", "fifo", "device", "up", "up_and_down", "shut", "deep", "temporary")
NAMES = ("etc", "bin", "etc/app.conf", "empty", "pipe", "large", "large-too", "new", "current", "")
DATABASE_NAMES = (*_DATABASE, "")


def exchange(one: Path, other: Path) -> None:
    """Swap two names, in one step. Raises OSError."""
    if _LIBC.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_RACE = """
import ctypes, os, random, select, sys, time
place, aside, victim, seed, owner = sys.argv[1:6]
if int(owner):
    os.setgroups([]); os.setresgid(int(owner), int(owner), int(owner)); os.setresuid(int(owner), int(owner), int(owner))
some, number = random.Random(int(seed)), 0
libc = ctypes.CDLL(None)
targets = [victim, victim + '/secret', victim + '/it']
def away(path):
    global number
    number += 1
    other = f'{aside}/{os.getpid()}-{number}'
    os.rename(path, other)
    return other
def link(path): away(path); os.symlink(some.choice(targets), path)
def fifo(path): away(path); os.mkfifo(path)
def back(path): other = away(path); time.sleep(some.random() / 500); os.rename(other, path)
def shut(path): os.chmod(path, 0); os.chmod(path, 0o755)
def late(path): os.close(os.open(path + '.late', os.O_CREAT | os.O_EXCL))
def hard(path): away(path); os.link(victim + '/secret', path)
def swap(path):
    other = f'{aside}/{os.getpid()}-swap'
    os.path.lexists(other) or os.symlink(some.choice(targets), other)
    libc.renameat2(-100, os.fsencode(other), -100, os.fsencode(path), 2)
    libc.renameat2(-100, os.fsencode(other), -100, os.fsencode(path), 2)
acts = [link, fifo, back, back, back, shut, late, swap, swap, swap] if int(owner) else [hard]
print(flush=True)
while not select.select([0], [], [], some.random() / 2000 if int(owner) else 0.01)[0]:
    names = []
    try:
        if not int(owner):
            names = [place + '/' + name for name in os.listdir(place)]
        for top, directories, files in os.walk(place) if int(owner) else ():
            names += [top + '/' + name for name in directories + files]
        some.choice(acts)(some.choice(names or [place]))
    except OSError:
        pass
"""


@contextmanager
def racing(place: Path, aside: Path, victim: Victim, seed: int, planted: bool) -> Iterator[None]:
    """Two processes of the owner do all of that at random, without end; and, with `planted`, one of root's plants hard
    links for him."""
    users = [NOBODY, NOBODY, *([0] if planted else [])]
    # Not our own children: the tracer waits for these.
    runners = [
        subprocess.Popen(
            ["setsid", "-f", sys.executable, "-c", _RACE]
            + [*map(str, (place, aside, victim.path, seed + number, user))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number, user in enumerate(users)
    ]
    try:
        for runner in runners:
            runner.wait()
            assert runner.stdout and runner.stdout.readline() == b"\n"
        yield
    finally:
        for runner in runners:
            runner.communicate(timeout=PATIENCE)  # they end with their input
