# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing that was not kept is replaced or removed, however late it came."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import ChangedSinceKept
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store
from ansible_collections.umbra.rollback.plugins.module_utils.tree import apply as apply_module
from ansible_collections.umbra.rollback.plugins.module_utils.tree import write as write_module
from ansible_collections.umbra.rollback.plugins.module_utils.tree.apply import Guard, apply
from ansible_collections.umbra.rollback.plugins.module_utils.tree.capture import Captured, capture
from ansible_collections.umbra.rollback.plugins.module_utils.tree.compare import compare_open
from ansible_collections.umbra.rollback.plugins.module_utils.tree.scan import TreeOptions

from .trees import OLD, break_small, build_small, picture, temporaries, write

OPTIONS = TreeOptions(name="tree")


class Failed:
    """A small tree, its shadow in a real store, and what an update made of it, kept."""

    def __init__(self, path: Path) -> None:
        self.root = build_small(path / "root")
        write(self.root / "large", bytes(200_000))
        os.symlink("somewhere", self.root / "link")
        self.contents = Store.open(str(path / "store"), "h", create=True).contents
        self.good = self.shadow()
        self.before = picture(self.root)
        break_small(self.root)
        write(self.root / "large", bytes(200_001))
        write(self.root / "extra", "extra")
        (self.root / "link").unlink()
        os.symlink("elsewhere", self.root / "link")
        self.kept = self.shadow()
        self.begun = 0

    def shadow(self) -> Captured:
        """Shadow it as it is."""
        captured = capture(os.fsencode(self.root), self.contents, OPTIONS)
        self.contents.flush()
        return captured

    def restore(self, **options: Any) -> None:
        """Bring it back."""
        options_ = TreeOptions(name="tree", **options)
        guard = Guard((self.kept.tree, self.kept.stat), self.begin)
        apply(os.fsencode(self.root), self.good.tree, self.good.stat, self.contents, options_, guard)

    def begin(self) -> None:
        """Called before the first change."""
        self.begun += 1


@pytest.fixture
def failed(tmp_path: Path) -> Failed:
    return Failed(tmp_path)


def replace(path: Path) -> None:
    """Another file takes its name, as like it as can be."""
    info = path.lstat()
    path.rename(path.with_name("away"))
    if path.with_name("away").is_symlink():
        path.symlink_to("anywhere!")
    else:
        path.write_bytes(bytes(info.st_size))
    os.utime(path, ns=(OLD, info.st_mtime_ns), follow_symlinks=False)
    path.with_name("away").unlink()


LATE: dict[str, Callable[[Path], object]] = {
    "written": lambda root: write(root / "etc" / "app.conf", "late\n"),
    "same size": lambda root: (root / "large").write_bytes(b"x" * 200_001),
    "replaced": lambda root: replace(root / "extra"),
    "symlink": lambda root: replace(root / "link"),
    "appended": lambda root: (root / "extra").open("a").write("late"),
}


def test_without_anybody_else_it_comes_back(failed: Failed) -> None:
    failed.restore()
    assert picture(failed.root) == failed.before and failed.begun == 1
    failed.restore()
    assert failed.begun == 1


@pytest.mark.parametrize("late", LATE)
def test_what_changed_after_it_was_kept_stops_it_before_it_begins(failed: Failed, late: str) -> None:
    LATE[late](failed.root)
    before = picture(failed.root)
    with pytest.raises(ChangedSinceKept) as caught:
        failed.restore()
    assert "changed after its failed state was kept. Stop what writes there" in str(caught.value)
    assert picture(failed.root) == before and failed.begun == 0
    failed.kept = failed.shadow()
    failed.restore()
    assert picture(failed.root) == failed.before


def test_who_takes_what_changes_as_it_is_gets_it_so(failed: Failed) -> None:
    """With allow_unstable, a log that grows all the time does not stop a restore."""
    (failed.root / "extra").open("a").write("late")
    failed.restore(allow_unstable=True)
    assert picture(failed.root) == failed.before


@pytest.mark.parametrize("late", [*LATE, "created", "new file"])
def test_what_changes_between_the_look_and_the_change_is_not_lost(
    failed: Failed, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    """The tree was compared, and nothing is late as yet; then it is."""
    victim = {"written": "etc/app.conf", "same size": "large", "symlink": "link"}.get(late, "extra")
    if late in ("created", "new file"):
        victim = "etc/app.conf" if late == "created" else "large"
        (failed.root / victim).unlink()
        failed.kept = failed.shadow()

    def compare_and_change(*args: Any) -> Any:
        found = compare_open(*args)
        if late in LATE:
            LATE[late](failed.root)
        else:
            write(failed.root / victim, "late\n")
        return found

    monkeypatch.setattr(apply_module, "compare_open", compare_and_change)
    with pytest.raises(ChangedSinceKept) as caught:
        failed.restore()
    assert "after its failed state was kept" in str(caught.value) and victim in str(caught.value)
    lost = (failed.root / victim).lstat()
    assert late == "symlink" or (failed.root / victim).read_bytes() not in (b"", b"port = 80\n", bytes(200_000))
    assert late != "symlink" or os.readlink(failed.root / victim) == "anywhere!"
    assert not temporaries(failed.root)
    monkeypatch.undo()
    with pytest.raises(ChangedSinceKept):  # and never is
        failed.restore()
    assert (failed.root / victim).lstat().st_ino == lost.st_ino
    (failed.root / victim).rename(failed.root.parent / "saved")
    failed.restore()
    assert picture(failed.root) == failed.before


def test_hard_links_that_change_with_each_other_are_no_surprise(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in "abc":
        write(root / name, f"{name}")
    contents = Store.open(str(tmp_path / "store"), "h", create=True).contents
    good = capture(os.fsencode(root), contents, OPTIONS)
    before = picture(root)
    for name in "bc":
        (root / name).unlink()
        os.link(root / "a", root / name)
    os.link(root / "a", root / "d")
    (root / "a").chmod(0o600)
    time.sleep(0.02)
    kept = capture(os.fsencode(root), contents, OPTIONS)
    contents.flush()
    guard = Guard((kept.tree, kept.stat))
    apply(os.fsencode(root), good.tree, good.stat, contents, OPTIONS, guard)
    assert picture(root) == before


@pytest.mark.pure
@pytest.mark.parametrize("lacking", ["renameat2", "hard links"])
def test_a_free_name_is_taken_only_while_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    """Stand-in for C libraries and file systems that can't do more."""
    monkeypatch.setattr("ctypes.CDLL", lambda *args, **more: object())
    if lacking == "hard links":

        def refuse(*args: Any, **more: Any) -> None:
            raise PermissionError(1, "no hard links here")

        monkeypatch.setattr(os, "link", refuse)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        for name, left in ((b"free", {"free", "taken"}), (b"taken", {"free", "taken", "temporary"})):
            (tmp_path / "taken").write_text("precious")
            (tmp_path / "temporary").write_text("new")
            try:
                write_module._rename_new(fd, b"temporary", name)
                assert name == b"free"
            except FileExistsError:
                assert name == b"taken"
            assert set(os.listdir(tmp_path)) == left
        assert (tmp_path / "free").read_text() == "new" and (tmp_path / "taken").read_text() == "precious"
    finally:
        os.close(fd)


def move(path: Path) -> None:
    path.rename(path.with_name("moved-by-logrotate"))


def save_again(path: Path) -> None:
    """As an editor does: another inode with the same text."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("act", [os.utime, move, save_again])
def test_what_was_kept_under_any_name_may_go(failed: Failed, act: Callable[[Path], None]) -> None:
    """Its content proves it, where stat can't: after a reboot no inode may have the number that it had."""
    act(failed.root / "extra")
    act(failed.root / "large")
    failed.restore()
    assert picture(failed.root) == failed.before


def test_a_file_with_two_names_is_known_by_its_content(failed: Failed) -> None:
    """The time of one name may have been put back through the other."""
    os.link(failed.root / "large", failed.root / "large-2")
    failed.kept = failed.shadow()
    info = (failed.root / "large").stat()
    (failed.root / "large").write_bytes(b"x" * info.st_size)
    os.utime(failed.root / "large", ns=(info.st_atime_ns, info.st_mtime_ns))
    with pytest.raises(ChangedSinceKept):
        failed.restore()


TEXT = b"".join(b"%06d\n" % number for number in range(300_000))  # more than one piece
TORN = {
    "empty": b"",
    "its beginning": TEXT[:4096],
    "half a block": TEXT[:100_100],
    "zeros": bytes(len(TEXT)),
    "some of its blocks": TEXT[:8192] + bytes(8192) + TEXT[16384:20000],
}


@pytest.mark.parametrize("torn", TORN)
def test_what_a_lost_power_left_of_a_restored_file_may_go(failed: Failed, torn: str) -> None:
    """A restore made the file, and the file system had not written all of it: nobody kept that, and nobody has to."""
    write(failed.root / "text", TEXT)
    failed.good, failed.before = failed.shadow(), picture(failed.root)
    (failed.root / "text").write_bytes(TORN[torn])
    failed.restore()
    assert picture(failed.root) == failed.before


@pytest.mark.parametrize("late", [TEXT + b"!", TEXT[:4095] + b"!", bytes(512) + b"!", TEXT[512:1024]])
def test_what_was_written_into_a_restored_file_may_not(failed: Failed, late: bytes) -> None:
    write(failed.root / "text", TEXT)
    failed.good = failed.shadow()
    (failed.root / "text").write_bytes(late)
    with pytest.raises(ChangedSinceKept):
        failed.restore()
    assert (failed.root / "text").read_bytes() == late
