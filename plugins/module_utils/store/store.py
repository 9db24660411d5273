# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store: what every verb opens first. The files in it are described in docs/store_format.md."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from ..errors import StoreCorrupt, StoreError, StoreFormatUnknown, StoreMissing
from ..resource import Resource, check_update_id
from ..shadow import Manifest, Shadow
from . import files
from .check import Verification, Verified
from .collect import Collected, Collection
from .journal import History, Journal
from .locks import Locks
from .objects import ObjectContents
from .temporaries import Temporaries
from .update import DROPPED, HostUpdate, parse_name

FORMAT = "umbra-store 1"
COLLECT_WAIT = 10.0  # seconds that garbage collection waits for verbs, and reading waits for it
SECONDS_A_DAY = 86400.0


def default_path() -> str:
    """Where the store is when nobody says: /var/lib/umbra for root, a directory of the user's state otherwise."""
    if os.geteuid() == 0:
        return "/var/lib/umbra"
    return os.path.join(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state"), "umbra")


class Store:
    """The store at `path`, as `host` uses it. What writes (but `collect`) is called with the host's lock held."""

    def __init__(self, path: str, host: str) -> None:
        """Not to be called: `open` the store."""
        self.path = path
        self.host = host
        self._temporaries = Temporaries(os.path.join(path, "tmp"), host)
        self.locks = Locks(path, host)
        self.contents = ObjectContents(path, self._temporaries)
        self._manifests: dict[tuple[int, int, int], Manifest | None] = {}

    @classmethod
    def open(cls, path: str | None, host: str, create: bool = False) -> Store:
        """The store at `path` (None: the default one), which is made with `create` if it isn't there.

        Raises StoreMissing, StoreFormatUnknown, StoreError, also when its file system does not answer.
        """
        path = os.path.abspath(path or default_path())
        store = cls(path, host)
        with files.explained(path):
            found = files.answered(path, lambda: _format(path))
            if found is None and create:
                store._make()
            elif found is None:
                raise StoreMissing(path=path)
            elif found != f"{FORMAT}\n":
                raise StoreFormatUnknown(path=os.path.join(path, "FORMAT"), found=found.strip()[:80], known=FORMAT)
        return store

    # --- updates

    def update(self, update_id: str) -> HostUpdate:
        """This host's part of an update, shadowed or not. Raises UpdateIdInvalid."""
        return self._host_update(check_update_id(update_id), files.encode_name(self.host), self.host, None)

    def updates(self) -> list[HostUpdate]:
        """This host's updates that have a manifest, oldest first, without ended attempts. Raises StoreError."""
        return [update for update in self._mine() if update.attempt is None]

    def hosts_updates(self) -> list[HostUpdate]:
        """Every host's updates that have a manifest, ended attempts included, by update and host. Raises StoreError."""
        return [update for update in self.directories() if update.exists()]

    def directories(self) -> list[HostUpdate]:
        """As `hosts_updates`, also those without a manifest: a shadow that is being made, or never was completed."""
        found = []
        top = os.path.join(self.path, "updates")
        with files.explained(self.path):
            for update_id in files.names(top):
                for name in files.directories(os.path.join(top, update_id)):
                    parsed = parse_name(name)
                    if parsed:
                        found.append(self._host_update(update_id, name, *parsed))
        return found

    def dropped(self) -> list[str]:
        """Directories of updates that were being dropped when the process was killed. Raises StoreError."""
        top = os.path.join(self.path, "updates")
        with files.explained(self.path):
            parents = [os.path.join(top, update_id) for update_id in files.names(top)]
            paths = [os.path.join(parent, name) for parent in parents for name in files.names(parent)]
        return [path for path in paths if path.endswith(DROPPED)]

    def latest_shadow(self, resource: Resource) -> tuple[str, Shadow] | None:
        """The newest shadow of `resource` (same name, type and `path`) on this host, after its update_id.

        Ended attempts count; damaged manifests don't. Raises StoreError.
        """
        for update in reversed(self._mine()):
            manifest = self._manifest(update)
            shadow = manifest.shadow(resource.name) if manifest else None
            if shadow and _same(shadow.resource, resource):
                return update.update_id, shadow
        return None

    def expired(self, keep_last: int | None, keep_days: float | None, now: float) -> list[HostUpdate]:
        """This host's committed updates that retention lets go, oldest first; never one that is not committed.

        All but the `keep_last` newest, and all older than `keep_days` days before `now` (seconds since the epoch); with
        both, only what is beyond both; with neither, nothing. An update is as old as its manifest. Ended attempts
        count, and one with a damaged manifest or journal is kept. Raises StoreError.
        """
        if keep_last is None and keep_days is None:
            return []
        committed = [
            update
            for update in self._mine()
            if self._manifest(update) and _is_sound(update.journal) and update.state == "committed"
        ]
        beyond = committed[: max(0, len(committed) - keep_last)] if keep_last is not None else committed
        oldest = now - keep_days * SECONDS_A_DAY if keep_days is not None else now
        return [update for update in beyond if keep_days is None or self._created(update) < oldest]

    def drop(self, update: HostUpdate) -> None:
        """Remove the update's directory: it is gone at once, whatever happens meanwhile. Raises StoreError."""
        away = update.path + DROPPED
        with files.explained(self.path):
            files.remove(away)  # of a drop that was killed
            try:
                os.rename(update.path, away)
            except FileNotFoundError:
                return
            files.sync_directory(os.path.dirname(away))
            files.remove(away)
            with suppress(OSError):  # other hosts have their parts there, or the last of them removed it just now
                os.rmdir(os.path.dirname(away))

    # --- one verb at a time

    @contextmanager
    def lock(self, verb: str, update_id: str, wait: float = 0.0) -> Iterator[None]:
        """This host's lock, held while the body runs; no garbage is collected meanwhile.

        What the body puts into `contents` and no manifest needs is given up at the end. Raises StoreLocked, which names
        the holder, after `wait` seconds; StoreError.
        """
        with self.locks.working(verb, update_id, wait):
            self.contents.forget()
            self.sweep()
            try:
                yield
            finally:
                self.contents.forget()

    def sweep(self) -> None:
        """Remove what dead processes of this host left behind; needs no lock. Raises StoreError."""
        with files.explained(self.path):
            self._temporaries.sweep()

    @contextmanager
    def workdir(self) -> Iterator[str]:
        """A private directory in the store, removed at the end. Raises NoSpace, StoreError."""
        with ExitStack() as stack:
            with files.explained(self.path, "a directory"):
                path = stack.enter_context(self._temporaries.directory())
            yield path

    def history(self) -> History:
        """What creates and restores of this host took, and how they ended."""
        path = os.path.join(self.path, "history", f"{files.encode_name(self.host)}.jsonl")
        return History(path, self.path)

    # --- the whole store

    def collect(self, grace: float, now: float) -> Collected:
        """Remove what nothing needs and what is older than `grace` seconds before `now`, of all hosts.

        Not to be called with the host's lock held. A manifest or a listing that can't be read stops it before anything
        is removed. Raises StoreLocked when verbs are at work, StoreCorrupt, ContentMissing, StoreError.
        """
        with self.locks.collecting("collect", COLLECT_WAIT), files.explained(self.path, "a pack"):
            self.contents.forget()
            return Collection(self.contents, self._temporaries, now - grace).run(self.directories(), self.dropped())

    def verify(self, updates: Sequence[HostUpdate] | None = None) -> Verified:
        """Read every manifest, every listing and every content that one of them needs, and tell what is wrong.

        Only what `updates` need, when they are given. Nothing is written. Raises StoreLocked while garbage is
        collected, StoreError.
        """
        with self.locks.reading(COLLECT_WAIT):
            self.contents.packs.forget()
            return Verification(self.contents).run(self.directories() if updates is None else updates)

    # --- inside

    def _make(self) -> None:
        """Make a store in a directory that is missing or empty. Raises StoreError, OSError."""
        files.make_directory(self.path)
        found = [name for name in files.names(self.path) if name != "lost+found" and not name.startswith("FORMAT.")]
        if "FORMAT" in found:
            return  # another host made it meanwhile
        if found:
            raise StoreError(
                path=self.path,
                problem=f"it has other files ({', '.join(found[:3])}) and no FORMAT",
                remedy="Name an empty or a new directory as `store`.",
            )
        os.chmod(self.path, files.DIRECTORY_MODE)
        path = os.path.join(self.path, "FORMAT")
        files.publish(path, f"{FORMAT}\n".encode(), f"{path}.{secrets.token_hex(8)}.tmp")
        self.locks.make()
        for name in ("objects", "packs", "updates", "history", "tmp"):
            files.make_directory(os.path.join(self.path, name))

    def _mine(self) -> list[HostUpdate]:
        """This host's updates that have a manifest, ended attempts included, oldest first."""
        mine = [update for update in self.directories() if update.host == self.host and update.exists()]
        return sorted(mine, key=self._created)

    def _host_update(self, update_id: str, name: str, host: str, attempt: int | None) -> HostUpdate:
        path = os.path.join(self.path, "updates", update_id, name)
        return HostUpdate(self.contents, path, update_id, host, attempt)

    def _manifest(self, update: HostUpdate) -> Manifest | None:
        """The manifest, read once in the life of this object; None when it is damaged."""
        with files.explained(self.path):
            stat = os.stat(update.manifest_path)
        key = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if key not in self._manifests:
            try:
                self._manifests[key] = update.manifest()
            except StoreError:
                self._manifests[key] = None
        return self._manifests[key]

    def _created(self, update: HostUpdate) -> float:
        """When the update was shadowed; when the manifest is damaged, when its file was written."""
        manifest = self._manifest(update)
        if manifest:
            return manifest.created
        with files.explained(self.path):
            return os.stat(update.manifest_path).st_mtime


def _format(path: str) -> str | None:
    """What FORMAT says; None when there is none. Raises OSError."""
    try:
        return files.read(os.path.join(path, "FORMAT")).decode("utf-8", "replace")
    except FileNotFoundError:
        return None


def _is_sound(journal: Journal) -> bool:
    try:
        journal.check()
    except StoreCorrupt:
        return False
    return True


def _same(one: Resource, other: Resource) -> bool:
    return (one.type, one.options.get("path")) == (other.type, other.options.get("path"))
