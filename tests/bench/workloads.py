# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The trees that are shadowed: made from a seed, or copied from /usr; changed by one file in a hundred."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import hash_pool

SMALL = 4096
A_DIRECTORY = 100  # files in each directory of W1
LARGE_FILES = 20
LARGE = 100 << 20
FULL_FILES = 200_000
BLOCK = 1 << 20
STEP = 100  # of so many files one is changed
SEED = 20260101
USR = b"/usr"


@dataclass(frozen=True)
class Work:
    """A tree to work on: `make` makes it in a directory that is not there yet. `bytes` and `files` are its size.

    `full` says whether it has the size that the targets are meant for.
    """

    name: str
    title: str
    bytes: int
    files: int
    full: bool
    make: Callable[[Path], None]


def small(files: int) -> Work:
    """W1: many files of 4 KiB."""

    def make(root: Path) -> None:
        source = random.Random(SEED)
        for first in range(0, files, A_DIRECTORY):
            directory = root / f"{first // A_DIRECTORY:05}"
            directory.mkdir(parents=True)
            for number in range(first, min(first + A_DIRECTORY, files)):
                _write(directory / f"{number:07}.dat", source, SMALL)

    return Work("W1", f"{files:,} files of 4 KiB", files * SMALL, files, files >= FULL_FILES, make)


def large(limit: int | None) -> Work:
    """W2: 20 large files, smaller ones where all together would be more than `limit` bytes."""
    size = LARGE if limit is None else max(BLOCK, min(LARGE, limit // LARGE_FILES))

    def make(root: Path) -> None:
        root.mkdir(parents=True)
        source = random.Random(SEED)
        for number in range(LARGE_FILES):
            _write(root / f"{number:02}.img", source, size)

    title = f"{LARGE_FILES} files of {size // BLOCK} MiB"
    return Work("W2", title, LARGE_FILES * size, LARGE_FILES, size == LARGE, make)


def usr(limit: int | None) -> Work:
    """W3: a copy of /usr, of its first `limit` bytes only when that is given."""
    names: list[bytes] = []
    total = 0
    for name, info in _below(USR):
        if limit is not None and total + info.st_size > limit:
            break
        names.append(name)
        total += info.st_size

    def make(root: Path) -> None:
        root.mkdir(parents=True)
        argv = ["rsync", "-aH", "--from0", "--files-from=-", os.fsdecode(USR) + "/", f"{root}/"]
        subprocess.run(argv, input=b"\0".join(names), check=True)

    title = f"/usr of this machine, {len(names):,} files" + ("" if limit is None else " of it")
    return Work("W3", title, total, len(names), limit is None, make)


def _write(path: Path, source: random.Random, size: int) -> None:
    with path.open("wb", buffering=0) as file:
        for begin in range(0, size, BLOCK):
            file.write(source.randbytes(min(BLOCK, size - begin)))


def _below(root: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Name relative to `root`, and what stat says, of every file and symlink on its file system, in order.

    What a Git repository keeps of itself is left out: git would not shadow it.
    """
    device = os.stat(root).st_dev
    pending = [b""]
    while pending:
        directory = pending.pop()
        with os.scandir(os.path.join(root, directory)) as entries:
            found = sorted(
                (entry.name, entry.stat(follow_symlinks=False)) for entry in entries if entry.name != b".git"
            )
        deeper = []
        for name, info in found:
            path = os.path.join(directory, name)
            if stat.S_IFMT(info.st_mode) in (stat.S_IFREG, stat.S_IFLNK):
                yield path, info
            elif stat.S_ISDIR(info.st_mode) and info.st_dev == device:
                deeper.append(path)
        pending += reversed(deeper)


def victims(root: Path) -> list[str]:
    """The one file in a hundred (one at least) that changes, relative to `root`; always the same ones.

    The same ones each time, since a tool that mends them leaves new inodes, which cost every other tool a look.
    """
    found = [
        os.fsdecode(name)
        for name, info in _below(os.fsencode(root))
        if stat.S_ISREG(info.st_mode) and info.st_nlink == 1 and info.st_size
    ]
    return found[STEP // 2 :: STEP] or found[:1]


def change(root: Path, names: Sequence[str], seed: int) -> None:
    """Write over the first mebibyte of some files, in place, in another second than they had: rsync looks no closer."""
    source = random.Random(seed)
    newest = max(int((root / name).stat().st_mtime) for name in names)
    while time.time() < newest + 1:
        time.sleep(0.05)
    for name in names:
        with (root / name).open("r+b", buffering=0) as file:
            file.write(source.randbytes(min(BLOCK, os.fstat(file.fileno()).st_size)))


def fingerprint(root: Path, read: Sequence[str]) -> str:
    """The same for equal trees: every name and size is looked at, and the contents of `read`."""
    total = hashlib.sha256()
    for name, info in _below(os.fsencode(root)):
        total.update(b"%s\0%d\0%o\0" % (name, info.st_size, stat.S_IFMT(info.st_mode)))
    for path in (root / name for name in read):
        total.update(path.read_bytes() if path.is_file() else b"missing")
    return total.hexdigest()


def warm(root: Path, names: Sequence[str] | None = None) -> None:
    """Read everything below `root`, or these names in it, so that it is in the page cache for all alike."""
    buffer = bytearray(BLOCK)
    top = os.fsencode(root)
    if names is None:
        files = [name for name, info in _below(top) if stat.S_ISREG(info.st_mode)]
    else:
        files = [os.fsencode(name) for name in names]
    for name in files:
        with open(os.path.join(top, name), "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def checksums(root: Path, folder: Path, lists: int = 64) -> None:
    """What `sha256sum --check` reads, for every file below `root`, in lists of about the same bytes."""
    folder.mkdir(parents=True)
    top = os.fsencode(root)
    found = [(info.st_size, name) for name, info in _below(top) if stat.S_ISREG(info.st_mode) and b"\n" not in name]
    parts: list[list[tuple[bytes, bytes]]] = [[] for _number in range(min(lists, len(found)))]
    for number, (_size, name) in enumerate(sorted(found, reverse=True)):
        digest = hash_pool.digest(os.path.join(top, name)).encode()
        escaped = name.replace(b"\\", b"\\\\")
        line = (b"\\" if escaped != name else b"") + digest + b"  " + escaped + b"\n"
        parts[number % len(parts)].append((name, line))
    for number, part in enumerate(parts):
        (folder / f"{number:02}").write_bytes(b"".join(line for _name, line in sorted(part)))
