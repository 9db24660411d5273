# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever it meets, the native kernel doesn't take the interpreter with it, nor says what the pure twin would not."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import NoSpace, StoreCorrupt
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import graph, selected
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store
from ansible_collections.umbra.rollback.plugins.module_utils.tree import entry, statindex
from ansible_collections.umbra.rollback.plugins.module_utils.tree.apply import apply
from ansible_collections.umbra.rollback.plugins.module_utils.tree.capture import capture
from ansible_collections.umbra.rollback.plugins.module_utils.tree.compare import compare
from ansible_collections.umbra.rollback.plugins.module_utils.tree.native import verify
from ansible_collections.umbra.rollback.plugins.module_utils.tree.scan import TreeOptions
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.store.helpers import files_below
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.tree.trees import mounted, picture, root_only
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents
from ansible_collections.umbra.rollback.tests.unit.support.kernels import python
from ansible_collections.umbra.rollback.tests.unit.support.twins import BUILT, TWINS, using

pytestmark = pytest.mark.native
OPTIONS = TreeOptions(name="tree")


@pytest.fixture
def native() -> Iterator[Any]:
    """The native kernel itself."""
    with using("native"):
        yield selected.kernel()


# --- interrupts

PRELUDE = """
import os, signal, sys, time
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import selected
selected.choose("native", sys.argv[1], None)
kernel, place = selected.kernel(), os.fsencode(sys.argv[2])
parent = os.open(place, os.O_RDONLY)

def threads():
    return len(os.listdir("/proc/self/task"))

def interrupted(job):
    kernel.scan(parent, b"tree", True, [], [], None, 2)  # a sanitizer has a thread of its own from the first on
    before = threads()
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    begin = time.monotonic()
    try:
        job()
        print("it came to its end")
    except KeyboardInterrupt:
        took = time.monotonic() - begin
        print("interrupted" if took < 5 else f"only after {took} s")
    deadline = time.monotonic() + 5
    while threads() > before and time.monotonic() < deadline:
        time.sleep(0.01)  # one that has ended is listed for a moment
    assert threads() <= before, "a thread is left behind"

def slow(*what):
    time.sleep(0.03)

"""
LONG = {
    "scan": 'interrupted(lambda: kernel.scan(parent, b"tree", True, [], [], slow, 2))',
    "capture": """
capture = kernel.Capture(kernel.scan(parent, b"tree", True, [], [], None, 2), None, True)
capture.match()
interrupted(lambda: capture.read(None, lambda data: time.sleep(0.002), 0, 2))
""",
    "packs": """
def write():
    while True:
        file = os.open(place, os.O_RDWR | os.O_TMPFILE)
        writer = kernel.PackWriter(file, -1, None)
        capture = kernel.Capture(kernel.scan(parent, b"tree", True, [], [], None, 2), None, True)
        capture.match()
        capture.read(kernel.Packs([]), lambda: writer, 1 << 40, 3)
        writer.close()
        os.close(file)
interrupted(write)
""",
    "verify": """
count, step, length = 300_000, 10, 1 << 17
digests = b"".join(number.to_bytes(32, "big") for number in range(count))
places = b"".join((number * step).to_bytes(8, "big") + length.to_bytes(8, "big") for number in range(count))
index = b"umbraidx" + (1).to_bytes(8, "big") + count.to_bytes(8, "big") + digests + places + bytes(32)
packs = kernel.Packs([(index, 4 << 20, open(place + b"/pack", "rb", buffering=0))])
interrupted(lambda: packs.verify(digests, 2))
""",
    "large file": """
large = os.open(place + b"/large", os.O_RDONLY)
interrupted(lambda: kernel.stream(large, -1, -1, 1 << 40))
""",
}


@pytest.mark.parametrize("what", LONG)
def test_an_interrupt_ends_it(what: str, tmp_path: Path) -> None:
    """Each would go on for longer than that, by far."""
    (tmp_path / "pack").write_bytes(bytes(4 << 20))
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 1 << 40)
    for number in range(400):
        directory = tmp_path / "tree" / str(number)
        directory.mkdir(parents=True)
        (directory / "file").write_bytes(number.to_bytes(2, "big") * 50_000)
    done = python(PRELUDE + LONG[what], str(BUILT), str(tmp_path))
    assert (done.stdout, done.returncode) == ("interrupted\n", 0), done.stderr


class Enough(Exception):
    """Ends what is reported."""


@pytest.mark.parametrize("what", ["one file", "threads"])
def test_progress_is_reported(what: str, tmp_path: Path, native: Any) -> None:
    """And an error of whoever is told ends it, as every other callback's does."""
    seen = []

    def take(done: int, of: int) -> None:
        seen.append((done, of))
        if len(seen) == 3:
            raise Enough

    with open(tmp_path / "large", "wb+") as large:
        large.truncate(1 << 40)
        native.report(take)
        try:
            with pytest.raises(Enough):
                if what == "threads":
                    graph.dependents(800_000, [(at, at - 1) for at in range(1, 800_000)] * 4)
                else:
                    native.stream(large.fileno(), -1, -1, 1 << 40)
        finally:
            native.report(None)
    assert len(seen) == 3 and seen == sorted(seen)
    assert all(0 <= done <= of for done, of in seen)


# --- what runs out


@root_only
def test_a_full_disk_while_packs_are_written(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    root.mkdir()
    disk.mkdir()
    for number in range(160):
        (root / f"file-{number}").write_bytes(bytes([number]) + os.urandom(100_000))
    time.sleep(0.03)
    with mounted(disk, "-t", "tmpfs", "-o", "size=6m", "tmpfs"), using("native"):
        store = Store.open(str(disk / "store"), "h", create=True)
        for dummy in range(2):
            with pytest.raises(NoSpace):
                capture(os.fsencode(root), store.contents, OPTIONS)
            store.contents.forget()
            assert files_below(disk / "store" / "tmp") == set(), "what was written is still there"
        for number in range(130):
            (root / f"file-{number}").unlink()
        captured = capture(os.fsencode(root), store.contents, OPTIONS)
        store.contents.flush()
        digests = {captured.tree, *entry.digests(store.contents.get(captured.tree))}
        assert store.contents.verify(digests) > captured.bytes == 30 * 100_001
        del store
        gc.collect()  # which closes the packs


DESCRIPTORS = """
import resource
from ansible_collections.umbra.rollback.plugins.module_utils.errors import UmbraError
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store
from ansible_collections.umbra.rollback.plugins.module_utils.tree.apply import apply
from ansible_collections.umbra.rollback.plugins.module_utils.tree.capture import capture
from ansible_collections.umbra.rollback.plugins.module_utils.tree.scan import TreeOptions
selected.limit(4)
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[3]),) * 2)
options = TreeOptions(name="tree")
try:
    store = Store.open(os.fsdecode(place + b"/store"), "h", create=True)
    first = capture(place + b"/tree", store.contents, options)
    store.contents.flush()
    again = capture(place + b"/tree", store.contents, options, (first.tree, first.stat))
    assert again.tree == first.tree
    apply(place + b"/copy", first.tree, None, store.contents, options)
    print(first.tree)
except UmbraError as error:
    print(error)
assert len(os.listdir("/proc/self/fd")) < 20, os.listdir("/proc/self/fd")
"""


def deep(tmp_path: Path, depth: int) -> Path:
    """A tree with files at its top, and with one at the bottom."""
    path = tree = tmp_path / "tree"
    for number in range(depth):
        path = path / f"{number}"
    path.mkdir(parents=True)
    (path / "bottom").write_text("here")
    for number in range(100):
        (tree / f"{number}-file").write_bytes(bytes([number]) * 5000)
    time.sleep(0.03)
    return tree


@pytest.mark.parametrize(("limit", "depth"), [(64, 30), (90, 120)])
def test_few_descriptors(limit: int, depth: int, tmp_path: Path) -> None:
    """Where they don't suffice for all threads and directories, the pure twin goes on with less."""
    tree = deep(tmp_path, depth)
    done = python(PRELUDE + DESCRIPTORS, str(BUILT), str(tmp_path), str(limit))
    with using("pure"):
        expected = capture(os.fsencode(tree), MemoryContents(), OPTIONS).tree
    assert (done.stdout, done.stderr) == (f"{expected}\n", "")
    assert picture(tmp_path / "copy") == picture(tree)


@pytest.mark.parametrize("limit", [12, 16, 20, 24, 30, 40, 64])
def test_too_few_descriptors(limit: int, tmp_path: Path) -> None:
    """Then one sentence says so."""
    deep(tmp_path, 120)
    done = python(PRELUDE + DESCRIPTORS, str(BUILT), str(tmp_path), str(limit))
    assert ("oo many open files" in done.stdout and done.stdout.count("\n") == 1, done.stderr) == (True, "")


def test_twenty_thousand_directories(tmp_path: Path) -> None:
    """Half of them in one directory, half 40 deep."""
    root = tmp_path / "root"
    for number in range(10_000):
        (root / "wide" / f"{number:05}").mkdir(parents=number == 0)
    for number in range(250):
        path = root / f"deep-{number}"
        for dummy in range(40):
            path.mkdir()
            path = path / "d"
    time.sleep(0.03)
    shadows, contents = [], MemoryContents()
    for twin in TWINS:
        with using(twin):
            first = capture(os.fsencode(root), contents, OPTIONS)
            again = capture(os.fsencode(root), contents, OPTIONS, (first.tree, first.stat))
            assert (again.tree, again.items, again.incremental) == (first.tree, 20_002, True)
            assert not compare(os.fsencode(root), first.tree, first.stat, contents, OPTIONS).differences
            shadows.append(first.tree)
    assert shadows[0] == shadows[1]


# --- what is written wrongly: each was taken for good once, or told by a traceback

ROOT = b"umbra-tree 1\nd 755 0 0 1 .\n"
WRONG = {
    "a kind that is no character": b"\0 755 0 0 1 name\n",
    "no space before attributes": b"l 777 0 0 0 name target\tuser.a .\n",
    "no space in attributes": b"d 755 0 0 1 name user.a\x01.\n",
    "no space between attributes": b"d 755 0 0 1 name user.a .\x01user.b .\n",
    "an attribute without a value": b"d 755 0 0 1 name user.a \n",
    "an empty value, and another name": b"d 755 0 0 1 name user.a  user.b .\n",
    "an owner that nobody can be": b"d 755 4294967296 0 1 name\n",
    "a group that nobody can be in": b"d 755 0 9999999999 1 name\n",
    "a device that is none": b"c 600 0 0 1 name 2147483648:1\n",
    "a minor number that is none": b"b 600 0 0 1 name 1:9999999999\n",
}


@pytest.mark.parametrize("why", WRONG)
def test_a_listing_that_looks_nearly_right(why: str, native: Any) -> None:
    assert native.listing(ROOT) is not None
    assert native.listing(ROOT + WRONG[why]) is None
    with pytest.raises(StoreCorrupt):
        entry.decode(ROOT + WRONG[why])


def test_times_that_nanoseconds_in_64_bits_do_not_hold(tmp_path: Path) -> None:
    """The year 2300, as a broken clock or tool leaves it; where the file system can't say so, nothing is shown."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_text("from the future")
    future = 10_413_792_000 * 10**9 + 7
    for path in (root / "file", root):
        os.utime(path, ns=(future, future))
    time.sleep(0.03)
    contents, trees = MemoryContents(), []
    for twin in TWINS:
        with using(twin):
            made = capture(os.fsencode(root), contents, OPTIONS)
            made = capture(os.fsencode(root), contents, OPTIONS, (made.tree, made.stat))
            trees.append(contents.get(made.tree))
            assert not compare(os.fsencode(root), made.tree, made.stat, contents, OPTIONS).differences
            apply(os.fsencode(tmp_path / twin), made.tree, made.stat, contents, OPTIONS)
        assert picture(tmp_path / twin) == picture(root)
    assert trees[0] == trees[1]
    assert (root / "file").stat().st_mtime_ns != future or b" %d " % future in trees[0]


@pytest.mark.parametrize("started", [-(2**63) + 1, -1, 0, 2**63 - 1, 2**63, 10**30])
def test_a_stat_index_of_any_time(started: int, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_text("here")
    time.sleep(0.03)
    contents, found = MemoryContents(), []
    for twin in TWINS:
        with using(twin):
            made = capture(os.fsencode(root), contents, OPTIONS)
            lines = contents.get(made.stat).split(b"\n", 2)[2]
            stats = contents.put(statindex.encode(made.tree, started, lines))
            again = capture(os.fsencode(root), contents, OPTIONS, (made.tree, stats))
            found.append((again.tree, again.read_items if started < 2**63 else None))
    assert found[0] == found[1]


def test_a_second_stat_index_that_does_not_belong(tmp_path: Path, native: Any) -> None:
    """Then the first one counts no more: it is gone, and nothing may be read of it."""
    (tmp_path / "root").mkdir()
    time.sleep(0.03)
    contents = MemoryContents()
    made = capture(os.fsencode(tmp_path / "root"), contents, OPTIONS)
    listing = native.listing(contents.get(made.tree))
    good = contents.get(made.stat)
    parent = os.open(tmp_path, os.O_RDONLY)
    try:
        tree = native.scan(parent, b"root", True, [], [], None, 1)
        assert listing.index(bytes(bytearray(good)), made.tree.encode())
        for bad in (b"", good[:-1], good + b"1 1 1 1 1\n", good.replace(b"umbra", b"Umbra")):
            assert not listing.index(bad, made.tree.encode())
            assert native.Capture(tree, listing, True).match() == 0
        assert listing.index(good, made.tree.encode())
    finally:
        os.close(parent)


def unsorted(index: bytearray, rows: int) -> None:
    """The middle digest becomes the greatest."""
    index[24 + 32 * (rows // 2)] = 0xFF


def endless(index: bytearray, rows: int) -> None:
    """A content reaches to the end of all numbers."""
    index[24 + 32 * rows + 8 : 24 + 32 * rows + 16] = b"\xff" * 8


def counted_wrong(index: bytearray, rows: int) -> None:
    index[16:24] = (rows + 1).to_bytes(8, "big")


@pytest.mark.parametrize("damage", [unsorted, endless, counted_wrong])
def test_a_damaged_index_hides_the_same_from_both(damage: Callable[[bytearray, int], None], tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"), "h", create=True)
    digests = sorted(store.contents.put(b"content %d" % number) for number in range(50))
    store.contents.flush()
    (path,) = (tmp_path / "store" / "packs").glob("*.idx")
    index = bytearray(path.read_bytes())
    damage(index, len(digests))
    path.write_bytes(index)
    wanted, found = b"".join(map(bytes.fromhex, digests)), []
    for twin in TWINS:
        with using(twin):
            contents: Any = Store.open(str(tmp_path / "store"), "h").contents
            with pytest.raises(StoreCorrupt) as caught:
                contents.verify(digests)
            found.append((contents.lacking(wanted), str(caught.value)))
    assert found[0] == found[1]
    assert b"\1" in found[0][0]


def test_what_is_named_often_is_verified_once(tmp_path: Path) -> None:
    """In time, and in how many bytes there are."""
    store = Store.open(str(tmp_path / "store"), "h", create=True)
    digests = [store.contents.put(b"content %d" % number) for number in range(20)]
    store.contents.flush()
    found = []
    for twin in TWINS:
        with using(twin):
            found.append(verify(store.contents, b"".join(map(bytes.fromhex, digests)) * 50))
    assert found == [sum(len(b"content %d" % number) for number in range(20))] * 2


NESTED = b"[" * 100_000


def test_json_that_is_nested_without_end(tmp_path: Path) -> None:
    update = Store.open(str(tmp_path / "store"), "h", create=True).update("u")
    update.journal.append("create")
    (journal,) = tmp_path.rglob("journal.jsonl")
    journal.write_bytes(journal.read_bytes() + NESTED + b"\n")
    with pytest.raises(StoreCorrupt, match="line 2"):
        update.journal.events()
    Path(update.manifest_path).write_bytes(NESTED)
    with pytest.raises(StoreCorrupt):
        update.manifest()
