# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which contents are needed, by what: from manifests over tree listings to every content they name."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import StoreCorrupt
from ..shadow import Manifest, Root
from ..tree.entry import digests
from .objects import ObjectContents
from .update import HostUpdate


def manifests(update: HostUpdate) -> Iterator[Manifest]:
    """The manifest, and those of what restores displaced; none when it was never published.

    Raises StoreError for the first that can't be read, or was lost.
    """
    update.check_unpublished()
    if update.exists():
        yield update.manifest()
    for round_ in update.displaced_rounds():
        displaced = update.displaced(round_)
        if displaced:
            yield displaced


def contents_of(root: Root, contents: ObjectContents) -> Iterator[bytes]:
    """Every digest (32 bytes) that `root` stands on, its own first.

    Raises ContentMissing, StoreCorrupt, StoreFormatUnknown.
    """
    if root.kind not in ("blob", "tree"):
        raise StoreCorrupt(path=contents.path, problem=f"content {root.digest} is of the unknown kind {root.kind!r}")
    try:
        yield bytes.fromhex(root.digest)
        yield from map(bytes.fromhex, _named_by(root, contents))
    except ValueError as error:
        raise StoreCorrupt(path=contents.path, problem=f"what content {root.digest} names is no digest") from error


def _named_by(root: Root, contents: ObjectContents) -> Iterator[str]:
    if root.kind == "tree":
        listing = contents.get(root.digest)
        try:
            yield from digests(listing)
        except StoreCorrupt as error:  # it does not know where the listing is from
            problem = f"content {root.digest}: {error.facts['problem']}"
            raise StoreCorrupt(path=contents.path, problem=problem) from error
