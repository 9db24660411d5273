# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is damaged or missing in a store is taken from a replica that has it good. What was damaged is kept aside."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property

from ..errors import NoSpace, StoreCorrupt, StoreError, StoreKeyMissing
from ..present import is_there
from ..shadow import Root
from . import files, reach
from .packs import SMALL, Pack
from .replicas import Replicas
from .store import Store
from .update import JOURNAL, MANIFEST, HostUpdate

ASIDE = "damaged"  # the directory of what was damaged, until garbage is collected
SHOWN = 3  # contents that are named one by one


@dataclass(frozen=True)
class Repaired:
    """One thing that was mended: `name` of the resource ('': it is a record of the update), `what` it is, and the
    replica `source` that had it."""

    name: str
    what: str
    source: str

    def to_dict(self) -> dict[str, str]:
        """As results tell it."""
        return {"name": self.name, "what": self.what, "from": self.source}

    @property
    def text(self) -> str:
        """A sentence."""
        return f"{self.what}{f' of {self.name}' if self.name else ''} was damaged or missing: taken from {self.source}."


class Repair:
    """Mends `store`, under the host's lock. With `dry` nothing is written: `done` says what would be mended."""

    def __init__(self, store: Store, replicas: Replicas, dry: bool = False) -> None:
        self._store = store
        self._replicas = replicas
        self._dry = dry
        self.done: list[Repaired] = []
        self._kept: list[str] = []  # what was damaged, under the names that it has now

    @cached_property
    def _sources(self) -> list[Store]:
        return self._replicas.reachable()

    # --- records

    def records(self, update: HostUpdate, lost: bool = False) -> None:
        """Mend the records of `update` that are damaged, and with `lost` bring its manifest back if there is none.

        What no replica has stays as it is: who needs it is told then. Raises NoSpace, StoreError.
        """
        if lost and not update.exists():
            self._bring_back(update)
        for name in update.records():
            try:
                update.record(name)
            except StoreKeyMissing:
                return  # no replica can help
            except StoreCorrupt:
                if name == JOURNAL:
                    self._mend_journal(update)
                else:
                    self._mend_record(update, name)

    def _bring_back(self, update: HostUpdate) -> None:
        for replica in self._sources:
            theirs = replica.update(update.update_id)
            with _or_another():
                if not theirs.exists():
                    continue
                names = [name for name in theirs.records() if name != MANIFEST]
                found = {name: theirs.record(name) for name in (*names, MANIFEST)}
                for name, data in found.items():  # the manifest last
                    if data is not None and not self._dry:
                        update.take_record(name, data)
                self._note("", "all that the store had of it", replica)
                return

    def _mend_record(self, update: HostUpdate, name: str) -> None:
        if name == MANIFEST and update.attempt is not None:
            return  # a replica counts its attempts by itself
        for replica in self._sources:
            theirs = replica.update(update.update_id)
            with _or_another():
                data = theirs.record(name)
                if data is None or not _same_attempt(update, theirs, name):
                    continue
                self._replace(os.path.join(update.path, name), data)
                self._note("", name, replica)
                return

    def _mend_journal(self, update: HostUpdate) -> None:
        for replica in self._sources:
            theirs = replica.update(update.update_id)
            with _or_another():
                if _same_attempt(update, theirs, JOURNAL) and (data := update.journal.mended_by(theirs.journal)):
                    self._replace(update.journal.path, data)
                    self._note("", JOURNAL, replica)
                    return

    # --- contents

    def contents(self, name: str, roots: Iterable[Root]) -> None:
        """Have all that `roots` stand on good. Nothing is changed when that can't be.

        Raises the StoreError of the first content that no replica has; NoSpace.
        """
        roots = list(roots)
        listings = {root.digest: root for root in roots if root.kind == "tree"}
        self._bring(name, self._problems(listings))
        needed = {root.digest for root in roots}
        for root in listings.values():
            try:
                needed.update(raw.hex() for raw in reach.contents_of(root, self._store.contents))
            except StoreError:
                if not self._dry:  # then the listing is as damaged as before
                    raise
        self._bring(name, self._problems(needed))

    def _problems(self, digests: Iterable[str]) -> dict[str, StoreError]:
        return {
            digest: problem for checked in self._store.contents.examine(digests) for digest, problem in checked.problems
        }

    def _bring(self, name: str, problems: Mapping[str, StoreError]) -> None:
        if not problems:
            return
        sources = {digest: self._source(digest, problem) for digest, problem in problems.items()}
        if not self._dry:
            self._mend_indexes(name)
            left = self._problems(sources)
            packs = self._damaged_packs(left)
            kept = [self._link_aside(path) for pack in packs for path in (pack.index_path, pack.path)]
            for pack in packs:
                for data in pack.good():
                    self._store.contents.put_again(data)
            for digest in left:
                self._fetch(digest, sources[digest])
            self._store.contents.flush()
            for path, inode in kept:
                self._unlink(path, inode)
            self._store.contents.forget()
        for replica in dict.fromkeys(sources.values()):
            self._note(name, _named([digest for digest, source in sources.items() if source is replica]), replica)

    def _source(self, digest: str, problem: StoreError) -> Store:
        for replica in self._sources:
            with suppress(StoreError):
                replica.contents.verify([digest])
                return replica
        raise problem

    def _mend_indexes(self, name: str) -> None:
        """An index is named after what it says, so a replica with the same pack has exactly this one."""
        for pack in self._store.contents.packs.all():
            if _is_index(pack.index_path, pack.name):
                continue
            for replica in self._sources:
                path = os.path.join(replica.contents.packs.directory, f"{pack.name}.idx")
                if _is_index(path, pack.name):
                    with files.explained(self._store.path, "an index"):
                        data = files.read(path)
                    self._replace(pack.index_path, data)
                    self._note(name, f"the index of pack {pack.name[:12]}", replica)
                    break
        self._store.contents.forget()

    def _damaged_packs(self, bad: Collection[str]) -> list[Pack]:
        """Packs that have one of the contents `bad`, or whose index can't be trusted."""
        wanted, packs = {bytes.fromhex(digest) for digest in bad}, self._store.contents.packs
        if not wanted:
            return []
        with files.explained(self._store.path):
            having = {pack.name for pack, rows in packs.locate(wanted) if rows}
            return [pack for pack in packs.all() if pack.name in having or not _is_index(pack.index_path, pack.name)]

    def _fetch(self, digest: str, replica: Store) -> None:
        contents = self._store.contents
        if replica.contents.size(digest) <= SMALL:
            data = replica.contents.get(digest)
            self._move_aside(contents.object_path(digest))
            contents.put_again(data)
            return
        path = contents.object_path(digest)
        try:
            self._move_aside(path)
            self._copy(digest, replica)
        except NoSpace:  # what is damaged has the very room that is missing, and the replica has all that was in it
            self._forget_aside(path)
            self._copy(digest, replica)

    def _copy(self, digest: str, replica: Store) -> None:
        path = replica.contents.object_path(digest)
        with files.explained(self._store.path, "a content"), open(path, "rb", buffering=0) as file:
            found, _size = self._store.contents.put_fd(file.fileno())
        if found != digest:
            raise StoreCorrupt(path=path, problem="its bytes have another checksum than its name says")

    # --- what is damaged

    def _replace(self, path: str, data: bytes) -> None:
        if self._dry:
            return
        self._link_aside(path)
        with self._store.workdir() as room, files.explained(self._store.path, os.path.basename(path), len(data)):
            files.publish(path, data, os.path.join(room, "record"))

    def _aside(self, path: str) -> str:
        """A free name for the damaged file `path`. Raises OSError."""
        directory = os.path.join(self._store.path, ASIDE)
        files.make_directory(directory)
        name = os.path.relpath(path, self._store.path).replace("/", "~")
        number = 1
        while is_there(os.path.join(directory, f"{name}~{number}")):
            number += 1
        self._kept.append(os.path.join(directory, f"{name}~{number}"))
        return self._kept[-1]

    def _forget_aside(self, path: str) -> None:
        """Let go of the damaged file `path`, and of all that this run has set aside. Raises StoreError."""
        with files.explained(self._store.path, "a damaged file"):
            files.unlink(path)
            while self._kept:
                files.unlink(self._kept.pop())

    def _move_aside(self, path: str) -> None:
        with files.explained(self._store.path, "a damaged file"):
            if is_there(path):
                os.rename(path, self._aside(path))
                files.sync_directory(os.path.dirname(path))

    def _link_aside(self, path: str) -> tuple[str, int]:
        """Keep the damaged file under another name as well; the path, and its inode (0: it isn't there)."""
        with files.explained(self._store.path, "a damaged file"):
            if not is_there(path):
                return path, 0
            aside = self._aside(path)
            try:
                os.link(path, aside)
            except OSError:  # no hard links here
                shutil.copyfile(path, aside)
                os.chmod(aside, files.FILE_MODE)
            return path, os.stat(path).st_ino

    def _unlink(self, path: str, inode: int) -> None:
        """Remove the damaged file, unless a good one has taken its name. Raises StoreError."""
        with files.explained(self._store.path):
            if is_there(path) and os.stat(path).st_ino == inode:
                files.unlink(path)
                files.sync_directory(os.path.dirname(path))

    def _note(self, name: str, what: str, replica: Store) -> None:
        self.done.append(Repaired(name, what, replica.path))


@contextmanager
def _or_another() -> Iterator[None]:
    """What one replica can't give, another one may; room in the store, none of them can. Raises NoSpace."""
    try:
        yield
    except NoSpace:
        raise
    except StoreError:
        pass  # the next one; and if none has it, whoever needs it says so


def _same_attempt(ours: HostUpdate, theirs: HostUpdate, name: str) -> bool:
    """Whether `theirs` is a copy of `ours`, and not of another attempt with the same update_id. Raises StoreError."""
    if name == MANIFEST:  # what ours says can't be asked; theirs makes room for a new attempt before ours is published
        return ours.journal.agrees(theirs.journal)
    return ours.record(MANIFEST) == theirs.record(MANIFEST)


def _named(digests: list[str]) -> str:
    if len(digests) > SHOWN:
        return f"{len(digests)} contents"
    return f"content{'s' if len(digests) > 1 else ''} {', '.join(digest[:16] for digest in digests)}"


def _is_index(path: str, name: str) -> bool:
    """Whether the file is the index of the pack `name`, as it was written."""
    try:
        return files.digest(path) == name
    except OSError:
        return False
