# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shadow every resource of an update on one host: all of them, or nothing is published."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import resource, shadow, version
from ..context import Context
from ..emergency import build
from ..errors import ManifestExists, NoSpace, ResourceInvalid, StateRefused, StoreMissing, ToolMissing, UmbraError
from ..providers import registry
from ..providers.base import INCREMENTAL, Estimate
from ..resource import Query, Resource
from ..shadow import Manifest, Shadow
from ..store import safety, versions
from ..store.replicas import Replicas, check_paths
from ..store.store import Store
from ..store.temporaries import later
from ..store.update import HostUpdate
from . import hold, payload, requested, switch
from .run import Module, Target, Work, working

REOPENED = ("rolled_back", "undone", "committed")
MARGIN = 16 << 20  # bytes left free beside what is needed: listings, manifests, journals


@dataclass(frozen=True)
class Created:
    """What is shadowed now: `existing` tells that it was already, and kept. `warnings` are sentences.

    `history` is what earlier shadows and restores on this host took, `path` where the manifest is, `tool` where the
    emergency tool is.
    """

    manifest: Manifest
    store: str
    changed: bool
    existing: bool = False
    warnings: tuple[str, ...] = ()
    history: tuple[dict[str, Any], ...] = ()
    path: str | None = None
    tool: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The module's result."""
        shadows = [record(item) for item in self.manifest.shadows]
        return {
            "changed": self.changed,
            "existing": self.existing,
            "update_id": self.manifest.update_id,
            "host": self.manifest.host,
            "store": self.store,
            "manifest": self.path,
            "tool": self.tool,
            "created": self.manifest.created,
            "shadows": shadows,
            "totals": {
                key: sum(item[key] for item in shadows)
                for key in ("bytes", "item_count", "stored_bytes", "seconds", "claims")
            },
            "warnings": list(self.warnings),
        }


def record(item: Shadow) -> dict[str, Any]:
    """What a result says of one shadow."""
    return {
        "name": item.name,
        "type": item.type,
        "method": item.method,
        "bytes": item.bytes,
        "item_count": item.items,
        "stored_bytes": item.stored_bytes,
        "seconds": round(item.seconds, 3),
        "checksum": item.checksum,
        "previous": item.previous,
        "claims": len(item.claims),
        "unstable": list(item.data.get("unstable", ())),
    }


def from_module(target: Target, module: Module) -> dict[str, Any]:
    """The verb as module umbra.rollback.shadow_create calls it."""
    begun = time.monotonic()
    params = module.params
    where = params["resources_file"] or "resources"
    if params["resources"] is None:
        raise ResourceInvalid(
            where="shadow_create", problem="names no resources", remedy="Give `resources` or `resources_file`."
        )
    module.no_log_values |= requested.secrets_in(params["resources"])
    if module.check_mode:
        created = check(target, params["resources"], params["reserve_percent"], where)
    else:
        created = create(target, params["resources"], params["reserve_percent"], where)
        tool, problems = build.leave(created.store)
        created = replace(created, tool=tool, warnings=(*created.warnings, *problems))
    result = {**created.to_dict(), "seconds": round(time.monotonic() - begun, 3)}
    return {**result, "payload": payload.pack(created.manifest, created.history)} if params["payload"] else result


def create(target: Target, raw: Any, reserve_percent: int = 100, where: str = "resources") -> Created:
    """Shadow the resources that `raw` (a list, as the user wrote it) names. Nothing is published unless all succeed.

    The same request for an update that is still open is answered from what is there. `reserve_percent` is how much of
    the shadowed bytes the update may change: so much more space has to be free for the way back. Raises InputError,
    ManifestExists, StateRefused, NoSpace, StoreError, ProviderError.
    """
    looked = _look(target, raw, where)
    if isinstance(looked, Created):
        store = target.open()  # the run that published it may have been killed then
        store.sweep()
        hold.settle(store.update(target.update_id))
        if any(item.resource.versioned for item in looked.manifest.shadows) and versions.behind(store):
            with store.lock("create", target.update_id, target.lock_timeout):
                looked = replace(looked, warnings=looked.warnings + _catch_up(store))
        return _again(target, looked)
    if looked.there is None:  # what can be refused is, before a store is made
        _foresee(target, looked, reserve_percent)
    request = requested.digest(looked.parsed)
    with working(target, "create", create=True) as work:
        kept = _existing(work.update, request, work.store)
        if kept:
            return _copied(work, kept)
        return _create(work, looked.parsed, request, reserve_percent)


def _again(target: Target, kept: Created) -> Created:
    """What is published already is in every replica, too."""
    if target.replicas is None and not Replicas(target.open(), None).paths:
        return kept
    with working(target, "create") as work:
        return _copied(work, kept)


def _copied(work: Work, created: Created) -> Created:
    """The shadows are in every replica now, and those are remembered. Raises ReplicaUnusable."""
    replicas = work.replicas.require()
    work.replicas.remember()
    work.replicas.mirror(work.update)
    device = os.stat(work.store.path).st_dev
    near = [one.path for one in replicas if os.stat(one.path).st_dev == device]
    warnings = tuple(
        f"The replica {path} is on the file system of the store, and would be lost with it." for path in near
    )
    warnings += tuple(
        f"The replica {one.path} is not safe: {problem}, and could put another in its place."
        for one in replicas
        if (problem := safety.look(one.path))
    )
    return replace(created, warnings=(*created.warnings, *warnings))


def check(target: Target, raw: Any, reserve_percent: int = 100, where: str = "resources") -> Created:
    """What `create` would do, from estimates; nothing is written. Raises what `create` would refuse."""
    looked = _look(target, raw, where)
    if isinstance(looked, Created):
        return looked
    shadows = tuple(
        Shadow(requested.public(item), "check", time.time(), 0.0, size.bytes, size.items, 0, "")
        for item, size in _foresee(target, looked, reserve_percent)
    )
    manifest = Manifest(target.update_id, target.host, time.time(), shadows, version.ENGINE)
    return Created(manifest, looked.store, changed=True, warnings=looked.warnings)


@dataclass(frozen=True)
class _Looked:
    """A request that makes sense: the resources it comes to now, and the store's path; `there` is the store."""

    parsed: Sequence[Resource | Query]
    found: Sequence[Resource]
    warnings: tuple[str, ...]
    store: str
    there: Store | None


def _look(target: Target, raw: Any, where: str) -> _Looked | Created:
    """The request, as far as it can be refused without looking at the resources; or what is there already, if it is
    that."""
    resource.check_update_id(target.update_id)
    parsed = requested.parse(raw, where)
    store: Store | None = None
    try:
        store = target.open()
        path = store.path
    except StoreMissing as missing:
        path = str(missing.facts["path"])
    target.refuse_unsafe()
    check_paths(path, target.replicas or ())
    if store and (kept := _existing(store.update(target.update_id), requested.digest(parsed), store)):
        return kept
    with later() as room:
        found, warnings = requested.expand(parsed, Context(target.update_id, target.host, room), target.host)
    _require_git(found)
    return _Looked(parsed, found, warnings, path, store)


def _foresee(target: Target, looked: _Looked, reserve_percent: int) -> list[tuple[Resource, Estimate]]:
    """What the resources come to. Raises what `create` would before it copies."""
    with later() as room:
        estimates = _estimates(looked.found, Context(target.update_id, target.host, room))
    _check_space(looked.store, looked.there, estimates, reserve_percent)
    return estimates


def _require_git(found: Iterable[Resource]) -> None:
    versioned = next((item for item in found if item.versioned), None)
    if versioned and shutil.which("git") is None:
        raise ToolMissing(name=versioned.name, tool="git", package="git, or remove `versioned`")


def _estimates(found: Iterable[Resource], context: Context) -> list[tuple[Resource, Estimate]]:
    return [(item, registry.provider(item.type, context).estimate(item)) for item in found]


def _existing(update: HostUpdate, request: str, store: Store) -> Created | None:
    """What is published already for an update that is still open, or None when there is room for a new one."""
    state = update.state
    if state == "missing" or state in REOPENED:
        return None
    if state != "open":
        raise StateRefused(
            update_id=update.update_id,
            host=update.host,
            state=state,
            verb="shadowed",
            remedy="Finish its way back first: run umbra.rollback.rollback with this update_id.",
        )
    manifest = update.manifest()
    if manifest.request != request:
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(manifest.created))
        raise ManifestExists(update_id=update.update_id, host=update.host, created=when)
    return Created(
        manifest, store.path, changed=False, existing=True, history=_lessons(store), path=update.manifest_path
    )


def _create(work: Work, parsed: Sequence[Resource | Query], request: str, reserve_percent: int) -> Created:
    if not work.update.exists():
        hold.release(work.update)  # of a run that was killed before it had shadowed anything
    found, warnings = requested.expand(parsed, work.context, work.store.host)
    if any(item.versioned for item in found):
        warnings += _catch_up(work.store)
    others = _estimates(found[1:], work.context)

    stores = [work.store, *work.replicas.require()]

    def allow(size: Estimate) -> None:
        for store in stores:
            _check_space(store.path, store, [(found[0], size), *others], reserve_percent)

    started = time.time()
    # The first one is looked at only once, for its size and for its shadow: nothing of ours runs in between.
    made = [_shadow(work, found[0], allow), *(_shadow(work, item) for item in found[1:])]
    shadows = tuple(one for one, dummy in made)
    secrets = {one.name: secret for one, secret in made if secret}
    here = os.uname().nodename
    manifest = Manifest(work.update.update_id, work.store.host, started, shadows, version.ENGINE, request, here)
    unheld = hold.reserve(work.update, hold.needed(work, shadows, reserve_percent), work.context.workdir)
    warnings += (f"The space of the way back is not held: {unheld}",) if unheld else ()
    work.replicas.make_room(work.update)
    if work.update.state in REOPENED:
        switch.stand_down(work, work.update, "the update is tried again")
        work.update.archive()
    hold.bring(work.update, work.context.workdir)
    try:
        work.update.publish(manifest, secrets)
    except UmbraError:
        hold.release(work.update)
        raise
    hold.settle(work.update)
    _remember(work, manifest)
    warnings += _record(work.store, manifest)
    store = work.store
    path = work.update.manifest_path
    created = Created(manifest, store.path, changed=True, warnings=warnings, history=_lessons(store), path=path)
    return _copied(work, created)


def _record(store: Store, manifest: Manifest) -> tuple[str, ...]:
    """Write the Git history of versioned shadows, or a warning."""
    try:
        versions.record(store, manifest)
    except UmbraError as error:  # the shadows are published and good, whatever their Git history is
        return (f"The Git history in the store was not written: {error}",)
    return ()


def _catch_up(store: Store) -> tuple[str, ...]:
    """Write what a create that was killed after it had published could not. Called with the host's lock held."""
    manifest = versions.behind(store)
    return _record(store, manifest) if manifest else ()


def _lessons(store: Store) -> tuple[dict[str, Any], ...]:
    return tuple(store.history().read())


def _shadow(
    work: Work, item: Resource, allow: Callable[[Estimate], None] | None = None
) -> tuple[Shadow, dict[str, Any]]:
    """The shadow of a resource, and its secret options; `allow` as in Provider.create_within."""
    previous = work.store.latest_shadow(item)
    last = previous[1] if previous else None
    provider, contents = work.provider(item.type), work.store.contents
    work.context.progress.phase(f"shadowing {item.name}")
    begun, before = time.monotonic(), contents.new_bytes
    made = provider.create_within(item, last, contents, allow) if allow else provider.create(item, last, contents)
    built_upon = previous[0] if previous and made.method == INCREMENTAL else None
    public, secret = shadow.without_secrets(item, registry.INTERFACES[item.type])
    made = replace(
        made,
        resource=public,
        previous=built_upon,
        claims=tuple(provider.claims(item)),
        seconds=time.monotonic() - begun,
        stored_bytes=contents.new_bytes - before,
    )
    return made, secret


def _check_space(
    path: str, store: Store | None, estimates: Iterable[tuple[Resource, Estimate]], reserve_percent: int
) -> None:
    """Refuse now what would end with a full disk later: the shadows, and the failed state that a restore keeps."""
    new = kept = 0
    for item, size in estimates:
        before = store.latest_shadow(item) if store else None
        new += max(0, size.bytes - (before[1].bytes if before else 0))
        kept += size.bytes
    needed = new + kept * reserve_percent // 100 + MARGIN
    there = path
    while not os.path.exists(there):  # the store is not made before it is known that it has room
        there = os.path.dirname(there)
    stat = os.statvfs(there)
    free = stat.f_bavail * stat.f_frsize
    if free < needed:
        what = (
            f"the shadow ({new} bytes) with the way back ({reserve_percent} % of {kept} bytes, see `reserve_percent`)"
        )
        raise NoSpace(path=path, where=f"The store {path}", free=free, needed=needed, what=what)


def _remember(work: Work, manifest: Manifest) -> None:
    history = work.store.history()
    for item in manifest.shadows:
        history.append(
            {
                "time": item.created,
                "verb": "create",
                "update_id": manifest.update_id,
                "name": item.name,
                "type": item.type,
                "method": item.method,
                "previous": item.previous,
                "bytes": item.bytes,
                "items": item.items,
                "seconds": item.seconds,
                "ok": True,
                "attempts": 1,
            }
        )
