# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shadow every resource of an update on one host: all of them, or nothing is published."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import canonical, resource, shadow, version
from ..context import Context
from ..errors import ManifestExists, NoSpace, ResourceInvalid, StateRefused, StoreMissing, ToolMissing, UmbraError
from ..providers import registry
from ..providers.base import INCREMENTAL, Estimate
from ..resource import PRIORITIES, Query, Resource
from ..shadow import Manifest, Shadow
from ..store import versions
from ..store.store import Store
from ..store.update import HostUpdate
from ..tree.exclude import Excludes
from . import payload
from .run import Module, Target, Work, working

REOPENED = ("rolled_back", "undone", "committed")
ESTIMATE_AGE = 2.0  # seconds for which an estimate holds
MARGIN = 16 << 20  # bytes left free beside what is needed: listings, manifests, journals


@dataclass(frozen=True)
class Created:
    """What is shadowed now: `existing` tells that it was already, and kept. `warnings` are sentences.

    `history` is what earlier shadows and restores on this host took, `path` where the manifest is.
    """

    manifest: Manifest
    store: str
    changed: bool
    existing: bool = False
    warnings: tuple[str, ...] = ()
    history: tuple[dict[str, Any], ...] = ()
    path: str | None = None

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
    module.no_log_values |= secrets_in(params["resources"])
    if module.check_mode:
        created = check(target, params["resources"], params["reserve_percent"], where)
    else:
        created = create(target, params["resources"], params["reserve_percent"], where)
    result = {**created.to_dict(), "seconds": round(time.monotonic() - begun, 3)}
    return {**result, "payload": payload.pack(created.manifest, created.history)} if params["payload"] else result


def _public(item: Resource) -> Resource:
    return shadow.without_secrets(item, registry.INTERFACES[item.type])[0]


def secrets_in(raw: Iterable[Any]) -> set[str]:
    """Every text below a secret option of `raw`, whatever else is wrong with it: Ansible takes them out of what is
    printed."""
    found: set[str] = set()
    for item in raw:
        interface = registry.INTERFACES.get(str(item.get("type"))) if isinstance(item, Mapping) else None
        for key, option in interface.options.items() if interface else ():
            if option.secret:
                found |= _texts(item.get(key))
    return found


def _texts(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        return {text for one in value.values() for text in _texts(one)}
    if isinstance(value, (list, tuple)):
        return {text for one in value for text in _texts(one)}
    return {str(value)} if value not in (None, "") else set()


def create(target: Target, raw: Any, reserve_percent: int = 100, where: str = "resources") -> Created:
    """Shadow the resources that `raw` (a list, as the user wrote it) names. Nothing is published unless all succeed.

    The same request for an update that is still open is answered from what is there. `reserve_percent` is how much of
    the shadowed bytes the update may change: so much more space has to be free for the way back. Raises InputError,
    ManifestExists, StateRefused, NoSpace, StoreError, ProviderError.
    """
    foreseen = _foresee(target, raw, reserve_percent, where)  # what can be refused is, before a store is made
    if isinstance(foreseen, Created):
        return foreseen
    request = _digest(foreseen.parsed)
    with working(target, "create", create=True) as work:
        kept = _existing(work.update, request, work.store)
        return kept or _create(work, foreseen, request, reserve_percent)


def check(target: Target, raw: Any, reserve_percent: int = 100, where: str = "resources") -> Created:
    """What `create` would do, from estimates; nothing is written. Raises what `create` would refuse."""
    foreseen = _foresee(target, raw, reserve_percent, where)
    if isinstance(foreseen, Created):
        return foreseen
    shadows = tuple(
        Shadow(_public(item), "check", time.time(), 0.0, size.bytes, size.items, 0, "")
        for item, size in foreseen.estimates
    )
    manifest = Manifest(target.update_id, target.host, time.time(), shadows, version.ENGINE)
    return Created(manifest, foreseen.store, changed=True, warnings=foreseen.warnings)


@dataclass(frozen=True)
class _Foreseen:
    """What a request comes to, before anything is written."""

    parsed: Sequence[Resource | Query]
    estimates: Sequence[tuple[Resource, Estimate]]
    store: str
    warnings: tuple[str, ...]
    when: float  # monotonic


def _foresee(target: Target, raw: Any, reserve_percent: int, where: str) -> _Foreseen | Created:
    """Everything that can be refused by reading alone is refused here; or what is there already, if it is that."""
    resource.check_update_id(target.update_id)
    parsed = resource.parse(raw, registry.INTERFACES, where)
    _refuse_empty(parsed)
    store: Store | None = None
    try:
        store = target.open()
        path = store.path
    except StoreMissing as missing:
        path = str(missing.facts["path"])
    if store and (kept := _existing(store.update(target.update_id), _digest(parsed), store)):
        return kept
    with tempfile.TemporaryDirectory(prefix="umbra-") as scratch:
        context = Context(target.update_id, target.host, scratch)
        found, warnings = expand(parsed, context, target.host)
        estimates = _estimates(found, context)
    _require_git(found)
    _check_space(path, store, estimates, reserve_percent)
    return _Foreseen(parsed, estimates, path, warnings, time.monotonic())


def _require_git(found: Iterable[Resource]) -> None:
    versioned = next((item for item in found if item.versioned), None)
    if versioned and shutil.which("git") is None:
        raise ToolMissing(name=versioned.name, tool="git", package="git, or remove `versioned`")


def _estimates(found: Iterable[Resource], context: Context) -> list[tuple[Resource, Estimate]]:
    return [(item, registry.provider(item.type, context).estimate(item)) for item in found]


def expand(parsed: Sequence[Resource | Query], context: Context, host: str) -> tuple[list[Resource], tuple[str, ...]]:
    """Every resource, queries replaced by what they find now, most important first; and what to warn of.

    Raises ResourceInvalid for names used twice, dependencies on nothing, and when nothing at all is left.
    """
    found: list[Resource] = []
    warnings: list[str] = []
    for number, item in enumerate(parsed):
        if isinstance(item, Resource):
            found.append(item)
            continue
        matches = registry.provider(item.type, context).query(item.options)
        if not matches:
            warnings.append(f"resources[{number}]: the query for type {item.type} finds nothing on {host} now.")
        for match in matches:
            one = {**item.common, "type": item.type, **match}
            found.append(resource.parse_one(one, registry.INTERFACES, f"resources[{number}]"))
    _refuse_empty(found)
    resource.check_names(found)
    _check_dependencies(found, host)
    _check_overlaps(found)
    return sorted(found, key=lambda one: PRIORITIES.index(one.priority)), tuple(warnings)


def _refuse_empty(items: Sequence[object]) -> None:
    if not items:
        raise ResourceInvalid(
            where="resources",
            problem="is empty, so there would be nothing to go back to",
            remedy="Name at least one resource.",
        )


def _check_dependencies(found: Iterable[Resource], host: str) -> None:
    names = {item.name for item in found}
    for item in found:
        for need in item.depends_on:
            local = need.removeprefix(f"{host}:")
            if local not in names and (local != need or ":" not in need):
                raise ResourceInvalid(
                    where=f"resources ({item.name})",
                    problem=f"depends_on names {need!r}, which is not among the resources of {host}",
                    remedy="Correct the name, or write host:name for a resource of another host.",
                )


def _check_overlaps(found: Iterable[Resource]) -> None:
    """Refuse a path that two resources would restore: they would work against each other, at the same time."""
    placed = sorted(
        (os.path.normpath(item.options["path"]), number, item)
        for number, item in enumerate(found)
        if item.options.get("path")
    )
    trees: list[tuple[str, Resource]] = []
    for path, dummy, item in placed:
        for above, tree in trees:
            inside = path == above or path.startswith(f"{above.rstrip('/')}/")
            if inside and not _is_excluded(path[len(above) :].lstrip("/"), tree):
                raise ResourceInvalid(
                    where=f"resources ({item.name})",
                    problem=f"{path} is already in {tree.name}, which has the path {above}",
                    remedy=f"Leave one of them out, or add it to `exclude` of {tree.name}.",
                )
        trees.append((path, item))


def _is_excluded(path: str, tree: Resource) -> bool:
    """Whether `path`, or a directory that it is in, is left out of `tree`."""
    excludes = Excludes(tree.options.get("exclude") or ())
    parts = path.split("/")
    heads = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    return any(excludes.matches(os.fsencode(head), os.fsencode(os.path.basename(head))) for head in heads)


def _digest(parsed: Iterable[Resource | Query]) -> str:
    """The same for the same request; secrets don't count, so that no digest of one is ever written."""
    items: list[Any] = []
    for item in parsed:
        if isinstance(item, Resource):
            items.append(_public(item).to_dict())
        else:
            options = registry.INTERFACES[item.type].options
            common = {k: v for k, v in item.common.items() if k not in options or not options[k].secret}
            items.append({"query": dict(item.options), "type": item.type, "common": common})
    return canonical.digest(items)


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


def _create(work: Work, foreseen: _Foreseen, request: str, reserve_percent: int) -> Created:
    found, warnings = expand(foreseen.parsed, work.context, work.store.host)
    estimates = foreseen.estimates
    if time.monotonic() - foreseen.when > ESTIMATE_AGE or found != [item for item, dummy in estimates]:
        estimates = _estimates(found, work.context)  # waiting for the lock took its time
    _check_space(work.store.path, work.store, estimates, reserve_percent)
    started = time.time()
    shadows: list[Shadow] = []
    secrets: dict[str, dict[str, Any]] = {}
    for item in found:
        made, secret = _shadow(work, item)
        shadows.append(made)
        if secret:
            secrets[item.name] = secret
    manifest = Manifest(work.update.update_id, work.store.host, started, tuple(shadows), version.ENGINE, request)
    if work.update.state in REOPENED:
        work.update.archive()
    work.update.publish(manifest, secrets)
    _remember(work, manifest)
    if any(item.resource.versioned for item in shadows):
        try:
            versions.record(work.store, manifest)
        except UmbraError as error:  # the shadows are published and good, whatever their Git history is
            warnings = (*warnings, f"The Git history in the store was not written: {error}")
    store = work.store
    path = work.update.manifest_path
    return Created(manifest, store.path, changed=True, warnings=warnings, history=_lessons(store), path=path)


def _lessons(store: Store) -> tuple[dict[str, Any], ...]:
    return tuple(store.history().read())


def _shadow(work: Work, item: Resource) -> tuple[Shadow, dict[str, Any]]:
    previous = work.store.latest_shadow(item)
    provider = work.provider(item.type)
    begun, before = time.monotonic(), work.store.contents.new_bytes
    made = provider.create(item, previous[1] if previous else None, work.store.contents)
    built_upon = previous[0] if previous and made.method == INCREMENTAL else None
    public, secret = shadow.without_secrets(item, registry.INTERFACES[item.type])
    made = replace(
        made,
        resource=public,
        previous=built_upon,
        claims=tuple(provider.claims(item)),
        seconds=time.monotonic() - begun,
        stored_bytes=work.store.contents.new_bytes - before,
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
