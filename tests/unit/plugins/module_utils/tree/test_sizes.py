# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The limits of file systems: names of any bytes, paths longer than the system takes, very many links, very many holes.

UMBRA_TEST_SIZES=full takes the real ones (a gigabyte; with each twin 12 seconds of a processor, and two minutes to hash
100 GiB twice); otherwise those that need long are smaller.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.providers.base import Contents
from ansible_collections.umbra.rollback.plugins.module_utils.store.objects import ObjectContents
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store

from .trees import mounted, picture, remove, root_only
from .verbs import restore, shadow

FULL = os.environ.get("UMBRA_TEST_SIZES") == "full"
LINKS = 65_000 if FULL else 3_000  # as many as ext4 allows
HOLES = 100_000 if FULL else 2_000
SPARSE = (100 << 30) if FULL else (256 << 20)
DEPTH = 1_000 if FULL else 300
BLOCK = 4096


@pytest.fixture
def kept(tmp_path: Path) -> ObjectContents:
    """Contents in a real store."""
    return Store.open(str(tmp_path / "store"), "web1", create=True).contents


def there_and_back(root: Path, kept: Contents) -> None:
    """Shadow it, remove it, restore it: it is as it was."""
    before = picture(root)
    good = shadow(root, kept)  # type: ignore[arg-type]
    remove(root)
    restore(root, good, kept)  # type: ignore[arg-type]
    assert picture(root) == before


def test_names_of_all_bytes(tmp_path: Path, kept: ObjectContents) -> None:
    root = os.fsencode(tmp_path) + b"/root"
    os.mkdir(root)
    some = random.Random(1)
    values = [value for value in range(1, 256) if value != ord("/")]
    names = [bytes([value]) for value in values if value != ord(".")]
    names += [bytes(some.choices(values, k=255)) for dummy in range(200)]
    names += [bytes([*values, value]) for value in values]
    for number, name in enumerate(names):
        path = root + b"/" + name
        if number % 3 == 0:
            os.mkdir(path)
        elif number % 3 == 1:
            os.symlink(name, path)
        else:
            Path(os.fsdecode(path)).write_bytes(name)
    there_and_back(tmp_path / "root", kept)


def test_symlinks_and_attributes_as_long_as_they_may_be(tmp_path: Path, kept: ObjectContents) -> None:
    root = tmp_path / "root"
    root.mkdir()
    os.symlink("x" * 4095, root / "link")
    (root / "file").write_text("with attributes")
    size = 1 << 16
    while size:
        try:
            os.setxattr(root / "file", "user." + "n" * 200, os.urandom(size))
            break
        except OSError as error:
            assert error.errno in (errno.ENOSPC, errno.E2BIG, errno.ERANGE)
            size -= 256
    assert size > 2000
    there_and_back(root, kept)


@root_only
def test_attributes_of_64_kib(tmp_path: Path, kept: ObjectContents) -> None:
    place = tmp_path / "mounted"
    place.mkdir()
    with mounted(place, "-t", "tmpfs", "none"):
        (place / "root").mkdir()
        (place / "root" / "file").touch()
        for number in range(3):
            os.setxattr(place / "root" / "file", f"trusted.{number}", os.urandom(1 << 16))
        there_and_back(place / "root", kept)


def test_many_names_of_one_file(tmp_path: Path, kept: ObjectContents) -> None:
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    (root / "first").write_text("one")
    for number in range(LINKS - 1):
        os.link(root / "first", root / "d" / f"{number:05}")
    there_and_back(root, kept)
    assert (root / "first").stat().st_nlink == LINKS


def test_holes_stay_holes(tmp_path: Path, kept: ObjectContents) -> None:
    """And are not read: what lies between two of them comes back, the rest takes no room anywhere."""
    root, step = tmp_path / "root", 2 * BLOCK
    root.mkdir()
    with (root / "holes").open("wb") as file:
        for number in range(HOLES):
            os.pwrite(file.fileno(), number.to_bytes(8, "big") * 512, number * step)
        file.truncate(HOLES * step)
    with (root / "huge").open("wb") as file:
        for offset in (0, SPARSE // 2, SPARSE - BLOCK):
            os.pwrite(file.fileno(), b"data", offset)
        file.truncate(SPARSE)
    blocks = {path.name: path.stat().st_blocks for path in root.iterdir()}
    good = shadow(root, kept)  # type: ignore[arg-type]
    remove(root)
    restore(root, good, kept)  # type: ignore[arg-type]
    for name, before in blocks.items():
        assert (root / name).stat().st_blocks <= before + before // 50 + 64
    with (root / "holes").open("rb") as file:
        assert file.seek(0, os.SEEK_END) == HOLES * step
        for number in range(HOLES):
            assert os.pread(file.fileno(), step, number * step) == number.to_bytes(8, "big") * 512 + bytes(BLOCK)
    with (root / "huge").open("rb") as file:
        assert file.seek(0, os.SEEK_END) == SPARSE
        for offset in (0, SPARSE // 2, SPARSE - BLOCK):
            assert os.pread(file.fileno(), 8, offset) == b"data" + bytes(4)
        assert [os.lseek(file.fileno(), BLOCK, os.SEEK_DATA)] == [SPARSE // 2]
    stored = sum(path.lstat().st_blocks * 512 for path in (tmp_path / "store").rglob("*"))
    assert stored < HOLES * step + (1 << 20)


@contextmanager
def few_descriptors(most: int) -> Iterator[None]:
    """Not more than so many may be open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def dig(root: Path) -> None:
    """Directories below each other, a file in each, by far longer than a path may be."""
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    for number in range(DEPTH):
        name = b"a directory number %05d" % number
        os.close(os.open(b"file", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=fd))
        os.mkdir(name, 0o700 + number % 8, dir_fd=fd)
        deeper = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)


def depth(root: Path) -> list[tuple[int, int, int]]:
    """Mode and mtime of each directory, and how many names it has, down to the last."""
    found = []
    fd = os.open(root, os.O_RDONLY)
    while True:
        names, st = os.listdir(fd), os.fstat(fd)
        found.append((stat.S_IMODE(st.st_mode), st.st_mtime_ns, len(names)))
        below = [name for name in names if name != "file"]
        if not below:
            os.close(fd)
            return found
        deeper = os.open(below[0], os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper


def fill_in(root: Path) -> None:
    """Remove it, which what takes whole paths can't."""
    fd = os.open(root, os.O_RDONLY)
    while below := [name for name in os.listdir(fd) if name != "file"]:
        inner = os.open(below[0], os.O_RDONLY, dir_fd=fd)
        for name in os.listdir(inner):  # all that is in it goes up, and it goes
            if name == "file":
                os.unlink(name, dir_fd=inner)
            else:
                os.rename(name, f"up-{name}", src_dir_fd=inner, dst_dir_fd=fd)
        os.close(inner)
        os.rmdir(below[0], dir_fd=fd)
    os.unlink("file", dir_fd=fd)
    os.close(fd)
    root.rmdir()


def test_deeper_than_a_path_is_long(tmp_path: Path, kept: ObjectContents) -> None:
    """With few descriptors: no more are open at once than a process may have."""
    root = tmp_path / "root"
    dig(root)
    before = depth(root)
    with few_descriptors(256):
        good = shadow(root, kept)  # type: ignore[arg-type]
        fill_in(root)
        restore(root, good, kept)  # type: ignore[arg-type]
        assert depth(root) == before
        root.chmod(0o711)
        assert len(before) == DEPTH + 1
        restore(root, good, kept)  # type: ignore[arg-type]
    assert depth(root) == before
    fill_in(root)
