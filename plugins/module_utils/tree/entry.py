# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listing of a tree, "umbra-tree 1": one line an entry, equal bytes for equal states.

After the first line, which names the format, each line is: kind, mode (octal), uid, gid, mtime (nanoseconds), path,
and then, by kind: f size, digest, 1 if it has holes else 0; l the link's text; h the path of the first name; c and b
the device as major:minor. Names and values of extended attributes follow in pairs. One space between fields. In names
and values every byte but printable ASCII, and "%", is written %XX; an empty one is ".", and "." itself is %2E. A hard
link's own metadata is 0. Lines are sorted by the bytes of the path; the root's path is empty. A tree that does not
exist has no lines.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, NoReturn
from urllib.parse import unquote_to_bytes

from ..errors import StoreCorrupt, StoreFormatUnknown

FORMAT = "umbra-tree 1"
WHERE = "a tree listing"
KINDS = "fdlhpcbs"
MOST_OWNER = 0xFFFFFFFF
MOST_DEVICE = 0x7FFFFFFF  # major or minor

_SPECIAL = re.compile(rb"[^!-$&-~]")
_LINE = re.compile(
    r"([fdlhpcbs]) (0|[1-7][0-7]{0,3}) (0|[1-9]\d{0,9}) (0|[1-9]\d{0,9}) (0|-?[1-9]\d{0,19}) ([!-~]+)((?: [!-~]+)*)",
    re.ASCII,
)
_FILE = re.compile(r"(0|[1-9]\d{0,19}) ([0-9a-f]{64}) ([01])", re.ASCII)
_DEVICE = re.compile(r"(0|[1-9]\d{0,9}):(0|[1-9]\d{0,9})", re.ASCII)
_SIZE = re.compile(rb"\nf [0-7]+ [0-9]+ [0-9]+ [-0-9]+ [^ ]+ ([0-9]+) ")  # in a whole listing
_TAIL_FIELDS = {"f": 3, "l": 1, "h": 1, "c": 1, "b": 1}


class Entry(NamedTuple):
    """One name in a tree. A NamedTuple because there are hundreds of thousands of them.

    `path` is relative to the root, "/" between components, b"" for the root itself. `kind` is f (regular file), d,
    l (symlink), h (another name of the earlier entry `target`; its metadata is there), p (fifo), c, b or s (socket).
    `mode` is the 07777 bits. `size`, `digest` (SHA-256, 64 hexadecimal digits) and `sparse` belong to f, `target` to l
    and h, `rdev` to c and b. `xattrs` are sorted by the bytes of their names.
    """

    path: bytes
    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    digest: str = ""
    target: bytes = b""
    rdev: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    sparse: bool = False


def parent_of(path: bytes) -> bytes:
    """The path of the directory that holds `path` (b"" for the root's children, and for the root itself)."""
    return path.rpartition(b"/")[0]


def escape(data: bytes) -> str:
    """`data` as one field: printable ASCII without spaces, never empty."""
    if _SPECIAL.search(data):
        return _SPECIAL.sub(_percent, data).decode("ascii")
    if data in (b"", b"."):
        return "%2E" if data else "."
    return data.decode("ascii")


def unescape(field: str) -> bytes:
    """What `escape` made `field` from. Raises ValueError when `escape` would have written it otherwise."""
    if field == ".":
        return b""
    if "%" not in field:
        return field.encode("ascii")
    data = unquote_to_bytes(field)
    if escape(data) != field:
        raise ValueError(f"the name {field!r} is not written as it should be")
    return data


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match.group()[0]


def format_line(entry: Entry) -> str:
    """The entry's line, without its end."""
    line = f"{entry.kind} {entry.mode:o} {entry.uid} {entry.gid} {entry.mtime_ns} {escape(entry.path)}"
    if entry.kind == "f":
        line += f" {entry.size} {entry.digest} {entry.sparse:d}"
    elif entry.kind in "lh":
        line += f" {escape(entry.target)}"
    elif entry.kind in "cb":
        line += f" {os.major(entry.rdev)}:{os.minor(entry.rdev)}"
    for name, value in entry.xattrs:
        line += f" {escape(os.fsencode(name))} {escape(value)}"
    return line


def join_lines(lines: Iterable[str]) -> bytes:
    """The listing whose lines, in the order of their paths, are `lines`."""
    return "\n".join((FORMAT, *lines, "")).encode("ascii")


def split_lines(data: bytes) -> list[str]:
    """The lines of a listing, not looked at further. Raises StoreCorrupt, StoreFormatUnknown."""
    _check_form(data)
    try:
        return data.decode("ascii").split("\n")[1:-1]
    except UnicodeDecodeError:
        _corrupt("it has bytes that are not ASCII")


def _check_form(data: bytes, first: bool = True) -> None:
    """Raise StoreCorrupt or StoreFormatUnknown for what is no listing (its `first` lines), or not in whole lines."""
    if first:
        form, end = data[:80].partition(b"\n")[:2]
        if not form.startswith(b"umbra-tree ") or not end:
            _corrupt("it does not begin as one")
        if form != FORMAT.encode("ascii"):
            raise StoreFormatUnknown(path=WHERE, found=form.decode("ascii", "replace"), known=FORMAT)
    if not data.endswith(b"\n"):
        _corrupt("its last line is cut off")


def encode(entries: Iterable[Entry]) -> bytes:
    """The listing of `entries`, which may come in any order; equal entries give equal bytes."""
    return join_lines(map(format_line, sorted(entries)))


def decode(data: bytes) -> list[Entry]:
    """The entries of a listing, sorted by path. Raises StoreFormatUnknown, and StoreCorrupt for whatever `encode` would
    not have written for a real tree: a path that is absolute, has "..", "." or an empty component, or a NUL, or comes
    twice, too early or below something that is no directory; a hard link to anything but the first name of a file.
    """
    entries: list[Entry] = []
    directories: set[bytes] = set()
    linkable: set[bytes] = set()
    last: bytes | None = None
    for number, line in enumerate(split_lines(data), 2):
        try:
            entry = parse_line(line)
            _check_place(entry, last, directories)
            if entry.kind == "h" and entry.target not in linkable:
                raise ValueError("it is a hard link to no earlier file")
        except ValueError as error:
            _corrupt(f"line {number}: {error}")
        last = entry.path
        if entry.kind == "d":
            directories.add(last)
        elif entry.kind != "h":
            linkable.add(last)
        entries.append(entry)
    return entries


def digests(data: bytes) -> Iterator[str]:
    """The digest of each file in a listing, as often as it occurs. Raises StoreCorrupt, StoreFormatUnknown."""
    for number, line in enumerate(split_lines(data), 2):
        if line[:2] == "f ":
            fields = line.split(" ", 8)
            if len(fields) < 9 or len(fields[7]) != 64:
                _corrupt(f"line {number} has no digest")
            yield fields[7]


def numbers(blocks: Iterable[bytes], paths: Sequence[bytes]) -> dict[int, bytes]:
    """Those of `paths` (sorted) that a listing has, by the numbers of their lines (from 0): for who needs a few of very
    many. `blocks` are the listing, in whole lines. Raises StoreCorrupt, StoreFormatUnknown.
    """
    found: dict[int, bytes] = {}
    first = done = 0
    for number, block in enumerate(blocks):
        _check_form(block, first=not number)
        lines = block.split(b"\n")[not number : -1]
        try:
            until = bisect_right(paths, unescape(_field(lines[-1]).decode("ascii")), done) if lines else done
            place = {_field(line): at for at, line in enumerate(lines, first)} if until > done else {}
        except (IndexError, ValueError) as error:
            raise StoreCorrupt(path=WHERE, problem="it has lines that are none of its own") from error
        for path in paths[done:until]:
            at = place.get(escape(path).encode("ascii"))
            if at is not None:
                found[at] = path
        first, done = first + len(lines), until
    return found


def _field(line: bytes) -> bytes:
    """The path of a line, as it is written there."""
    return line.split(b" ", 6)[5]


def targets(data: bytes) -> Iterator[bytes]:
    """The text of each symlink in a listing. Raises StoreCorrupt, StoreFormatUnknown."""
    for number, line in enumerate(split_lines(data), 2):
        if line[:2] == "l ":
            try:
                yield parse_line(line).target
            except ValueError as error:
                _corrupt(f"line {number}: {error}")


def largest(data: bytes) -> int:
    """How many bytes the largest file of a listing has; 0 when it has none. Raises StoreCorrupt, StoreFormatUnknown."""
    _check_form(data)
    return max((int(match[1]) for match in _SIZE.finditer(data)), default=0)


def parse_line(line: str) -> Entry:
    """The entry that `format_line` wrote. Raises ValueError; where the path stands among others is not checked."""
    match = _LINE.fullmatch(line)
    if not match:
        raise ValueError("it is no entry")
    kind, mode, uid, gid, mtime, path, tail = match.groups()
    if int(uid) > MOST_OWNER or int(gid) > MOST_OWNER:
        raise ValueError("its owner is impossible")
    fields = tail.split(" ")[1:] if tail else []
    own = _TAIL_FIELDS.get(kind, 0)
    if len(fields) < own or (len(fields) - own) % 2:
        raise ValueError("it has too few fields")
    size, digest, sparse, target, rdev = 0, "", False, b"", 0
    if kind == "f":
        found = _FILE.fullmatch(" ".join(fields[:3]))
        if not found:
            raise ValueError("its size, digest or holes are not as they should be")
        size, digest, sparse = int(found[1]), found[2], found[3] == "1"
    elif kind in "lh":
        target = unescape(fields[0])
        if b"\0" in target or (kind == "l" and not target):
            raise ValueError("its target is impossible")
        if kind == "h" and (mode, uid, gid, mtime, len(fields)) != ("0", "0", "0", "0", 1):
            raise ValueError("it is a hard link with metadata of its own")
    elif kind in "cb":
        found = _DEVICE.fullmatch(fields[0])
        if not found:
            raise ValueError("its device is not as it should be")
        major, minor = int(found[1]), int(found[2])
        if max(major, minor) > MOST_DEVICE:
            raise ValueError("its device is impossible")
        rdev = os.makedev(major, minor)
    xattrs = _parse_xattrs(fields[own:]) if len(fields) > own else ()
    return Entry(
        unescape(path), kind, int(mode, 8), int(uid), int(gid), int(mtime), size, digest, target, rdev, xattrs, sparse
    )


def _parse_xattrs(fields: list[str]) -> tuple[tuple[str, bytes], ...]:
    names = [unescape(field) for field in fields[::2]]
    if any(b"\0" in name or not name for name in names) or names != sorted(set(names)):
        raise ValueError("its extended attributes are not as they should be")
    return tuple((os.fsdecode(name), unescape(value)) for name, value in zip(names, fields[1::2]))


def _check_place(entry: Entry, last: bytes | None, directories: set[bytes]) -> None:
    """Raise ValueError unless the entry may stand after the path `last`, below one of `directories`."""
    path = entry.path
    if last is None:
        if path:
            raise ValueError("the root is missing")
        return
    if path <= last:
        raise ValueError("it is out of order, or twice there")
    parent, slash, name = path.rpartition(b"/")
    if name in (b"", b".", b"..") or b"\0" in name or (slash and not parent):
        raise ValueError(f"the path {path!r} is impossible")
    if parent not in directories:
        raise ValueError(f"{path!r} is not below a directory of the tree")


def _corrupt(problem: str) -> NoReturn:
    raise StoreCorrupt(path=WHERE, problem=problem)
