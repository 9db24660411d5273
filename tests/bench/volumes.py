# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""File systems on loop devices, fresh for each round: creating files is slow on one that was emptied."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

PRIVATE = "UMBRA_BENCH_MOUNTS_ARE_PRIVATE"
PATIENCE = 20  # tries to unmount, half a second apart
MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0"),
    "xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q"),
}
PACKAGES = {"ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}
OPTIONS = {"ext4": "loop,noatime,noinit_itable", "xfs": "loop,noatime", "btrfs": "loop,noatime"}
SMALLEST = 1 << 30  # bytes; smaller ones have another layout

Mounted = AbstractContextManager[Path]


class NoVolume(Exception):
    """A file system of our own can't be made here; the text says why and what to do."""


def check(kind: str, directory: Path, needed: int) -> None:
    """Say now what would fail later. Raises NoVolume."""
    if os.geteuid() != 0:
        raise NoVolume("Each round gets a file system of its own, and only root can mount one: run this as root.")
    if not shutil.which(MKFS[kind][0]):
        raise NoVolume(f"{MKFS[kind][0]} is missing: apt-get install {PACKAGES[kind]}")
    if f"\t{kind}\n" not in Path("/proc/filesystems").read_text() and not _has_module(kind):
        raise NoVolume(f"This kernel has no {kind}.")
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise NoVolume(
            f"{directory} has {free >> 20} MiB free, and {needed >> 20} MiB are needed: "
            f"{(needed - free) >> 20} MiB are missing. Name another place with --dir, or do less (--files, --limit)."
        )


def _has_module(kind: str) -> bool:
    return subprocess.run(["modprobe", kind], capture_output=True, check=False).returncode == 0


def keep_mounts_private() -> None:
    """Go on in a mount namespace of our own: when this process ends, in whatever way, its mounts end with it."""
    if os.environ.pop(PRIVATE, "") or os.geteuid() != 0 or not shutil.which("unshare"):
        return  # it is so already, or `check` will say what is missing
    argv = ["unshare", "--mount", "--propagation", "private", "--", sys.executable, *sys.orig_argv[1:]]
    os.execvpe(argv[0], argv, {**os.environ, PRIVATE: "1"})


@contextmanager
def mounted(kind: str, image: Path, at: Path, size: int, inodes: int) -> Iterator[Path]:
    """A fresh file system of about `size` bytes in the sparse file `image`, mounted at `at`; both are gone afterwards.

    Its pages are not cached a second time as pages of `image`, where the file system below allows that.
    Raises NoVolume.
    """
    with image.open("xb") as file:
        file.truncate(max(SMALLEST, size))
    try:
        extra = ("-N", str(inodes)) if kind == "ext4" else ()
        _check([*MKFS[kind], *extra, str(image)])
        at.mkdir(parents=True, exist_ok=True)
        _check(["mount", "-t", kind, "-o", OPTIONS[kind], str(image), str(at)])
        try:
            device = subprocess.run(
                ["findmnt", "-n", "-o", "SOURCE", "--mountpoint", str(at)], capture_output=True, text=True, check=True
            ).stdout.split()[-1]
            # Where the file system below has no direct I/O the loop device stays as it is.
            subprocess.run(["losetup", "--direct-io=on", device], capture_output=True, check=False)
            yield at
        finally:
            _unmount(at)
    finally:
        image.unlink()


def _unmount(at: Path) -> None:
    for number in range(PATIENCE):
        done = subprocess.run(["umount", str(at)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        time.sleep(0.5 if number < PATIENCE - 1 else 0)
    raise NoVolume(f"{at} can't be unmounted ({done.stderr.strip()}): end what uses it, then umount {at}")


def _check(argv: list[str]) -> None:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoVolume(f"{' '.join(argv)} failed ({done.returncode}): {done.stderr.strip()}")


def settle(*places: Path, cold: bool = False) -> None:
    """Write out what the file systems at `places` still hold back; empty the caches when `cold`."""
    for place in places:
        subprocess.run(["sync", "--file-system", str(place)], check=True)
    if cold:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    time.sleep(0.1)  # what was written just now is old then: a shadow waits for that


def allocated(place: Path) -> int:
    """Bytes that everything at `place` takes on its disk."""
    done = subprocess.run(
        ["du", "--summarize", "--block-size=1", str(place)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[0])
