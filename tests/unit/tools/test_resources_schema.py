# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The JSON Schema in docs is the one that the registry gives, and agrees with what the engine accepts."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import ResourceInvalid
from ansible_collections.umbra.rollback.plugins.module_utils.providers.registry import INTERFACES
from ansible_collections.umbra.rollback.plugins.module_utils.resource import parse
from resources_schema import PATH, render

FILE = {"name": "shop", "type": "file", "path": "/srv/shop"}
COMMAND = {"name": "legacy", "type": "command", "create": "dump", "restore": ["load", "--all"]}
QUERY = {"type": "file", "pattern": "/etc/*.conf"}

GOOD: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "a file": [FILE],
    "all that is common": [{**FILE, "depends_on": ["a", "web1:b"], "priority": "critical", "versioned": True}],
    "null is as if it were not there": [{**FILE, "priority": None, "exclude": None, "versioned": None}],
    "a name with all it may have": [{**FILE, "name": "a-B_9.x@y:z/w"}],
    "the longest name": [{**FILE, "name": "x" * 200}],
    "a list": [{**FILE, "exclude": ["*.log", "cache/**"]}],
    "several": [FILE, {**FILE, "name": "other"}],
    "a database": [{"name": "db", "type": "sqlite", "path": "/srv/shop.db", "timeout": 5}],
    "a fraction": [{"name": "db", "type": "sqlite", "path": "/srv/shop.db", "timeout": 0.5}],
    "a command as text and as list": [COMMAND],
    "a command with quotes": [{**COMMAND, "create": "pg_dump -f 'a b'"}],
    "an environment": [{**COMMAND, "environment": {"TOKEN": "x", "N": 5}}],
    "what can't be versioned, and isn't": [{**COMMAND, "versioned": False}],
    "a path with a newline": [{**FILE, "path": "/srv/a\nb"}],
    "a query": [{"query": QUERY}],
    "a query with what each gets": [{"query": QUERY, "exclude": ["*.bak"], "priority": "low", "depends_on": ["x"]}],
    "a query for databases": [{"query": {"type": "sqlite", "pattern": "/srv/**/*.db"}, "timeout": 2}],
}
BAD: dict[str, Any] = {
    "no list": FILE,
    "text": "shop",
    "null": None,
    "a resource that is text": ["shop"],
    "a resource that is null": [None],
    "an unknown key": [{**FILE, "pth": "/x"}],
    "an unknown key that is null": [{**FILE, "pth": None}],
    "a key of another type": [{**FILE, "create": "x"}],
    "no name": [{"type": "file", "path": "/x"}],
    "a null name": [{**FILE, "name": None}],
    "a name that is a number": [{**FILE, "name": 5}],
    "an empty name": [{**FILE, "name": ""}],
    "a name that is too long": [{**FILE, "name": "x" * 201}],
    "a name with a space": [{**FILE, "name": "a b"}],
    "a name with a newline at its end": [{**FILE, "name": "shop\n"}],
    "no type": [{"name": "x", "path": "/x"}],
    "an unknown type": [{"name": "x", "type": "flie", "path": "/x"}],
    "a type that is a list": [{"name": "x", "type": ["file"], "path": "/x"}],
    "no path": [{"name": "x", "type": "file"}],
    "a null path": [{**FILE, "path": None}],
    "a relative path": [{**FILE, "path": "srv/shop"}],
    "an empty path": [{**FILE, "path": ""}],
    "a path with a NUL": [{**FILE, "path": "/srv\0"}],
    "a list that is text": [{**FILE, "exclude": "*.log"}],
    "a list of numbers": [{**FILE, "exclude": [1]}],
    "a yes that is text": [{**FILE, "versioned": "yes"}],
    "a yes that is a number": [{**FILE, "versioned": 1}],
    "an unknown priority": [{**FILE, "priority": "highest"}],
    "a number that is text": [{"name": "db", "type": "sqlite", "path": "/x", "timeout": "5"}],
    "a number that is a yes": [{"name": "db", "type": "sqlite", "path": "/x", "timeout": True}],
    "dependencies that are text": [{**FILE, "depends_on": "db"}],
    "what can't be versioned": [{**COMMAND, "versioned": True}],
    "an empty command": [{**COMMAND, "create": ""}],
    "a blank command": [{**COMMAND, "create": "  "}],
    "a command without words": [{**COMMAND, "create": []}],
    "a command without a program": [{**COMMAND, "create": ["", "x"]}],
    "a command of numbers": [{**COMMAND, "create": ["dump", 5]}],
    "a command that is a number": [{**COMMAND, "create": 5}],
    "no restore": [{"name": "legacy", "type": "command", "create": "dump"}],
    "an environment that is a list": [{**COMMAND, "environment": ["A=b"]}],
    "a query that is text": [{"query": "file"}],
    "a query that is null": [{"query": None}],
    "a query without a type": [{"query": {"pattern": "/x"}}],
    "a query of an unknown type": [{"query": {"type": "flie", "pattern": "/x"}}],
    "a query of a type that has none": [{"query": {"type": "command"}}],
    "a query without a pattern": [{"query": {"type": "file"}}],
    "a query with an unknown key": [{"query": {**QUERY, "age": 5}}],
    "a query with a name": [{"query": QUERY, "name": "x"}],
    "a query with a type beside it": [{"query": QUERY, "type": "file"}],
    "a query with a path beside it": [{"query": QUERY, "path": "/x"}],
    "the second one": [FILE, {"name": "x"}],
}
# The engine refuses them, and no schema can tell.
BEYOND: dict[str, list[dict[str, Any]]] = {
    "a name used twice": [FILE, {**FILE, "path": "/other"}],
    "a quote that is never closed": [{**COMMAND, "create": "echo 'a"}],
}


@pytest.fixture(scope="module", name="validator")
def the_validator() -> Any:
    return jsonschema.Draft202012Validator(json.loads(PATH.read_text(encoding="utf-8")))


def accepted(raw: Any) -> bool:
    try:
        parse(raw, INTERFACES)
    except ResourceInvalid:
        return False
    return True


def test_the_file_is_what_the_registry_gives() -> None:
    assert PATH.read_text(encoding="utf-8") == render(), "run: python tests/tools/resources_schema.py"


def test_it_is_a_schema(validator: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(validator.schema)


@pytest.mark.parametrize("case", GOOD)
def test_what_is_good_is_accepted_by_both(case: str, validator: Any) -> None:
    assert accepted(GOOD[case])
    validator.validate(GOOD[case])


@pytest.mark.parametrize("case", BAD)
def test_what_is_bad_is_refused_by_both(case: str, validator: Any) -> None:
    assert not accepted(BAD[case])
    assert not validator.is_valid(BAD[case])


@pytest.mark.parametrize("case", BEYOND)
def test_what_a_schema_cannot_tell_is_refused_by_the_engine(case: str, validator: Any) -> None:
    assert not accepted(BEYOND[case])
    validator.validate(BEYOND[case])


@pytest.mark.parametrize("type_", sorted(INTERFACES))
def test_every_option_of_every_type_is_described(type_: str, validator: Any) -> None:
    properties = validator.schema["$defs"][type_]["properties"]
    for key, option in INTERFACES[type_].options.items():
        assert properties[key]["description"] == option.help
    if INTERFACES[type_].query_options:
        query = validator.schema["$defs"][f"{type_}_query"]["properties"]["query"]["properties"]
        assert set(query) == {"type", *INTERFACES[type_].query_options}
