# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The twins of the kernel are equal on generated trees, listings and damage: in what they find and refuse."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import StoreCorrupt, UmbraError, Unstable
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import selected
from ansible_collections.umbra.rollback.plugins.module_utils.providers.base import Contents
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store
from ansible_collections.umbra.rollback.plugins.module_utils.tree import entry as listing
from ansible_collections.umbra.rollback.plugins.module_utils.tree import scan as scan_module
from ansible_collections.umbra.rollback.plugins.module_utils.tree import statindex
from ansible_collections.umbra.rollback.plugins.module_utils.tree.apply import apply
from ansible_collections.umbra.rollback.plugins.module_utils.tree.capture import Captured, capture, estimate
from ansible_collections.umbra.rollback.plugins.module_utils.tree.compare import compare, compare_open
from ansible_collections.umbra.rollback.plugins.module_utils.tree.rootfs import RootFs
from ansible_collections.umbra.rollback.plugins.module_utils.tree.scan import TreeOptions
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents
from ansible_collections.umbra.rollback.tests.unit.support.twins import TWINS, using
from hypothesis import given, settings
from hypothesis import strategies as st

from .trees import IS_ROOT, OLD, build_rich, build_small, picture, root_only

pytestmark = [pytest.mark.native, pytest.mark.pure]  # once each: they use both twins themselves

OPTIONS = TreeOptions(name="tree")
NAMES = st.binary(min_size=1, max_size=6).filter(lambda name: not {47, 0}.intersection(name) and name[:1] != b".")
SIZES = st.sampled_from((0, 1, 4096, (128 << 10) - 1, 128 << 10, (128 << 10) + 1))
LEAVES = st.one_of(
    st.tuples(st.just("file"), SIZES, st.sampled_from((0o644, 0o4755, 0o000, 0o600)), st.integers(-3, 3)),
    st.tuples(st.just("link"), st.binary(min_size=1, max_size=9).filter(lambda text: b"\0" not in text)),
    st.tuples(st.just("fifo")),
    st.tuples(st.just("same")),  # another name of the first file
    st.tuples(st.just("attribute"), st.binary(max_size=9)),
    st.tuples(st.just("holes")),
)
TREES = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=5),
    lambda below: st.dictionaries(NAMES, st.one_of(LEAVES, below), max_size=4),
    max_leaves=12,
)


def grow(path: bytes, plan: Any, seed: int = 0) -> None:
    """Make the tree that the plan describes."""
    os.mkdir(path)
    first = None
    for number, (name, what) in enumerate(sorted(plan.items(), key=lambda pair: pair[0])):
        child = path + b"/" + name
        if isinstance(what, dict):
            grow(child, what, seed + number)
            continue
        kind = what[0]
        if kind == "link":
            os.symlink(what[1], child)
        elif kind == "fifo":
            os.mkfifo(child)
        elif kind == "same" and first:
            os.link(first, child)
        else:
            with open(child, "wb") as file:
                file.write(bytes((seed + number) % 256 for dummy in range(what[1] if kind == "file" else 3)))
                if kind == "holes":
                    file.truncate(1 << 20)
            if kind == "attribute":
                os.setxattr(child, "user.note", what[1])
            os.chmod(child, what[2] if kind == "file" else 0o644)
            mtime = OLD + 1_000_000_000_000_000_000 * what[3] if kind == "file" else OLD
            os.utime(child, ns=(OLD, mtime))
            first = first or child


@contextmanager
def place() -> Iterator[Path]:
    """A directory of its own; hypothesis needs one for each example."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def refused(call: Any) -> Any:
    """What it gives, or the error it raises."""
    try:
        return call()
    except UmbraError as error:
        return type(error), str(error)


def both(call: Any) -> list[Any]:
    """What `call` gives with each twin."""
    found = []
    for name in TWINS:
        with using(name):
            found.append(refused(call))
    return found


def told(captured: Captured, contents: Contents) -> Any:
    """Everything in a Captured that must not depend on when it was made."""
    index = contents.get(captured.stat).split(b"\n", 2)[2]
    return (captured.tree, index, captured.bytes, captured.items, captured.read_items, captured.skipped)


def seen(root: Path, of: Captured, contents: Contents) -> Any:
    """What compare finds, comparable."""
    comparison = compare(os.fsencode(root), of.tree, of.stat, contents, OPTIONS)
    differing = comparison.differences
    differences = [(one.action, one.path, one.entry, one.why, one.live and one.live.st_ino) for one in differing]
    assert len(differing) == len(differences)
    return differences, comparison.conflicts, comparison.bytes, comparison.links


def damage(root: Path, plan: Any, where: int) -> None:
    """Change something of each kind, the more the greater `where`."""
    for number, path in enumerate(sorted(root.rglob("*"), key=os.fsencode)):
        if not os.path.lexists(path) or (number + where) % 3:
            continue
        info = path.lstat()
        choice = (number + where) % 5
        if stat.S_ISREG(info.st_mode) and choice < 2:
            path.chmod(0o600)
            path.write_bytes(b"changed")
        elif stat.S_ISDIR(info.st_mode) and choice == 3:
            shutil.rmtree(path)
            path.write_bytes(b"no directory")
        elif choice == 4 and not stat.S_ISDIR(info.st_mode):
            path.unlink()
        elif not stat.S_ISLNK(info.st_mode):
            path.chmod(0o711)


@root_only
@settings(max_examples=40, deadline=None)
@given(plan=TREES, where=st.integers(0, 14))
def test_generated_trees_are_shadowed_compared_and_restored_alike(plan: Any, where: int) -> None:
    with place() as directory:
        root = directory / "root"
        grow(os.fsencode(root), plan)
        before = picture(root)
        time.sleep(0.025)  # older than the clock's tick, so that nothing has to be waited for
        stores = [Store.open(str(directory / name), "h", create=True) for name in TWINS]
        shadows, again, damaged = [], [], []
        for name, store in zip(TWINS, stores):
            with using(name):
                shadows.append(capture(os.fsencode(root), store.contents, OPTIONS))
                store.contents.flush()
                last = shadows[-1]
                again.append(capture(os.fsencode(root), store.contents, OPTIONS, (last.tree, last.stat)))
        assert told(shadows[0], stores[0].contents) == told(shadows[1], stores[1].contents)
        assert told(again[0], stores[0].contents) == told(again[1], stores[1].contents)
        assert again[0].tree == shadows[0].tree
        size = both(lambda: estimate(os.fsencode(root), OPTIONS))
        assert size[0] == size[1]
        damage(root, plan, where)
        found = both(lambda: seen(root, shadows[0], stores[0].contents))
        assert found[0] == found[1]
        for name, store, shadow in zip(TWINS, stores, shadows):
            copy = directory / f"copy-{name}" / "root"
            copy.parent.mkdir()
            if not any(map(is_special, root.rglob("*"))):
                shutil.copytree(root, copy, symlinks=True)
            with using(name):
                apply(os.fsencode(copy), shadow.tree, None, store.contents, OPTIONS)
            damaged.append(picture(copy))
        assert damaged[0] == damaged[1] == before


def is_special(path: Path) -> bool:
    """What shutil can't copy."""
    return stat.S_ISFIFO(path.lstat().st_mode)


@root_only
def test_all_that_a_file_system_can_hold(tmp_path: Path) -> None:
    root = build_rich(tmp_path / "root")
    before = picture(root)
    time.sleep(0.025)
    stores = [Store.open(str(tmp_path / name), "h", create=True) for name in TWINS]
    shadows = []
    for name, store in zip(TWINS, stores):
        with using(name):
            shadows.append(capture(os.fsencode(root), store.contents, OPTIONS))
            store.contents.flush()
    assert told(shadows[0], stores[0].contents) == told(shadows[1], stores[1].contents)
    for name, store, shadow in zip(TWINS, stores, shadows):
        with using(name):
            apply(os.fsencode(tmp_path / f"copy of {name}"), shadow.tree, None, store.contents, OPTIONS)
        assert picture(tmp_path / f"copy of {name}") == before


def test_excluded_names_are_left_out_alike(tmp_path: Path) -> None:
    root = build_small(tmp_path / "root")
    for pattern in ("*.conf", "etc/*", "/bin", "tool*", "empty"):
        contents = MemoryContents()
        options = TreeOptions(name="tree", exclude=(pattern,))
        found = both(lambda: told(capture(os.fsencode(root), contents, options), contents))  # noqa: B023
        assert found[0] == found[1], pattern


@pytest.mark.parametrize("name", ["etc", "etc/app.conf", "current", "empty"])
@pytest.mark.parametrize("become", ["file", "link", "fifo", "directory", "nothing"])
def test_what_changes_between_the_scan_and_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, become: str
) -> None:
    """It was never looked at as what it is now, so it can't be taken as that; what went is left out."""
    results = []
    scan = scan_module.scan
    for twin_name in TWINS:
        root = build_small(tmp_path / twin_name)

        def scan_and_change(fs: Any, options: TreeOptions, root: Path = root, twin_name: str = twin_name) -> Any:
            found = scan(fs, options)
            path = root / name
            path.rename(tmp_path / f"away-{twin_name}")
            if become == "directory":
                path.mkdir()
                (path / "never seen").touch()
            elif become == "link":
                path.symlink_to("/etc")
            elif become == "fifo":
                os.mkfifo(path)
            elif become == "file":
                path.write_text("other")
                os.utime(path, ns=(OLD, OLD))
                time.sleep(0.025)
            return found

        monkeypatch.setattr(scan_module, "scan", scan_and_change)
        contents = MemoryContents()

        def paths(root: Path = root, contents: MemoryContents = contents) -> list[bytes]:
            captured = capture(os.fsencode(root), contents, OPTIONS)
            return [one.path for one in listing.decode(contents.get(captured.tree))]

        with using(twin_name):
            found = refused(paths)
        results.append(found[0] if isinstance(found, tuple) else found)
    assert results[0] == results[1]
    assert become != "fifo" or results[0] is Unstable


@root_only
def test_a_directory_swapped_while_it_is_filled_gets_nothing(tmp_path: Path) -> None:
    """Whoever may rename what was made puts somebody's private directory there before its files are written."""
    root = build_small(tmp_path / "root")
    store = Store.open(str(tmp_path / "store"), "h", create=True)
    captured = capture(os.fsencode(root), store.contents, OPTIONS)
    store.contents.flush()
    shutil.rmtree(root / "etc")
    secret = root / "secret"
    secret.mkdir(0o700)
    (secret / "key").touch()
    with using("native"), RootFs(os.fsencode(root), True) as fs:
        found = compare_open(fs, captured.tree, captured.stat, store.contents, OPTIONS)
        missing: Any = found.bulk
        missing.make_directories()
        assert list(missing.made()) == [b"etc"]
        (root / "etc").rename(root / "away")
        secret.rename(root / "etc")
        missing.make_files(store.contents.packed(), b".umbra-tmp-00000000", 2, False)
        assert missing.finish() == [b"etc"]
    assert os.listdir(root / "etc") == ["key"] and stat.S_IMODE((root / "etc").stat().st_mode) == 0o700
    assert os.listdir(root / "away") == []


HASH = b"ab" * 32
LINES = (
    b"d 755 0 0 1 .",
    b"d 700 0 0 -5 a",
    b"d 755 0 0 1 %2E",
    b"d 755 0 0 1 %41",
    b"d 755 0 0 1 f%0A",
    b"d 755 0 0 1 ..",
    b"d 755 0 0 1 a/..",
    b"d 755 4294967296 0 1 i",
    b"d 755 0 0 99999999999999999999 i",
    b"d 755 0 0 1 g user.a . user.b %00",
    b"d 755 0 0 1 g user.b . user.a .",
    b"f 644 0 0 1 a 3 " + HASH + b" 0",
    b"f 644 0 0 1 a/b 3 " + HASH + b" 0",
    b"f 0755 0 0 1 h 3 " + HASH + b" 0",
    b"f 644 00 0 1 h 3 " + HASH + b" 0",
    b"f 644 0 0 1 h 3 " + HASH.upper() + b" 0",
    b"f 644 0 0 1 h 3 " + HASH + b" 2",
    b"l 777 0 0 0 b target",
    b"l 777 0 0 0 b",
    b"h 0 0 0 0 c b",
    b"h 0 0 0 0 c a",
    b"h 0 0 0 1 c a",
    b"p 644 0 0 0 d",
    b"c 600 0 0 0 e 1:3",
    b"c 600 0 0 0 e 1",
    b"",
)


@settings(max_examples=300, deadline=None)
@given(
    lines=st.lists(st.sampled_from(LINES), max_size=6), tail=st.sampled_from((b"", b"\n")), data=st.binary(max_size=40)
)
def test_the_native_kernel_reads_no_listing_that_the_pure_twin_refuses(
    lines: list[bytes], tail: bytes, data: bytes
) -> None:
    """It may refuse more: then the pure twin reads it."""
    text = b"umbra-tree 1\n" + b"\n".join(lines) + tail
    for one in (text, text + data, text[: len(data)], text.replace(b"a", data[:2])):
        with using("native"):
            kernel: Any = selected.kernel()
            native = kernel.listing(one)
        pure = refused(lambda: listing.decode(one))  # noqa: B023
        if native is not None:
            assert isinstance(pure, list), (one, pure)
            assert [listing.format_line(entry) for entry in pure] == [native.line(n) for n in range(len(native))]
            assert all(native.find(entry.path) == n for n, entry in enumerate(pure))


def test_a_flipped_bit_in_a_pack_is_told_alike(tmp_path: Path) -> None:
    root = build_small(tmp_path / "root")
    store = Store.open(str(tmp_path / "store"), "h", create=True)
    captured = capture(os.fsencode(root), store.contents, OPTIONS)
    store.contents.flush()
    (pack,) = (tmp_path / "store" / "packs").glob("*.pack")
    good = pack.read_bytes()
    wanted = [captured.tree, captured.stat, *listing.digests(store.contents.get(captured.tree))]
    for at in range(0, len(good), 7):
        pack.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        found = both(lambda: Store.open(str(tmp_path / "store"), "h").contents.verify(wanted))
        assert found[0] == found[1] and found[0][0] is StoreCorrupt
    pack.write_bytes(good[:-1])
    found = both(lambda: Store.open(str(tmp_path / "store"), "h").contents.verify(wanted))
    assert found[0] == found[1] and found[0][0] is StoreCorrupt


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    """And the index of last time goes on to prove it, with both twins."""
    root = build_small(tmp_path / "root")
    time.sleep(2.1 if not IS_ROOT else 0.03)
    for name in TWINS:
        contents = MemoryContents()
        with using(name):
            first = capture(os.fsencode(root), contents, OPTIONS)
            known = dict(contents.blobs)
            second = capture(os.fsencode(root), contents, OPTIONS, (first.tree, first.stat))
        assert (second.tree, second.read_items) == (first.tree, 0)
        index = statindex.decode(contents.get(first.stat), first.tree, first.items)
        if not any(statindex.is_racy(path.lstat().st_ctime_ns, index.started_ns) for path in [root, *root.rglob("*")]):
            assert second.stat == first.stat and contents.blobs == known
