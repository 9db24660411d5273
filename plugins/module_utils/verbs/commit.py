# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The update is good: give back what was held, forget what was set aside, apply retention."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ..errors import StateRefused
from . import prestage, prune, switch
from .run import Module, Target, looking, working

COMMITTABLE = ("open", "undone")


@dataclass(frozen=True)
class Committed:
    """An update that is committed; `dropped` names older updates that retention let go, `warnings` tell what a
    replica could not follow."""

    update_id: str
    host: str
    store: str
    changed: bool
    dropped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The module's result."""
        return {**vars(self), "dropped": list(self.dropped), "warnings": list(self.warnings), "state": "committed"}


def from_module(target: Target, module: Module) -> dict[str, Any]:
    """The verb as module umbra.rollback.shadow_commit calls it."""
    verb = check if module.check_mode else commit
    return verb(target, module.params["keep_last"], module.params["keep_days"]).to_dict()


def commit(target: Target, keep_last: int | None, keep_days: float | None) -> Committed:
    """Mark the update committed. Its shadows stay until retention drops them; twice is fine.

    Raises ManifestMissing, WatchdogFired, StateRefused (it was rolled back, or its way back is not finished),
    StoreError.
    """
    with working(target, "commit") as work:
        work.update.manifest()
        state = work.update.state
        switch.refuse_fired(work.update, "committed")
        _refuse(target, state)
        changed = state != "committed"
        if changed:
            prestage.give_back(work)
            work.update.journal.append("commit")
        switch.stand_down(work, work.update, "committed")
        work.update.forget_secrets()
        work.update.forget_displaced()
        prune.drop_attempts(work, target.update_id)
        dropped = prune.apply_retention(work, keep_last, keep_days)
        work.replicas.follow(work.update, forget=True)
        store, warnings = work.store.path, tuple(work.replicas.troubles)
        return Committed(target.update_id, target.host, store, changed or bool(dropped), tuple(dropped), warnings)


def check(target: Target, keep_last: int | None, keep_days: float | None) -> Committed:
    """What `commit` would do; nothing is written."""
    with looking(target) as work:
        work.update.manifest()
        state = work.update.state
        switch.refuse_fired(work.update, "committed")
        _refuse(target, state)
        old = [update.update_id for update in work.store.expired(keep_last, keep_days, time.time())]
        return Committed(target.update_id, target.host, work.store.path, state != "committed" or bool(old), tuple(old))


def _refuse(target: Target, state: str) -> None:
    if state in (*COMMITTABLE, "committed"):
        return
    remedy = "Finish its way back first: run umbra.rollback.rollback with this update_id."
    if state == "rolled_back":
        remedy = "The state before it is in place: shadow it again to retry, or drop it with shadow_prune."
    raise StateRefused(update_id=target.update_id, host=target.host, state=state, verb="committed", remedy=remedy)
