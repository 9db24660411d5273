# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told apart: hard links, what is excluded, what is mounted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import (
    RestoreFailed,
)
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents

from .trees import (
    build_small,
    mounted,
    picture,
    root_only,
    write,
)
from .verbs import differing, restore, shadow


def link_over(root: Path, name: str, to: str) -> None:
    (root / name).unlink()
    os.link(root / to, root / name)


def copy_over(root: Path, name: str, of: str) -> None:
    shutil.copy2(root / of, root / "copy")
    (root / "copy").rename(root / name)


def add_name_and_change(root: Path) -> None:
    os.link(root / "bin" / "tool", root / "extra")
    (root / "extra").chmod(0o500)


def link_all(root: Path) -> None:
    link_over(root, "etc/secret", "bin/tool")
    link_over(root, "etc/app.conf", "bin/tool")


LINK_CHANGES: dict[str, Callable[[Path], object]] = {
    "the first name went": lambda root: (root / "bin" / "tool").unlink(),
    "another name went": lambda root: (root / "bin" / "tool-2").unlink(),
    "they are two files now": lambda root: copy_over(root, "bin/tool-2", "etc/app.conf"),
    "equal, but two files": lambda root: copy_over(root, "bin/tool", "bin/tool-2"),
    "written through one name": lambda root: (root / "bin" / "tool-2").write_bytes(b"changed"),
    "changed mode": lambda root: (root / "bin" / "tool").chmod(0o600),
    "one more name inside": lambda root: os.link(root / "bin" / "tool", root / "extra"),
    "one more name inside, and changed": add_name_and_change,
    "linked to another file": lambda root: link_over(root, "bin/tool-2", "etc/app.conf"),
    "its first name is another file": lambda root: link_over(root, "bin/tool", "etc/app.conf"),
    "two files became one": lambda root: link_over(root, "etc/secret", "etc/app.conf"),
    "all are one": link_all,
}


@pytest.mark.parametrize("change", LINK_CHANGES.values(), ids=LINK_CHANGES)
def test_hard_links(tmp_path: Path, contents: MemoryContents, change: Callable[[Path], object]) -> None:
    root = build_small(tmp_path / "root")
    good = shadow(root, contents)
    before = picture(root)
    change(root)
    changed = picture(root)
    displaced = shadow(root, contents)
    restore(root, good, contents)
    assert picture(root) == before
    restore(root, displaced, contents)
    assert picture(root) == changed


def test_a_name_outside_is_left_alone(tmp_path: Path, contents: MemoryContents) -> None:
    """A file that got another name outside the root must not be changed there, not even in its mode."""
    root = build_small(tmp_path / "root")
    good = shadow(root, contents)
    before = picture(root)
    outside = write(tmp_path / "outside", "port = 80\n", 0o640, 5)  # as the content, so only metadata differs
    (root / "etc" / "app.conf").unlink()
    os.link(outside, root / "etc" / "app.conf")
    seen = outside.stat()
    restore(root, good, contents)
    assert picture(root) == before
    now = outside.stat()
    assert (now.st_ino, now.st_mode, now.st_mtime_ns, now.st_nlink) == (seen.st_ino, seen.st_mode, 5, 1)


def test_what_is_excluded_is_neither_shadowed_nor_touched(tmp_path: Path, contents: MemoryContents) -> None:
    root = build_small(tmp_path / "root")
    options: dict[str, Any] = {"exclude": ("*.log", "cache/**")}
    write(root / "etc" / "old.log", "old")
    good = shadow(root, contents, **options)
    before = picture(root)
    write(root / "etc" / "old.log", "newer")
    write(root / "etc" / "new.log", "new")
    write(root / "extra" / "deep" / "kept.log", "kept")
    write(root / "extra" / "gone", "gone")
    write(root / "cache" / "a" / "b", "kept too")
    write(root / "etc" / "app.conf", "port = 1\n")
    for dummy in range(2):
        restore(root, good, contents, **options)
        assert differing(root, good, contents, **options) == []
        after = picture(root)
        assert set(after) - set(before) == {
            *(b"/etc/new.log", b"/extra", b"/extra/deep", b"/extra/deep/kept.log"),
            *(b"/cache", b"/cache/a", b"/cache/a/b"),
        }
        assert after[b"/etc/app.conf"] == before[b"/etc/app.conf"]
        assert (root / "etc" / "old.log").read_text() == "newer"
    write(root / "etc" / "third.log", "third")  # between a restore and the look at it
    assert differing(root, good, contents, **options) == []


def test_an_excluded_name_in_the_way_is_told_before_anything_changes(tmp_path: Path, contents: MemoryContents) -> None:
    root = build_small(tmp_path / "root")
    good = shadow(root, contents, exclude=("*.log",))
    (root / "etc" / "app.conf").unlink()
    write(root / "etc" / "app.conf" / "kept.log", "kept")
    write(root / "etc" / "secret", "changed")
    before = picture(root)
    with pytest.raises(RestoreFailed) as caught:
        restore(root, good, contents, exclude=("*.log",))
    assert "app.conf: it is a directory now, and holds what is excluded or mounted. Nothing" in str(caught.value)
    assert picture(root) == before


@root_only
def test_mount_points_are_left_alone(tmp_path: Path, contents: MemoryContents) -> None:
    root = build_small(tmp_path / "root")
    good = shadow(root, contents)
    (root / "extra").mkdir()
    with mounted(root / "extra", "-t", "tmpfs", "none"):
        write(root / "extra" / "file", "kept")
        write(root / "etc" / "app.conf", "port = 1\n")
        restore(root, good, contents)
        assert (root / "extra" / "file").read_text() == "kept"
        assert differing(root, good, contents) == []
    restore(root, good, contents)
    assert not (root / "extra").exists()


@root_only
def test_a_mount_on_something_of_ours_is_told_before_anything_changes(tmp_path: Path, contents: MemoryContents) -> None:
    root = build_small(tmp_path / "root")
    absent = shadow(tmp_path / "none", contents)
    good = shadow(root, contents)
    write(root / "etc" / "app.conf", "port = 1\n")
    with mounted(root / "empty", "-t", "tmpfs", "none"):
        before = picture(root)
        with pytest.raises(RestoreFailed) as caught:
            restore(root, good, contents)
        assert f"{root}/empty: something is mounted on it now. Nothing was changed." in str(caught.value)
        assert picture(root) == before
    with mounted(root / "etc", "-t", "tmpfs", "none"):
        write(root / "etc" / "precious", "precious")
        with pytest.raises(RestoreFailed, match="something is mounted on it, and it is no directory in the shadow"):
            restore(root / "etc", absent, contents)
        assert (root / "etc" / "precious").exists()


@root_only
def test_other_file_systems_are_restored_when_asked_for(tmp_path: Path, contents: MemoryContents) -> None:
    root = build_small(tmp_path / "root")
    with mounted(root / "empty", "-t", "tmpfs", "none"):
        write(root / "empty" / "file", "there")
        good = shadow(root, contents, one_file_system=False)
        before = picture(root)
        write(root / "empty" / "file", "changed")
        write(root / "empty" / "more", "more")
        restore(root, good, contents, one_file_system=False)
        assert picture(root) == before
