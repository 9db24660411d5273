# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths that belong together without being one tree."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import pathset
from ansible_collections.umbra.rollback.plugins.module_utils.errors import ContentMissing, RestoreFailed
from ansible_collections.umbra.rollback.plugins.module_utils.tree import entry
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents


@pytest.fixture
def contents() -> MemoryContents:
    return MemoryContents()


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """A file, a link, a directory, and a path at which nothing is."""
    (tmp_path / "one").mkdir(mode=0o750)
    (tmp_path / "one/file").write_text("a")
    (tmp_path / "one/link").symlink_to("nowhere")
    (tmp_path / "two/tree").mkdir(parents=True)
    (tmp_path / "two/tree/file").write_text("b")
    return [f"{tmp_path}/{name}" for name in ("one/file", "one/link", "two/tree", "two/none")]


def test_there_and_back(paths: list[str], contents: MemoryContents, tmp_path: Path) -> None:
    kept = pathset.PathSet.load(pathset.capture_paths(paths, contents, "x").data)
    assert sorted(kept.paths) == paths[:3] and not kept.drift(contents, "x")
    mode = (tmp_path / "one").stat().st_mode
    shutil.rmtree(tmp_path / "one")
    (tmp_path / "two/tree/file").write_text("c")
    (tmp_path / "two/none").write_text("new")
    assert kept.drift(contents, "x", [paths[3]]).total == 4
    assert kept.restore(contents, "x", [paths[3]]).items == 4
    assert (tmp_path / "one").stat().st_mode == mode and (tmp_path / "one/file").read_text() == "a"
    assert os.readlink(tmp_path / "one/link") == "nowhere" and (tmp_path / "two/tree/file").read_text() == "b"
    assert not (tmp_path / "two/none").exists()
    assert not kept.drift(contents, "x", [paths[3]]) and kept.restore(contents, "x", [paths[3]]).items == 0


def test_what_is_gone_may_be_removed_alone_and_paths_left_out(
    paths: list[str], contents: MemoryContents, tmp_path: Path
) -> None:
    kept = pathset.capture_paths(paths, contents, "x")
    (tmp_path / "two/none").write_text("new")
    (tmp_path / "one/file").write_text("b")
    assert kept.remove(contents, "x", [paths[3]]).items == 1
    assert (tmp_path / "one/file").read_text() == "b"
    assert kept.drift(contents, "x") and not kept.without([paths[0]]).drift(contents, "x")


def test_every_content_is_verified(paths: list[str], contents: MemoryContents) -> None:
    kept = pathset.capture_paths(paths, contents, "x")
    assert pathset.verify_roots(kept.roots, contents) > 0
    trees = [root.digest for root in kept.roots if root.kind == "tree"]
    files = {digest for tree in trees for digest in entry.digests(contents.get(tree))}
    assert len(files) == 2
    for digest in {*files, *(root.digest for root in kept.roots)}:
        data = contents.blobs.pop(digest)
        with pytest.raises(ContentMissing):
            pathset.verify_roots(kept.roots, contents)
        contents.blobs[digest] = data


def test_an_estimate_is_what_is_there(paths: list[str]) -> None:
    size = pathset.estimate_paths(paths, "x")
    assert (size.bytes, size.items) == (2, 4)


def test_a_directory_that_can_not_be_made_is_named(paths: list[str], contents: MemoryContents, tmp_path: Path) -> None:
    kept = pathset.capture_paths(paths, contents, "x")
    shutil.rmtree(tmp_path / "one")
    (tmp_path / "one").write_text("in the way")
    with pytest.raises(RestoreFailed, match=f"x: could not be restored: {tmp_path}/one"):
        kept.restore(contents, "x")


def test_the_directory_of_a_path_is_resolved_and_the_path_itself_is_not(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real/file").symlink_to("elsewhere")
    assert pathset.resolve(f"{tmp_path}/link/file") == f"{os.path.realpath(tmp_path)}/real/file"
