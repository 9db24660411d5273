# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every verb works with: the store, the host's name, the update, and providers made for a resource."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from .. import resource
from ..context import Context
from ..errors import NoSpace, ResourceInvalid, StoreCorrupt
from ..kernel import selected
from ..plan import Plan
from ..progress import Progress
from ..providers import registry
from ..providers.base import Contents, Provider
from ..providers.dry import DryProvider
from ..shadow import Shadow, with_secrets
from ..store import files, safety
from ..store.dry import DryContents
from ..store.repair import Repair
from ..store.replicas import Replicas
from ..store.store import Store, default_path
from ..store.temporaries import later
from ..store.update import HostUpdate


class Module(Protocol):
    """What is used of AnsibleModule."""

    params: dict[str, Any]
    check_mode: bool
    _diff: bool
    no_log_values: set[str]

    def warn(self, warning: str) -> None:
        """Print a warning."""

    def exit_json(self, **kwargs: Any) -> NoReturn:
        """End well."""

    def fail_json(self, msg: str, **kwargs: Any) -> NoReturn:
        """End with one sentence."""


@dataclass(frozen=True)
class Target:
    """Which update ('': none in particular), on which host, in which store (None: the default place).

    `lock_timeout` is how long to wait for the host's lock, in seconds; `plan` the host's part of an analysis, if any.
    `store_key` proves what was written to the store; `replicas` are copies of it (None: those it remembers). `tell` is
    told what a verb does, as those are who wait for the lock.
    """

    update_id: str
    host: str
    store: str | None = None
    lock_timeout: float = 60.0
    plan: Plan | None = None
    store_key: str | None = field(default=None, repr=False)
    replicas: tuple[str, ...] | None = None
    tell: Callable[[str], None] | None = None

    def open(self, create: bool = False) -> Store:
        """The store, which is made with `create`. Raises StoreError, InputError."""
        if create:
            self.refuse_unsafe()
        store = Store.open(self.store, self.host, create, self.store_key)
        if create:
            self.refuse_unsafe()  # somebody else may have been faster, and made it
        return store

    def refuse_unsafe(self) -> None:
        """Raise StoreUnsafe where others could exchange the store."""
        path = os.path.abspath(self.store or default_path())
        with files.explained(path):
            safety.refuse(path)


@dataclass(frozen=True)
class HostWork:
    """A verb at work on a host: its store, and what providers may use. `dry`: nothing below can write (check mode)."""

    store: Store
    context: Context
    dry: bool
    replicas: Replicas

    def provider(self, type_: str) -> Provider:
        """The provider of a type, made for this run."""
        found = registry.provider(type_, self.context)
        return DryProvider(found) if self.dry else found

    @property
    def contents(self) -> Contents:
        """The store's contents, as providers see them."""
        return DryContents(self.store.contents) if self.dry else self.store.contents


@dataclass(frozen=True)
class Work(HostWork):
    """A verb at work on one update of a host; `plan` is that of this run, or the one that was saved. `repair` mends its
    shadows from a replica."""

    update: HostUpdate
    plan: Plan | None
    repair: Repair

    def with_secrets(self, shadow: Shadow, secrets: Mapping[str, Mapping[str, Any]]) -> Shadow:
        """The shadow as its provider needs it: with the secret options that the manifest leaves out.

        Raises StoreCorrupt for options that no provider takes: what was checked when it was given is checked when it
        comes back.
        """
        whole = with_secrets(shadow, secrets.get(shadow.name, {}))
        try:
            resource.parse_one(whole.resource.to_dict(), registry.INTERFACES, shadow.name)
        except ResourceInvalid as error:
            raise StoreCorrupt(path=self.update.manifest_path, problem=str(error)) from error
        return whole


@contextmanager
def working_on_host(target: Target, verb: str, create: bool = False) -> Iterator[HostWork]:
    """Open the store, and take the host's lock; it is given back at the end.

    Raises StoreError, StoreLocked (naming the holder).
    """
    store = target.open(create)
    lock = store.lock(verb, target.update_id, target.lock_timeout)
    with lock, store.room() as room, _telling(store, target.tell) as progress:
        replicas = Replicas(store, target.replicas, target.lock_timeout)
        yield HostWork(store, Context(target.update_id, target.host, room, progress=progress), False, replicas)


@contextmanager
def _telling(store: Store, also: Callable[[str], None] | None) -> Iterator[Progress]:
    """What is told of a verb's progress, also by the native kernel."""

    def tell(text: str) -> None:
        store.locks.tell(text)
        if also:
            also(text)

    progress, kernel = Progress(tell), selected.kernel()
    if kernel:
        kernel.report(progress.part)
    try:
        yield progress
    finally:
        if kernel:
            kernel.report(None)


@contextmanager
def working(
    target: Target,
    verb: str,
    create: bool = False,
    saves: bool = True,
    give_back: Callable[[HostUpdate], None] | None = None,
) -> Iterator[Work]:
    """As `working_on_host`, for `target.update_id`; with `saves`, the host's part of an analysis is saved first.

    What is damaged of the records of the update is taken from a replica before; for a way back also what was lost.
    Where there is no room for that, `give_back` makes some; and where there is none all the same, and the record is
    needed, NoSpace says so.
    """
    with working_on_host(target, verb, create) as work:
        update = work.store.update(target.update_id)
        repair = Repair(work.store, work.replicas)
        with _mending(work, repair, update, verb in ("restore", "undo", "watchdog"), give_back):
            if saves and target.plan is not None and update.exists():
                update.save_plan(target.plan)
            yield Work(work.store, work.context, False, work.replicas, update, target.plan or update.plan(), repair)


@contextmanager
def _mending(
    work: HostWork, repair: Repair, update: HostUpdate, lost: bool, give_back: Callable[[HostUpdate], None] | None
) -> Iterator[None]:
    """Mend the records; what there was no room for is told by whom it stops."""
    full = None
    for make_room in (give_back, None) if work.replicas.paths else ():
        try:
            repair.records(update, lost)
            full = None
            break
        except NoSpace as error:
            full = error
            if make_room is None:
                break
            make_room(update)
    try:
        yield
    except StoreCorrupt as error:
        if full and str(error.facts["path"]).startswith(os.path.join(update.path, "")):
            raise full from error
        raise


@contextmanager
def looking(target: Target) -> Iterator[Work]:
    """As `working`, for check mode and reports: no lock is taken, and nothing is written anywhere in the store."""
    store = target.open()
    with later() as room:
        update = store.update(target.update_id)
        context = Context(target.update_id, target.host, room)
        replicas = Replicas(store, target.replicas)
        repair = Repair(store, replicas, dry=True)
        yield Work(store, context, True, replicas, update, target.plan or update.plan(), repair)
