# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packs as they are written: by one thread and by many, past the page cache and through it, on a disk that fills up."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import NoSpace, StoreError
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import selected
from ansible_collections.umbra.rollback.plugins.module_utils.store import writer
from ansible_collections.umbra.rollback.plugins.module_utils.store.objects import ObjectContents
from ansible_collections.umbra.rollback.plugins.module_utils.store.packs import Pack, Place
from ansible_collections.umbra.rollback.plugins.module_utils.store.temporaries import Temporaries
from ansible_collections.umbra.rollback.plugins.module_utils.store.writer import NativePackWriter, PackWriter
from ansible_collections.umbra.rollback.plugins.module_utils.tree import entry
from ansible_collections.umbra.rollback.plugins.module_utils.tree.capture import capture
from ansible_collections.umbra.rollback.plugins.module_utils.tree.scan import TreeOptions
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.tree.trees import mounted, root_only
from ansible_collections.umbra.rollback.tests.unit.support.twins import BUILT, pytest_generate_tests, twin, using

from .helpers import files_below, open_store

__all__ = ["pytest_generate_tests", "twin"]

OPTIONS = TreeOptions(name="tree")
MIB = 1 << 20


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def new_contents(path: Path) -> ObjectContents:
    return ObjectContents(str(path), Temporaries(str(path / "tmp"), "web1"))


@pytest.fixture
def threads() -> Iterator[None]:
    """Four, however many cores there are."""
    selected.limit(4)
    yield
    selected.limit(0)


def grow(root: Path, count: int, copies: int = 1, size: int = 20_000) -> dict[bytes, bytes]:
    """A tree of `count` contents, each `copies` times, side by side and far apart; what it holds, by digest."""
    held = {}
    for number in range(count):
        data = random.Random(number).randbytes(size + number)
        held[sha(data)] = data
        for copy in range(copies):
            directory = root / (f"{copy}/{number // 50}" if copy % 2 else f"beside/{number // 50}")
            directory.mkdir(parents=True, exist_ok=True)
            (directory / f"{number}-{copy}").write_bytes(data)
    time.sleep(0.03)  # older than the clock's tick, so that the kernel does not leave it to the pure twin
    return held


def packs_of(path: Path) -> list[Pack]:
    return new_contents(path).packs.all()


def shadowed(contents: ObjectContents, root: Path) -> set[bytes]:
    """The digests of all files of a new shadow of the tree."""
    captured = capture(os.fsencode(root), contents, OPTIONS)
    return {bytes.fromhex(digest) for digest in entry.digests(contents.get(captured.tree))}


def test_an_index_is_as_the_format_says(tmp_path: Path, threads: None) -> None:
    """The pure twin writes the same bytes for the same places, whoever wrote the pack."""
    held = grow(tmp_path / "root", 300)
    contents = new_contents(tmp_path / "store")
    assert shadowed(contents, tmp_path / "root") == set(held)
    contents.flush()
    (pack,) = packs_of(tmp_path / "store")
    pack.check()
    other = PackWriter(Temporaries(str(tmp_path / "tmp"), "web1"))
    other._places = dict(pack.entries())
    assert other._index() == Path(pack.index_path).read_bytes()
    other.close()
    ends = sorted((place.offset, place.offset + place.length) for _digest, place in pack.entries())
    gaps = [start - end for (_start, end), (start, _end) in zip(ends, ends[1:]) if start != end]
    assert all(0 < gap < 4096 for gap in gaps) and len(gaps) <= 8, "one for each segment at most"
    assert ends[-1][1] == os.stat(pack.path).st_size


@pytest.mark.parametrize("limit", [3 * MIB, 64 * MIB])
def test_duplicates_are_kept_once(tmp_path: Path, threads: None, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Beside each other, in other segments, packs, threads; but for what these have in hand at a time, which may be
    written twice, and is found once."""
    monkeypatch.setattr(writer, "PACK_LIMIT", limit)
    held = grow(tmp_path / "root", 400, copies=4)
    at_a_time = 4 * 2 * MIB
    contents = new_contents(tmp_path / "store")
    assert shadowed(contents, tmp_path / "root") == set(held)
    contents.flush()
    packs = packs_of(tmp_path / "store")
    assert (len(packs) > 1) == (limit < 4 * MIB)
    for pack in packs:
        pack.check()
        rows = [digest for digest, _place in pack.entries()]
        assert len(rows) == len(set(rows))
    size = sum(map(len, held.values()))
    assert size <= contents.new_bytes < size + at_a_time
    assert sum(os.stat(pack.path).st_size for pack in packs) < size + at_a_time
    again = new_contents(tmp_path / "store")
    assert again.verify(digest.hex() for digest in held) == size
    assert all(again.get(digest.hex()) == data for digest, data in held.items())
    assert shadowed(again, tmp_path / "root") == set(held)
    assert again.new_bytes < MIB, "its listing, and nothing of what was there"
    again.flush()


def test_what_is_not_published_can_be_read(
    tmp_path: Path, threads: None, monkeypatch: pytest.MonkeyPatch, twin: str
) -> None:
    """Also while a full pack is on its way, and when it is there."""
    monkeypatch.setattr(writer, "PACK_LIMIT", 2 * MIB)
    held = grow(tmp_path / "root", 300)
    contents = new_contents(tmp_path / "store")
    early = contents.put(b"before")
    shadowed(contents, tmp_path / "root")
    late = contents.put(b"after")
    assert contents.get(early) == b"before" and contents.get(late) == b"after"
    for digest, data in held.items():
        assert contents.has(digest.hex()) and contents.get(digest.hex()) == data
    contents.forget()
    assert not contents.has(late)
    assert files_below(tmp_path / "store" / "tmp") == set()
    for pack in packs_of(tmp_path / "store"):
        pack.check()


def test_contents_are_put_while_others_are_read(tmp_path: Path, threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PACK_LIMIT", 2 * MIB)
    held = grow(tmp_path / "root", 300)
    contents = new_contents(tmp_path / "store")
    others = [random.Random(-number).randbytes(5000 + number) for number in range(1, 600)]
    with ThreadPoolExecutor(4) as pool:
        reading = [pool.submit(shadowed, contents, tmp_path / "root") for dummy in range(2)]
        put = list(pool.map(contents.put, [*others, *list(held.values())[:100]]))
        assert all(one.result() == set(held) for one in reading)
    contents.flush()
    again = new_contents(tmp_path / "store")
    assert again.verify({*put, *(digest.hex() for digest in held)}) == sum(map(len, (*others, *held.values())))


@pytest.mark.native
@pytest.mark.pure  # once: it uses both twins itself
def test_one_twin_goes_on_with_what_the_other_began(tmp_path: Path) -> None:
    held = grow(tmp_path / "root", 20)
    contents = new_contents(tmp_path / "store")
    with using("pure"):
        put = [contents.put(b"pure"), *map(contents.put, list(held.values())[:3])]
    with using("native"):
        shadowed(contents, tmp_path / "root")
        put.append(contents.put(b"native"))
    with using("pure"):
        put.append(contents.put(b"pure again"))
        contents.flush()
        again = new_contents(tmp_path / "store")
        assert again.verify({*put, *(digest.hex() for digest in held)}) == sum(map(len, held.values())) + 20


# --- disks

CONTENTS = [random.Random(number).randbytes(1 + number * 7 % 20_000) for number in range(400)]
NO_WAY = "/proc/self/oom_score_adj"  # whatever is no number is EINVAL


@pytest.mark.native
@pytest.mark.pure
@pytest.mark.parametrize("way", ["direct", "refused", "none"])
def test_ways_to_the_disk_give_the_same_pack(tmp_path: Path, way: str) -> None:
    """Past the page cache; where that is refused, at once or with the first write, through it."""
    with using("native"):
        kernel: Any = selected.kernel()
        file = os.open(tmp_path / "pack", os.O_RDWR | os.O_CREAT)
        direct = -1
        if way == "refused":
            direct = os.open(NO_WAY, os.O_WRONLY)
        elif way == "direct":
            with suppress(OSError):
                direct = os.open(tmp_path / "pack", os.O_WRONLY | os.O_DIRECT)
        native = kernel.PackWriter(file, direct, None)
        for at in range(0, len(CONTENTS), 100):
            some = {sha(data): data for data in CONTENTS[at : at + 100]}
            sizes = b"".join(len(data).to_bytes(4, "little") for data in some.values())
            native.add(b"".join(some), sizes, b"".join(some.values()))
        for data in CONTENTS:
            assert os.pread(file, len(data), native.find(sha(data))[0]) == data
        end = native.close()
        places = {sha(data): Place(*native.find(sha(data))) for data in CONTENTS}
        assert max(map(sum, places.values())) == end <= os.fstat(file).st_size < end + 4096
        with pytest.raises(OSError):
            native.add(sha(b""), bytes(4), b"")
        other = PackWriter(Temporaries(str(tmp_path / "tmp"), "web1"))
        other._places = places
        assert other._index() == native.index()
        other.close()
        for fd in (file, direct):
            if fd >= 0:
                os.close(fd)


@pytest.mark.native
@pytest.mark.pure
@pytest.mark.parametrize(
    ("digests", "sizes", "data"),
    [(bytes(32), b"", b""), (bytes(32), b"\xff" * 4, b"x"), (bytes(64), bytes(3) + b"\1" + bytes(4), b"")],
)
def test_contents_that_are_not_there_are_refused(tmp_path: Path, digests: bytes, sizes: bytes, data: bytes) -> None:
    with using("native"), (tmp_path / "pack").open("wb+") as file:
        kernel: Any = selected.kernel()
        native = kernel.PackWriter(file.fileno(), -1, None)
        with pytest.raises((OSError, ValueError)):
            native.add(digests, sizes, data)
        assert native.look() == (0, 0, 0)


@root_only
@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_a_disk_that_is_full_while_it_is_written_to(tmp_path: Path, threads: None, kind: str) -> None:
    held = grow(tmp_path / "root", 400, size=60_000)
    disk = tmp_path / "disk"
    disk.mkdir()
    if kind == "ext4":
        with (tmp_path / "image").open("wb") as image:
            image.truncate(16 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(tmp_path / "image")], check=True)
    how = ("-o", "loop", str(tmp_path / "image")) if kind == "ext4" else ("-t", "tmpfs", "-o", "size=14m", "tmpfs")
    with mounted(disk, *how):
        contents = new_contents(disk / "store")
        small = contents.put(b"small")
        with pytest.raises(NoSpace, match=str(disk)):
            shadowed(contents, tmp_path / "root")
            contents.flush()
        assert contents.get(small) == b"small"
        assert packs_of(disk / "store") == []
        contents.forget()
        assert files_below(disk / "store") == set()
        some = tmp_path / "root" / "beside" / "1"
        expected = {path.read_bytes() for path in some.iterdir()}
        assert {held[digest] for digest in shadowed(contents, some)} == expected
        contents.flush()
        again = new_contents(disk / "store")
        assert again.verify(sha(data).hex() for data in expected) == sum(map(len, expected))
        contents.packs.forget()
        again.packs.forget()


@root_only
def test_a_disk_that_is_full_when_a_pack_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The contents fit, and their index doesn't. Nothing is lost: it is published once there is room."""
    monkeypatch.setattr(writer, "PACK_LIMIT", 20_000)
    monkeypatch.setattr(writer, "BUFFER_LIMIT", 5_000)
    with mounted(tmp_path, "-t", "tmpfs", "-o", "size=140k", "tmpfs"):
        contents = new_contents(tmp_path)
        put = []
        with pytest.raises(NoSpace, match=str(tmp_path)):
            for number in range(100_000):
                put.append(contents.put(b"%d" % number))
            contents.flush()
        assert all(contents.get(digest) == b"%d" % number for number, digest in enumerate(put))
        assert packs_of(tmp_path) == []
        with pytest.raises(NoSpace):
            contents.flush()
        subprocess.run(["mount", "-o", "remount,size=30m", str(tmp_path)], check=True)
        contents.flush()
        again = new_contents(tmp_path)
        assert again.verify(put) == sum(len(b"%d" % number) for number in range(len(put)))
        for each in (contents, again):
            each.packs.forget()


def test_what_the_thread_met_is_raised_and_holds_up_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a disk that fails: what fsync has lost once, a second one can't bring back."""
    monkeypatch.setattr(writer, "PACK_LIMIT", 20_000)
    fsync, broken = os.fsync, [True]

    def fail(fd: int) -> None:
        if broken[0]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fail)
    contents = new_contents(tmp_path)
    for name in ("tmp", "packs"):
        (tmp_path / name).mkdir()
    put = contents.put(os.urandom(20_000))
    with pytest.raises(StoreError, match="log"):
        for dummy in range(1000):
            contents.put(os.urandom(1000))
            time.sleep(0.001)
    broken[0] = False
    for dummy in range(2):
        with pytest.raises(StoreError, match="log"):
            contents.flush()
    assert packs_of(tmp_path) == []
    assert contents.has(put)
    contents.forget()
    assert files_below(tmp_path) == set()


KILLED = """
import os, sys, time
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import selected
from ansible_collections.umbra.rollback.plugins.module_utils.store import writer
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store
from ansible_collections.umbra.rollback.plugins.module_utils.tree.capture import capture
from ansible_collections.umbra.rollback.plugins.module_utils.tree.scan import TreeOptions
selected.choose(sys.argv[1], sys.argv[2], None)
selected.limit(4)
writer.PACK_LIMIT = 2 << 20
store = Store.open(sys.argv[3], "web1")
with store.lock("create", "u1"):
    capture(os.fsencode(sys.argv[4]), store.contents, TreeOptions(name="tree"))
    store.contents.flush()
    time.sleep(60)
"""


def is_being_written(store: Path) -> bool:
    """Whether a temporary has something in it."""
    sizes = []
    for path in (store / "tmp").iterdir():
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return any(sizes)


def test_a_shadow_that_is_killed_leaves_temporaries_only(tmp_path: Path, threads: None, twin: str) -> None:
    held = grow(tmp_path / "root", 300)
    place = tmp_path / "store"
    open_store(place)
    (place / "tmp").mkdir(exist_ok=True)
    path = os.pathsep.join(filter(None, sys.path))
    left = 0
    for number in range(5):
        command = [sys.executable, "-c", KILLED, twin, str(BUILT), str(place), str(tmp_path / "root")]
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) as child:
            deadline = time.monotonic() + 30
            while not is_being_written(place):
                assert child.poll() is None and time.monotonic() < deadline
                time.sleep(0.001)
            time.sleep(0.002 * number)
            child.kill()
        store = open_store(place)
        left += bool(files_below(place / "tmp"))
        with store.lock("create", "u1"):
            assert files_below(place / "tmp") == set()
            for pack in store.contents.packs.all():
                pack.check()
                assert all(sha(pack.read(where)) == digest for digest, where in pack.entries())
        store.collect(0, time.time() + 1)
        assert not list(place.glob("packs/*")), "nothing names them"
    assert left, "none was killed in the middle"
    assert shadowed(store.contents, tmp_path / "root") == set(held)
    store.contents.flush()


@pytest.mark.native
@pytest.mark.pure
def test_the_page_cache_is_left_to_others(tmp_path: Path) -> None:
    """On the file systems that this is done on."""
    command = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(tmp_path)]
    kind = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    with using("native"):
        made = NativePackWriter(Temporaries(str(tmp_path / "tmp"), "web1"), selected.kernel())
        assert (made._direct >= 0) == (kind in ("ext4", "xfs"))
        made.add(sha(b"x"), b"x")
        made.publish(str(tmp_path / "packs"))
        made.close()
        (pack,) = packs_of(tmp_path)
        assert Path(pack.path).read_bytes() == b"x"
