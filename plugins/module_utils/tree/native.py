# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the native kernel needs of a store: listings as it reads them, and contents by the thousand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from ..errors import ContentMissing, StoreCorrupt, StoreFormatUnknown
from ..kernel import selected
from ..providers.base import Contents

DIGEST = 32


def load_generation(kernel: Any, contents: Contents, tree: str, stats: str) -> Any:
    """The last shadow's listing with its stat index, or None when it is not whole in the store any more."""
    kept = _last.get(contents)
    try:
        if kept is not None and kept.key == (kernel, tree, stats):
            contents.verify((tree, stats))
        else:
            kept = _parse((kernel, tree, stats), contents.get(tree), contents.get(stats))
    except (ContentMissing, StoreCorrupt, StoreFormatUnknown):
        return None  # then everything is read again
    return kept.listing if kept.indexed else None


def load_listing(kernel: Any, contents: Contents, tree: str, stats: str | None) -> Any:
    """The listing with its stat index, if that can be used: without one everything is read, and nothing lost. None when
    the pure twin has to read it. Raises ContentMissing, StoreCorrupt, StoreFormatUnknown.
    """
    try:
        return _keep(kernel, contents, tree, stats).listing
    except (ContentMissing, StoreCorrupt, StoreFormatUnknown):
        return _keep(kernel, contents, tree, None).listing


def read_listing(kernel: Any, contents: Contents, tree: str, stats: str) -> tuple[Any, int]:
    """The listing, or None, and how many bytes it and its stat index have: both are read, whatever is known of them.

    Raises ContentMissing, StoreCorrupt, StoreFormatUnknown.
    """
    _last.pop(contents, None)
    kept = _keep(kernel, contents, tree, stats)
    return kept.listing, kept.size


class _Kept(NamedTuple):
    """A listing that was read from the store; `indexed`: with its stat index, which belongs to it."""

    key: tuple[Any, str, str | None]
    listing: Any
    indexed: bool
    size: int


# The last one of a store: a restore needs the same again and again, and what has this digest is always this.
_last: WeakKeyDictionary[Contents, _Kept] = WeakKeyDictionary()


def _keep(kernel: Any, contents: Contents, tree: str, stats: str | None) -> _Kept:
    key = (kernel, tree, stats)
    kept = _last.get(contents)
    if kept is None or kept.key != key:
        kept = None
        _last.pop(contents, None)  # before there is another, which may be as large
        kept = _parse(key, contents.get(tree), contents.get(stats) if stats else b"")
        _last[contents] = kept
    return kept


def _parse(key: tuple[Any, str, str | None], data: bytes, index: bytes) -> _Kept:
    kernel, tree, stats = key
    listing = kernel.listing(data)
    indexed = listing is not None and stats is not None and listing.index(index, tree.encode("ascii"))
    return _Kept(key, listing, indexed, len(data) + len(index))


def lacking(contents: Contents, digests: bytes) -> bytes:
    """A flag for each of the digests (32 bytes each): 1 where `contents` does not have it."""
    many = getattr(contents, "lacking", None)
    if many is not None:
        flags: bytes = many(digests)
        return flags
    return bytes(not contents.has(raw.hex()) for raw in split(digests))


def read(contents: Contents, capture: Any) -> None:
    """Read what a Capture has to read, into `contents`. Raises NoSpace, StoreError."""
    receive = getattr(contents, "receive", None)
    if receive is None or not receive(capture.read):
        capture.read(None, contents.put, 0, selected.threads())


def put_pieces(
    contents: Contents, write: Callable[[Callable[[bytes], None]], int], head: bytes = b""
) -> tuple[str, int]:
    """Keep what `write` gives, after `head`; its digest, and what `write` returns. Raises NoSpace, StoreError."""
    pieces = getattr(contents, "put_pieces", None)
    if pieces is not None:
        kept: tuple[str, int] = pieces(write, head)
        return kept
    found = [head]
    result = write(found.append)
    return contents.put(b"".join(found)), result


def pieces(contents: Contents, digest: str) -> Iterable[bytes]:
    """A content piece by piece, where they can give it so. Only at the end it is known whether that was the content.

    Raises ContentMissing, StoreCorrupt.
    """
    some = getattr(contents, "pieces", None)
    found: Iterable[bytes] = some(digest) if some is not None else (contents.get(digest),)
    return found


def blocks(contents: Contents, digest: str) -> Iterator[bytes]:
    """A content that is lines, as blocks of whole lines. Only at the end it is known whether that was the content.

    Raises ContentMissing, StoreCorrupt.
    """
    rest = b""
    for piece in pieces(contents, digest):
        data = rest + piece
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        if end:
            yield data[:end]
    if rest:
        yield rest


def verify(contents: Contents, digests: bytes) -> int:
    """As Contents.verify, of digests (32 bytes each) that may be there more than once."""
    many = getattr(contents, "verify_many", None)
    if many is not None:
        size: int = many(digests)
        return size
    return contents.verify(sorted({raw.hex() for raw in split(digests)}))


def packed(contents: Contents) -> Any:
    """The small contents as the native kernel reads them, or None."""
    found = getattr(contents, "packed", None)
    return found() if found is not None else None


def split(digests: bytes) -> list[bytes]:
    """Digests that lie one after the other."""
    return [digests[at : at + DIGEST] for at in range(0, len(digests), DIGEST)]


def is_root() -> bool:
    """Whether this process may see and set what only root may."""
    return os.geteuid() == 0
