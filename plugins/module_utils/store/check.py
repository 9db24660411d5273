# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the whole store back: all that is wrong is told, and which updates it hurts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Callable, TypeVar

from ..errors import StoreError
from ..shadow import Manifest, Root
from . import files, reach
from .objects import ObjectContents
from .update import WATCHDOG, WATCHDOG_COPY, HostUpdate

T = TypeVar("T")


@dataclass(frozen=True)
class Verified:
    """What was read and is good: `manifests` (those of displaced states too), `contents` and their `bytes`; and
    `problems`, a sentence each, which is empty when the store is sound."""

    manifests: int
    contents: int
    bytes: int
    problems: tuple[str, ...] = ()


class Verification:
    """One reading of a store. Nothing is written, and nothing stops it but a store that can't be read at all."""

    def __init__(self, contents: ObjectContents) -> None:
        self._contents = contents
        self._problems: list[str] = []
        self._manifests = 0
        self._users: dict[bytes, str] = {}  # of each content, the first shadow that needs it
        self._seen: set[Root] = set()

    def run(self, updates: Iterable[HostUpdate], others: Iterable[Callable[[], object]] = ()) -> Verified:
        """Read everything that `updates` need, and the index of every pack; call `others`, which raise a StoreError
        each for what is wrong elsewhere. Raises StoreError."""
        for other in others:
            self._try(other)
        with files.explained(self._contents.path):
            for pack in self._contents.packs.all():
                self._try(pack.check)
        for update in updates:
            self._read_update(update)
        good, size, left = self._contents.screen(b"".join(self._users))
        for checked in self._contents.examine(left):
            good += checked.good
            size += checked.bytes
            for digest, problem in checked.problems:
                self._problems.append(_needed(problem, self._users[bytes.fromhex(digest)]))
        return Verified(self._manifests, good, size, tuple(dict.fromkeys(self._problems)))

    def _read_update(self, update: HostUpdate) -> None:
        self._try(update.check_unpublished)
        if update.exists():
            self._read_manifest(self._try(update.manifest))
        for round_ in update.displaced_rounds():
            self._read_manifest(self._try(partial(update.displaced, round_)))
        for read in (update.plan, update.leases, update.secrets, update.status, update.journal.check):
            self._try(read)
        for name in (WATCHDOG, WATCHDOG_COPY):
            self._try(partial(update.watchdog, name))

    def _read_manifest(self, manifest: Manifest | None) -> None:
        if manifest is None:
            return
        self._manifests += 1
        for shadow in manifest.shadows:
            user = f"{shadow.name} of update {manifest.update_id} on {manifest.host}"
            for root in shadow.roots:
                if root not in self._seen:
                    self._seen.add(root)
                    self._read_root(root, user)

    def _read_root(self, root: Root, user: str) -> None:
        try:
            for raw in reach.contents_of(root, self._contents):
                self._users.setdefault(raw, user)
        except StoreError as error:
            self._problems.append(_needed(error, user))

    def _try(self, read: Callable[[], T]) -> T | None:
        try:
            with files.explained(self._contents.path):
                return read()
        except StoreError as error:
            self._problems.append(str(error))
            return None


def _needed(problem: StoreError, user: str) -> str:
    return f"{problem} It is needed by {user}."
