# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Garbage collection: mark all that manifests need, then remove the rest. What can't be read stops it before that."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ..errors import StoreCorrupt
from ..shadow import Root
from . import files, reach
from .objects import ObjectContents
from .packs import Pack, Place
from .temporaries import Temporaries
from .update import HostUpdate
from .writer import PACK_LIMIT, PackWriter

LITTLE = PACK_LIMIT // 8  # packs with fewer bytes are joined
LITTLE_MOST = 8  # once there are so many

Rows = list[tuple[Place, bytes]]


@dataclass(frozen=True)
class Collected:
    """What was removed: `objects` large contents, `packs` that went or were written again, `bytes` less in all, and
    `temporaries`: what dead processes left, and directories of updates that were dropped or never published."""

    objects: int = 0
    packs: int = 0
    bytes: int = 0
    temporaries: int = 0


class Collection:
    """One collection of a store that nobody else uses meanwhile. `before` is in seconds since the epoch."""

    def __init__(self, contents: ObjectContents, temporaries: Temporaries, before: float) -> None:
        self._contents = contents
        self._temporaries = temporaries
        self._before = before
        self._objects = self._packs = self._bytes = 0

    def run(self, updates: Sequence[HostUpdate], dropped: Sequence[str]) -> Collected:
        """Remove what none of `updates` needs and what is older than `before`; finish what was being `dropped`.

        Killed and called again, it goes on. Raises StoreError, OSError.
        """
        live = _live(updates, self._contents)
        packs = self._contents.packs.all()
        for pack in packs:
            pack.check()
        needed = _needed(packs, live)
        self._collect_objects(live)
        self._collect_packs(needed)
        left = self._temporaries.sweep(all_hosts=True, before=self._before)
        left += self._lone_packs() + self._left_of_updates(updates, dropped) + self._damaged()
        self._contents.forget()
        return Collected(self._objects, self._packs, self._bytes, left)

    def _is_old(self, path: str) -> bool:
        return os.stat(path, follow_symlinks=False).st_mtime < self._before

    def _collect_objects(self, live: set[bytes]) -> None:
        for prefix in files.names(self._contents.objects):
            directory = os.path.join(self._contents.objects, prefix)
            for name in files.names(directory):
                path = os.path.join(directory, name)
                if _is_digest(name) and bytes.fromhex(name) not in live and self._is_old(path):
                    stat = os.stat(path)
                    files.unlink(path)
                    self._objects += 1
                    self._bytes += min(stat.st_size, stat.st_blocks * 512)

    def _collect_packs(self, needed: dict[Pack, Rows]) -> None:
        """Remove packs of which nothing is needed; write those again of which little is, or which are little."""
        old = [pack for pack in needed if self._is_old(pack.path)]
        little = [pack for pack in old if needed[pack] and os.stat(pack.path).st_size < LITTLE]
        again = set(little if len(little) >= LITTLE_MOST else ())
        for pack in old:
            live = sum(place.length for place, _digest in needed[pack])
            if not needed[pack]:
                self._remove(pack)
            elif 2 * live < os.stat(pack.path).st_size:
                again.add(pack)
        joined = self._join([(pack, needed[pack]) for pack in old if pack in again])
        for pack in again:
            if pack.name not in joined:  # a pack that came out as it was keeps its name: that one stays
                self._remove(pack)

    def _remove(self, pack: Pack) -> None:
        self._bytes += os.stat(pack.path).st_size
        self._packs += 1
        files.unlink(pack.index_path)
        files.unlink(pack.path)

    def _join(self, packs: Iterable[tuple[Pack, Rows]]) -> set[str]:
        """Write `packs` again with only these rows; the names of what comes out, which is on disk then."""
        names: set[str] = set()
        writer: PackWriter | None = None
        try:
            for pack, rows in packs:
                for place, digest in sorted(rows):
                    writer = writer or PackWriter(self._temporaries)
                    writer.add(digest, _read(pack, place, digest))
                    if writer.size >= PACK_LIMIT:
                        names.add(self._publish(writer))
                        writer = None
            if writer:
                names.add(self._publish(writer))
                writer = None
        finally:
            if writer:
                writer.close()
        return names

    def _publish(self, writer: PackWriter) -> str:
        self._bytes -= writer.size
        name = writer.publish(self._contents.packs.directory)
        writer.close()
        return name

    def _lone_packs(self) -> int:
        """Remove packs without an index, whose writer was killed before it made one, or whose remover after it."""
        directory = self._contents.packs.directory
        names = set(files.names(directory))
        lone = [n for n in names if n.endswith(".pack") and f"{n[:-5]}.idx" not in names]
        paths = [os.path.join(directory, name) for name in sorted(lone)]
        return sum(files.unlink(path) for path in paths if self._is_old(path))

    def _left_of_updates(self, updates: Iterable[HostUpdate], dropped: Sequence[str]) -> int:
        """What killed verbs left of updates: half dropped, half written, or never published."""
        left = [*dropped, *self._half_written(self._contents.path)]
        for update in updates:
            if update.exists():
                left += self._half_written(update.path)
            elif self._is_old(update.path):
                left.append(update.path)
        for path in left:
            files.remove(path)
        top = os.path.join(self._contents.path, "updates")
        for name in files.names(top):
            with suppress(OSError):  # it has parts of other hosts, or is none of ours
                os.rmdir(os.path.join(top, name))
        return len(left)

    def _damaged(self) -> int:
        """Remove what was damaged, and replaced by what a replica had."""
        directory = os.path.join(self._contents.path, "damaged")
        paths = [os.path.join(directory, name) for name in files.names(directory)]
        return sum(files.unlink(path) for path in paths if self._is_old(path))

    def _half_written(self, directory: str) -> list[str]:
        paths = [os.path.join(directory, name) for name in files.names(directory) if name.endswith(".tmp")]
        return [path for path in paths if self._is_old(path)]


def _live(updates: Iterable[HostUpdate], contents: ObjectContents) -> set[bytes]:
    """Digests of all that is needed. Raises StoreError for the first manifest or listing that can't be read."""
    live: set[bytes] = set()
    seen: set[Root] = set()
    for update in updates:
        for manifest in reach.manifests(update):
            for root in manifest.roots:
                if root not in seen:
                    seen.add(root)
                    live.update(reach.contents_of(root, contents))
    return live


def _needed(packs: Iterable[Pack], live: set[bytes]) -> dict[Pack, Rows]:
    """What is needed of each pack. What two packs have is needed of one, once that was read and is good."""
    needed: dict[Pack, Rows] = {}
    taken: dict[bytes, tuple[Pack, Place]] = {}
    for pack in packs:
        rows = needed[pack] = []
        for digest, place in pack.entries():
            if digest in live and not (digest in taken and _is_good(*taken[digest], digest)):
                taken[digest] = (pack, place)
                rows.append((place, digest))
    return needed


def _is_good(pack: Pack, place: Place, digest: bytes) -> bool:
    return hashlib.sha256(pack.read(place)).digest() == digest


def _read(pack: Pack, place: Place, digest: bytes) -> bytes:
    data = pack.read(place)
    if hashlib.sha256(data).digest() != digest:
        where = f"content {digest.hex()} at byte {place.offset}"
        raise StoreCorrupt(path=pack.path, problem=f"{where} reads as something else")
    return data


def _is_digest(name: str) -> bool:
    return len(name) == 64 and not set(name) - set("0123456789abcdef")
