# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory that only its owner can write is used; whatever else is there is refused, and nothing is followed."""

from __future__ import annotations

import os
import pwd
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import cache
from ansible_collections.umbra.rollback.tests.unit.support.kernels import digest, safe_directory

CONTENT = b"the kernel" * 1000
SHA256 = digest(CONTENT)
FILE = cache.name("x86_64-linux-gnu", SHA256)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that only its owner can write."""
    with safe_directory() as path:
        yield path


@pytest.fixture
def place(home: Path) -> Path:
    """Where the file is kept; neither it nor its parent is there yet."""
    return home / ".cache" / "umbra"


def keep(place: Path) -> None:
    cache.keep(str(place), FILE, CONTENT)


def look(place: Path) -> bytes | None:
    return cache.look(str(place), FILE, SHA256)


def test_what_is_kept_is_found(place: Path) -> None:
    assert look(place) is None
    assert not place.parent.exists(), "looking made a directory"
    keep(place)
    assert look(place) == CONTENT
    assert [path.name for path in place.iterdir()] == [FILE]
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (place.parent, place, place / FILE)]
    assert modes == [0o700, 0o700, 0o600]


def test_the_umask_does_not_matter(place: Path) -> None:
    before = os.umask(0)
    try:
        keep(place)
    finally:
        os.umask(before)
    assert look(place) == CONTENT


DAMAGE: list[tuple[str, Callable[[Path], object]]] = [
    ("truncated", lambda path: os.truncate(path, 100)),
    ("empty", lambda path: os.truncate(path, 0)),
    ("changed", lambda path: path.write_bytes(b"X" + CONTENT[1:])),
    ("huge", lambda path: os.truncate(path, cache.MAX_BYTES + 1)),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGE)
def test_a_damaged_file_is_not_used_and_replaced(place: Path, name: str, damage: Callable[[Path], object]) -> None:
    keep(place)
    damage(place / FILE)
    inode = (place / FILE).stat().st_ino
    with (place / FILE).open("rb") as whoever_reads:
        assert look(place) is None
        keep(place)
        assert look(place) == CONTENT
        assert os.fstat(whoever_reads.fileno()).st_ino == inode != (place / FILE).stat().st_ino, "not by rename"
    assert [path.name for path in place.iterdir()] == [FILE]


def group_writable(path: Path) -> None:
    path.chmod(0o770)


def sticky(path: Path) -> None:
    path.chmod(0o1777)


def foreign(path: Path) -> None:
    os.chown(path, 12345, 12345)


def replaced_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.rename(path.with_name("moved"))
        make(path)

    return replace


def link_to_moved(path: Path) -> None:
    path.symlink_to("moved")


# what is hostile: where (in the cache with the file in it), what was done, and what is said
HOSTILE: list[tuple[str, Callable[[Path], None], str]] = [
    ("", group_writable, "can be written by other users"),
    ("", sticky, "can be written by other users (mode 1777)"),
    (".cache", group_writable, "can be written by other users (mode 0770)"),
    (".cache", sticky, "can be written by other users"),
    (".cache/umbra", group_writable, "can be written by other users"),
    (".cache/umbra", sticky, "can be written by other users"),
    (".cache/umbra", replaced_by(link_to_moved), "is a symbolic link"),
    (".cache/umbra", replaced_by(lambda path: path.symlink_to("/nonexistent")), "is a symbolic link"),
    (".cache/umbra", replaced_by(Path.touch), "is not a directory"),
    (f".cache/umbra/{FILE}", group_writable, "can be written by other users"),
    (f".cache/umbra/{FILE}", replaced_by(link_to_moved), "is not a file of ours"),
    (f".cache/umbra/{FILE}", replaced_by(Path.mkdir), "is not a file of ours"),
    (f".cache/umbra/{FILE}", replaced_by(os.mkfifo), "is not a file of ours"),
]
AS_ROOT: list[tuple[str, Callable[[Path], None], str]] = [
    ("", foreign, "belongs to another user (uid 12345)"),
    (".cache/umbra", foreign, "belongs to another user (uid 12345)"),
    (f".cache/umbra/{FILE}", foreign, "belongs to another user (uid 12345)"),
]
if os.geteuid() == 0:  # only root can give a file away
    HOSTILE += AS_ROOT


def look_at(root: Path) -> list[tuple[object, ...]]:
    """All below a directory, to see whether it was touched."""
    seen = []
    for path in sorted([root, *root.rglob("*")]):
        status = path.lstat()
        seen.append((str(path), status.st_ino, status.st_mode, status.st_uid, status.st_mtime_ns, status.st_ctime_ns))
    return list(seen)


@pytest.mark.parametrize(("where", "hostile", "said"), HOSTILE)
def test_what_somebody_else_may_have_made_is_refused(
    home: Path, place: Path, where: str, hostile: Callable[[Path], None], said: str
) -> None:
    keep(place)
    hostile(home / where)
    before = look_at(home)
    with pytest.raises(cache.Refused) as caught:
        look(place)
    assert said in str(caught.value) and str(home / where) in str(caught.value)
    with pytest.raises(cache.Refused):
        keep(place)
    assert look_at(home) == before


def test_a_link_on_the_way_that_is_the_users_own_is_followed(home: Path, place: Path) -> None:
    (home / "big disk").mkdir(mode=0o700)
    place.parent.symlink_to("../" + home.name + "/./big disk")
    keep(place)
    assert look(place) == CONTENT
    assert (home / "big disk" / "umbra" / FILE).is_file()


def test_where_a_link_leads_is_checked_as_well(home: Path, place: Path, tmp_path: Path) -> None:
    """tmp_path is below a directory that everybody can write."""
    place.parent.symlink_to(tmp_path)
    with pytest.raises(cache.Refused, match="can be written by other users"):
        look(place)
    assert not list(tmp_path.iterdir())


def test_links_in_a_circle_end(home: Path, place: Path) -> None:
    place.parent.symlink_to(".cache")
    with pytest.raises(cache.Unusable, match="too many links"):
        look(place)


def test_where_nothing_can_be_made_is_no_fault() -> None:
    """/proc: a file system in which no directory can be made, root or not."""
    place = f"/proc/self/{cache.DIRECTORY}"
    with pytest.raises(cache.Unusable, match="/proc"):
        if cache.look(place, FILE, SHA256) is None:
            cache.keep(place, FILE, CONTENT)


def test_old_files_of_the_platform_are_let_go(place: Path) -> None:
    keep(place)
    old = time.time() - 2 * cache.DAY
    others = {
        cache.name("x86_64-linux-gnu", "1" * 64): old,  # goes
        f"{cache.name('x86_64-linux-gnu', '2' * 64)}.0123456789abcdef": old,  # goes: what a kill left behind
        cache.name("x86_64-linux-gnu", "3" * 64): time.time(),
        cache.name("x86_64-linux-musl", "4" * 64): old,
        "notes.txt": old,
    }
    for name, when in others.items():
        (place / name).write_bytes(b"")
        os.utime(place / name, (when, when))
    os.utime(place / FILE, (old, old))
    assert look(place) == CONTENT
    assert len(list(place.iterdir())) == 6, "looking removed something"
    keep(place)
    kept = {FILE, "notes.txt", cache.name("x86_64-linux-gnu", "3" * 64), cache.name("x86_64-linux-musl", "4" * 64)}
    assert {path.name for path in place.iterdir()} == kept


def test_a_full_disk_leaves_nothing_behind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename that fails stands in for a disk that is full."""
    keep(place)
    (place / FILE).write_bytes(b"damaged")

    def full(*dummy: object, **others: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(cache.Unusable, match="No space left on device"):
        keep(place)
    assert [path.name for path in place.iterdir()] == [FILE]


def test_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """The home is that of the user who runs, whatever became of $HOME."""
    monkeypatch.setenv("HOME", "/home/somebody-else")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    home = pwd.getpwuid(os.geteuid()).pw_dir
    assert cache.places("~/.ansible/tmp") == [f"{home}/.cache/umbra", "/home/somebody-else/.ansible/tmp/umbra"]
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert cache.places(None) == ["/var/cache/me/umbra"]
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert cache.places("relative/tmp") == [f"{home}/.cache/umbra"]
