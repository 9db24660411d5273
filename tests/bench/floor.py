# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`floor.py DIRECTORY`: what this machine can do at best, as JSON; the directory is on a fresh file system."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

BUFFER = 128 << 20
TRIES = 3
FILES = 10_000
A_DIRECTORY = 100
CONTENT = os.urandom(4096)


def fastest(call: Callable[[], object]) -> float:
    """Seconds of the fastest of some tries."""
    best = float("inf")
    for _number in range(TRIES):
        begin = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - begin)
    return best


def create(root: str, files: int) -> None:
    """Make files of 4 KiB in directories of a hundred, as cheaply as system calls allow."""
    for first in range(0, files, A_DIRECTORY):
        directory = os.path.join(root, str(first))
        os.makedirs(directory)
        above = os.open(directory, os.O_RDONLY)
        for number in range(A_DIRECTORY):
            fd = os.open(str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=above)
            os.write(fd, CONTENT)
            os.close(fd)
        os.close(above)


def creations(root: str, processes: int) -> float:
    """Files made in a second, by that many processes at once."""
    begin = time.perf_counter()
    children = []
    for number in range(processes):
        if (pid := os.fork()) == 0:
            create(os.path.join(root, f"{processes}-{number}"), FILES)
            os._exit(0)
        children.append(pid)
    if {os.waitpid(pid, 0)[1] for pid in children} != {0}:  # a set: all of them are waited for
        sys.exit(f"files could not be made in {root}")
    return processes * FILES / (time.perf_counter() - begin)


def main(root: str) -> dict[str, float]:
    """Bytes and files in a second: one core, and all of them where the name says so."""
    cores = len(os.sched_getaffinity(0))
    one, other = bytearray(os.urandom(1 << 20) * (BUFFER >> 20)), bytearray(BUFFER)
    source, target = memoryview(one), memoryview(other)

    def copy() -> None:
        target[:] = source

    def hash_one(_number: int = 0) -> bytes:
        return hashlib.sha256(source).digest()

    def hash_all() -> None:
        list(pool.map(hash_one, range(cores)))

    with ThreadPoolExecutor(cores) as pool:
        found = {
            "memcpy": BUFFER / fastest(copy),
            "sha256": BUFFER / fastest(hash_one),
            "sha256_all_cores": cores * BUFFER / fastest(hash_all),
        }
    return {**found, "creations": creations(root, 1), "creations_all_cores": creations(root, cores)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
