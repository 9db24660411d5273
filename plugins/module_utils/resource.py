# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user names: resources and queries, checked against what each provider says it takes."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import ResourceInvalid, UpdateIdInvalid

PRIORITIES = ("critical", "high", "normal", "low")
NAME = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9._@:/-]{0,199}")
UPDATE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "path": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "list": (list, tuple),
    "dict": (dict,),
    "command": (str, list, tuple),
}


@dataclass(frozen=True)
class Option:
    """One key of a resource that its provider understands; also the source of the JSON Schema and of the docs.

    `type` is str, path (absolute), int, float, bool, list, dict or command (a program and its arguments: a list, or
    one string with a shell's quoting); `elements` is the type of a list's items. An option with `secret` never
    reaches a manifest, a journal, a result or a log.
    """

    type: str
    help: str
    required: bool = False
    default: Any = None
    choices: tuple[Any, ...] = ()
    elements: str = "str"
    secret: bool = False


COMMON: Mapping[str, Option] = {
    "name": Option("str", "Name of the resource, unique on its host.", required=True),
    "type": Option("str", "Which provider knows it.", required=True),
    "depends_on": Option("list", "Names of resources it needs, as name or host:name.", default=()),
    "priority": Option(
        "str", "Order of shadowing and, within a wave, of restore.", default="normal", choices=PRIORITIES
    ),
    "versioned": Option("bool", "Keep a Git history of its contents in the store.", default=False),
}


@dataclass(frozen=True)
class Resource:
    """One thing an update may break. `options` holds every option of its provider, defaults filled in."""

    name: str
    type: str
    options: Mapping[str, Any] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    priority: str = "normal"
    versioned: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The resource as the user could have written it, JSON-ready, secrets included."""
        return {
            "name": self.name,
            "type": self.type,
            "depends_on": list(self.depends_on),
            "priority": self.priority,
            "versioned": self.versioned,
            **{key: list(value) if isinstance(value, tuple) else value for key, value in self.options.items()},
        }


@dataclass(frozen=True)
class Query:
    """A dynamic query: `type` says which provider expands it, `options` what to look for, `common` what each found
    gets."""

    type: str
    options: Mapping[str, Any]
    common: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Interface:
    """What one provider takes: its options, and those of its query (empty: it has none)."""

    options: Mapping[str, Option]
    query_options: Mapping[str, Option] = field(default_factory=dict)
    versionable: bool = False


def name_for_path(path: str) -> str:
    """A resource name for `path`: itself, where names allow it; else made of it, and unique."""
    if NAME.fullmatch(path):
        return path
    mark = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    return f"path-{re.sub('[^A-Za-z0-9._@:/-]', '_', path)[-186:]}-{mark}"


def check_update_id(update_id: str) -> str:
    """`update_id` itself. Raises UpdateIdInvalid."""
    if not UPDATE_ID.fullmatch(update_id):
        raise UpdateIdInvalid(update_id=update_id)
    return update_id


def parse(raw: Any, interfaces: Mapping[str, Interface], where: str = "resources") -> list[Resource | Query]:
    """Check a list of resources and queries as the user wrote it.

    Raises ResourceInvalid, naming the first thing wrong.
    """
    if not isinstance(raw, (list, tuple)):
        raise _invalid(where, f"is {_kind(raw)}, not a list", "Write a list of resources.")
    parsed = [_parse_one(item, interfaces, f"{where}[{number}]") for number, item in enumerate(raw)]
    check_names([item for item in parsed if isinstance(item, Resource)], where)
    return parsed


def check_names(resources: Iterable[Resource], where: str = "resources") -> None:
    """Raise ResourceInvalid for a name used twice, or a dependency on the same host that names nothing."""
    names: set[str] = set()
    resources = list(resources)
    for resource in resources:
        if resource.name in names:
            raise _invalid(where, f"the name {resource.name!r} is used twice", "Give each resource a name of its own.")
        names.add(resource.name)


def parse_one(raw: Any, interfaces: Mapping[str, Interface], where: str) -> Resource:
    """Check one concrete resource. Raises ResourceInvalid."""
    item = _parse_one(raw, interfaces, where)
    if isinstance(item, Query):
        raise _invalid(where, "is a query", "Name a resource here.")
    return item


def _parse_one(raw: Any, interfaces: Mapping[str, Interface], where: str) -> Resource | Query:
    if not isinstance(raw, Mapping):
        raise _invalid(
            where, f"is {_kind(raw)}, not a dictionary", "Write `name`, `type` and the options of that type."
        )
    if "query" in raw:
        return _parse_query(raw, interfaces, where)
    label = f"{where} ({raw['name']})" if isinstance(raw.get("name"), str) else where
    interface = _interface(raw.get("type"), interfaces, label)
    values = check_options(raw, {**COMMON, **interface.options}, label)
    if not NAME.fullmatch(values["name"]):
        raise _invalid(label, f"name {values['name']!r} is not valid", "Use up to 200 letters, digits and . _ - @ : /")
    if values["versioned"] and not interface.versionable:
        raise _invalid(label, f"type {raw['type']} can't be versioned", "Remove `versioned`.")
    return _resource(values)


def _resource(values: Mapping[str, Any]) -> Resource:
    options = {key: value for key, value in values.items() if key not in COMMON}
    return Resource(
        name=values["name"],
        type=values["type"],
        options=options,
        depends_on=tuple(values["depends_on"]),
        priority=values["priority"],
        versioned=values["versioned"],
    )


def _parse_query(raw: Mapping[str, Any], interfaces: Mapping[str, Interface], where: str) -> Query:
    query = raw["query"]
    if not isinstance(query, Mapping):
        raise _invalid(f"{where}.query", f"is {_kind(query)}, not a dictionary", "Write `type` and what to look for.")
    interface = _interface(query.get("type"), interfaces, f"{where}.query")
    if not interface.query_options:
        raise _invalid(f"{where}.query", f"type {query['type']} has no query", "Name the resource itself.")
    found = check_options(query, {"type": COMMON["type"], **interface.query_options}, f"{where}.query")
    shared = {key: option for key, option in COMMON.items() if key not in ("name", "type")}
    allowed = {"query": Option("dict", "", required=True), **shared, **optional(interface.options)}
    common = check_options(raw, allowed, where, fill=False)
    del common["query"], found["type"]
    return Query(type=query["type"], options=found, common=common)


def optional(options: Mapping[str, Option]) -> dict[str, Option]:
    """The options that need not be given: what may stand beside a query, for each resource found."""
    return {key: option for key, option in options.items() if not option.required}


def _interface(name: Any, interfaces: Mapping[str, Interface], where: str) -> Interface:
    if name is None:
        raise _invalid(where, "`type` is missing", f"Use one of: {', '.join(sorted(interfaces))}.")
    if not isinstance(name, str) or name not in interfaces:
        raise _invalid(where, f"type {name!r} is unknown", f"Use one of: {', '.join(sorted(interfaces))}.")
    return interfaces[name]


def check_options(
    raw: Mapping[str, Any], options: Mapping[str, Option], where: str, fill: bool = True
) -> dict[str, Any]:
    """`raw` with types checked and, with `fill`, defaults filled in.

    Raises ResourceInvalid for the first thing wrong.
    """
    for key in raw:
        if key not in options:
            raise _invalid(where, f"unknown key {key!r}", f"Known keys: {', '.join(sorted(options))}.")
    values: dict[str, Any] = {}
    for key, option in options.items():
        if raw.get(key) is None:
            if option.required:
                raise _invalid(where, f"`{key}` is missing", option.help)
            if fill:
                values[key] = option.default
        else:
            values[key] = _check_value(raw[key], option, f"{where}: {key}")
    return values


def _check_value(value: Any, option: Option, where: str) -> Any:
    if not _is_a(value, option.type):
        raise _invalid(where, f"is {_kind(value)}, not {option.type}", option.help)
    if option.type == "path" and (not value.startswith("/") or "\0" in value):
        raise _invalid(where, f"{value!r} is not an absolute path", option.help)
    if option.type == "path" and ".." in value.split("/"):
        raise _invalid(where, f"{value!r} has '..' in it", "Write the path without it.")
    if option.choices and value not in option.choices:
        raise _invalid(where, f"{value!r} is not known", f"Use one of: {', '.join(map(str, option.choices))}.")
    if option.type == "list":
        for item in value:
            if not _is_a(item, option.elements):
                raise _invalid(where, f"has an item that is {_kind(item)}, not {option.elements}", option.help)
        return tuple(value)
    if option.type == "command":
        return _command(value, where, option)
    return value


def _command(value: str | Sequence[Any], where: str, option: Option) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(value) if isinstance(value, str) else value)
    except ValueError as error:
        raise _invalid(where, f"{value!r} can't be split into words ({str(error).lower()})", option.help) from error
    if not words or not words[0]:
        raise _invalid(where, "names no program", option.help)
    for word in words:
        if not isinstance(word, str) or "\0" in word:
            raise _invalid(where, f"has {word!r}, which is no argument of a program", "Put it in quotes.")
    return words


def _is_a(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "bool"
    return isinstance(value, _PYTHON_TYPES[kind])


def _kind(value: Any) -> str:
    return "empty" if value is None else type(value).__name__


def _invalid(where: str, problem: str, remedy: str) -> ResourceInvalid:
    return ResourceInvalid(where=where, problem=problem, remedy=remedy)
