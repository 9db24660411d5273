# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a file once: its digest, its holes, and what happens when it changes meanwhile."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.store import stream

MIB = 1 << 20


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    """A new empty file, open for reading and writing."""
    fd = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def opened(path: Path, data: bytes) -> int:
    path.write_bytes(data)
    return os.open(path, os.O_RDONLY)


def sparse(path: Path, size: int, parts: dict[int, bytes]) -> int:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in parts.items():
            file.seek(offset)
            file.write(data)
    return os.open(path, os.O_RDONLY)


SIZES = [0, 1, 4095, 4096, 4097, MIB - 1, MIB, MIB + 1, 3 * MIB + 17]


@pytest.mark.parametrize("size", SIZES)
def test_copy_gives_digest_size_and_bytes(tmp_path: Path, target: int, size: int) -> None:
    data = os.urandom(size)
    source = opened(tmp_path / "source", data)
    assert stream.copy(source, size, stream.writer(target)) == (hashlib.sha256(data).digest(), size)
    assert os.pread(target, size + 1, 0) == data
    os.close(source)


def test_holes_are_hashed_as_zeros_and_not_written(tmp_path: Path, target: int) -> None:
    source = sparse(tmp_path / "source", 5 * MIB + 3, {MIB: b"x" * 4096, 4 * MIB: b"end"})
    data = (tmp_path / "source").read_bytes()
    written: list[int] = []
    digest, size = stream.copy(source, len(data), lambda part, offset: written.append(len(part)))
    assert (digest, size) == (hashlib.sha256(data).digest(), len(data))
    assert sum(written) < MIB
    stream.copy(source, len(data), stream.writer(target), fill=True)
    assert os.pread(target, size + 1, 0) == data
    assert os.fstat(target).st_blocks * 512 >= size - 4096
    os.close(source)


def test_a_file_of_one_hole(tmp_path: Path) -> None:
    source = sparse(tmp_path / "source", 2 * MIB, {})
    assert stream.copy(source, 2 * MIB) == (hashlib.sha256(bytes(2 * MIB)).digest(), 2 * MIB)
    os.close(source)


def test_a_file_that_ends_sooner_is_as_long_as_it_is(tmp_path: Path) -> None:
    source = opened(tmp_path / "source", b"short")
    assert stream.copy(source, stream.ENDLESS) == (hashlib.sha256(b"short").digest(), 5)
    os.close(source)


def test_zeros_become_holes(tmp_path: Path, target: int) -> None:
    data = b"a" * 5000 + bytes(20000) + b"b" * 100 + bytes(9000)
    write = stream.sparse_writer(target)
    write(memoryview(data), 0)
    os.ftruncate(target, len(data))
    assert os.pread(target, len(data) + 1, 0) == data
    assert os.fstat(target).st_blocks * 512 < len(data)


SMALL_FILES = [(b"", b""), (b"abc", b"abc"), (b"x" * 100, b"x" * 100), (b"x" * 101, None)]


@pytest.mark.parametrize("data, expected", SMALL_FILES)
def test_small_is_all_of_a_small_file(tmp_path: Path, data: bytes, expected: bytes | None) -> None:
    fd = opened(tmp_path / "file", data)
    assert stream.small(fd, os.fstat(fd), 100) == expected
    os.close(fd)


def test_small_reads_on_when_the_file_grew(tmp_path: Path) -> None:
    fd = opened(tmp_path / "file", b"one")
    stat = os.fstat(fd)
    with (tmp_path / "file").open("ab") as file:
        file.write(b" and more")
    assert stream.small(fd, stat, 100) == b"one and more"
    assert stream.small(fd, stat, 5) is None
    os.close(fd)


def test_small_reads_files_that_say_they_are_empty() -> None:
    fd = os.open("/proc/self/status", os.O_RDONLY)
    data = stream.small(fd, os.fstat(fd), 1 << 17)
    os.close(fd)
    assert data and data.startswith(b"Name:")


def test_a_hole_is_told_from_fewer_blocks(tmp_path: Path) -> None:
    full = opened(tmp_path / "full", b"x" * 8192)
    holed = sparse(tmp_path / "holed", 65536, {0: b"x"})
    assert not stream.has_holes(full, os.fstat(full))
    assert stream.has_holes(holed, os.fstat(holed))
    assert stream.small(holed, os.fstat(holed), 1 << 17) is None
    os.close(full)
    os.close(holed)


def test_clone_says_no_where_there_are_no_reflinks(tmp_path: Path, target: int) -> None:
    source = os.open("/proc/self/status", os.O_RDONLY)
    assert not stream.clone(source, target)
    os.close(source)
