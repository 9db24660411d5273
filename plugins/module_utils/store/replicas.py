# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replicas: other directories, stores themselves, that have a copy of one host's part of a store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

from .. import canonical
from ..errors import InputError, ReplicaUnusable, StoreCorrupt, StoreError
from ..present import is_there
from ..shadow import Manifest
from . import files, reach
from .objects import ObjectContents
from .packs import DIGEST, Pack, Place
from .store import Store
from .update import JOURNAL, LEASES, MANIFEST, PLAN, SECRETS, HostUpdate

REPLICAS_FORMAT = "umbra-replicas 1"
MEND = "Mount it or mend it; or give `replicas` without it."


class Replicas:
    """The replicas of `store`: those that the user gave (None: nothing was said), else those that it remembers.

    `wait` is how long to wait for another verb of this host there, in seconds. `troubles` are sentences: what could not
    be done with one, where the verb goes on.
    """

    def __init__(self, store: Store, given: Sequence[str] | None, wait: float = 0.0) -> None:
        self._store = store
        self._given = given
        self._wait = wait
        self.troubles: list[str] = []
        self._required: list[Store] | None = None
        self._reached: list[Store] | None = None

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Directories of the replicas. Raises InputError."""
        if self._given is None:
            return self._known
        check_paths(self._store.path, self._given)
        return tuple(dict.fromkeys(os.path.abspath(path) for path in self._given))

    def remember(self) -> None:
        """Have later verbs know these replicas without being told. Raises NoSpace, StoreError."""
        if self.paths != self._known:
            record = self._store.seal.close({"format": REPLICAS_FORMAT, "replicas": list(self.paths)}, self._place)
            data = canonical.dumps(record) + b"\n"
            with files.explained(self._store.path, "the names of its replicas", len(data)):
                files.publish(self._path, data)

    def require(self) -> list[Store]:
        """All of them, made where they are new. Raises ReplicaUnusable for the first that can't be written to."""
        if self._required is None:
            self._required = [self._require(path) for path in self.paths]
        return self._required

    def reachable(self) -> list[Store]:
        """Those that can be used; `troubles` has the others."""
        if self._reached is None:
            self._reached = []
            for path in self.paths:
                with self._going_on(path):
                    self._reached.append(self._open(path, create=False))
        return self._reached

    def make_room(self, update: HostUpdate) -> None:
        """What they have of an earlier attempt with this update_id goes aside. Raises ReplicaUnusable."""
        for replica in self.require():
            with self._explained(replica.path), replica.lock("archive", update.update_id, self._wait):
                old = replica.update(update.update_id)
                if old.exists():
                    _refuse_lost(update, old, replica.path)
                    old.archive()

    def mirror(self, update: HostUpdate) -> None:
        """Have all of `update` in each replica: contents first, its manifest last. Raises ReplicaUnusable."""
        for replica in self.require():
            with self._explained(replica.path):
                self._mirror(replica, update)

    def follow(self, update: HostUpdate, forget: bool = False) -> None:
        """As `mirror`, where what fails is but a trouble. `forget`: what a commit let go of, they let go of, too."""
        for replica in self.reachable():
            with self._going_on(replica.path):
                self._mirror(replica, update, forget)

    def drop(self, manifest: Manifest) -> None:
        """Let go of the attempt that has this manifest there; what fails is but a trouble."""
        for replica in self.reachable():
            with self._going_on(replica.path), replica.lock("drop", manifest.update_id, self._wait):
                for one in replica.directories():
                    if (one.update_id, one.host) == (manifest.update_id, manifest.host) and _has(one, manifest):
                        replica.drop(one)

    def collect(self, grace: float, now: float) -> None:
        """Collect garbage there, by what they themselves have manifests of; what fails is but a trouble."""
        for replica in self.reachable():
            with self._going_on(replica.path):
                replica.collect(grace, now)

    # --- inside

    @property
    def _path(self) -> str:
        return os.path.join(self._store.path, "replicas", f"{files.encode_name(self._store.host)}.json")

    @property
    def _place(self) -> str:
        return f"replicas/{self._store.host}"

    @cached_property
    def _known(self) -> tuple[str, ...]:
        try:
            with files.explained(self._store.path):
                if not is_there(self._path):
                    return ()
                raw = self._store.seal.lenient().read(files.read(self._path), self._place, self._path)
            if raw.get("format") != REPLICAS_FORMAT or not all(os.path.isabs(path) for path in raw["replicas"]):
                raise StoreCorrupt(path=self._path, problem="it is no list of replicas")
        except StoreError as error:  # a verb may not need them
            self.troubles.append(f"The replicas of the store are not known: {error}")
            return ()
        return tuple(raw["replicas"])

    def _open(self, path: str, create: bool) -> Store:
        replica = Store.open(path, self._store.host, create)
        replica.seal = self._store.seal
        return replica

    def _require(self, path: str) -> Store:
        """One that was there before and is not now is not made anew: its file system is not mounted, most likely."""
        with self._explained(path):
            replica = self._open(path, create=path not in self._known)
            replica.sweep()
            with replica.workdir():
                return replica

    def _mirror(self, replica: Store, update: HostUpdate, forget: bool = False) -> None:
        with replica.lock("mirror", update.update_id, self._wait):
            theirs = replica.update(update.update_id)
            manifests = list(reach.manifests(update))
            roots = dict.fromkeys(root for manifest in manifests for root in manifest.roots)
            needed = {raw for root in roots for raw in reach.contents_of(root, self._store.contents)}
            copy_contents(self._store.contents, replica.contents, needed)
            _copy_records(update, theirs)
            if forget:
                theirs.forget_secrets()
                theirs.forget_displaced()

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except (StoreError, OSError) as error:
            if isinstance(error, ReplicaUnusable):
                raise
            raise ReplicaUnusable(path=path, problem=str(error).rstrip("."), remedy=MEND) from error

    @contextmanager
    def _going_on(self, path: str) -> Iterator[None]:
        try:
            with self._explained(path):
                yield
        except ReplicaUnusable as error:
            self.troubles.append(str(error))


def _refuse_lost(ours: HostUpdate, theirs: HostUpdate, path: str) -> None:
    """Raise ReplicaUnusable where only the replica has an update that may have to go back: what would be shadowed now
    is the state that it left."""
    if theirs.state in ("open", "restoring", "failed") and not ours.exists():
        problem = f"it has update {ours.update_id} {theirs.state}, and the store, which may be a new one, has not"
        raise ReplicaUnusable(
            path=path, problem=problem, remedy=f"Go back with `store: {path}` first, or drop it there."
        )


def check_paths(store: str, paths: Iterable[str]) -> None:
    """Raise InputError for a replica that is no other directory than `store`."""
    for path in paths:
        mine, other = (os.path.join(os.path.realpath(one), "") for one in (store, path))
        if mine.startswith(other) or other.startswith(mine):
            problem = f"{path} is the store itself, or in it, or around it"
            raise InputError(where="replicas", problem=problem, remedy="Name a directory elsewhere.")


def copy_contents(source: ObjectContents, target: ObjectContents, needed: Iterable[bytes]) -> None:
    """Have the contents `needed` (digests of 32 bytes) of `source` in `target`, on disk and read back.

    Raises ContentMissing, StoreCorrupt, NoSpace, StoreError.
    """
    digests = sorted(needed)
    flags = target.lacking(b"".join(digests))
    new = {digest for digest, flag in zip(digests, flags) if flag}
    left = set(new)
    with files.explained(source.path):
        for pack, rows in source.packs.locate(new):
            _copy_pack(pack, rows, target)
            left.difference_update(digest for _place, digest in rows)
    for digest in sorted(left):
        path = source.object_path(digest.hex())
        with files.explained(source.path):
            if is_there(path):
                with open(path, "rb", buffering=0) as file:
                    target.put_fd(file.fileno())
    target.flush()
    target.verify_many(b"".join(sorted(new)))  # also what was damaged here, or missing


def _copy_pack(pack: Pack, rows: Sequence[tuple[Place, bytes]], target: ObjectContents) -> None:
    """The whole pack, when most of it is wanted; else one by one."""
    if 2 * sum(place.length + DIGEST for place, _digest in rows) >= os.stat(pack.path).st_size:
        pack.check()
        target.adopt(pack)
        return
    for place, _digest in rows:
        target.put(pack.read(place))


def _copy_records(ours: HostUpdate, theirs: HostUpdate) -> None:
    """All records of an update that are whole here; its manifest last. Raises StoreError."""
    displaced = [os.path.basename(ours.displaced_path(number)) for number in ours.displaced_rounds()]
    for name in (SECRETS, PLAN, LEASES, *displaced, JOURNAL, MANIFEST):
        data = ours.record(name)
        if data is not None:
            theirs.take_record(name, data)


def _has(update: HostUpdate, manifest: Manifest) -> bool:
    try:
        return update.manifest() == manifest
    except StoreError:
        return False  # nobody knows what it is, so it stays
