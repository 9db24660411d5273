# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real trees for tests: made, changed, looked at, and watched call by call. Nothing here uses the code under test."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

IS_ROOT = os.geteuid() == 0
root_only = pytest.mark.skipif(not IS_ROOT, reason="only root may make devices, mounts, and files of other owners")
NOBODY = 65534
UNMOUNT_SECONDS = 20.0
HOUR = 3_600_000_000_000  # nanoseconds
OLD = 1_700_000_000_123_456_789

# Calls that change a file system, as the engine and the contents in memory name them.
CHANGING = (
    *("mkdir", "rmdir", "unlink", "rename", "symlink", "mknod", "link", "chown", "chmod", "fchown", "fchmod", "utime"),
    *("setxattr", "removexattr", "ftruncate", "pwrite", "write"),
)
# Calls that take a name.
NAMING = ("open", "stat", "readlink", "listdir", "listxattr", "getxattr", *CHANGING)


def picture(root: bytes | Path) -> dict[bytes, tuple[Any, ...]]:
    """Everything about a tree that a restore promises to bring back, by path."""
    top = os.fsencode(root)
    found: dict[bytes, tuple[Any, ...]] = {}
    inodes: dict[tuple[int, int], bytes] = {}
    for path in sorted(_walk(top)):
        st = os.lstat(path)
        first = path if stat.S_ISDIR(st.st_mode) else inodes.setdefault((st.st_dev, st.st_ino), path)
        names = sorted(os.listxattr(path, follow_symlinks=False))
        body: Any = None
        if stat.S_ISREG(st.st_mode):
            body = Path(os.fsdecode(path)).read_bytes()
        elif stat.S_ISLNK(st.st_mode):
            body = os.readlink(path)
        found[path[len(top) :]] = (
            *(st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns, body, first[len(top) :]),
            st.st_rdev if stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode) else 0,
            [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names],
        )
    return found


def _walk(path: bytes) -> Iterator[bytes]:
    if not os.path.lexists(path):
        return
    yield path
    if os.path.isdir(path) and not os.path.islink(path):
        for name in os.listdir(path):
            yield from _walk(path + b"/" + name)


def inodes(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and ctime of everything in a tree, by path: equal for what was not touched."""
    found = {}
    for path in [root, *root.rglob("*")]:
        st = path.lstat()
        found[str(path.relative_to(root))] = (st.st_ino, st.st_ctime_ns)
    return found


def write(path: Path, data: bytes | str, mode: int = 0o644, mtime: int = OLD) -> Path:
    """A file that is older than any scan, and its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    path.chmod(mode)
    os.utime(path, ns=(mtime, mtime))
    return path


def build_small(root: Path) -> Path:
    """A few names of several kinds, hard links among them."""
    write(root / "etc" / "app.conf", "port = 80\n")
    write(root / "etc" / "secret", "s3cret", 0o600)
    write(root / "bin" / "tool", b"\x7fELF" + bytes(5000), 0o4755)
    os.link(root / "bin" / "tool", root / "bin" / "tool-2")
    (root / "empty").mkdir(0o750)
    (root / "current").symlink_to("etc")
    os.mkfifo(root / "pipe", 0o640)
    os.utime(root / "current", ns=(OLD, OLD + 1), follow_symlinks=False)
    return root


def break_small(root: Path) -> None:
    """What a bad update leaves of it."""
    (root / "etc" / "app.conf").write_text("port = 8080\n")
    (root / "etc" / "secret").chmod(0o666)
    (root / "bin" / "tool").unlink()
    (root / "bin" / "tool").mkdir()
    write(root / "bin" / "tool" / "inner" / "file", "x")
    (root / "empty").rmdir()
    (root / "empty").write_text("not a directory")
    (root / "current").unlink()
    (root / "current").symlink_to("bin")
    (root / "pipe").unlink()
    write(root / "new" / "deep" / "er", "more")
    (root / "new" / "link").symlink_to("/etc/passwd")


def build_rich(root: Path) -> Path:
    """All that a file system can hold, as root; made by the programs that people use."""
    build_small(root)
    odd = os.fsencode(root) + b"/odd"
    os.mkdir(odd)
    for name in (b"new\nline", b"tab\there", b"bad\xff\xfeutf8", b"back\\slash", b" ", b"%41", b"-n", b"*", b"x" * 255):
        with open(odd + b"/" + name, "wb") as file:
            file.write(name)
        os.utime(odd + b"/" + name, ns=(OLD, OLD + len(name)))
    os.symlink(b"to\nnowhere\xff", odd + b"/dangling\xff")
    os.link(odd + b"/dangling\xff", odd + b"/dangling-2")
    with open(root / "sparse", "wb") as file:
        file.write(b"begin")
        file.seek(4 << 20)
        file.write(b"end")
    (root / "void").touch()
    os.truncate(root / "void", 2 << 20)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(8, 1))
    os.mknod(root / "socket", stat.S_IFSOCK | 0o755)
    os.link(root / "pipe", root / "pipe-2")
    os.chown(root / "etc" / "app.conf", 1234, 4321)
    os.chown(root / "current", 65534, 65534, follow_symlinks=False)
    (root / "shared").mkdir()
    (root / "shared").chmod(0o3777)
    (root / "shut").mkdir()
    (root / "shut").chmod(0)
    ping = write(root / "bin" / "ping", "#!ping", 0o2755)
    _run("setcap", "cap_net_raw,cap_net_admin=ep", str(ping))
    _run("setfacl", "-m", "u:1234:rw,g:4321:r", str(root / "etc" / "secret"))
    _run("setfacl", "-d", "-m", "u:1234:rwx", str(root / "etc"))
    _run("setfattr", "-n", "user.origin", "-v", "here it is", str(root / "etc" / "app.conf"))
    _run("setfattr", "-n", "trusted.label", "-v", "0x00ff0a25", str(root / "empty"))
    _run("setfattr", "-h", "-n", "trusted.link", "-v", "on a symlink", str(root / "current"))
    _run("setfattr", "-n", "user.none", str(root / "bin" / "ping"))
    for path in (root, root / "etc", root / "empty", root / "odd", root / "shut"):
        os.utime(path, ns=(OLD, OLD + 7))
    os.utime(root / "null", ns=(OLD, -HOUR))  # before 1970
    return root


# What may be at a root.
ROOTS: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "file": lambda path: write(path, "a file", 0o640),
    "other file": lambda path: write(path, "another", 0o600),
    "symlink": lambda path: path.symlink_to("/etc/passwd"),
    "tree": build_small,
    "fifo": os.mkfifo,
}


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)


def rsync_says(one: Path, other: Path) -> str:
    """What rsync would still have to do to make `other` equal to `one`: nothing when they are."""
    flags = "-aHAXn" if IS_ROOT else "-aHn"
    command = ["rsync", flags, "--checksum", "--delete", "--itemize-changes", f"{one}/", f"{other}/"]
    return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout


def copy(one: Path, other: Path) -> Path:
    """A true copy, by cp."""
    _run("cp", "-a", "--", str(one), str(other))
    return other


def remove(root: Path) -> None:
    """Remove a tree, or a file, whatever it is."""
    if root.is_dir() and not root.is_symlink():
        shutil.rmtree(root)
    elif os.path.lexists(root):
        root.unlink()


def temporaries(root: Path) -> list[Path]:
    """Names that a restore uses on the way."""
    return [path for path in root.rglob("*") if path.name.startswith(".umbra-tmp-")]


@contextmanager
def before_each_call(names: tuple[str, ...], hook: Callable[[int, str], None]) -> Iterator[None]:
    """Call `hook` with the number (from 1) and the name of every call of these functions of os, before it is made."""
    originals = {name: getattr(os, name) for name in names}
    count = 0

    def wrap(name: str) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            hook(count, name)
            return originals[name](*args, **kwargs)

        return wrapped

    try:
        for name in names:
            setattr(os, name, wrap(name))
        yield
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def run_until(action: Callable[[], object], last: int) -> bool:
    """Run `action` in a child that dies, without a word, at its call number `last` that changes something.

    Whether it got through all the same. A failure in the child is a failure of the test.
    """

    def die_at_last(count: int, _name: str) -> None:
        if count == last:
            os._exit(77)

    child = os.fork()
    if child == 0:
        code = 3
        try:
            with before_each_call((*CHANGING, "open"), die_at_last):
                action()
            code = 0
        finally:
            os._exit(code)
    _pid, status = os.waitpid(child, 0)
    code = os.WEXITSTATUS(status)
    assert code in (0, 77), f"the child ended with {code}"
    return code == 0


def as_nobody(action: Callable[[], object]) -> str:
    """Run `action` in a child without privileges; what it raised, as text, or nothing."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if IS_ROOT:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            action()
        except BaseException as error:  # noqa: BLE001 (the edge of a process that must not go on as a second pytest)
            os.write(writable, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@contextmanager
def mounted(target: Path, *arguments: str) -> Iterator[None]:
    """Something mounted on `target`, as mount's arguments say."""
    _run("mount", *arguments, str(target))
    try:
        yield
    finally:
        unmount(target)


def unmount(target: Path) -> None:
    """Raises CalledProcessError. What was killed in it, or is written out, may keep it busy for a moment."""
    end = time.monotonic() + UNMOUNT_SECONDS
    while time.monotonic() < end:
        if subprocess.run(["umount", str(target)], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    _run("umount", str(target))
