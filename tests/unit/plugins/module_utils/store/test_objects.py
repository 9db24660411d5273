# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Contents: what is put comes back, checked; nothing is stored twice; a full disk loses nothing."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import random
import resource
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.ctimes import has_fine_clock
from ansible_collections.umbra.rollback.plugins.module_utils.errors import (
    ContentMissing,
    NoSpace,
    StoreCorrupt,
    StoreError,
)
from ansible_collections.umbra.rollback.plugins.module_utils.providers.base import Contents
from ansible_collections.umbra.rollback.plugins.module_utils.store import files, stream, writer
from ansible_collections.umbra.rollback.plugins.module_utils.store.objects import ObjectContents
from ansible_collections.umbra.rollback.plugins.module_utils.store.packs import SMALL
from ansible_collections.umbra.rollback.plugins.module_utils.store.temporaries import Temporaries
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.tree.trees import unmount
from ansible_collections.umbra.rollback.tests.unit.support.twins import pytest_generate_tests, twin

from .helpers import files_below, flip, modes_below

__all__ = ["pytest_generate_tests", "twin"]

MIB = 1 << 20
SIZES = [0, 1, 4096, SMALL - 1, SMALL, SMALL + 1, MIB, 3 * MIB + 5]


def new_contents(path: Path, host: str = "web1") -> ObjectContents:
    return ObjectContents(str(path), Temporaries(str(path / "tmp"), host))


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    """Typed as the contract, so that mypy holds the implementation against it."""
    return new_contents(tmp_path)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put_file(contents: Contents, path: Path) -> tuple[str, int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return contents.put_fd(fd)
    finally:
        os.close(fd)


def copied(contents: Contents, digest: str, path: Path, sparse: bool = False) -> bytes:
    path.write_bytes(b"something longer that was here before" * 1000)
    fd = os.open(path, os.O_RDWR)
    try:
        assert contents.copy_to(digest, fd, sparse) == path.stat().st_size
    finally:
        os.close(fd)
    return path.read_bytes()


@pytest.mark.parametrize("way", ["put", "put_fd"])
@pytest.mark.parametrize("size", SIZES)
def test_what_is_put_comes_back_before_and_after_flush(tmp_path: Path, size: int, way: str) -> None:
    contents = new_contents(tmp_path / "store")
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data)
    digest = contents.put(data) if way == "put" else put_file(contents, tmp_path / "source")[0]
    assert digest == sha(data)
    for each in (contents, contents, new_contents(tmp_path / "store")):
        assert each.has(digest)
        assert each.get(digest) == data
        assert each.size(digest) == size
        assert each.verify([digest, digest]) == size
        assert copied(each, digest, tmp_path / "target") == data
        assert copied(each, digest, tmp_path / "target", sparse=True) == data
        contents.flush()
    assert contents.new_bytes == size


def test_large_contents_are_plain_files_that_sha256sum_checks(tmp_path: Path) -> None:
    contents = new_contents(tmp_path)
    digests = [contents.put(os.urandom(SMALL + number)) for number in range(1, 4)]
    contents.flush()
    lines = "".join(f"{digest}  {tmp_path}/objects/{digest[:2]}/{digest}\n" for digest in digests)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet"], input=lines.encode(), check=True)
    location = contents.location(digests[0])
    assert (location.path, location.offset) == (f"{tmp_path}/objects/{digests[0][:2]}/{digests[0]}", 0)


def test_many_small_contents_make_few_files(tmp_path: Path) -> None:
    contents = new_contents(tmp_path)
    for number in range(5000):
        contents.put(b"%d" % number)
    contents.flush()
    assert len(files_below(tmp_path)) == 2


def test_a_full_pack_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PACK_LIMIT", 100_000)
    contents = new_contents(tmp_path)
    digests = [contents.put(os.urandom(10_000)) for dummy in range(35)]
    assert len(list((tmp_path / "packs").glob("*.idx"))) >= 2, "only the last full one may still be on its way"
    assert contents.verify(digests) == 350_000
    contents.flush()
    contents.flush()
    assert len(list((tmp_path / "packs").glob("*.idx"))) == 4


def test_nothing_is_stored_twice(tmp_path: Path) -> None:
    small, large = os.urandom(1000), os.urandom(SMALL + 1)
    (tmp_path / "large").write_bytes(large)
    (tmp_path / "small").write_bytes(small)
    first = new_contents(tmp_path / "store")
    for dummy in range(2):
        first.put(small), first.put(large)
        put_file(first, tmp_path / "large"), put_file(first, tmp_path / "small")
    first.flush()
    before = files_below(tmp_path / "store")
    assert len(before) == 3
    second = new_contents(tmp_path / "store", "web2")
    second.put(small), second.put(large)
    put_file(second, tmp_path / "large"), put_file(second, tmp_path / "small")
    second.flush()
    assert files_below(tmp_path / "store") == before
    assert second.new_bytes == 0
    assert first.new_bytes == len(small) + len(large)


def test_holes_are_kept_and_a_small_file_with_holes_is_an_object(tmp_path: Path) -> None:
    for name, size in (("small", 65536), ("large", 64 * MIB)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
            file.seek(size // 2)
            file.write(b"x" * 4096)
    contents = new_contents(tmp_path / "store")
    for name in ("small", "large"):
        digest, size = put_file(contents, tmp_path / name)
        assert size == (tmp_path / name).stat().st_size
        stored = tmp_path / "store/objects" / digest[:2] / digest
        assert stored.stat().st_blocks * 512 <= 16384
        with (tmp_path / "target").open("wb+") as target:
            contents.copy_to(digest, target.fileno(), sparse=True)
        assert (tmp_path / "target").stat().st_blocks * 512 <= 16384
        assert (tmp_path / "target").stat().st_size == size
    assert contents.put((tmp_path / "small").read_bytes()) == put_file(contents, tmp_path / "small")[0]
    contents.flush()
    assert not (tmp_path / "store/packs").exists()
    assert contents.new_bytes <= 2 * 16384


def test_a_file_without_holes_gets_none(tmp_path: Path) -> None:
    data = bytes(MIB)
    (tmp_path / "zeros").write_bytes(data)
    contents = new_contents(tmp_path / "store")
    digest, _size = put_file(contents, tmp_path / "zeros")
    assert copied(contents, digest, tmp_path / "target") == data
    assert (tmp_path / "target").stat().st_blocks * 512 >= MIB


@pytest.fixture(params=["btrfs", "xfs"])
def reflinks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small file system with reflinks; for others than root, who can't mount one, a directory of any file system."""
    place, image = tmp_path / "place", tmp_path / "image"
    place.mkdir()
    if os.geteuid() != 0:
        yield place
        return
    with image.open("wb") as file:
        file.truncate(512 * MIB)
    subprocess.run([f"mkfs.{request.param}", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    yield place
    unmount(place)


def test_reflinks_are_used_where_the_file_system_has_them(reflinks: Path) -> None:
    data = os.urandom(4 * MIB)
    (reflinks / "source").write_bytes(data)
    contents = new_contents(reflinks / "store")
    assert put_file(contents, reflinks / "source") == (sha(data), len(data))
    assert copied(contents, sha(data), reflinks / "target") == data
    os.sync()
    if os.geteuid() == 0:
        command = ["filefrag", "-v", str(reflinks / "target")]
        assert "shared" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("mapped", [False, True], ids=["write", "mapping"])
@pytest.mark.parametrize("before", [False, True], ids=["after the clone", "before and after"])
def test_what_changes_while_it_is_cloned_is_hashed_as_it_was_kept(
    reflinks: Path, monkeypatch: pytest.MonkeyPatch, mapped: bool, before: bool
) -> None:
    """Whoever has the file mapped and its pages dirty writes on without the system seeing it, until those are clean."""
    path = reflinks / "source"
    path.write_bytes(os.urandom(3 * MIB))
    clone = stream.clone
    with path.open("r+b", buffering=0) as file, mmap.mmap(file.fileno(), 0) as memory:

        def change(byte: int) -> None:
            for offset in (5, MIB, 3 * MIB - 1):
                if mapped:
                    memory[offset] = byte
                else:
                    os.pwrite(file.fileno(), bytes([byte]), offset)

        def cloned(source: int, target: int) -> bool:
            if before:
                change(1)
            done = clone(source, target)
            change(2)
            return done

        change(0)
        contents = new_contents(reflinks / "store")
        with monkeypatch.context() as patch:
            patch.setattr(stream, "clone", cloned)
            digest, _size = put_file(contents, path)
    assert contents.verify([digest]) == 3 * MIB
    assert sha(copied(contents, digest, reflinks / "target")) == digest


def test_an_unchanged_source_is_read_and_not_its_clone(reflinks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = reflinks / "source"
    path.write_bytes(os.urandom(3 * MIB))
    read: list[bool] = []
    hashed = stream.hashed

    def noted(fd: int, size: int) -> tuple[bytes, int]:
        read.append(os.fstat(fd).st_ino == path.stat().st_ino)
        return hashed(fd, size)

    monkeypatch.setattr(stream, "hashed", noted)
    fd = os.open(reflinks, os.O_RDONLY)
    expected = [[True]] if has_fine_clock(fd) else [[False]]
    os.close(fd)
    put_file(new_contents(reflinks / "store"), path)
    assert [read] == expected or os.geteuid() != 0


def test_missing_contents_are_named(contents: Contents, tmp_path: Path) -> None:
    for digest in ("0" * 64, "not a digest", "../../etc/passwd", "ab"):
        with (tmp_path / "target").open("wb+") as file:
            for read in (contents.get, contents.size, lambda one: contents.copy_to(one, file.fileno())):
                with pytest.raises(ContentMissing, match=digest):
                    read(digest)
        with pytest.raises(ContentMissing, match=digest):
            contents.verify([digest])
    assert not contents.has("0" * 64)


def damaged(contents: ObjectContents, digest: str) -> Path:
    """Flip a bit of the content; the path of the file that it is in."""
    location = contents.location(digest)
    flip(Path(location.path), location.offset + location.length // 2)
    return Path(location.path)


@pytest.mark.parametrize("size", [1000, SMALL + 1])
def test_a_flipped_bit_is_found_by_every_read_and_the_file_is_named(tmp_path: Path, size: int) -> None:
    contents = new_contents(tmp_path)
    good = contents.put(os.urandom(500))
    digest = contents.put(os.urandom(size))
    contents.flush()
    path = damaged(contents, digest)
    with (tmp_path / "target").open("wb+") as file:
        for each in (contents, new_contents(tmp_path)):
            for read in (each.get, lambda one: each.copy_to(one, file.fileno()), lambda one: each.verify([good, one])):  # noqa: B023
                with pytest.raises(StoreCorrupt, match=str(path)) as caught:
                    read(digest)
                assert digest in str(caught.value)
            assert each.get(good)


def test_a_damaged_object_is_replaced_when_its_size_shows_it(tmp_path: Path) -> None:
    data = os.urandom(SMALL + 1)
    contents = new_contents(tmp_path)
    digest = contents.put(data)
    Path(contents.location(digest).path).write_bytes(data[:100])
    new_contents(tmp_path).put(data)
    assert new_contents(tmp_path).get(digest) == data


def test_examine_goes_on_after_a_problem(tmp_path: Path) -> None:
    contents = new_contents(tmp_path)
    digests = [contents.put(b"%d" % number * 1000) for number in range(100)]
    digests += [contents.put(os.urandom(SMALL + number)) for number in range(1, 4)]
    contents.flush()
    bad = {digests[10], digests[50], digests[101]}
    for digest in bad:
        damaged(contents, digest)
    checks = list(new_contents(tmp_path).examine([*digests, "0" * 64]))
    problems = {digest for check in checks for digest, _problem in check.problems}
    assert problems == bad | {"0" * 64}
    assert sum(check.good for check in checks) == len(digests) - 3


def test_contents_of_another_process_are_found(tmp_path: Path) -> None:
    one, other = new_contents(tmp_path), new_contents(tmp_path, "web2")
    small, large = os.urandom(1000), os.urandom(SMALL + 1)
    assert not one.has(sha(small))
    other.put(small), other.put(large)
    assert not new_contents(tmp_path).has(sha(small)), "nothing is visible before flush"
    other.flush()
    assert one.get(sha(small)) == small
    assert one.get(sha(large)) == large


def test_a_pack_that_was_joined_meanwhile_is_found_again(tmp_path: Path) -> None:
    one = new_contents(tmp_path)
    digest = one.put(b"content")
    one.flush()
    assert one.has(digest)
    one.packs._open_files.cache_clear()  # as after many other packs
    (old,) = one.packs.all()
    other = new_contents(tmp_path, "web2")
    joined = writer.PackWriter(Temporaries(str(tmp_path / "tmp"), "web2"))
    for data in (b"another", b"content"):
        joined.add(hashlib.sha256(data).digest(), data)
    joined.publish(other.packs.directory)
    os.unlink(old.index_path)
    os.unlink(old.path)
    assert one.get(digest) == b"content"


def test_many_threads(tmp_path: Path) -> None:
    contents = new_contents(tmp_path / "store")
    data = [random.Random(number % 300).randbytes(1000 + number % 300 * 700) for number in range(900)]

    def there_and_back(one: bytes) -> bool:
        digest = contents.put(one)
        if len(one) % 50 == 0:
            contents.flush()
        return contents.has(digest) and contents.get(digest) == one

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, data))
    contents.flush()
    new = new_contents(tmp_path / "store")
    assert new.verify(map(sha, data)) == sum(map(len, set(data)))


def test_forget_gives_up_what_was_not_flushed(tmp_path: Path) -> None:
    contents = new_contents(tmp_path)
    kept = contents.put(b"kept")
    contents.flush()
    given_up = contents.put(b"given up")
    contents.forget()
    contents.flush()
    assert contents.has(kept) and not contents.has(given_up)
    assert len(files_below(tmp_path)) == 2
    assert contents.put(b"given up") == given_up
    contents.flush()
    assert new_contents(tmp_path).get(given_up) == b"given up"


def test_reading_errors_of_the_source_are_the_caller_s(tmp_path: Path, contents: Contents) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        contents.put_fd(fd)
    os.close(fd)


@pytest.mark.parametrize("size", [1000, SMALL + 1])
def test_writing_errors_of_the_target_are_the_caller_s(tmp_path: Path, contents: Contents, size: int) -> None:
    digest = contents.put(os.urandom(size))
    fd = os.memfd_create("target", os.MFD_ALLOW_SEALING)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    with pytest.raises(PermissionError):
        contents.copy_to(digest, fd)
    os.close(fd)


def test_nobody_else_may_read_a_content(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        contents = new_contents(tmp_path / "store")
        contents.put(b"small"), contents.put(os.urandom(SMALL + 1))
        assert all(mode == 0o600 for _path, directory, mode in modes_below(tmp_path / "store/tmp") if not directory)
        contents.flush()
    finally:
        os.umask(before)
    for path, is_directory, mode in modes_below(tmp_path / "store"):
        assert mode == (0o700 if is_directory else 0o600), path


class Full:
    """A directory on a file system with little room: a tmpfs as root, else a limit on the size of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_mounted = os.geteuid() == 0 and self._mount("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs")
        self.error = NoSpace if self.is_mounted else StoreError
        if not self.is_mounted:
            self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, self.limits[1]))

    def make_room(self) -> None:
        if self.is_mounted:
            assert self._mount("mount", "-o", "remount,size=16m")
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)

    def end(self) -> None:
        self.make_room()
        if self.is_mounted:
            unmount(self.path)

    def _mount(self, *command: str) -> bool:
        return subprocess.run([*command, str(self.path)], capture_output=True, check=False).returncode == 0


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Full]:
    """A place with 2 MiB."""
    (tmp_path / "full").mkdir()
    place = Full(tmp_path / "full")
    yield place
    place.end()


def test_a_full_disk_is_told_and_nothing_is_lost(full: Full) -> None:
    contents = new_contents(full.path / "store")
    data = [os.urandom(100_000) for dummy in range(60)]
    put: list[bytes] = []
    with pytest.raises(full.error, match=str(full.path)) as caught:
        for one in data:
            contents.put(one)
            put.append(one)
    if full.is_mounted:
        assert "bytes free, and a content needs 100000" in str(caught.value)
    with pytest.raises(full.error):
        contents.flush()
    assert len(put) < 60
    assert [contents.get(sha(one)) for one in put] == put
    full.make_room()
    for one in data:
        contents.put(one)
    contents.flush()
    assert new_contents(full.path / "store").verify(map(sha, data)) == 6_000_000


@pytest.fixture
def large_source(tmp_path: Path) -> Path:
    """A hole, then 3 MiB."""
    with (tmp_path / "source").open("wb") as file:
        file.seek(3 * MIB)
        file.write(os.urandom(3 * MIB))
    return tmp_path / "source"


def test_a_large_content_that_does_not_fit_leaves_nothing(large_source: Path, full: Full) -> None:
    contents = new_contents(full.path / "store")
    fits = contents.put(os.urandom(MIB))
    with pytest.raises(full.error):
        put_file(contents, large_source)
    assert files_below(full.path / "store") == {f"objects/{fits[:2]}/{fits}"}
    full.make_room()
    assert put_file(contents, large_source)[1] == 6 * MIB


def test_a_read_only_store_is_told(tmp_path: Path) -> None:
    """As root on a mount that is read-only; else in a directory that may not be written."""
    place = tmp_path / "place"
    place.mkdir()
    digest = new_contents(place).put(os.urandom(SMALL + 1))
    mounted = os.geteuid() == 0
    if mounted:
        subprocess.run(["mount", "--bind", str(place), str(place)], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
    else:
        for path in (place / "tmp", place):
            path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        contents = new_contents(place)
        assert contents.get(digest)
        with pytest.raises(StoreError, match="read-only" if mounted else "become: true"):
            contents.put(b"x")
            contents.flush()
    finally:
        if mounted:
            unmount(place)


def test_the_directory_is_synced_for_contents_that_were_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wrote them may have been killed before its own sync."""
    first = new_contents(tmp_path)
    first.put(b"small"), first.put(os.urandom(SMALL + 1))
    large = os.urandom(SMALL + 1)
    digest = first.put(large)
    first.flush()
    second = new_contents(tmp_path)
    second.put(b"small"), second.put(large)
    synced: list[str] = []
    monkeypatch.setattr(files, "sync_directory", synced.append)
    second.flush()
    assert sorted(synced) == [f"{tmp_path}/objects/{digest[:2]}", f"{tmp_path}/packs"]


def test_an_error_of_the_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No disk can be made to fail here: a read that raises EIO stands in for one."""
    contents = new_contents(tmp_path)
    digest = contents.put(b"small")
    contents.flush()

    def fail(*_args: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(StoreError, match="kernel's log"):
        contents.get(digest)


def test_it_is_fast(tmp_path: Path) -> None:
    """20,000 contents of 4 KiB there, known again and verified; the bounds are loose, for busy machines."""
    base = os.urandom(MIB)
    data = [number.to_bytes(8, "big") + base[number * 40 : number * 40 + 4088] for number in range(20_000)]
    times = [time.process_time()]
    contents = new_contents(tmp_path)
    digests = [contents.put(one) for one in data]
    contents.flush()
    times.append(time.process_time())
    contents = new_contents(tmp_path)
    assert all(map(contents.has, digests))
    times.append(time.process_time())
    assert contents.verify(digests) == 20_000 * 4096
    times.append(time.process_time())
    assert all(after - before < 2.0 for before, after in zip(times, times[1:])), times


@pytest.mark.parametrize("sizes", [(), (0,), (5, 7), (SMALL,), (SMALL + 1,), (100, SMALL, 3, SMALL * 3, 1)])
def test_pieces_are_one_content(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """In a pack or a file of its own, as any other of that size; and nothing is kept of one that is broken off."""
    contents = new_contents(tmp_path)
    pieces = [bytes([number]) * size for number, size in enumerate(sizes)]

    def write(take: Callable[[bytes], None]) -> int:
        for piece in pieces:
            take(piece)
        return len(pieces)

    digest, count = contents.put_pieces(write, b"head")
    whole = b"head" + b"".join(pieces)
    assert (digest, count) == (hashlib.sha256(whole).hexdigest(), len(sizes))
    contents.flush()
    assert contents.get(digest) == whole
    assert os.path.exists(os.path.join(tmp_path, "objects", digest[:2], digest)) == (len(whole) > SMALL)

    def broken(take: Callable[[bytes], None]) -> int:
        take(bytes(SMALL * 2))
        raise LookupError

    with pytest.raises(LookupError):
        contents.put_pieces(broken)
    assert not os.listdir(os.path.join(tmp_path, "tmp"))
