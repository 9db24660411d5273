# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What proves that nothing changed, and when that proof does not hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import (
    ContentMissing,
    StoreCorrupt,
    StoreFormatUnknown,
)
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store
from ansible_collections.umbra.rollback.plugins.module_utils.tree import entry, native, statindex
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents

TREE = "cd" * 32
SECOND = 1_000_000_000
START = 1_700_000_000_500_000_000

RACY = [
    # ctime, racy
    (START + 1, True),
    (START, True),
    (START - 19_999_999, True),  # a tick of the clock may be this long
    (START - 20_000_001, False),
    (START - 3 * SECOND, False),
    (START // SECOND * SECOND - SECOND, True),  # whole seconds: the file system may know no others
    (START // SECOND * SECOND - 2 * SECOND, False),
]


@pytest.mark.parametrize(("ctime", "racy"), RACY)
def test_racy(ctime: int, racy: bool) -> None:
    assert statindex.is_racy(ctime, START) is racy


def test_the_bytes_are_those_that_are_written_down() -> None:
    """Read by later releases: the first shadow after an upgrade of the collection is to be incremental too."""
    data = b"umbra-stat 1\n" + TREE.encode() + b" 1700000000500000000\n1 2 3 4 5\n6 7 8 -9 10\n"
    assert statindex.encode(TREE, START, b"1 2 3 4 5\n6 7 8 -9 10\n") == data
    assert statindex.decode(data, TREE, 2) == statindex.StatIndex(START, ["1 2 3 4 5", "6 7 8 -9 10"])


DAMAGED = {
    "empty": b"",
    "no head": b"umbra-stat 1\n",
    "another listing's": b"umbra-stat 1\n" + b"ab" * 32 + b" 1\n1 2 3 4 5\n",
    "too few lines": f"umbra-stat 1\n{TREE} 1\n".encode(),
    "cut off": f"umbra-stat 1\n{TREE} 1\n1 2 3 4 5".encode(),
    "no time": f"umbra-stat 1\n{TREE} x\n1 2 3 4 5\n".encode(),
    "not ASCII": f"umbra-stat 1\n{TREE} 1\n1 2 3 4 \u00b2\n".encode(),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_what_does_not_belong_is_refused_and_not_used(data: bytes) -> None:
    with pytest.raises(StoreCorrupt):
        statindex.decode(data, TREE, 1)
    contents = MemoryContents()
    assert statindex.load(contents, contents.put(data), TREE, 1) is None


def test_another_version_is_refused_and_not_used() -> None:
    data = f"umbra-stat 2\n{TREE} 1\n1 2 3 4 5\n".encode()
    with pytest.raises(StoreFormatUnknown):
        statindex.decode(data, TREE, 1)
    contents = MemoryContents()
    assert statindex.load(contents, contents.put(data), TREE, 1) is None
    assert statindex.load(contents, "ab" * 32, TREE, 1) is None  # it is gone
    assert statindex.load(contents, None, TREE, 1) is None


def test_same_needs_every_number_and_an_old_ctime(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    st = os.stat(tmp_path / "file")
    line = statindex.stat_line(st)
    later = st.st_ctime_ns + SECOND
    assert statindex.StatIndex(later, [line]).same(0, st)
    assert not statindex.StatIndex(st.st_ctime_ns, [line]).same(0, st)
    for number, field in enumerate(line.split(" ")):
        fields = line.split(" ")
        fields[number] = str(int(field) + 1)
        assert not statindex.StatIndex(later, [" ".join(fields)]).same(0, st)


def test_a_generation_gives_only_what_the_store_still_has(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    st = os.stat(tmp_path / "file")
    contents = MemoryContents()
    digest = contents.put(b"")
    entries = [entry.Entry(b"", "d"), entry.Entry(b"a", "f", digest=digest), entry.Entry(b"b", "h", target=b"a")]
    tree = contents.put(entry.encode(entries))
    stats = contents.put(statindex.encode(tree, st.st_ctime_ns + SECOND, f"{statindex.stat_line(st)}\n".encode() * 3))
    generation = statindex.Generation.load(contents, tree, stats)
    assert generation
    assert generation.line(b"a", st) == entry.format_line(entries[1])
    assert generation.line(b"b", st) is None  # which name is the first one may have changed
    assert generation.line(b"c", st) is None
    del contents.blobs[digest]
    assert generation.line(b"a", st) is None
    assert generation.line(b"", st) == entry.format_line(entries[0])
    del contents.blobs[stats]
    assert statindex.Generation.load(contents, tree, stats) is None


@pytest.mark.parametrize("size", [1, 2, 50, 1000])
def test_some_lines_are_those_of_all_lines(size: int) -> None:
    lines = [b"%d %d 0 -5 12" % (number, number * number) for number in range(300)]
    whole = statindex.encode(TREE, 7, b"".join(line + b"\n" for line in lines))

    def blocks(data: bytes) -> list[bytes]:
        split = data.splitlines(keepends=True)
        return [b"".join(split[:2])] + [b"".join(split[at : at + size]) for at in range(2, len(split), size)]

    for numbers in ([], [0], [299], [0, 1, 17, 150, 151, 299], list(range(300)), [5, 300, 400]):
        wanted = [(number, lines[number]) for number in numbers if number < 300]
        assert list(statindex.some_lines(blocks(whole), TREE, numbers)) == wanted
        assert list(statindex.some_lines([whole], TREE, numbers)) == wanted
    with pytest.raises(StoreCorrupt):
        list(statindex.some_lines(blocks(whole), "b" * 64, [0]))
    with pytest.raises(StoreFormatUnknown):
        list(statindex.some_lines(blocks(whole.replace(b"stat 1", b"stat 2")), TREE, [0]))


def test_a_large_content_is_read_in_whole_lines(tmp_path: Path) -> None:
    """Whoever reads it so learns at the end, if not before, that it is damaged."""
    contents = Store.open(str(tmp_path / "store"), "h", create=True).contents
    lines = [b"%07d" % number + b"x" * (number % 997) + b"\n" for number in range(6000)]
    large, small = contents.put(b"".join(lines)), contents.put(b"".join(lines[:3]))
    contents.flush()
    blocks = list(native.blocks(contents, large))
    assert b"".join(blocks) == b"".join(lines) and len(blocks) > 2
    assert all(block.endswith(b"\n") and len(block) < 2 << 20 for block in blocks)
    assert list(native.blocks(contents, small)) == [b"".join(lines[:3])]
    path = Path(contents.object_path(large))
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"y")
    with pytest.raises(StoreCorrupt):
        list(native.blocks(contents, large))
    path.unlink()
    with pytest.raises(ContentMissing):
        list(native.blocks(contents, large))
