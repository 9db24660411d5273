# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The staged copy holds what git would commit, and nothing that is gone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tree import content_key, stage


@pytest.fixture(name="root")
def a_repository(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "plugins").mkdir(parents=True)
    (root / ".gitignore").write_text("*.pyc\n")
    (root / "plugins" / "a.py").write_text("a = 1\n")
    (root / "plugins" / "a.pyc").write_text("not wanted")
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o755)
    (root / "link").symlink_to("plugins/a.py")
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    return root


def listing(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if not path.is_dir() and ".git/" not in f"{path.relative_to(folder)}/"
    )


def test_uncommitted_files_are_in_and_ignored_ones_out(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "build" / "copy"
    assert stage(root, target) == [".gitignore", "link", "plugins/a.py", "run"]
    assert listing(target) == [".gitignore", "link", "plugins/a.py", "run"]
    assert os.readlink(target / "link") == "plugins/a.py"
    assert os.access(target / "run", os.X_OK)


def test_changes_follow_and_what_is_gone_goes_with_its_directory(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    before = content_key(target, stage(root, target))
    assert content_key(target, stage(root, target)) == before
    (root / "plugins" / "a.py").unlink()
    (root / "plugins" / "a.pyc").unlink()
    (root / "plugins").rmdir()
    (root / "link").unlink()
    (root / "link").mkdir()
    (root / "link" / "b.py").write_text("b = 2\n")
    (root / "run").chmod(0o644)
    after = content_key(target, stage(root, target))
    assert after != before
    assert listing(target) == [".gitignore", "link/b.py", "run"]
    assert not (target / "plugins").exists()
    assert not os.access(target / "run", os.X_OK)


def test_tests_do_not_count_for_the_artifact(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    before = content_key(target, stage(root, target))
    (root / "tests").mkdir()
    (root / "tests" / "test_a.py").write_text("")
    assert content_key(target, stage(root, target)) == before


def test_a_directory_that_is_no_clone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(SystemExit, match="has to be a clone"):
        stage(tmp_path, tmp_path / "copy")
