# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The built kernel, one that an attacker would like to see loaded, and a directory that only its owner can write."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ansible_collections.umbra.rollback.plugins.module_utils.kernel.load as loader

PLATFORM = "x86_64-linux-gnu"
BUILT = Path(loader.__file__).parent / "built"
FILE = BUILT / f"umbra_kernel.{PLATFORM}.so"
OWNED = 66  # how a process ends that ran the attacker's code
# mov edi, 66; mov eax, 231 (exit_group); syscall
SHELLCODE = b"\xbf\x42\x00\x00\x00\xb8\xe7\x00\x00\x00\x0f\x05"
ENTRY = b"PyInit_umbra_kernel"


def content() -> bytes:
    """The file of the built kernel for the platform that the tests run on."""
    return FILE.read_bytes()


def digest(data: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def attackers(good: bytes) -> bytes:
    """The kernel `good`, of the same size, with another entry: whoever loads it ends at once, with status OWNED."""
    sections = _sections(good)
    names_at, symbols_at, symbols_size = next(
        (sections[link][1], offset, size)
        for kind, offset, size, link in sections
        if kind == 11  # SHT_DYNSYM
    )
    for at in range(symbols_at, symbols_at + symbols_size, 24):
        name, address = struct.unpack_from("<I4xQ", good, at)
        if good[names_at + name :].startswith(ENTRY + b"\0"):
            offset = _offset(good, address)
            return good[:offset] + SHELLCODE + good[offset + len(SHELLCODE) :]
    raise AssertionError(f"{FILE} has no {ENTRY!r}")


def _sections(elf: bytes) -> list[tuple[int, int, int, int]]:
    """Kind, offset, size and link of each section of an ELF file of 64 bits."""
    (start,) = struct.unpack_from("<Q", elf, 0x28)
    size, count = struct.unpack_from("<HH", elf, 0x3A)
    return [struct.unpack_from("<4xI16xQQI", elf, start + number * size) for number in range(count)]


def _offset(elf: bytes, address: int) -> int:
    """Where in the file the code at `address` is."""
    (start,) = struct.unpack_from("<Q", elf, 0x20)
    size, count = struct.unpack_from("<HH", elf, 0x36)
    for number in range(count):
        kind, offset, virtual, length = struct.unpack_from("<I4xQQ8xQ", elf, start + number * size)
        if kind == 1 and virtual <= address < virtual + length:  # PT_LOAD
            return int(offset + address - virtual)
    raise AssertionError(f"{FILE}: nothing is loaded at {address:#x}")


@contextmanager
def safe_directory() -> Iterator[Path]:
    """A directory whose parents are nobody else's to write, unlike those of tmp_path."""
    with tempfile.TemporaryDirectory(prefix=".umbra-test-", dir=Path.home()) as path:
        yield Path(path)


def python(code: str, *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run `code` in another Python of the same version that finds the collection."""
    return subprocess.run(
        [*prefix, sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
