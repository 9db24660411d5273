# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the store holds for one host: its updates, and one of them in full."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ..errors import ManifestForged, ManifestMissing, StoreCorrupt, StoreMissing, UmbraError
from ..store.replicas import Replicas
from ..store.store import Store
from ..store.update import HostUpdate
from . import hold, payload, rounds, switch
from .create import record
from .run import Module, Target

ROUNDS_SHOWN = 20  # the last ones


@dataclass(frozen=True)
class Info:
    """`updates` a dict each, oldest first; `details` the one that was asked for, in full, or None; `busy` says who
    works on this host now, and how far that is."""

    host: str
    store: str
    updates: tuple[dict[str, Any], ...]
    details: dict[str, Any] | None = None
    busy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The module's result."""
        return {
            "changed": False,
            "host": self.host,
            "store": self.store,
            "updates": list(self.updates),
            "details": self.details,
            "busy": self.busy,
        }


def from_module(target: Target, module: Module) -> dict[str, Any]:
    """The verb as module umbra.rollback.shadow_info calls it."""
    result = info(target).to_dict()
    if not (module.params["payload"] and target.update_id) or result["details"]["state"] == "damaged":
        return result
    store = target.open()
    update = store.update(target.update_id)
    packed = payload.pack(update.manifest(), store.history().read())
    return {**result, "manifest": update.manifest_path, "payload": packed}


def info(target: Target) -> Info:
    """All updates of the host, and `target.update_id` in full ('' for none). Reads only.

    No store at all is no error without an update_id: nothing was shadowed. Raises ManifestMissing, StoreError.
    """
    try:
        store = target.open()
    except StoreMissing as error:
        if target.update_id:
            raise
        return Info(target.host, str(error.facts["path"]), ())
    details = _details(target, store) if target.update_id else None
    return Info(target.host, store.path, _all(store), details, store.locks.holder())


def _details(target: Target, store: Store) -> dict[str, Any]:
    update = store.update(target.update_id)
    try:
        return _one(update)
    except ManifestForged:
        raise
    except (StoreCorrupt, ManifestMissing) as error:  # the way back takes it from a replica that has it
        replicas = Replicas(store, target.replicas).reachable()
        if not any(replica.update(update.update_id).exists() for replica in replicas):
            raise
        return {"update_id": update.update_id, "state": "damaged", "problem": str(error)}


def _all(store: Store) -> tuple[dict[str, Any], ...]:
    return tuple(_summary(update) for update in store.updates())


def _summary(update: HostUpdate) -> dict[str, Any]:
    try:
        manifest = update.manifest()
        state = update.state
    except UmbraError as error:
        return {"update_id": update.update_id, "state": "damaged", "problem": str(error)}
    return {
        "update_id": update.update_id,
        "state": state,
        "created": manifest.created,
        "created_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(manifest.created)),
        "resources": len(manifest.shadows),
        "bytes": sum(shadow.bytes for shadow in manifest.shadows),
        "held_bytes": hold.held(update),
    }


def _one(update: HostUpdate) -> dict[str, Any]:
    manifest = update.manifest()
    plan = update.plan()
    return {
        **_summary(update),
        "shadows": [{**record(s), "depends_on": list(s.resource.depends_on)} for s in manifest.shadows],
        "plan": plan.to_dict() if plan else None,
        "leases": update.leases().get("leases", []),
        "watchdog": switch.told(update),
        "displaced": [update.displaced_path(round_) for round_ in update.displaced_rounds()],
        "rounds": rounds.told(update)[-ROUNDS_SHOWN:],
    }
