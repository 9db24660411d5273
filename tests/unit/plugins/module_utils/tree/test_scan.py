# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is seen in a tree, and what is left out."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import SourceUnreadable, Unsupported
from ansible_collections.umbra.rollback.plugins.module_utils.tree import scan as scan_module
from ansible_collections.umbra.rollback.plugins.module_utils.tree.scan import Scan, TreeOptions, open_root, scan

from .trees import as_nobody, before_each_call, mounted, root_only

TEMPORARY = ".umbra-tmp-0123456789abcdef01234567"


def look(root: Path, **options: object) -> Scan:
    chosen = TreeOptions(name="tree", **options)  # type: ignore[arg-type]
    with open_root(os.fsencode(root), chosen) as fs:
        return scan(fs, chosen)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.log", "conf/x", "conf/y.log", "cache/one/two", "data/deep/file"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "root"


def test_everything_counts(root: Path) -> None:
    found = look(root)
    assert sorted(found.nodes) == sorted(
        b"|a.log|cache|cache/one|cache/one/two|conf|conf/x|conf/y.log|data|data/deep|data/deep/file".split(b"|")
    )
    assert (found.partial, found.holding, found.skipped, found.temporaries) == (set(), set(), set(), [])


def test_what_is_excluded_is_not_entered_and_holds_its_directories(root: Path) -> None:
    found = look(root, exclude=("*.log", "cache/**", "/data/deep"))
    assert sorted(found.nodes) == [b"", b"cache", b"conf", b"conf/x", b"data"]
    assert found.partial == {b"", b"cache", b"conf", b"data"}
    found = look(root, exclude=("two",))
    assert found.partial == {b"cache/one"}
    assert found.holding == {b"", b"cache", b"cache/one"}


def test_temporaries_are_found_whatever_is_excluded(root: Path) -> None:
    (root / "conf" / TEMPORARY).touch()
    (root / "conf" / (TEMPORARY + "8")).touch()  # not ours: a digit too many
    (root / TEMPORARY).mkdir()  # ours are never directories
    found = look(root, exclude=("*",))
    assert found.temporaries == []  # conf is excluded, so we never wrote there
    found = look(root, exclude=(".*",))
    assert found.temporaries == [b"conf/" + TEMPORARY.encode()]
    assert b"conf/" + TEMPORARY.encode() not in found.nodes
    found = look(root)
    assert {TEMPORARY.encode(), b"conf/" + TEMPORARY.encode() + b"8"} <= set(found.nodes)


def test_what_is_untouched_is_never_entered(root: Path) -> None:
    found = look(root, untouched=(os.fsencode(root / "data"), os.fsencode(root / "none")), one_file_system=False)
    assert b"data" not in found.nodes
    assert (found.skipped, found.holding) == ({b"data"}, {b""})


@root_only
def test_mount_points_are_not_entered(root: Path) -> None:
    (root / "we ird\t").mkdir()
    target = root.parent / "file"
    target.write_text("mounted over")
    with ExitStack() as mounts:
        mounts.enter_context(mounted(root / "we ird\t", "-t", "tmpfs", "none"))
        mounts.enter_context(mounted(root / "cache", "--bind", str(root / "conf")))
        mounts.enter_context(mounted(root / "conf" / "x", "--bind", str(target)))
        found = look(root)
        assert found.skipped == {b"we ird\t", b"cache", b"conf/x"}
        assert found.partial == {b"", b"conf"}
        assert not {b"we ird\t", b"cache", b"cache/x", b"conf/x"} & set(found.nodes)
        found = look(root, one_file_system=False)
        assert found.skipped == set()
        assert {b"we ird\t", b"cache", b"cache/x", b"conf/x"} <= set(found.nodes)


@root_only
def test_the_root_itself_may_be_a_mount_point(root: Path) -> None:
    with mounted(root, "-t", "tmpfs", "none"):
        (root / "file").touch()
        assert sorted(look(root).nodes) == [b"", b"file"]


@root_only
def test_another_device_is_told_without_the_list_of_mounts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "MOUNTS", "/proc/none")
    with mounted(root / "data", "-t", "tmpfs", "none"):
        assert look(root).skipped == {b"data"}


def test_a_root_of_any_kind(root: Path) -> None:
    (root / "link").symlink_to("conf")
    for path in (root / "a.log", root / "link"):
        assert list(look(path).nodes) == [b""]
    for path in (root / "none", root / "none" / "none", root / "a.log" / "none"):
        assert look(path).nodes == {}


def test_what_goes_away_meanwhile_is_as_if_it_never_was(root: Path) -> None:
    """At every call that names something, a directory is moved away, or becomes a file or a symlink."""
    everything = set(look(root).nodes)
    for number in range(1, 60):
        for what in ("gone", "file", "link"):

            def strike(count: int, _name: str, at: int = number, what: str = what) -> None:
                if count == at:
                    os.replace(root / "data", root.parent / "away")
                    if what == "file":
                        (root / "data").touch()
                    elif what == "link":
                        (root / "data").symlink_to("../away")

            with before_each_call(("open", "stat", "listdir"), strike):
                found = look(root)
            inside = {path for path in found.nodes if path.startswith(b"data/")}
            assert not inside or b"data" in found.nodes
            assert everything - set(found.nodes) <= {b"data", b"data/deep", b"data/deep/file"}
            if (root.parent / "away").exists():
                if what != "gone":
                    (root / "data").unlink()
                os.replace(root.parent / "away", root / "data")


def test_without_proc_it_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-in for a chroot without /proc, which a test can't have: its own directories would be gone."""
    monkeypatch.setattr(scan_module, "has_proc", lambda: False)
    with pytest.raises(Unsupported) as caught:
        look(root)
    assert str(caught.value) == "tree: /proc is not mounted here. Mount it."


@root_only
def test_a_directory_that_cannot_be_read_is_named(nobodys: Path) -> None:
    (nobodys / "shut").mkdir(mode=0o700)
    said = as_nobody(lambda: look(nobodys))
    assert said == (
        f"{SourceUnreadable.__name__}: tree: {nobodys}/shut can't be read: permission denied. "
        "Run with `become: true`, or exclude it."
    )
