# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file system that the update fills to the last byte, and that has the store, the resource and /tmp: it goes back."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import NoSpace
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import create, info, restore
from ansible_collections.umbra.rollback.tests.faults.packages import PackageWorld
from ansible_collections.umbra.rollback.tests.faults.worlds import (
    CommandWorld,
    FileWorld,
    SqliteWorld,
    Unrestored,
    World,
    built,
)
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.providers.conformance import check_sentence
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.tree.trees import mounted, write

MIB = 1 << 20
MAKE = {"ext4": (112 * MIB, ["mkfs.ext4", "-q"]), "xfs": (320 * MIB, ["mkfs.xfs", "-q"])}
NOBODY = 65534


class Files(FileWorld):
    """Every file is another one after the update: small ones in hundreds, and a large one."""

    def build(self) -> None:
        super().build()
        for number in range(300):
            write(self.place / "many" / f"{number}", os.urandom(1000))
        write(self.place / "huge", os.urandom(8 * MIB))

    def update(self) -> None:
        super().update()
        for path in self.place.rglob("*"):
            if path.is_file() and not path.is_symlink():
                path.write_bytes(os.urandom(path.stat().st_size))


class Gone(Files):
    """The update removes all of it, and what it fills took the room."""

    def update(self) -> None:
        self.wreck()


class Database(SqliteWorld):
    """Eight megabytes, all of them others after the update."""

    def build(self) -> None:
        super().build()
        self._do("create table blobs (data blob)")
        self._do(*(["insert into blobs values (randomblob(1000000))"] * 8))

    def update(self) -> None:
        self._do("update blobs set data = randomblob(1000000)")
        super().update()


class Command(CommandWorld):
    """A large file."""

    def build(self) -> None:
        write(self.place, os.urandom(8 * MIB))

    def update(self) -> None:
        self.place.write_bytes(os.urandom(8 * MIB))


class Packages(PackageWorld):
    """Archives of some megabytes."""

    ballast = 4 * MIB


KINDS: dict[str, type[World]] = {
    "file": Files,
    "gone": Gone,
    "sqlite": Database,
    "command": Command,
    "package": Packages,
}


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    size, command = MAKE[request.param]
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*command, str(image)], check=True, stdout=subprocess.DEVNULL)
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", "-o", "loop", str(image)):
        yield tmp_path / "disk"


@pytest.fixture
def full(request: pytest.FixtureRequest, disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world that is all on that file system."""
    with built(KINDS[request.param](disk / "world"), monkeypatch) as made:
        yield made


def fill(disk: Path) -> None:
    """Write until not one more byte goes anywhere: as a user, then as root, who has the reserved blocks as well."""
    by_user, by_root = (disk / f"filler-{uid}" for uid in (NOBODY, 0))
    for top in (by_user, by_root):
        top.mkdir()
    os.chown(by_user, NOBODY, NOBODY)
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    subprocess.run([*user, "sh", "-c", "cat /dev/zero > 1"], cwd=by_user, stderr=subprocess.DEVNULL, check=False)
    for number in range(8):  # what one file can't have any more may still do for the first block of another
        _write_until_full(by_root / str(number))
    os.sync()
    assert _free(disk) < MIB  # XFS keeps some blocks for itself
    with pytest.raises(OSError, match="No space left"):
        (disk / "one-more").write_bytes(b"x")


def _write_until_full(path: Path) -> None:
    size = MIB
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while size:
            try:
                os.write(file.fileno(), bytes(size))
            except OSError:
                size //= 2
        os.fsync(file.fileno())


def _free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def unfill(disk: Path) -> None:
    """A person has made room."""
    for uid in (NOBODY, 0):
        shutil.rmtree(disk / f"filler-{uid}")
    (disk / "one-more").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("disk", "full"), [*(("ext4", kind) for kind in KINDS), ("xfs", "file"), ("xfs", "gone")], indirect=True
)
def test_a_full_disk_does_not_stop_the_way_back(full: World, disk: Path) -> None:
    one = full.state()
    full.create()
    full.update()
    two = full.state()
    fill(disk)
    full.restore()
    assert full.state() == one
    assert full.unsound() == []
    full.restore(undo=True)
    assert full.state() == two
    full.restore()
    assert full.state() == one


@pytest.mark.parametrize("full", sorted(KINDS.keys() - {"gone"}), indirect=True)  # whose failed state takes no space
@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
def test_without_a_hold_it_is_told_and_nothing_is_changed(disk: Path, full: World) -> None:
    """What the test above would be without what it tests; and how a person gets out of it."""
    one = full.state()
    create.create(full.target(), [{"name": full.name, **full.resource}], reserve_percent=0)
    full.update()
    two = full.state()
    fill(disk)
    with pytest.raises((Unrestored, NoSpace)) as caught:
        full.restore()
    check_sentence(caught.value)
    assert "space" in str(caught.value) or "bytes free" in str(caught.value)
    assert full.state() == two
    unfill(disk)
    full.restore()
    assert full.state() == one
    assert full.unsound() == []


@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
def test_a_store_with_a_file_system_of_its_own(disk: Path, tmp_path: Path) -> None:
    """What it has no room for is refused with numbers, and leaves nothing; what it has room for goes back."""
    world = Files(tmp_path / "world")
    world.build()
    world.store = disk / "store"
    free = _free(disk)
    large = world.place / "too-large"
    with large.open("wb") as file:
        file.write(os.urandom(60 * MIB))
    with pytest.raises(NoSpace) as caught:
        world.create()
    check_sentence(caught.value)
    assert caught.value.facts["free"] == free and caught.value.facts["needed"] > 120 * MIB
    assert str(caught.value.facts["needed"]) in str(caught.value)
    assert not world.store.exists() and _free(disk) == free
    large.unlink()
    one = world.state()
    world.create()
    world.update()
    fill(disk)
    before = world.state()
    assert restore.check(world.target(), restore.Request()).changed
    assert info.info(world.target("u1")).details is not None
    assert world.state() == before
    world.restore()
    assert world.state() == one


@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
@pytest.mark.parametrize("full", ["file"], indirect=True)
def test_a_full_disk_does_not_stop_the_commit_and_it_gives_the_space_back(full: World, disk: Path) -> None:
    full.create()
    full.update()
    fill(disk)
    full.commit()
    assert full.is_committed("u1")
    assert _free(disk) > 8 * MIB
    assert full.unsound() == []


def _flip(path: Path) -> None:
    """In place, so that it needs no block."""
    with path.open("r+b", buffering=0) as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def _largest(directory: Path) -> Path:
    return max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


# What of the store is damaged while the disk is full, beside a replica on another one.
DAMAGES: dict[str, Callable[[Path], Path]] = {
    "a record": lambda store: store / "updates/u1/web1/manifest.json",
    "a large content": lambda store: _largest(store / "objects"),
    "small contents": lambda store: _largest(store / "packs"),
}


def _shadow_with_a_replica(world: World, replica: Path, percent: int) -> None:
    target = replace(world.target(), replicas=(str(replica),))
    create.create(target, [{"name": world.name, **world.resource}], reserve_percent=percent)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
@pytest.mark.parametrize("full", ["file"], indirect=True)
def test_what_is_damaged_on_a_full_disk_is_mended_from_a_replica(
    full: World, disk: Path, tmp_path: Path, damage: str
) -> None:
    """The space that is held is given back before; the update changes half a megabyte."""
    one = full.state()
    _shadow_with_a_replica(full, tmp_path / "replica", 100)
    (full.place / "large").write_bytes(os.urandom(150_000))
    shutil.rmtree(full.place / "many")
    fill(disk)
    _flip(DAMAGES[damage](full.store))
    done = full.restore()
    assert done.repaired and full.state() == one
    assert full.unsound() == []


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
@pytest.mark.parametrize("full", ["file"], indirect=True)
def test_where_there_is_no_room_to_mend_it_is_told(full: World, disk: Path, tmp_path: Path, damage: str) -> None:
    one = full.state()
    _shadow_with_a_replica(full, tmp_path / "replica", 0)
    full.update()
    two = full.state()
    fill(disk)
    _flip(DAMAGES[damage](full.store))
    with pytest.raises((Unrestored, NoSpace)) as caught:
        full.restore()
    check_sentence(caught.value)
    assert "bytes free" in str(caught.value)
    assert full.state() == two
    unfill(disk)
    full.restore()
    assert full.state() == one
    assert full.unsound() == []
