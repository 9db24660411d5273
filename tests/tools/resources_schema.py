# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/resources.schema.json: the JSON Schema of a resources file, out of what the registry says.

An editor checks a resources file with it while it is written. The engine does not need it: `resource.parse` checks the
same, and what no schema can say: names that are used twice, dependencies, quotes that are never closed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# By the path in the tree, and not by the collection's name, so that it runs in a checkout as it is.
from plugins.module_utils.providers.registry import INTERFACES  # type: ignore[import-not-found]  # noqa: E402
from plugins.module_utils.resource import (  # type: ignore[import-not-found]  # noqa: E402
    COMMON,
    NAME,
    Interface,
    Option,
    optional,
)

PATH = ROOT / "docs" / "resources.schema.json"
END = r"(?![\s\S])"  # the end of the text, and not of its last line, in every dialect
TYPES: Mapping[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "path": {"type": "string", "pattern": f"^/[^\\u0000]*{END}"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "list": {"type": "array"},
    "dict": {"type": "object"},
    "command": {
        "anyOf": [
            {"type": "string", "pattern": "\\S"},
            {"type": "array", "items": {"type": "string"}, "minItems": 1, "prefixItems": [{"minLength": 1}]},
        ]
    },
}


def schema() -> dict[str, Any]:
    """The schema of a resources file."""
    queries = {name: interface for name, interface in INTERFACES.items() if interface.query_options}
    definitions = {name: _resource(name, interface) for name, interface in INTERFACES.items()}
    definitions.update({f"{name}_query": _query(name, interface) for name, interface in queries.items()})
    resource = _choice({name: name for name in INTERFACES}, [])
    query = _choice({name: f"{name}_query" for name in queries}, ["query"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Resources of umbra.rollback",
        "description": "What an update may break: the option `resources`, or the file `resources_file`, of "
        "shadow_create.",
        "type": "array",
        "items": {"type": "object", "if": {"required": ["query"]}, "then": query, "else": resource},
        "$defs": definitions,
    }


def _choice(definitions: Mapping[str, str], inside: list[str]) -> dict[str, Any]:
    """The definition that the value of `type` names; `type` stands below the keys `inside`."""
    return {
        **_nested(inside, {"enum": sorted(definitions)}),
        "allOf": [
            {"if": _nested(inside, {"const": type_}), "then": {"$ref": f"#/$defs/{definition}"}}
            for type_, definition in sorted(definitions.items())
        ],
    }


def _nested(keys: list[str], type_: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"required": ["type"], "properties": {"type": type_}}
    for key in reversed(keys):
        found = {"required": [key], "properties": {key: found}}
    return found


def _resource(type_: str, interface: Interface) -> dict[str, Any]:
    return _object({**_common(interface), **interface.options}, {"type": {"const": type_}})


def _query(type_: str, interface: Interface) -> dict[str, Any]:
    shared = {key: option for key, option in _common(interface).items() if key not in ("name", "type")}
    about = "What to look for; each that is found becomes a resource with the other keys."
    wanted = _object({"type": COMMON["type"], **interface.query_options}, {"type": {"const": type_}})
    beside = _object({"query": Option("dict", about, required=True), **shared, **optional(interface.options)}, {})
    beside["properties"]["query"] = {"description": about, **wanted}
    return beside


def _common(interface: Interface) -> dict[str, Option]:
    versioned = COMMON["versioned"]
    choices = () if interface.versionable else (False,)
    return {**COMMON, "versioned": Option("bool", versioned.help, default=False, choices=choices)}


def _object(options: Mapping[str, Option], fixed: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    properties = {key: {**_value(option), **fixed.get(key, {})} for key, option in options.items()}
    if "name" in properties:
        properties["name"]["pattern"] = f"^{NAME.pattern}{END}"
    return {
        "type": "object",
        "properties": properties,
        "required": [key for key, option in options.items() if option.required],
        "additionalProperties": False,
    }


def _value(option: Option) -> dict[str, Any]:
    """What an option may be. One that need not be given may be null, too, which is the same."""
    found: dict[str, Any] = dict(TYPES[option.type])
    if option.type == "list":
        found["items"] = TYPES[option.elements]
    if option.choices:
        found["enum"] = list(option.choices)
    if not option.required:
        found = {"anyOf": [found, {"type": "null"}]}
    found["description"] = option.help
    if option.default is not None:
        found["default"] = list(option.default) if isinstance(option.default, tuple) else option.default
    return found


def render() -> str:
    """The file's text."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    PATH.write_text(render(), encoding="utf-8")
    print(f"wrote {PATH}")
