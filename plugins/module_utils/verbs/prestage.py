# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pay for the way back before the update starts: hold space, warm contents, raise priority, by tier."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..effort import exert, standing
from ..errors import InputError, StateRefused
from ..plan import Step, host_plan
from ..providers.base import Lease
from ..shadow import Shadow
from . import hold
from .run import Module, Target, Work, looking, working

LEASES_FORMAT = "umbra-leases 1"
BUDGET_KEYS = ("disk", "memory")


@dataclass(frozen=True)
class Budget:
    """What prestaging may take in all: `disk` and `memory` (page cache) in bytes; None: what the host can spare."""

    disk: int | None = None
    memory: int | None = None

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Budget:
        """The budget as the user wrote it. Raises InputError."""
        for key, value in raw.items():
            if key not in BUDGET_KEYS:
                raise InputError(
                    where="budget", problem=f"unknown key {key!r}", remedy=f"Known: {', '.join(BUDGET_KEYS)}."
                )
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InputError(
                    where=f"budget: {key}", problem=f"{value!r} is not a number of bytes", remedy="Give bytes."
                )
        return cls(raw.get("disk"), raw.get("memory"))


@dataclass(frozen=True)
class Prestaged:
    """What is held now for an update on one host."""

    update_id: str
    host: str
    store: str
    changed: bool
    held_bytes: int = 0
    leases: tuple[Lease, ...] = field(default=())
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The module's result."""
        leases = [_told(lease) for lease in self.leases]
        return {**vars(self), "leases": leases, "warnings": list(self.warnings)}


def from_module(target: Target, module: Module) -> dict[str, Any]:
    """The verb as module umbra.rollback.prestage calls it."""
    params = module.params
    budget = Budget.from_dict(params["budget"])
    percent = params["reserve_percent"]
    if params["state"] == "absent":
        return (check_release(target) if module.check_mode else release(target)).to_dict()
    return (check(target, budget, percent) if module.check_mode else prestage(target, budget, percent)).to_dict()


def prestage(target: Target, budget: Budget, reserve_percent: int = 100) -> Prestaged:
    """Hold what the tier of each resource asks for; what can't be had is in the lease, with the reason.

    Raises ManifestMissing, StateRefused (the update is not open), NoSpace, StoreError.
    """
    with working(target, "prestage") as work:
        steps = _steps(work)
        hold.settle(work.update)
        size = _size(work, reserve_percent, budget)
        changed = hold.held(work.update) != size
        unheld = hold.reserve(work.update, size)
        memory = min(_spare_memory(), _unlimited(budget.memory))
        leases: list[Lease] = []
        for shadow, step in steps:  # the highest score is served first, until the memory is spent
            lease, used = _lease(work, shadow, step, unheld, memory)
            memory -= used
            leases.append(lease)
        now = {"format": LEASES_FORMAT, "time": time.time(), "leases": [_told(lease) for lease in leases]}
        changed = changed or work.update.leases().get("leases") != now["leases"]
        work.update.save_leases(now)
        work.replicas.follow(work.update)
        return _prestaged(work, changed, tuple(leases))


def release(target: Target) -> Prestaged:
    """Give back all that is held for the update. May be repeated."""
    with working(target, "release") as work:
        return _prestaged(work, give_back(work), ())


def check(target: Target, budget: Budget, reserve_percent: int = 100) -> Prestaged:
    """What `prestage` would ask for; nothing is taken."""
    with looking(target) as work:
        leases = tuple(Lease(shadow.name, step.tier, _asked(shadow, step)) for shadow, step in _steps(work))
        return _prestaged(work, hold.held(work.update) != _size(work, reserve_percent, budget), leases)


def check_release(target: Target) -> Prestaged:
    """Whether `release` would give anything back."""
    with looking(target) as work:
        return _prestaged(work, _holds(work), ())


def _holds(work: Work) -> bool:
    return bool(work.update.leases().get("leases")) or hold.held(work.update) > 0


def give_back(work: Work) -> bool:
    """Release everything; whether there was anything."""
    changed = _holds(work)
    hold.release(work.update)
    if changed:
        work.update.save_leases({"format": LEASES_FORMAT, "time": time.time(), "leases": []})
    return changed


def _steps(work: Work) -> list[tuple[Shadow, Step]]:
    manifest = work.update.manifest()
    state = work.update.state
    if state != "open":
        remedy = "Only an update that is still open is prestaged; shadow it first."
        raise StateRefused(
            update_id=manifest.update_id, host=manifest.host, state=state, verb="prestaged", remedy=remedy
        )
    plan = work.plan or host_plan(manifest.update_id, manifest.host, manifest.shadows)
    pairs = [(shadow, plan.step(shadow.name) or Step(shadow.name, 1)) for shadow in manifest.shadows]
    return sorted(pairs, key=lambda pair: -pair[1].score)


def _size(work: Work, reserve_percent: int, budget: Budget) -> int:
    """Bytes to hold."""
    return min(hold.needed(work, work.update.manifest().shadows, reserve_percent), _unlimited(budget.disk))


def _asked(shadow: Shadow, step: Step) -> dict[str, Any]:
    if step.tier == "low":
        return {"space": shadow.bytes}
    io = standing.io_words(exert.IO[step.tier])
    return {"space": shadow.bytes, "warm": shadow.bytes, "nice": exert.NICE[step.tier], "io": io}


def _lease(work: Work, shadow: Shadow, step: Step, unheld: str, memory: int) -> tuple[Lease, int]:
    asked = _asked(shadow, step)
    effective: dict[str, Any] = {}
    refused: dict[str, str] = {}
    if unheld:
        refused["space"] = unheld
    else:
        effective["space"] = shadow.bytes
    used = 0
    if "warm" in asked and shadow.bytes <= memory:
        used = work.provider(shadow.type).verify(shadow, work.contents)  # reading checks and warms in one
        effective["warm"] = used
    elif "warm" in asked:
        refused["warm"] = f"{shadow.bytes} bytes are more than the {memory} bytes of memory that can be spared"
    if "nice" in asked and os.geteuid() == 0:
        effective["nice"] = asked["nice"]
    elif "nice" in asked:
        refused["nice"] = "only root may raise a priority"
    if "io" in asked and standing.now().io is not None:
        effective["io"] = asked["io"]
    elif "io" in asked:
        refused["io"] = "this machine's number of ioprio_set(2) is not known"
    return Lease(shadow.name, step.tier, asked, effective, refused), used


def _spare_memory() -> int:
    """Half of what the kernel calls available (proc(5)), in bytes; 0 where it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            available = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), "0")
    except OSError:
        return 0
    return int(available) * 1024 // 2


def _unlimited(limit: int | None) -> int:
    return 1 << 62 if limit is None else limit


def _prestaged(work: Work, changed: bool, leases: tuple[Lease, ...]) -> Prestaged:
    update, warnings = work.update, tuple(work.replicas.troubles)
    return Prestaged(update.update_id, update.host, work.store.path, changed, hold.held(update), leases, warnings)


def _told(lease: Lease) -> dict[str, Any]:
    return {
        "name": lease.name,
        "tier": lease.tier,
        "asked": dict(lease.asked),
        "effective": dict(lease.effective),
        "refused": dict(lease.refused),
    }
