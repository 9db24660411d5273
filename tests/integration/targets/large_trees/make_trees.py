# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make, change and describe the two trees: 100,000 small files with all that a file can have, and 20 large ones."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

SMALL, LARGE = int(os.environ["SMALL_FILES"]), 20


def make(root: Path, large_bytes: int) -> None:
    """Both trees; as root with everything that only root may make."""
    dice = random.Random(1)
    small, large = root / "small", root / "large"
    for number in range(SMALL):
        directory = small / f"d{number // 500}"
        if number % 500 == 0:
            directory.mkdir(parents=True)
        (directory / f"f{number}").write_bytes(dice.randbytes(dice.randrange(0, 200)))
    odd(small, dice)
    large.mkdir()
    for number in range(LARGE):
        with open(large / f"{number}.bin", "wb") as file:
            left = large_bytes // LARGE
            while left > 0:
                left -= file.write(os.urandom(min(left, 1 << 20)))


def odd(small: Path, dice: random.Random) -> None:
    """Links, holes, odd names, special files, and what metadata there can be."""
    os.link(small / "d0/f1", small / "d1/linked")
    (small / "link").symlink_to("d0/f1")
    (small / "dangling").symlink_to("nowhere\n")
    (small / "empty").mkdir()
    for name in (b"new\nline", b"\xff\xfe invalid utf-8", b" spaces ", b"-rf", b"back\\slash", b"x" * 255):
        with open(os.path.join(os.fsencode(small), name), "wb") as file:
            file.write(name)
    with open(small / "sparse", "wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"island")
    os.mkfifo(small / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as unix:
        here = os.getcwd()
        os.chdir(small)  # a socket's path is short
        unix.bind("socket")
        os.chdir(here)
    os.setxattr(small / "d0/f2", "user.colour", b"blue\0green")
    subprocess.run(["setfacl", "-m", "u:65534:r", str(small / "d0/f3")], check=True)
    subprocess.run(["setfacl", "-d", "-m", "g:65534:rx", str(small / "empty")], check=True)
    os.chmod(small / "d0/f4", 0o4750)
    os.chmod(small / "empty", 0o1777)
    if os.geteuid() == 0:
        os.mknod(small / "device", 0o600 | 0o020000, os.makedev(1, 3))
        subprocess.run(["setcap", "cap_net_bind_service+ep", str(small / "d0/f5")], check=True)
        os.chown(small / "d0/f6", 1234, 5678)
        os.chown(small / "dangling", 1234, 5678, follow_symlinks=False)
    for number in range(0, SMALL, 1000):
        path = small / f"d{number // 500}/f{number}"
        os.utime(path, ns=(0, dice.randrange(10**18)))


def drift(root: Path) -> None:
    """What a bad update does to 1 % of the small files, and to some of the large."""
    small = root / "small"
    for number in range(0, SMALL, 125):
        path = small / f"d{number // 500}/f{number}"
        path.write_bytes(b"changed")
    for number in range(7, SMALL, 1000):
        (small / f"d{number // 500}/f{number}").unlink()
    for number in range(SMALL // 2000):
        (small / f"d{number}/extra").write_text("extra")
    (small / "link").unlink()
    (small / "link").mkdir()
    (small / "link" / "below").write_text("a directory where a link was")
    (small / "empty").rmdir()
    os.removexattr(small / "d0/f2", "user.colour")
    os.chmod(small / "d0/f4", 0o600)
    with open(root / "large" / "3.bin", "r+b") as file:
        file.seek(12345)
        file.write(b"changed")
    (root / "large" / "4.bin").unlink()


def look(root: Path) -> None:
    """Path, inode and change time of every regular file."""
    for directory, _names, files in os.walk(os.fsencode(root)):
        for name in files:
            info = os.lstat(os.path.join(directory, name))
            print(repr(os.path.join(directory, name)), info.st_ino, info.st_ctime_ns)


def digests(root: Path) -> None:
    """SHA-256, size, mode and time of every file."""
    for path in sorted(root.iterdir()):
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        info = path.stat()
        print(path.name, digest.hexdigest(), info.st_size, info.st_mode, info.st_mtime_ns)


if __name__ == "__main__":
    verb, where = sys.argv[1], Path(sys.argv[2])
    if verb == "make":
        make(where, int(sys.argv[3]))
    else:
        {"drift": drift, "look": look, "digests": digests}[verb](where)
