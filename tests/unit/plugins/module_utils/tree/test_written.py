# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore wrote needs no reading back, unless anything at all was done to it since."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import ctimes
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store
from ansible_collections.umbra.rollback.plugins.module_utils.tree import apply as apply_module
from ansible_collections.umbra.rollback.plugins.module_utils.tree.apply import Guard, apply_written
from ansible_collections.umbra.rollback.plugins.module_utils.tree.capture import Captured, capture
from ansible_collections.umbra.rollback.plugins.module_utils.tree.compare import compare
from ansible_collections.umbra.rollback.plugins.module_utils.tree.scan import TreeOptions
from ansible_collections.umbra.rollback.plugins.module_utils.tree.written import Written

from .trees import OLD, picture, write

OPTIONS = TreeOptions(name="tree")
SIZES = (0, 5, 4096, 100_000, 300_000)  # packed, and a file of its own


class Tree:
    """A tree that is gone, and its shadow in a real store."""

    def __init__(self, path: Path) -> None:
        self.root = path / "root"
        for number, size in enumerate(SIZES):
            write(self.root / f"{number % 2}" / f"{size}", bytes([number]) * size)
        os.link(self.root / "1" / "5", self.root / "another name")
        self.contents = Store.open(str(path / "store"), "h", create=True).contents
        self.captured: Captured = capture(os.fsencode(self.root), self.contents, OPTIONS)
        self.contents.flush()
        self.before = picture(self.root)
        shutil.rmtree(self.root)

    def restore(self) -> Written:
        """Bring it back; what is remembered of that."""
        of = self.captured
        _outcome, written = apply_written(os.fsencode(self.root), of.tree, of.stat, self.contents, OPTIONS, Guard())
        assert picture(self.root) == self.before
        return written

    def differing(self, written: Written | None) -> list[bytes]:
        """Paths that a validation finds."""
        of = self.captured
        found = compare(os.fsencode(self.root), of.tree, of.stat, self.contents, OPTIONS, written).differences
        return [one.path for one in found]


@pytest.fixture
def gone(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def bytes_read(call: Callable[[], object]) -> int:
    """How many bytes this process read while `call` ran."""

    def count() -> int:
        with open("/proc/self/io") as file:
            return int(file.readline().split()[1])

    begun = count()
    call()
    return count() - begun


def test_what_was_written_is_not_read_back(gone: Tree, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    fine = ctimes.has_fine_clock(fd)
    os.close(fd)
    written = gone.restore()
    assert gone.differing(written) == []
    remembered = bytes_read(lambda: gone.differing(written))
    read = bytes_read(lambda: gone.differing(None))
    assert (read - remembered >= sum(SIZES) - 100) == fine


def again(path: Path, data: bytes) -> None:
    """Write to a file in place, and hide it as well as can be."""
    info = path.stat()
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        lambda path: again(path, b"x"),
        lambda path: path.chmod(0o600 if path.stat().st_mode & 0o77 else 0o644),
        lambda path: os.setxattr(path, "user.more", b"x"),
        lambda path: (path.with_suffix(".new").write_bytes(path.read_bytes()), path.with_suffix(".new").rename(path)),
        lambda path: os.utime(path, ns=(OLD, OLD + 1)),
    ],
    ids=["content", "mode", "attribute", "another file", "time"],
)
@pytest.mark.parametrize("size", [5, 4096, 300_000])
def test_whatever_is_done_to_it_in_the_same_moment_is_found(
    gone: Tree, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object], size: int
) -> None:
    """At once, within the clock's tick: before it is synced."""
    (path,) = (gone.root / f"{n % 2}" / f"{size}" for n, one in enumerate(SIZES) if one == size)
    monkeypatch.setattr(apply_module, "_sync", lambda disk: None)
    written = gone.restore()
    change(path)
    assert os.fsencode(path.relative_to(gone.root)) in gone.differing(written)


def test_a_coarse_clock_proves_nothing(gone: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-in for a kernel before 6.13: on one, the second change within a tick has the ctime of the first."""
    monkeypatch.setattr(ctimes, "_change", lambda fd: 1)
    written = gone.restore()
    assert not written.files and not any(written.lines)
    assert gone.differing(written) == []


def test_it_is_of_one_tree_at_one_place(gone: Tree, tmp_path: Path) -> None:
    written = gone.restore()
    gone.root.rename(tmp_path / "moved")
    shutil.copytree(tmp_path / "moved", gone.root)
    again(gone.root / "0" / "4096", b"x")
    assert b"0/4096" in gone.differing(written)
    assert b"0/4096" in gone.differing(Written(written.root, "0" * 64, written.files, written.lines))
