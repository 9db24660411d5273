# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back of a tree: everything is as it was, and what was as it is stays untouched."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import (
    RestoreFailed,
)
from ansible_collections.umbra.rollback.plugins.module_utils.providers.base import Outcome
from ansible_collections.umbra.rollback.plugins.module_utils.tree.apply import apply, extract
from ansible_collections.umbra.rollback.plugins.module_utils.tree.scan import TreeOptions
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .trees import (
    OLD,
    ROOTS,
    as_nobody,
    before_each_call,
    break_small,
    build_rich,
    build_small,
    copy,
    inodes,
    mounted,
    picture,
    remove,
    root_only,
    rsync_says,
    temporaries,
    write,
)
from .verbs import restore, shadow


def test_a_broken_tree_comes_back_and_goes_again(tmp_path: Path, contents: MemoryContents) -> None:
    root = build_small(tmp_path / "root")
    before = picture(root)
    good = shadow(root, contents)
    break_small(root)
    broken = picture(root)
    displaced = shadow(root, contents)
    assert restore(root, good, contents).items > 0
    assert picture(root) == before
    assert restore(root, displaced, contents).items > 0
    assert picture(root) == broken
    assert restore(root, good, contents).items > 0
    assert picture(root) == before
    assert restore(root, good, contents) == Outcome(0, 0, "in place")


@root_only
def test_all_that_a_file_system_can_hold(tmp_path: Path, contents: MemoryContents) -> None:
    root = build_rich(tmp_path / "root")
    original = copy(root, tmp_path / "original")
    assert picture(original) == picture(root)
    good = shadow(root, contents)
    for path in list(root.rglob("*")):
        remove(path)
    write(root / "else", "where")
    displaced = shadow(root, contents)
    restore(root, good, contents)
    assert picture(root) == picture(original)
    assert rsync_says(original, root) == rsync_says(root, original) == ""
    assert (root / "sparse").stat().st_blocks * 512 < 1 << 20
    assert (root / "void").stat().st_blocks * 512 < 1 << 20
    assert shadow(root, contents).tree == good.tree
    restore(root, displaced, contents)
    assert sorted(os.listdir(root)) == ["else"]


@root_only
def test_every_attribute_is_put_back_in_place(tmp_path: Path, contents: MemoryContents) -> None:
    """What was but changed in owner, mode, times, ACL, capability or attribute keeps its inode."""
    root = build_rich(tmp_path / "root")
    original = copy(root, tmp_path / "original")
    good = shadow(root, contents)
    numbers = {path: number for path, (number, dummy) in inodes(root).items()}
    names = [path for path in [root, *root.rglob("*")] if path.lstat().st_nlink == 1 or path.is_dir()]
    for path in names:
        for name in os.listxattr(path, follow_symlinks=False):
            os.removexattr(path, name, follow_symlinks=False)
        os.chown(path, 77, 88, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(0o4707)
            if path.is_file():
                os.setxattr(path, "user.more", b"x")
        os.setxattr(path, "trusted.more", b"x", follow_symlinks=False)
        os.utime(path, ns=(1, 2), follow_symlinks=False)
    outcome = restore(root, good, contents)
    assert outcome.items == len(names) and outcome.bytes == 0
    assert picture(root) == picture(original)
    assert rsync_says(original, root) == ""
    assert {path: number for path, (number, dummy) in inodes(root).items()} == numbers


@root_only
def test_a_new_owner_does_not_cost_the_setuid_bit(tmp_path: Path, contents: MemoryContents) -> None:
    root = build_small(tmp_path / "root")
    good, before = shadow(root, contents), picture(root)
    os.chown(root / "bin" / "tool", 5, 5)
    (root / "bin" / "tool").chmod(0o4755)
    assert restore(root, good, contents).bytes == 0
    assert picture(root) == before


@root_only
def test_what_a_directory_passes_on_is_taken_away_again(tmp_path: Path, contents: MemoryContents) -> None:
    """A default ACL and a setgid directory give what is made in them what it did not have."""
    root = build_rich(tmp_path / "root")
    write(root / "shared" / "plain", "plain")
    good = shadow(root, contents)
    before = picture(root)
    shutil.rmtree(root / "shared")
    (root / "etc" / "app.conf").unlink()
    (root / "shared").mkdir(0o2777)
    os.chown(root / "shared", 5, 5)
    restore(root, good, contents)
    assert picture(root) == before


def test_what_is_equal_is_not_touched(tmp_path: Path, contents: MemoryContents) -> None:
    root = build_small(tmp_path / "root")
    for number in range(200):
        write(root / "many" / f"{number % 10}" / f"file-{number}", f"{number}")
    good = shadow(root, contents)
    before = inodes(root)
    changed = ["many/3/file-3", "many/7/file-77"]
    for name in changed:
        write(root / name, "changed", mtime=OLD + 1)
    (root / "many" / "4" / "extra").touch()
    outcome = restore(root, good, contents)
    after = inodes(root)
    assert (outcome.items, outcome.bytes) == (4, 3)  # two files, what was too much, and the time of its directory
    touched = {path for path in before if before[path] != after[path]}
    assert touched == {*changed, "many/3", "many/4", "many/7"}
    assert {path for path in touched if before[path][0] != after[path][0]} == set(changed)


def test_without_an_index_everything_is_read_and_nothing_touched(tmp_path: Path, contents: MemoryContents) -> None:
    root = build_small(tmp_path / "root")
    good = shadow(root, contents)
    before = inodes(root)
    del contents.blobs[good.stat]
    assert restore(root, good, contents).items == 0
    assert apply(os.fsencode(root), good.tree, None, contents, TreeOptions()).items == 0
    assert inodes(root) == before


def test_equal_contents_under_another_inode_are_kept(tmp_path: Path, contents: MemoryContents) -> None:
    root = build_small(tmp_path / "root")
    good = shadow(root, contents)
    before = picture(root)
    conf = root / "etc" / "app.conf"
    write(root / "new", "port = 80\n", 0o600).rename(conf)
    number = conf.stat().st_ino
    restore(root, good, contents)
    assert (conf.stat().st_ino, picture(root)) == (number, before)


def test_same_size_and_time_with_another_content_is_found(tmp_path: Path, contents: MemoryContents) -> None:
    root = build_small(tmp_path / "root")
    good = shadow(root, contents)
    before = picture(root)
    write(root / "etc" / "app.conf", "port = 99\n")
    restore(root, good, contents)
    assert picture(root) == before


def test_extract_lays_a_tree_out(tmp_path: Path, contents: MemoryContents) -> None:
    root = build_small(tmp_path / "root")
    good = shadow(root, contents)
    (tmp_path / "private").mkdir(0o700)
    extract(os.fsencode(tmp_path / "private"), good.tree, contents)
    assert picture(tmp_path / "private") == picture(root)


names = st.binary(min_size=1, max_size=6).filter(lambda name: not set(name) & {0, 47} and name not in (b".", b".."))
leaf = st.one_of(
    st.tuples(st.just("file"), st.binary(max_size=9), st.integers(0, 0o7777)),
    st.tuples(st.just("link"), names, st.just(0)),
    st.tuples(st.just("fifo"), st.just(b""), st.integers(0, 0o7777)),
    st.tuples(st.just("same"), st.just(b""), st.just(0)),  # another name of the file before it
)
trees = st.recursive(leaf, lambda inside: st.dictionaries(names, inside, max_size=4), max_leaves=10)


def make(path: bytes, tree: object, last: list[bytes]) -> None:
    if isinstance(tree, dict):
        os.mkdir(path)
        for name, inside in tree.items():
            make(path + b"/" + name, inside, last)
        os.utime(path, ns=(OLD, OLD + len(tree)))
        return
    assert isinstance(tree, tuple)
    kind, data, mode = tree
    if kind == "link":
        os.symlink(data, path)
    elif kind == "fifo":
        os.mkfifo(path)
        os.chmod(path, mode)
    elif kind == "same" and last:
        os.link(last[-1], path, follow_symlinks=False)
    else:
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, mode)
    last.append(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read files of any mode")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=trees, other=trees)
def test_any_tree_becomes_any_other_and_back(tmp_path: Path, unsynced: None, one: object, other: object) -> None:
    top = tmp_path / "top"
    remove(top)
    top.mkdir()
    contents = MemoryContents()
    root = top / "root"
    make(os.fsencode(root), one, [])
    first, first_picture = shadow(root, contents), picture(root)
    root.rename(top / "kept")  # so that inode numbers do not come again
    make(os.fsencode(root), other, [])
    second, second_picture = shadow(root, contents), picture(root)
    restore(root, first, contents)
    assert picture(root) == first_picture
    assert restore(root, first, contents).items == 0
    restore(root, second, contents)
    assert picture(root) == second_picture
    assert shadow(root, contents).tree == second.tree


@pytest.mark.parametrize("was", ROOTS.values(), ids=ROOTS)
@pytest.mark.parametrize("becomes", ROOTS.values(), ids=ROOTS)
def test_any_root(
    tmp_path: Path, contents: MemoryContents, was: Callable[[Path], object], becomes: Callable[[Path], object]
) -> None:
    root = tmp_path / "root"
    was(root)
    good, before = shadow(root, contents), picture(root)
    remove(root)
    becomes(root)
    displaced, after = shadow(root, contents), picture(root)
    restore(root, good, contents)
    assert picture(root) == before
    restore(root, displaced, contents)
    assert picture(root) == after
    assert os.listdir(tmp_path) in ([], ["root"])


def test_roots_side_by_side_do_not_take_each_others_temporaries(tmp_path: Path, contents: MemoryContents) -> None:
    one, other = write(tmp_path / "one", "1"), write(tmp_path / "other", "2")
    shadows = {path: shadow(path, contents) for path in (one, other)}
    other.write_text("changed")
    leftover: list[Path] = []

    def look(_count: int, name: str) -> None:
        if name == "rename":
            leftover.extend(path for path in tmp_path.iterdir() if path.name.startswith(".umbra-tmp-"))
            restore(one, shadows[one], contents)
            assert leftover[0].exists()

    with before_each_call(("rename",), look):
        restore(other, shadows[other], contents)
    assert leftover and other.read_text() == "2"


def test_a_missing_parent_is_told(tmp_path: Path, contents: MemoryContents) -> None:
    root = build_small(tmp_path / "up" / "root")
    good = shadow(root, contents)
    shutil.rmtree(tmp_path / "up")
    with pytest.raises(RestoreFailed, match="the directory it belongs in is missing"):
        restore(root, good, contents)
    assert restore(root, shadow(root, contents), contents).items == 0


def test_deep_trees_and_long_names(tmp_path: Path, contents: MemoryContents) -> None:
    """1,000 directories deep, names of 255 bytes: paths that no system call would take whole."""
    root = tmp_path / "root"
    root.mkdir()
    names = [(b"%04d-" % number) + b"x" * (250 if number % 40 == 0 else 3) for number in range(1000)]
    fd = os.open(root, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=fd)
        deeper = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    bottom = os.open(b"\xff" * 255, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=fd)
    os.write(bottom, b"here")
    os.close(bottom)
    good = shadow(root, contents)
    assert good.items == 1002
    os.unlink(b"\xff" * 255, dir_fd=fd)
    os.mkdir(b"\xff" * 255, dir_fd=fd)
    os.close(fd)
    restore(root, good, contents)
    assert shadow(root, contents).tree == good.tree
    restore(root, shadow(tmp_path / "none", contents), contents)  # which is more than shutil.rmtree can do
    assert not root.exists()
    restore(root, good, contents)
    assert shadow(root, contents).tree == good.tree
    restore(root, shadow(tmp_path / "none", contents), contents)


def test_an_owner_needs_no_privileges_for_what_is_his(nobodys: Path, contents: MemoryContents) -> None:
    root = nobodys / "root"

    def there_and_back() -> None:
        build_small(root)
        os.setxattr(root / "etc" / "app.conf", "user.mine", b"yes")
        (root / "etc").chmod(0o555)  # as build tools leave their caches
        (root / "bin").chmod(0o500)
        good, before = shadow(root, contents), picture(root)
        for name in ("etc", "bin"):
            (root / name).chmod(0o755)
        break_small(root)
        (root / "etc").chmod(0o555)
        (root / "new" / "deep").chmod(0o555)
        displaced, after = shadow(root, contents), picture(root)
        restore(root, good, contents)
        assert picture(root) == before
        restore(root, displaced, contents)
        assert picture(root) == after
        restore(root, good, contents)
        assert picture(root) == before

    assert as_nobody(there_and_back) == ""


@root_only
def test_what_only_root_can_put_back_says_so(nobodys: Path, contents: MemoryContents) -> None:
    write(nobodys / "root" / "file", "root's")
    good = shadow(nobodys / "root", contents)
    write(nobodys / "root" / "file", "changed")
    for path in (nobodys / "root", nobodys / "root" / "file"):
        os.chown(path, 65534, 65534)
    said = as_nobody(lambda: restore(nobodys / "root", good, contents))
    assert said == (
        f"RestoreFailed: tree: could not be restored: {nobodys}/root/file: operation not permitted. "
        "Run with `become: true`."
    )
    assert not temporaries(nobodys)
    restore(nobodys / "root", good, contents)
    assert stat.S_IMODE((nobodys / "root" / "file").stat().st_mode) == 0o644


@root_only
def test_an_immutable_file_says_what_to_look_for(tmp_path: Path, contents: MemoryContents) -> None:
    (tmp_path / "disk").mkdir()
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    for argv in (["mkfs.ext4", "-q", str(image)],):
        assert os.spawnvp(os.P_WAIT, argv[0], argv) == 0
    with mounted(tmp_path / "disk", "-o", "loop", str(image)):
        root = build_small(tmp_path / "disk" / "root")
        good, before = shadow(root, contents), picture(root)
        conf = write(root / "etc" / "app.conf", "port = 1\n")
        assert os.spawnvp(os.P_WAIT, "chattr", ["chattr", "+i", str(conf)]) == 0
        with pytest.raises(RestoreFailed, match="Look for an immutable attribute with lsattr"):
            restore(root, good, contents)
        assert os.spawnvp(os.P_WAIT, "chattr", ["chattr", "-i", str(conf)]) == 0
        restore(root, good, contents)
        assert picture(root) == before
