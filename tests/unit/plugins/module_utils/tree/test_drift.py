# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Differences in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.providers.base import Change, Drift
from ansible_collections.umbra.rollback.plugins.module_utils.tree.capture import Captured
from ansible_collections.umbra.rollback.plugins.module_utils.tree.drift import drift, summary
from ansible_collections.umbra.rollback.plugins.module_utils.tree.scan import TreeOptions
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents

from .trees import OLD, build_small, inodes, root_only, write
from .verbs import differences, shadow


def words(root: Path, of: Captured, contents: MemoryContents) -> Drift:
    return drift(os.fsencode(root), of.tree, of.stat, contents, TreeOptions(name="tree"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return build_small(tmp_path / "root")


def test_no_difference_is_false(root: Path, contents: MemoryContents) -> None:
    assert words(root, shadow(root, contents), contents) == Drift(0)


def test_each_kind_of_difference(root: Path, contents: MemoryContents) -> None:
    write(root / "etc" / "binary", b"\x00\x01")
    write(root / "etc" / "large", "x" * 8193)
    (root / "etc" / "to-be").symlink_to("a")
    good = shadow(root, contents)
    times = {path: path.stat().st_mtime_ns for path in (root, root / "etc", root / "bin")}
    write(root / "etc" / "app.conf", "port = 81\n")
    write(root / "etc" / "binary", b"\x00\x02\x03")
    write(root / "etc" / "large", "y" * 8194)
    (root / "etc" / "secret").chmod(0o640)
    (root / "etc" / "to-be").unlink()
    (root / "etc" / "to-be").symlink_to("b\n")
    (root / "bin" / "tool-2").unlink()
    (root / "empty").rmdir()
    write(root / "new", "new text")
    for path, mtime in times.items():
        os.utime(path, ns=(mtime, mtime))
    before = inodes(root)
    found = words(root, good, contents)
    assert inodes(root) == before
    owner = f"owner {os.geteuid()}:{os.getegid()}"
    time = f"mtime {OLD // 10**9}.{OLD % 10**9:09d}"
    assert found.changes == (
        Change("create", f"{root}/bin/tool-2", "", "hard link to bin/tool"),
        Change("create", f"{root}/empty", "", "directory"),
        Change("replace", f"{root}/etc/app.conf", "port = 81\n", "port = 80\n"),
        Change("replace", f"{root}/etc/binary", "file of 3 bytes", found.changes[3].after),
        Change("replace", f"{root}/etc/large", "file of 8194 bytes", found.changes[4].after),
        Change("metadata", f"{root}/etc/secret", f"{owner}, mode 0640, {time}", f"{owner}, mode 0600, {time}"),
        Change("replace", f"{root}/etc/to-be", "-> b\\n", "-> a"),
        Change("remove", f"{root}/new", "new text", ""),
    )
    assert found.changes[3].after.startswith("file of 2 bytes, SHA-256 b413f47d")
    assert found.changes[4].after.startswith("file of 8193 bytes, SHA-256 ")
    assert (found.total, found.bytes) == (8, 10 + 2 + 8193)


def test_at_most_a_hundred_are_spelled_out(root: Path, contents: MemoryContents) -> None:
    good = shadow(root, contents)
    for number in range(150):
        (root / "empty" / f"{number}").touch()
    found = words(root, good, contents)
    assert (found.total, len(found.changes)) == (151, 100)


def test_names_of_any_bytes_are_on_one_line(root: Path, contents: MemoryContents) -> None:
    good = shadow(root / "empty", contents)
    os.mkfifo(os.fsencode(root / "empty") + b"/a\nb\xff\x1b\xc3\xa4")
    found = words(root / "empty", good, contents)
    assert found.changes[1] == Change("remove", f"{root}/empty/a\\nb\\xff\\x1b\u00e4", "fifo", "")


@root_only
def test_attributes_are_told(root: Path, contents: MemoryContents) -> None:
    good = shadow(root, contents)
    os.setxattr(root / "pipe", "trusted.a", b"\x00v")
    change = words(root, good, contents).changes[0]
    assert (change.action, change.what) == ("metadata", f"{root}/pipe")
    assert change.before == change.after + ", trusted.a=0076"


def test_a_summary_names_the_first(root: Path, contents: MemoryContents) -> None:
    good = shadow(root, contents)
    (root / "etc" / "app.conf").write_text("port = 1\n")
    for number in range(9):
        (root / "empty" / f"{number}").touch()
    assert summary(b"/srv", differences(root, good, contents), shown=3) == (
        "/srv/empty (mtime); /srv/empty/0 (remove); /srv/empty/1 (remove); and 8 more"
    )
