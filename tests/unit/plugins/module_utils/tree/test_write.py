# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore that is killed, refused, attacked, or runs out of something."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import (
    ContentMissing,
    NoSpace,
    RestoreFailed,
    StoreCorrupt,
    UmbraError,
)
from ansible_collections.umbra.rollback.plugins.module_utils.tree import apply as apply_module
from ansible_collections.umbra.rollback.plugins.module_utils.tree.apply import apply
from ansible_collections.umbra.rollback.plugins.module_utils.tree.entry import Entry, encode
from ansible_collections.umbra.rollback.plugins.module_utils.tree.scan import TreeOptions
from ansible_collections.umbra.rollback.plugins.module_utils.tree.write import Writer
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents

from .trees import (
    NAMING,
    NOBODY,
    ROOTS,
    before_each_call,
    break_small,
    build_small,
    inodes,
    mounted,
    picture,
    remove,
    root_only,
    run_until,
    temporaries,
    write,
)
from .verbs import differing, restore, shadow


def test_killed_at_any_call_it_is_finished_by_the_next_run(
    tmp_path: Path, contents: MemoryContents, unsynced: None
) -> None:
    """A child dies at its k-th call that changes something, for every k; so does the second run, on its way."""
    root = build_small(tmp_path / "root")
    good, before = shadow(root, contents), picture(root)
    last, finished = 0, False
    while not finished:
        last += 1
        break_small(root)
        finished = run_until(lambda: restore(root, good, contents), last)
        if not finished:
            run_until(lambda: restore(root, good, contents), last // 2 + 1)
            restore(root, good, contents)
        assert picture(root) == before, f"killed at call {last}"
        assert not temporaries(tmp_path)
    assert last > 60


@pytest.mark.parametrize("kind", ["file", "symlink", "tree"])
def test_a_root_killed_at_any_call_leaves_nothing_beside_it(
    tmp_path: Path, contents: MemoryContents, unsynced: None, kind: str
) -> None:
    root = tmp_path / "root"
    ROOTS[kind](root)
    good, before = shadow(root, contents), picture(root)
    last, finished = 0, False
    while not finished:
        last += 1
        remove(root)
        os.mkfifo(root)
        finished = run_until(lambda: restore(root, good, contents), last)
        restore(root, good, contents)
        assert (picture(root), os.listdir(tmp_path)) == (before, ["root"])
    assert last > 3


def test_a_call_that_fails_is_told_and_nothing_is_left(
    tmp_path: Path, contents: MemoryContents, unsynced: None
) -> None:
    """Every call that changes something fails once with a full disk: one sentence, and the next run completes."""
    root = build_small(tmp_path / "root")
    good, before = shadow(root, contents), picture(root)
    changing = ("mkdir", "symlink", "mknod", "link", "rename", "setxattr", "pwrite", "ftruncate", "chmod", "utime")
    failed = number = 0
    while failed == number:
        number += 1
        break_small(root)

        def fail(count: int, _name: str, at: int = number) -> None:
            if count == at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with before_each_call(changing, fail):
            try:
                restore(root, good, contents)
            except RestoreFailed as error:
                failed += 1
                assert str(error).endswith("Free some space and run again: it goes on where it stopped.")
        assert not temporaries(root)
        restore(root, good, contents)
        assert picture(root) == before
    assert failed > 20


@root_only
def test_a_full_disk_is_told_before_anything_changes(tmp_path: Path, contents: MemoryContents) -> None:
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m", "none"):
        root = tmp_path / "disk" / "root"
        for number in range(3):
            write(root / f"{number}", os.urandom(200_000))
        good = shadow(root, contents)
        for number in range(3):
            (root / f"{number}").unlink()
        write(root / "small", "small")
        write(tmp_path / "disk" / "hog", bytes(600_000))
        before = picture(root)
        with pytest.raises(NoSpace) as caught:
            restore(root, good, contents)
        assert caught.value.facts["needed"] >= 600_000 - 4096
        assert picture(root) == before
        (tmp_path / "disk" / "hog").rename(root / "hog")  # what is to be removed makes room
        restore(root, good, contents)
        assert differing(root, good, contents) == []


def test_it_is_on_disk_when_it_returns(
    tmp_path: Path, contents: MemoryContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-in for pulling the plug: what is synced, and that nothing is changed after it."""
    root = build_small(tmp_path / "root")
    good, before = shadow(root, contents), picture(root)
    break_small(root)
    synced: list[object] = []

    def look(disk: int) -> None:
        synced.append((os.fstat(disk).st_dev, picture(root)))

    monkeypatch.setattr(apply_module, "_sync", look)
    restore(root, good, contents)
    restore(root, good, contents)  # the first run may have been killed before it came to this
    assert synced == [(root.stat().st_dev, before)] * 2
    assert picture(root) == before


def test_sync(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    apply_module._sync(fd)
    apply_module._sync(None)
    os.close(fd)
    with pytest.raises(OSError):
        apply_module._sync(fd)


def test_missing_and_damaged_contents(tmp_path: Path, contents: MemoryContents) -> None:
    root = build_small(tmp_path / "root")
    good = shadow(root, contents)
    digest = contents.put(b"port = 80\n")
    write(root / "etc" / "app.conf", "port = 1\n")
    contents.blobs[digest] = b"port = 81\n"
    with pytest.raises(StoreCorrupt):
        restore(root, good, contents)
    del contents.blobs[digest]
    with pytest.raises(ContentMissing):
        restore(root, good, contents)
    assert (root / "etc" / "app.conf").read_text() == "port = 1\n"
    assert not temporaries(root)
    del contents.blobs[good.tree]
    with pytest.raises(ContentMissing):
        restore(root, good, contents)


def test_a_listing_that_leads_outside_is_refused(tmp_path: Path, contents: MemoryContents) -> None:
    root = build_small(tmp_path / "root")
    digest = contents.put(b"evil")
    evil = encode([Entry(b"", "d", 0o755), Entry(b"../evil", "f", 0o644, size=4, digest=digest)])
    with pytest.raises(StoreCorrupt):
        apply(os.fsencode(root), contents.put(evil), None, contents, TreeOptions())
    assert sorted(os.listdir(tmp_path)) == ["root"]


@pytest.mark.pure
@pytest.mark.parametrize("victim", ["etc", "bin", "new", "etc/app.conf", "empty", "pipe"])
def test_names_swapped_for_symlinks_at_any_moment_lead_nowhere(
    tmp_path: Path, contents: MemoryContents, unsynced: None, victim: str
) -> None:
    """Before every single call of a restore, the owner of the tree puts a symlink in the way."""
    outside = tmp_path / "outside"
    for name in ("app.conf", "secret", "tool", "tool-2", "deep/er", "inner/file"):
        write(outside / name, f"outside {name}", 0o640)
    seen = (picture(outside), inodes(outside))
    root, aside = build_small(tmp_path / "root"), tmp_path / "aside"
    path, target = root / victim, outside / ("app.conf" if "." in victim else "")
    good, before = shadow(root, contents), picture(root)
    number, struck = 0, True
    while struck:
        number += 1
        struck = False
        break_small(root)

        def strike(count: int, _name: str, at: int = number) -> None:
            nonlocal struck
            if count == at:
                struck = True
                if os.path.lexists(path):
                    os.replace(path, aside)
                if path.parent.is_dir():
                    path.symlink_to(target)

        with before_each_call(NAMING, strike):
            try:
                restore(root, good, contents)
            except UmbraError as error:
                assert "\n" not in str(error)
        assert (picture(outside), inodes(outside)) == seen, f"at call {number}"
        restore(root, good, contents)
        assert picture(root) == before
        assert (picture(outside), inodes(outside)) == seen
        remove(aside)
    assert number > 100


@pytest.mark.parametrize("planted", ["hard link", "fifo", "other file"])
def test_temporaries_swapped_for_something_else_get_no_owner_and_no_mode(
    tmp_path: Path, contents: MemoryContents, unsynced: None, planted: str
) -> None:
    """The owner of the tree sees a temporary name, and puts something else there before it is finished."""
    outside = tmp_path / "outside"
    write(outside / "file", "precious", 0o600)
    os.mkfifo(outside / "fifo", 0o600)
    (outside / "link").symlink_to("file")
    precious = {stat.S_IFMT(path.lstat().st_mode): path for path in outside.iterdir()}
    seen = picture(outside)
    root = build_small(tmp_path / "root")
    good = shadow(root, contents)
    number, struck = 0, True
    while struck:
        number += 1
        struck = False
        break_small(root)
        sightings = 0

        def strike(_count: int, _name: str, at: int = number) -> None:
            nonlocal struck, sightings
            for path in temporaries(root):
                sightings += 1
                if sightings == at:
                    struck = True
                    same_kind = precious[stat.S_IFMT(path.lstat().st_mode)]
                    path.unlink()
                    if planted == "hard link":
                        os.link(same_kind, path, follow_symlinks=False)
                    elif planted == "fifo":
                        os.mkfifo(path)
                    else:
                        path.touch()

        with before_each_call(("open", "chmod", "chown", "utime", "rename", "setxattr", "listxattr"), Once(strike)):
            try:
                restore(root, good, contents)
            except UmbraError as error:
                assert "\n" not in str(error)
        assert picture(outside) == seen
        restore(root, good, contents)
        assert differing(root, good, contents) == []
    assert number > 10


class Once:
    """A hook that is not called by what it calls itself."""

    def __init__(self, hook: Callable[[int, str], None]) -> None:
        self._hook = hook
        self._inside = False

    def __call__(self, count: int, name: str) -> None:
        if not self._inside:
            self._inside = True
            self._hook(count, name)
            self._inside = False


@root_only
def test_a_symlink_of_another_user_above_the_root_is_not_followed(tmp_path: Path, contents: MemoryContents) -> None:
    build_small(tmp_path / "real" / "root")
    good = shadow(tmp_path / "real" / "root", contents)
    (tmp_path / "outside").mkdir()
    (tmp_path / "way").symlink_to("outside")
    os.chown(tmp_path / "way", 1234, 1234, follow_symlinks=False)
    with pytest.raises(RestoreFailed) as caught:
        restore(tmp_path / "way" / "root", good, contents)
    assert str(caught.value) == (
        f"tree: could not be restored: {tmp_path}/way/root: the way there leads through a symlink that is not root's. "
        "Look where it leads; then restore as its owner, or remove it."
    )
    assert os.listdir(tmp_path / "outside") == []


@root_only
@pytest.mark.parametrize("name", ["etc", "empty"])
def test_a_directory_swapped_for_another_gets_no_owner_and_no_mode(
    tmp_path: Path, contents: MemoryContents, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whoever may rename what is restored puts somebody's private directory there, before the metadata is put back."""
    root = build_small(tmp_path / "root")
    os.chown(root / name, NOBODY, NOBODY)
    good = shadow(root, contents)
    if name == "etc":
        (root / "etc").chmod(0o700)
    else:
        (root / "empty").rmdir()  # it will be made
    secret = tmp_path / "root" / "secret"
    secret.mkdir(0o700)
    (secret / "key").touch()
    finish = Writer.finish
    swapped: list[Path] = []

    def swap(self: Writer, entry: Entry, live: os.stat_result | None) -> None:
        if not swapped:
            swapped.append((root / name).rename(tmp_path / "away"))
            secret.rename(root / name)
        finish(self, entry, live)

    monkeypatch.setattr(Writer, "finish", swap)
    try:
        restore(root, good, contents, exclude=("/secret",))  # may still hold the right one, and go on with it
    except RestoreFailed as error:
        assert "something else took its place" in str(error)
    assert swapped
    found = (root / name).lstat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (0, 0, 0o700)
    assert os.listdir(root / name) == ["key"]


@root_only
def test_an_acl_is_there_before_the_group_bits_that_are_its_mask(
    tmp_path: Path, contents: MemoryContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = build_small(tmp_path / "root")
    conf = root / "etc" / "app.conf"
    subprocess.run(["setfacl", "-m", "g::-,u:65534:rwx,m::rwx", str(conf)], check=True)
    good, before = shadow(root, contents), picture(root)
    conf.unlink()
    modes: list[int] = []
    chmod = os.chmod

    def note(target: int, mode: int) -> None:
        modes.append(mode)
        chmod(target, mode)

    monkeypatch.setattr("os.chmod", note)
    restore(root, good, contents)
    monkeypatch.undo()
    assert modes == [0o600, 0o674]
    assert picture(root) == before
