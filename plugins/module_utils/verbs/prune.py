# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let go of what is no longer needed: retention, one update by name, garbage; and read the store back."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..errors import ContentMissing, StateRefused, StoreCorrupt, StoreError
from ..shadow import Shadow
from ..store import reach
from ..store.repair import Repair, Repaired
from ..store.store import Store
from ..store.update import HostUpdate
from . import switch, switch_record
from .run import HostWork, Module, Target, working_on_host

GRACE = 3600.0  # seconds: a content younger than this may belong to a shadow that is being made


@dataclass(frozen=True)
class Request:
    """What to let go, beside the update that the target names; `grace` (seconds) protects contents that are new."""

    keep_last: int | None = None
    keep_days: float | None = None
    garbage: bool = True
    verify: bool = False
    repair: bool = False
    grace: float = GRACE


@dataclass(frozen=True)
class Pruned:
    """What was let go, and what reading the store back found."""

    host: str
    store: str
    changed: bool
    dropped: tuple[str, ...] = ()
    kept_open: tuple[str, ...] = ()
    objects: int = 0
    packs: int = 0
    bytes: int = 0
    problems: tuple[str, ...] = ()
    verified_bytes: int | None = None
    repaired: tuple[Repaired, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The module's result."""
        told = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        told["repaired"] = [repaired.to_dict() for repaired in self.repaired]
        if self.problems:
            told["msg"] = f"The store {self.store} is damaged: {'; '.join(self.problems[:5])}"
        return told


def from_module(target: Target, module: Module) -> dict[str, Any]:
    """The verb as module umbra.rollback.shadow_prune calls it."""
    params = {key: module.params[key] for key in ("keep_last", "keep_days", "garbage", "verify", "repair", "grace")}
    verb = check if module.check_mode else prune
    return verb(target, Request(**params)).to_dict()


def prune(target: Target, request: Request) -> Pruned:
    """Mend what is damaged, drop the named update, apply retention, collect garbage, verify, in this order.

    Raises ManifestMissing, StateRefused, StoreLocked, StoreError.
    """
    with working_on_host(target, "prune") as work:
        repaired = _repair(work) if request.repair else ()
        dropped = [_drop_named(work, target.update_id)] if target.update_id else []
        dropped += apply_retention(work, request.keep_last, request.keep_days)
        kept = _kept_open(work.store)
        replicas = work.replicas
    store = target.open()  # garbage collection waits for the locks of all hosts, so this host's is given back first
    found = store.collect(request.grace, time.time()) if request.garbage else None
    if request.garbage:
        replicas.collect(request.grace, time.time())
    checked = store.verify() if request.verify else None
    return Pruned(
        target.host,
        store.path,
        changed=bool(dropped or repaired) or bool(found and (found.objects or found.packs)),
        dropped=tuple(dropped),
        kept_open=tuple(kept),
        objects=found.objects if found else 0,
        packs=found.packs if found else 0,
        bytes=found.bytes if found else 0,
        problems=tuple(checked.problems) if checked else (),
        verified_bytes=checked.bytes if checked else None,
        repaired=tuple(repaired),
        warnings=tuple(replicas.troubles),
    )


def _repair(work: HostWork) -> list[Repaired]:
    """Mend all that this host has in the store, as far as replicas have it: what they have not, `verify` tells."""
    repair = Repair(work.store, work.replicas)
    for update in work.store.directories():
        if update.host != work.store.host:
            continue
        repair.records(update)
        switch_record.mend(update)
        for shadow in _shadows(update):
            with suppress(StoreCorrupt, ContentMissing):
                repair.contents(shadow.name, shadow.roots)
    return repair.done


def _shadows(update: HostUpdate) -> list[Shadow]:
    """As far as they can be known; of the others, `verify` tells."""
    with suppress(StoreError):
        return [shadow for manifest in reach.manifests(update) for shadow in manifest.shadows]
    return []


def check(target: Target, request: Request) -> Pruned:
    """What `prune` would drop; garbage is not counted, and nothing is written."""
    store = target.open()
    dropped = []
    if target.update_id:
        _refuse(store.update(target.update_id))
        dropped.append(target.update_id)
    dropped += [update.update_id for update in store.expired(request.keep_last, request.keep_days, time.time())]
    checked = store.verify() if request.verify else None
    return Pruned(
        target.host,
        store.path,
        bool(dropped),
        tuple(dropped),
        tuple(_kept_open(store)),
        problems=tuple(checked.problems) if checked else (),
        verified_bytes=checked.bytes if checked else None,
    )


def apply_retention(work: HostWork, keep_last: int | None, keep_days: float | None) -> list[str]:
    """Drop this host's committed updates beyond both limits; never one that is not committed. Their names."""
    if keep_last is None and keep_days is None:
        return []
    expired = work.store.expired(keep_last, keep_days, time.time())
    for update in expired:
        _drop(work, update)
    return [update.update_id for update in expired]


def _drop_named(work: HostWork, update_id: str) -> str:
    update = work.store.update(update_id)
    _refuse(update)
    _drop(work, update)
    drop_attempts(work, update_id)
    return update_id


def drop_attempts(work: HostWork, update_id: str) -> None:
    """Drop the earlier attempts of an update that is dropped or committed itself now: each was ended before."""
    for attempt in work.store.hosts_updates():
        if attempt.update_id == update_id and attempt.host == work.store.host and attempt.attempt is not None:
            _drop(work, attempt)


def _refuse(update: HostUpdate) -> None:
    update.manifest()
    if update.state in ("open", "restoring", "failed"):
        raise StateRefused(
            update_id=update.update_id,
            host=update.host,
            state=update.state,
            verb="dropped",
            remedy="It may still have to go back: commit it, or roll it back, first.",
        )


def _drop(work: HostWork, update: HostUpdate) -> None:
    manifest = update.manifest()
    switch.stand_down(work, update, "the update is dropped")
    for shadow in manifest.shadows:
        work.provider(shadow.type).forget(shadow)
    work.store.drop(update)
    work.replicas.drop(manifest)


def _kept_open(store: Store) -> list[str]:
    return [update.update_id for update in store.updates() if _stays_open(update)]


def _stays_open(update: HostUpdate) -> bool:
    try:
        return update.state != "committed"
    except StoreError:
        return True  # nobody knows its state, so it has to stay
