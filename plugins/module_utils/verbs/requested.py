# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user asks to shadow: read, refused where it makes no sense, queries replaced by what they find."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import canonical, resource, shadow
from ..context import Context
from ..errors import ResourceInvalid
from ..providers import registry
from ..resource import PRIORITIES, Query, Resource
from ..tree.exclude import Excludes


def parse(raw: Any, where: str) -> Sequence[Resource | Query]:
    """The request `raw` (a list, as the user wrote it, at `where`). Raises ResourceInvalid."""
    parsed = resource.parse(raw, registry.INTERFACES, where)
    _refuse_empty(parsed)
    return parsed


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


def digest(parsed: Iterable[Resource | Query]) -> str:
    """The same for the same request; secrets don't count, so that no digest of one is ever written."""
    items: list[Any] = []
    for item in parsed:
        if isinstance(item, Resource):
            items.append(public(item).to_dict())
        else:
            options = registry.INTERFACES[item.type].options
            common = {k: v for k, v in item.common.items() if k not in options or not options[k].secret}
            items.append({"query": dict(item.options), "type": item.type, "common": common})
    return canonical.digest(items)


def public(item: Resource) -> Resource:
    """The resource without its secret options."""
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
