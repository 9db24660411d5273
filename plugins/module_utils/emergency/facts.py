# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the emergency tool knows of a host: its updates, how each stands, what runs now, what its way back comes to."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..errors import InputError, StoreError, UmbraError
from ..plan import Plan, host_plan
from ..predict import time
from ..store.store import Store
from ..store.update import HostUpdate
from ..verbs import info
from ..verbs.run import Target

# What to do next, by the state of an update: the command, and what it is good for.
NEXT = {
    "open": ("restore", "goes back to the state before the update"),
    "restoring": ("restore", "goes on with the way back, which began and has not ended"),
    "failed": ("restore", "tries again what is not as before; the rest is not touched"),
    "rolled_back": ("undo", "brings the failed state back, if the rollback was wrong; else nothing is to be done"),
    "undone": ("restore", "goes back to the state before the update once more"),
    "damaged": ("verify", "reads the store back, and says what is damaged"),
}
MEANING = {
    "open": "the update runs, failed, or was abandoned",
    "restoring": "a way back began, and has not ended",
    "failed": "a way back ended, and not every resource is as before",
    "rolled_back": "every resource is as before",
    "undone": "the failed state was brought back",
    "committed": "the update was declared good",
    "damaged": "its record can't be read",
}


def choose_host(store: str, wanted: str | None) -> str:
    """The name below which this host's shadows lie in `store`. Raises InputError when that isn't clear, StoreError."""
    here = os.uname().nodename
    hosts = sorted({update.host for update in Store.open(store, here).directories()})
    listed = f"The store {store} has shadows of: {', '.join(hosts) or 'no host'}"
    if wanted is not None:
        if wanted in hosts or not hosts:
            return wanted
        raise InputError(where=f"--host {wanted}", problem=f"has no shadows. {listed}", remedy="Name one of them.")
    alike = [host for host in hosts if _is_alike(host, here)]
    for found in ([host for host in hosts if host == here], alike):
        if len(found) == 1:
            return found[0]
    machines = _machines(store)
    for found in ([host for host in hosts if machines.get(host) == here], hosts):
        if len(found) == 1:
            return found[0]
    if not hosts:
        return here
    raise InputError(where="--host", problem=f"is missing. {listed}", remedy=f"Name one; this one calls itself {here}.")


def stranger(store: str, host: str) -> str:
    """What the machine calls itself that the shadows of `host` are of, where that may be another than this one ('?':
    nobody noted it); '' where it is this one. Raises StoreError."""
    here = os.uname().nodename
    if _is_alike(host, here):
        return ""
    machine = _machines(store).get(host)
    return "" if machine == here else machine or "?"


def _is_alike(host: str, here: str) -> bool:
    return host.partition(".")[0] == here.partition(".")[0]


def _machines(store: str) -> dict[str, str]:
    """Where the newest shadows of each host were made that can be read, as that machine called itself."""
    opened = Store.open(store, os.uname().nodename)
    seal, found = opened.seal.lenient(), []  # it is but asked which host this is
    for update in opened.directories(seal, seal):
        with suppress(StoreError):
            if update.exists():
                manifest = update.manifest()
                found.append((manifest.created, update.host, manifest.machine))
    return {host: machine for _created, host, machine in sorted(found)}


def busy(store: Store) -> dict[str, Any] | None:
    """Who works on this host now: verb, update_id, pid, machine, since, doing; None when nobody does."""
    holder = store.locks.current()
    return {**vars(holder), "text": str(holder)} if holder else None


def updates(target: Target, store: Store) -> list[dict[str, Any]]:
    """Every update of the host, oldest first, as shadow_info has it, with `rto`: (p50, p90) in seconds, or None."""
    found = []
    for one in info.info(target).updates:
        rto: Sequence[float] | None = None
        if one["state"] != "damaged":
            try:
                rto = way_back(store, store.update(one["update_id"]))["rto"]
            except UmbraError:
                rto = None  # its plan is damaged; the list is still of use
        found.append({**one, "rto": rto})
    return found


def current(found: Sequence[Mapping[str, Any]]) -> str | None:
    """The update that somebody most likely asks about: the newest one that may have to go back; else the newest."""
    for states in (("restoring", "failed"), ("open", "damaged", "undone"), ("rolled_back",), ("committed",)):
        for one in reversed(found):
            if one["state"] in states:
                return str(one["update_id"])
    return None


def way_back(store: Store, update: HostUpdate) -> dict[str, Any]:
    """The plan of an update: `waves`, `rto`, and `steps` in order, each with its size and predicted time.

    `source` is "analysis", or "host" where nobody analyzed the update: then the order is made of what the resources of
    this host declare, and the times are learnt from its history. Raises ManifestMissing, StoreError.
    """
    manifest = update.manifest()
    saved = update.plan()
    plan = saved or host_plan(update.update_id, update.host, manifest.shadows)
    times = time.fit(store.history().read(), manifest)
    steps = []
    for step in plan.steps:
        shadow = manifest.shadow(step.name)
        if shadow is None:
            continue
        told = times.predict(shadow.type, shadow.method, shadow.items, shadow.bytes)
        told_by = {"eta": list(step.eta) if any(step.eta) else [told.p50, told.p90]}
        size = {"type": shadow.type, "bytes": shadow.bytes, "item_count": shadow.items}
        lists = {"needs": list(step.needs), "needs_remote": list(step.needs_remote), "cycle": list(step.cycle)}
        steps.append({**vars(step), **lists, **size, **told_by})
    return {
        "update_id": update.update_id,
        "source": "analysis" if saved else "host",
        "waves": plan.waves,
        "rto": list(_rto(plan, steps)),
        "steps": steps,
    }


def _rto(plan: Plan, steps: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """That of the analysis; else wave after wave, each as long as its longest resource: a guess, and low rather than
    high."""
    if plan.rto:
        return plan.rto
    waves = sorted({step["wave"] for step in steps})
    longest = [[max(s["eta"][bound] for s in steps if s["wave"] == wave) for wave in waves] for bound in (0, 1)]
    return math.fsum(longest[0]), math.fsum(longest[1])
