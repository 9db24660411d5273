# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listing of a tree: its bytes, and what it refuses."""

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import StoreCorrupt, StoreFormatUnknown
from ansible_collections.umbra.rollback.plugins.module_utils.tree.entry import (
    Entry,
    decode,
    digests,
    encode,
    escape,
    largest,
    numbers,
    parent_of,
    targets,
    unescape,
)
from hypothesis import given, settings
from hypothesis import strategies as st

EMPTY = hashlib.sha256(b"").hexdigest()
ROOT = Entry(b"", "d", 0o755, 0, 0, 1)

# One entry of every kind, with every field in use: a host must be able to read what any release wrote on any other.
GOLDEN = [
    Entry(b"", "d", 0o1777, 0, 0, 1_700_000_000_123_456_789),
    Entry(b"a", "f", 0o4755, 1000, 100, 1, 5, "ab" * 32, xattrs=(("user.a", b""), ("user.b", b"\x00%.")), sparse=True),
    Entry(b"a-b", "f", 0, 0, 0, 0, 0, EMPTY),
    Entry(b"b", "h", target=b"a"),
    Entry(b"c\n \xff%", "l", 0o777, 4294967295, 1, -1, target=b"."),
    Entry(b"d", "d", 0o755, 0, 0, 2, xattrs=(("system.posix_acl_default", b"\x02\x00"),)),
    Entry(b"d/e", "p", 0o600, 0, 0, 3),
    Entry(b"d/f", "c", 0o666, 0, 0, 4, rdev=259),
    Entry(b"d/g", "b", 0o660, 0, 6, 5, rdev=2049),
    Entry(b"d/h", "s", 0o700, 0, 0, 6),
]
GOLDEN_BYTES = (
    b"umbra-tree 1\n"
    b"d 1777 0 0 1700000000123456789 .\n"
    b"f 4755 1000 100 1 a 5 " + b"ab" * 32 + b" 1 user.a . user.b %00%25.\n"
    b"f 0 0 0 0 a-b 0 " + EMPTY.encode() + b" 0\n"
    b"h 0 0 0 0 b a\n"
    b"l 777 4294967295 1 -1 c%0A%20%FF%25 %2E\n"
    b"d 755 0 0 2 d system.posix_acl_default %02%00\n"
    b"p 600 0 0 3 d/e\n"
    b"c 666 0 0 4 d/f 1:3\n"
    b"b 660 0 6 5 d/g 8:1\n"
    b"s 700 0 0 6 d/h\n"
)
# The checksum of a file shadow is the digest of its listing: were this one to change, every tree of every host would
# look changed, and shadows of one release could not be compared with those of another.
GOLDEN_DIGEST = "e7b2ddc381bf120a52b7dc0140cb11a227828fb49a9e45dc65b7e25c7319a6fb"


def test_the_bytes_are_those_that_are_written_down() -> None:
    assert encode(reversed(GOLDEN)) == GOLDEN_BYTES
    assert hashlib.sha256(GOLDEN_BYTES).hexdigest() == GOLDEN_DIGEST
    assert decode(GOLDEN_BYTES) == GOLDEN
    assert list(digests(GOLDEN_BYTES)) == ["ab" * 32, EMPTY]
    assert list(targets(GOLDEN_BYTES)) == [b"."]
    assert (largest(GOLDEN_BYTES), largest(b"umbra-tree 1\n")) == (5, 0)


def test_an_absent_root_has_no_lines() -> None:
    assert encode([]) == b"umbra-tree 1\n"
    assert decode(b"umbra-tree 1\n") == []


names = st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & {0, 47} and name not in (b".", b".."))
xattrs = st.dictionaries(names.map(lambda name: "user." + name.hex()), st.binary(max_size=9), max_size=3)
leaves = st.one_of(
    st.builds(
        lambda mode, size, xattrs, sparse: Entry(
            b"", "f", mode, 1, 2, -3, size, EMPTY, b"", 0, tuple(sorted(xattrs.items())), sparse
        ),
        *(st.integers(0, 0o7777), st.integers(0, 1 << 62), xattrs, st.booleans()),
    ),
    st.builds(lambda target, mtime: Entry(b"", "l", 0o777, mtime_ns=mtime, target=target), names, st.integers(-9, 9)),
    st.builds(lambda rdev: Entry(b"", "c", rdev=rdev), st.integers(0, 65535)),
)


@given(st.dictionaries(names, st.dictionaries(names, leaves, max_size=4), max_size=5))
@settings(deadline=None)
def test_whatever_is_written_is_read_back(tree: dict[bytes, dict[bytes, Entry]]) -> None:
    entries = [ROOT]
    for directory, inside in tree.items():
        entries.append(Entry(directory, "d"))
        entries += [entry._replace(path=directory + b"/" + name) for name, entry in inside.items()]
    data = encode(entries)
    assert decode(data) == sorted(entries)
    assert encode(decode(data)) == data


@given(st.binary(max_size=40))
def test_any_bytes_are_one_field(data: bytes) -> None:
    field = escape(data)
    assert field and field.isascii() and field.isprintable() and " " not in field
    assert unescape(field) == data


FILE = "f 644 0 0 0 {} 0 " + EMPTY + " 0\n"
REFUSED = {
    "nothing": b"",
    "another format": b"umbra-stat 1\n",
    "cut in the first line": b"umbra-tree 1",
    "cut off": GOLDEN_BYTES[:-1],
    "cut after a line's beginning": GOLDEN_BYTES[:-9] + b"\n",
    "empty line": GOLDEN_BYTES + b"\n",
    "not ASCII": GOLDEN_BYTES.replace(b"d/h", b"d/\xff"),
    "no root": b"umbra-tree 1\nf 644 0 0 0 a 0 " + EMPTY.encode() + b" 0\n",
    **{
        what: ("umbra-tree 1\nd 755 0 0 0 .\n" + "".join(lines)).encode()
        for what, lines in {
            "..": [FILE.format("..")],
            ".. below": ["d 755 0 0 0 a\n", FILE.format("a/..")],
            "through ..": ["d 755 0 0 0 a\n", "d 755 0 0 0 a/..\n", FILE.format("a/../b")],
            ".": [FILE.format("%2E")],
            ". unescaped": [FILE.format(".")],
            "absolute": [FILE.format("/etc")],
            "double slash": ["d 755 0 0 0 a\n", FILE.format("a//b")],
            "slash at the end": ["d 755 0 0 0 a\n", FILE.format("a/")],
            "NUL": [FILE.format("a%00")],
            "unsorted": [FILE.format("b"), FILE.format("a")],
            "twice": [FILE.format("a"), FILE.format("a")],
            "child of a file": [FILE.format("a"), FILE.format("a/b")],
            "child of a symlink": ["l 777 0 0 0 a etc\n", FILE.format("a/b")],
            "child of nothing": [FILE.format("a/b")],
            "child before its parent": [FILE.format("a/b"), "d 755 0 0 0 a\n"],
            "escaped needlessly": [FILE.format("%41")],
            "escaped in small letters": [FILE.format("%0a")],
            "half an escape": [FILE.format("a%4")],
            "hard link to nothing": ["h 0 0 0 0 b a\n"],
            "hard link to a later name": ["h 0 0 0 0 a b\n", FILE.format("b")],
            "hard link to a directory": ["d 755 0 0 0 a\n", "h 0 0 0 0 b a\n"],
            "hard link to a hard link": [FILE.format("a"), "h 0 0 0 0 b a\n", "h 0 0 0 0 c b\n"],
            "hard link outside": [FILE.format("a"), "h 0 0 0 0 b ../../etc/shadow\n"],
            "hard link with a mode": [FILE.format("a"), "h 644 0 0 0 b a\n"],
            "symlink to nothing": ["l 777 0 0 0 a .\n"],
            "symlink with a NUL": ["l 777 0 0 0 a b%00c\n"],
            "unknown kind": ["x 644 0 0 0 a\n"],
            "too few fields": ["f 644 0 0 0 a 0\n"],
            "too many fields": ["p 644 0 0 0 a b\n"],
            "mode too large": ["p 10000 0 0 0 a\n"],
            "mode with a zero": ["p 0644 0 0 0 a\n"],
            "negative owner": ["p 644 -1 0 0 a\n"],
            "number with a sign": ["p 644 +1 0 0 a\n"],
            "number with underscores": ["p 644 1_0 0 0 a\n"],
            "other digits": [f"f 644 0 0 0 a 0 {EMPTY.upper()} 0\n"],
            "short digest": [f"f 644 0 0 0 a 0 {EMPTY[1:]} 0\n"],
            "negative size": [f"f 644 0 0 0 a -1 {EMPTY} 0\n"],
            "holes that are neither": [f"f 644 0 0 0 a 0 {EMPTY} 2\n"],
            "device without minor": ["c 644 0 0 0 a 1\n"],
            "attribute without value": ["p 644 0 0 0 a user.x\n"],
            "attributes unsorted": ["p 644 0 0 0 a user.y v user.x v\n"],
            "attribute twice": ["p 644 0 0 0 a user.x v user.x w\n"],
            "two spaces": ["p 644 0 0  0 a\n"],
            "carriage return": ["p 644 0 0 0 a\r\n"],
        }.items()
    },
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_was_never_written_is_refused(data: bytes) -> None:
    with pytest.raises(StoreCorrupt) as caught:
        decode(data)
    assert str(caught.value).startswith("a tree listing is damaged: ")


def test_another_version_is_refused() -> None:
    with pytest.raises(StoreFormatUnknown) as caught:
        decode(b"umbra-tree 2\n")
    assert "umbra-tree 2" in str(caught.value)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_numbers_of_a_few_paths(size: int) -> None:
    lines = GOLDEN_BYTES.splitlines(keepends=True)
    blocks = [b"".join(lines[at : at + size]) for at in range(0, len(lines), size)]
    paths = [entry.path for entry in GOLDEN]
    assert numbers(blocks, paths) == dict(enumerate(paths))
    assert numbers(blocks, paths[::3]) == dict(list(enumerate(paths))[::3])
    assert numbers(blocks, [b"a", b"a\0", b"aa", b"d/h", b"d/h/i", b"z"]) == {1: b"a", 9: b"d/h"}
    assert numbers([b"umbra-tree 1\n"], [b""]) == numbers(blocks, []) == {}


@pytest.mark.parametrize(
    "blocks",
    [[b"umbra-tree 1\nf 644\n"], [b"umbra-tree 1\n", b"d 755 0 0 1 %"], [b"umbra-tree 1\n", b"d 755 0 0 1 %\n"]],
)
def test_numbers_of_a_damaged_listing_are_refused(blocks: list[bytes]) -> None:
    with pytest.raises(StoreCorrupt):
        numbers(blocks, [b"%"])


def test_digests_of_a_damaged_listing_are_refused() -> None:
    with pytest.raises(StoreCorrupt):
        list(digests(b"umbra-tree 1\nf 644 0 0 0 a 0 abc 0\n"))
    with pytest.raises(StoreCorrupt):
        list(targets(b"umbra-tree 1\nl 777 0 0 0 a b%\n"))
    with pytest.raises(StoreCorrupt):
        largest(GOLDEN_BYTES[:-1])


def test_parent() -> None:
    assert [parent_of(path) for path in (b"", b"a", b"a/b", b"a/b/c")] == [b"", b"", b"a", b"a/b"]
