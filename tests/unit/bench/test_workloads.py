# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees of one seed are the same, one file in a hundred changes, and lists of digests are what sha256sum reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import hash_pool
import pytest
import workloads


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    workloads.small(250).make(root)
    return root


def test_a_small_work_is_what_it_says(tree: Path) -> None:
    work = workloads.small(250)
    files = [path for path in tree.rglob("*") if path.is_file()]
    assert (work.files, work.bytes, work.full) == (len(files), sum(path.stat().st_size for path in files), False)
    assert sorted(len(list(directory.iterdir())) for directory in tree.iterdir()) == [50, 100, 100]
    assert len({path.read_bytes() for path in files}) == 250
    assert workloads.small(200_000).full


@pytest.mark.parametrize(("limit", "size"), [(None, 100 << 20), (60 << 20, 3 << 20), (1, 1 << 20)])
def test_a_limit_makes_large_files_smaller(limit: int | None, size: int) -> None:
    work = workloads.large(limit)
    assert (work.files, work.bytes, work.full) == (20, 20 * size, limit is None)


def test_a_limit_takes_the_first_of_usr() -> None:
    work = workloads.usr(1 << 20)
    assert 0 < work.bytes <= 1 << 20
    assert work.files
    assert not work.full


def test_trees_of_one_seed_are_equal(tree: Path, tmp_path: Path) -> None:
    workloads.small(250).make(tmp_path / "other")
    names = workloads.victims(tree)
    assert workloads.fingerprint(tree, names) == workloads.fingerprint(tmp_path / "other", names)


def test_one_file_in_a_hundred_changes_and_the_fingerprint_with_it(tree: Path) -> None:
    names = workloads.victims(tree)
    before = {path: path.read_bytes() for path in tree.rglob("*.dat")}
    mark = workloads.fingerprint(tree, names)
    workloads.change(tree, names, seed=1)
    changed = [str(path.relative_to(tree)) for path, content in before.items() if path.read_bytes() != content]
    assert sorted(changed) == names
    assert len(names) == 2
    assert all(path.stat().st_size == 4096 for path in before)
    assert workloads.fingerprint(tree, names) != mark


def test_a_hard_linked_or_empty_file_never_changes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("linked")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "c").touch()
    (tmp_path / "d").symlink_to("e")
    (tmp_path / "e").write_text("alone")
    assert workloads.victims(tmp_path) == ["e"]


def test_a_missing_file_and_another_size_are_seen(tree: Path) -> None:
    mark = workloads.fingerprint(tree, [])
    first = next(tree.rglob("*.dat"))
    first.write_bytes(b"x")
    assert workloads.fingerprint(tree, []) != mark
    first.unlink()
    assert workloads.fingerprint(tree, []) != mark


def test_the_lists_of_digests_are_read_by_both_who_check_them(tree: Path, tmp_path: Path) -> None:
    odd = [tree / "back\\slash", tree / "two  spaces", tree / "ünïcode"]
    for path in odd:
        path.write_text(path.name)
    lists = tmp_path / "lists"
    workloads.checksums(tree, lists, 4)
    names = sorted(str(path) for path in lists.iterdir())
    (tmp_path / "names").write_text("".join(f"{name}\0" for name in names))
    assert sum(len(Path(name).read_bytes().splitlines()) for name in names) == 253
    pool = [sys.executable, hash_pool.__file__, str(tmp_path / "names")]

    def statuses() -> list[int]:
        coreutils = subprocess.run(
            ["sha256sum", "--check", "--quiet", *names], cwd=tree, capture_output=True, check=False
        )
        return [coreutils.returncode, subprocess.run(pool, cwd=tree, capture_output=True, check=False).returncode]

    assert statuses() == [0, 0]
    odd[0].write_text("other")
    assert statuses() == [1, 1]
