# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the native kernel needs of a store: listings as it reads them, and contents by the thousand."""

from __future__ import annotations

import os
from typing import Any

from ..errors import ContentMissing, StoreCorrupt, StoreFormatUnknown
from ..kernel import selected
from ..providers.base import Contents

DIGEST = 32


def load_generation(kernel: Any, contents: Contents, tree: str, stats: str) -> Any:
    """The last shadow's listing with its stat index, or None when it is not whole there any more."""
    try:
        listing = kernel.listing(contents.get(tree))
        usable = listing is not None and listing.index(contents.get(stats), tree.encode("ascii"))
    except (ContentMissing, StoreCorrupt, StoreFormatUnknown):
        return None  # then everything is read again
    return listing if usable else None


def load_index(listing: Any, contents: Contents, tree: str, stats: str | None) -> None:
    """Give the listing its stat index; without one that can be used everything is read, and nothing lost."""
    if stats is None:
        return
    try:
        listing.index(contents.get(stats), tree.encode("ascii"))
    except (ContentMissing, StoreCorrupt, StoreFormatUnknown):
        return


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
