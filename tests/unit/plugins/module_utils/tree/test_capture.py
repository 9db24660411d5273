# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shadowing: what is read, what is not read again, and what does not hold still."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import SourceUnreadable, Unstable
from ansible_collections.umbra.rollback.plugins.module_utils.tree.capture import estimate
from ansible_collections.umbra.rollback.plugins.module_utils.tree.entry import Entry, decode
from ansible_collections.umbra.rollback.plugins.module_utils.tree.scan import TreeOptions
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents

from .trees import OLD, as_nobody, build_small, mounted, root_only, write
from .verbs import entries, shadow

OPTIONS = TreeOptions(name="tree")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return build_small(tmp_path / "root")


@contextmanager
def scribbled(path: Path) -> Iterator[None]:
    """A file that another process writes to without end. (A thread of ours would stop while we read.)"""
    path.touch()
    writer = os.fork()
    if writer == 0:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        while os.getppid() != 1:
            os.write(fd, b"x")
            if os.lseek(fd, 0, os.SEEK_END) > 1 << 16:
                os.ftruncate(fd, 0)
        os._exit(0)
    try:
        yield
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)


class Meddling(MemoryContents):
    """Contents that do something else each time they are about to read a file: what another process would do then."""

    def __init__(self, meddle: Callable[[int], object]) -> None:
        super().__init__()
        self.meddle = meddle
        self.reads = 0

    def put_fd(self, fd: int) -> tuple[str, int]:
        self.reads += 1
        self.meddle(self.reads)
        return super().put_fd(fd)


def test_each_kind_has_what_belongs_to_it(root: Path, contents: MemoryContents) -> None:
    captured = shadow(root, contents)
    found = entries(captured, contents)
    assert {path: entry.kind for path, entry in found.items()} == {
        b"": "d",
        b"bin": "d",
        b"bin/tool": "f",
        b"bin/tool-2": "h",
        b"current": "l",
        b"empty": "d",
        b"etc": "d",
        b"etc/app.conf": "f",
        b"etc/secret": "f",
        b"pipe": "p",
    }
    conf = found[b"etc/app.conf"]
    assert (conf.mode, conf.uid, conf.mtime_ns, conf.size) == (0o644, os.geteuid(), OLD, 10)
    assert contents.get(conf.digest) == b"port = 80\n"
    assert found[b"bin/tool"].mode == 0o4755
    assert found[b"bin/tool-2"] == Entry(b"bin/tool-2", "h", target=b"bin/tool")
    assert (found[b"current"].target, found[b"current"].mtime_ns) == (b"etc", OLD + 1)
    assert (captured.items, captured.read_items, captured.bytes) == (10, 3, 10 + 6 + 5004)
    size = estimate(os.fsencode(root), OPTIONS)
    assert (size.items, size.bytes) == (captured.items, captured.bytes)


def test_what_did_not_change_is_not_read(root: Path, contents: MemoryContents) -> None:
    first = shadow(root, contents)
    shadow(root, contents)  # the first one may be too close to the making of the tree
    settled = shadow(root, contents)
    again = shadow(root, contents, settled)
    assert (first.incremental, again.incremental) == (False, True)
    assert (again.read_items, again.tree, again.bytes, again.items) == (0, first.tree, first.bytes, first.items)
    write(root / "etc" / "app.conf", "port = 81\n")
    changed = shadow(root, contents, again)
    assert changed.read_items == 1
    assert contents.get(entries(changed, contents)[b"etc/app.conf"].digest) == b"port = 81\n"
    assert changed.tree == shadow(root, contents).tree


def test_a_file_that_is_as_young_as_the_scan_is_read_again(root: Path, contents: MemoryContents) -> None:
    """A change right after the reading could leave size, mtime and ctime as they were."""
    (root / "etc" / "app.conf").write_text("port = 82\n")
    first = shadow(root, contents)
    second = shadow(root, contents, first)
    assert second.read_items >= 1
    assert shadow(root, contents, second).read_items == 0


def test_what_the_store_lost_is_read_again(root: Path, contents: MemoryContents) -> None:
    shadow(root, contents)
    first = shadow(root, contents)
    digest = entries(first, contents)[b"etc/secret"].digest
    del contents.blobs[digest]
    again = shadow(root, contents, first)
    assert (again.read_items, contents.get(digest)) == (1, b"s3cret")
    contents.blobs[first.tree] = b"damaged"
    assert not shadow(root, contents, first).incremental
    assert not shadow(root, MemoryContents(), first).incremental


def test_a_renamed_directory_takes_the_first_name_of_a_file_along(root: Path, contents: MemoryContents) -> None:
    os.link(root / "bin" / "tool", root / "other")
    shadow(root, contents)
    first = shadow(root, contents)
    (root / "bin").rename(root / "sbin")  # the inode of what is in it does not change
    again = shadow(root, contents, first)
    found = entries(again, contents)
    assert (found[b"other"].kind, found[b"sbin/tool"].target, found[b"sbin/tool-2"].target) == ("f", b"other", b"other")
    assert again.tree == shadow(root, contents).tree


def test_a_file_that_never_settles(root: Path) -> None:
    log = write(root / "etc" / "busy.log", bytes(200_000))

    def scribble(_number: int) -> None:
        with log.open("ab") as file:
            file.write(b"x")

    with pytest.raises(Unstable) as caught:
        shadow(root, Meddling(scribble))
    assert str(caught.value) == (
        f"tree: {log} changed while it was read, 3 times. Stop what writes to it, exclude it, or set "
        "`allow_unstable: true` to take it as it is."
    )


def test_a_file_that_is_written_all_the_time_is_taken_as_it_is(root: Path, contents: MemoryContents) -> None:
    log = root / "etc" / "busy.log"
    with scribbled(log):
        taken = shadow(root, contents, allow_unstable=True)
        entry = entries(taken, contents)[b"etc/busy.log"]
        assert contents.size(entry.digest) == entry.size
        assert shadow(root, contents, exclude=("*.log",)).items == 10
    assert shadow(root, contents, taken).tree == shadow(root, contents).tree  # it is not taken for unchanged


def test_a_file_that_changes_once_is_read_again(root: Path) -> None:
    conf = root / "etc" / "app.conf"
    contents = Meddling(lambda number: number == 2 and conf.write_text("port = 9\n"))
    captured = shadow(root, contents)
    assert contents.get(entries(captured, contents)[b"etc/app.conf"].digest) == b"port = 9\n"
    assert captured.read_items == 4


def test_a_file_that_is_replaced_while_it_is_read_is_one_of_both(root: Path) -> None:
    conf = root / "etc" / "app.conf"

    def replace(number: int) -> None:
        if number == 2:
            write(root / "etc" / "new", "other\n", 0o600, 5).rename(conf)

    contents = Meddling(replace)
    entry = entries(shadow(root, contents), contents)[b"etc/app.conf"]
    both = [(b"port = 80\n", 0o644, OLD), (b"other\n", 0o600, 5)]
    assert (contents.get(entry.digest), entry.mode, entry.mtime_ns) in both


@pytest.mark.pure
def test_what_vanishes_is_left_out_with_all_below_it(root: Path) -> None:
    def vanish(_number: int) -> None:
        if (root / "etc").exists():
            (root / "etc").rename(root.parent / "away")
            (root / "pipe").unlink()
            (root / "current").unlink()

    contents = Meddling(vanish)
    assert sorted(entries(shadow(root, contents), contents)) == [b"", b"bin", b"bin/tool", b"bin/tool-2", b"empty"]


@pytest.mark.pure
@pytest.mark.parametrize("name", ["etc", "etc/app.conf", "current", "empty"])
@pytest.mark.parametrize("become", ["file", "link", "fifo", "directory"])
def test_what_becomes_another_kind_is_told(root: Path, name: str, become: str) -> None:
    """Between the scan and the reading. It was never looked at as what it is now, so it can't be taken as that."""
    path = root / name
    kind = {"etc": "directory", "empty": "directory", "current": "link"}.get(name, "file")

    def change(number: int) -> None:
        if number == 1:
            path.rename(root.parent / "away")
            if become == "directory":
                path.mkdir()
                (path / "never seen").touch()
            elif become == "link":
                path.symlink_to("/etc")
            elif become == "fifo":
                os.mkfifo(path)
            else:
                path.write_text("other")

    contents = Meddling(change)
    if kind == become:
        shadow(root, contents)
        return
    with pytest.raises(Unstable):
        shadow(root, contents)
    remove_and_put_back(path, root.parent / "away")
    lenient = Meddling(change)
    found = entries(shadow(root, lenient, allow_unstable=True), lenient)
    assert name.encode() not in found and name.encode() + b"/never seen" not in found


def remove_and_put_back(path: Path, kept: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        (path / "never seen").unlink()
        path.rmdir()
    else:
        path.unlink()
    kept.rename(path)


def test_holes_are_told_from_few_blocks(tmp_path: Path, contents: MemoryContents) -> None:
    root = tmp_path / "root"
    write(root / "dense", os.urandom(1 << 16))
    with write(root / "sparse", b"").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    write(root / "void", b"")
    os.truncate(root / "void", 1 << 20)
    found = entries(shadow(root, contents), contents)
    assert [found[name].sparse for name in (b"dense", b"sparse", b"void")] == [False, True, True]


def test_roots_that_are_no_directory(root: Path, contents: MemoryContents) -> None:
    file = shadow(root / "etc" / "app.conf", contents)
    assert [(e.path, e.kind) for e in decode(contents.get(file.tree))] == [(b"", "f")]
    link = shadow(root / "current", contents)
    assert [(e.path, e.kind, e.target) for e in decode(contents.get(link.tree))] == [(b"", "l", b"etc")]
    for none in (root / "none", root / "none" / "none"):
        assert (shadow(none, contents).items, contents.get(shadow(none, contents).tree)) == (0, b"umbra-tree 1\n")


@root_only
def test_what_was_skipped_is_said(root: Path, contents: MemoryContents) -> None:
    with mounted(root / "empty", "-t", "tmpfs", "none"):
        captured = shadow(root, contents)
        assert captured.skipped == (str(root / "empty"),)
        assert b"empty" not in entries(captured, contents)


@root_only
def test_a_file_that_cannot_be_read_is_named_before_and_while(nobodys: Path, contents: MemoryContents) -> None:
    write(nobodys / "mine", "mine")
    path = write(nobodys / "theirs\n", "theirs", 0o600)
    expected = f"{SourceUnreadable.__name__}: tree: {nobodys}/theirs\\n can't be read: permission denied. "
    assert as_nobody(lambda: estimate(os.fsencode(nobodys), OPTIONS)).startswith(expected)
    assert as_nobody(lambda: shadow(nobodys, contents)).startswith(expected)
    path.unlink()
    assert as_nobody(lambda: estimate(os.fsencode(nobodys), OPTIONS)) == ""
    assert as_nobody(lambda: shadow(nobodys, contents)) == ""
