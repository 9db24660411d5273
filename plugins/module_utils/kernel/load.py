# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads the native kernel from bytes that were checked, so that nobody can change them between check and load."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

from ..version import ENGINE

NAME = "umbra_kernel"
RELEASE = ENGINE.rpartition(" ")[2]
DESCRIPTORS = "/proc/self/fd"
MAPS = "/proc/self/maps"

LARGE = 4 << 20
M_MMAP_THRESHOLD = -3  # malloc.h

# linux/memfd.h and linux/fcntl.h; Python has the names only where it was built with headers that do
MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_NOEXEC_SEAL = 0x1, 0x2, 0x8
F_ADD_SEALS, SEALS = 1033, 0x1 | 0x2 | 0x4 | 0x8  # no more seals, no shrinking, no growing, no writing


class NotLoaded(Exception):
    """The native kernel can't run in this process; the text says why, without a full stop."""


def load(content: bytes, kept: str | None = None) -> ModuleType:
    """The kernel whose file has exactly `content`, which the caller has checked. Raises NotLoaded.

    `kept` names the same file in a directory that only its owner can write: it is loaded where memory can't be.
    """
    if sys.implementation.name != "cpython":
        raise NotLoaded(f"it needs CPython, and this is {sys.implementation.name}")
    if "t" in getattr(sys, "abiflags", ""):
        raise NotLoaded("it is built for Python with the global interpreter lock, and this Python has none")
    try:
        module = _from_memory(content)
    except (NotLoaded, ImportError, OSError, SystemError) as error:
        if kept is None:
            raise NotLoaded(_sentence(error)) from error
        try:
            module = _from_file(kept)
        except (ImportError, OSError, SystemError) as second:
            raise NotLoaded(_sentence(second)) from second
    version = getattr(module, "VERSION", None)
    if version != RELEASE:
        raise NotLoaded(f"it is that of release {version}, and this is {RELEASE}")
    share_libcrypto(module)
    give_back_memory()
    return module


def give_back_memory() -> None:
    """Have large pieces of memory go back to the system when they are free. By itself, glibc keeps those that are
    smaller than one that was freed before (of up to 32 MiB): much, beside what a tree of a million files needs."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none, and keeps none
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)


def trim_memory() -> None:
    """Give back to the system what is free now, in small pieces: as many as a tree had directories."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def share_libcrypto(module: ModuleType) -> None:
    """Let it hash with the very libcrypto that Python's hashlib has loaded, so that a host in FIPS mode stays in it."""
    hashlib.sha256()
    try:
        with open(MAPS, "rb") as maps:
            paths = {line.split(None, 5)[5].strip() for line in maps if b"libcrypto" in line}
    except OSError:
        return  # then it has its own
    for path in paths:
        if module.use_libcrypto(path):
            return


def _from_memory(content: bytes) -> ModuleType:
    fd = sealed(content)
    path = f"{DESCRIPTORS}/{fd}"
    try:
        if not os.path.samestat(os.stat(path), os.fstat(fd)):
            raise NotLoaded("/proc is not that of this process")
    except FileNotFoundError:
        os.close(fd)
        raise NotLoaded("/proc is not mounted") from None
    # fd stays open: to the dynamic linker an equal path is the same library, so its number may not be used again
    return _from_file(path)


def sealed(content: bytes) -> int:
    """A descriptor of memory that holds `content` and that nobody, its owner included, can change. Raises OSError."""
    fd = _memory()
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, F_ADD_SEALS, SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def _memory() -> int:
    if not hasattr(os, "memfd_create"):
        raise NotLoaded("this Python knows no memory files")
    try:
        # vm.memfd_noexec=2 wants this flag; it forbids execve(), and not the mapping of a library
        return os.memfd_create(NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a Linux before 6.3
            raise
        return os.memfd_create(NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING)


def _from_file(path: str) -> ModuleType:
    loader = ExtensionFileLoader(NAME, path)
    spec = spec_from_file_location(NAME, path, loader=loader)
    if spec is None:
        raise ImportError(f"{path} is no extension module")
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"memory for it could not be had: {error.strerror or error}"
    return " ".join(str(error).split()).rstrip(".")
