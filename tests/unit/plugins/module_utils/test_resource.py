# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user writes, checked: a table of what is accepted, and one of what is refused and how."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import errors
from ansible_collections.umbra.rollback.plugins.module_utils.resource import Interface, Option, Query, Resource, parse

INTERFACES = {
    "file": Interface(
        {"path": Option("path", "Path of it.", required=True), "exclude": Option("list", "Patterns.", default=())},
        {"pattern": Option("str", "A glob.", required=True)},
        versionable=True,
    ),
    "thing": Interface(
        {
            "count": Option("int", "How many.", default=1),
            "ratio": Option("float", "How much.", default=0.5),
            "mode": Option("str", "Which.", default="a", choices=("a", "b")),
            "environment": Option("dict", "Secret.", secret=True),
        }
    ),
}

GOOD: list[tuple[dict[str, Any], Resource | Query]] = [
    (
        {"name": "x", "type": "file", "path": "/etc"},
        Resource("x", "file", {"path": "/etc", "exclude": ()}),
    ),
    (
        {"name": "x", "type": "file", "path": "/etc", "exclude": ["*.log"], "versioned": True, "priority": "low"},
        Resource("x", "file", {"path": "/etc", "exclude": ("*.log",)}, priority="low", versioned=True),
    ),
    (
        {"name": "host/a:b@c", "type": "thing", "ratio": 2, "depends_on": ["y", "web2:z"]},
        Resource(
            "host/a:b@c",
            "thing",
            {"count": 1, "ratio": 2, "mode": "a", "environment": None},
            depends_on=("y", "web2:z"),
        ),
    ),
    (
        {"query": {"type": "file", "pattern": "/etc/*.conf"}, "exclude": ["x"], "priority": "high"},
        Query("file", {"pattern": "/etc/*.conf"}, {"exclude": ("x",), "priority": "high"}),
    ),
]


@pytest.mark.parametrize(("raw", "expected"), GOOD)
def test_what_is_right_is_understood(raw: dict[str, Any], expected: Resource | Query) -> None:
    assert parse([raw], INTERFACES) == [expected]


BAD: list[tuple[Any, str]] = [
    ("text", "resources: is str, not a list."),
    ([["x"]], "resources[0]: is list, not a dictionary."),
    ([{"name": "x", "type": "file"}], "resources[0] (x): `path` is missing. Path of it."),
    ([{"name": "x", "type": "file", "path": "etc"}], "resources[0] (x): path: 'etc' is not an absolute path."),
    ([{"name": "x", "type": "file", "path": "/a\0b"}], "is not an absolute path"),
    ([{"name": "x", "type": "file", "path": "/a/../b"}], "'/a/../b' has '..' in it"),
    ([{"name": "x", "type": "file", "path": 1}], "resources[0] (x): path: is int, not path."),
    ([{"name": "x", "type": "file", "path": "/e", "exclude": [1]}], "exclude: has an item that is int, not str."),
    ([{"name": "x", "type": "file", "path": "/e", "pth": 1}], "unknown key 'pth'. Known keys: "),
    ([{"type": "file", "path": "/e"}], "resources[0]: `name` is missing."),
    ([{"name": 5, "type": "file", "path": "/e"}], "name: is int, not str."),
    ([{"name": "x" * 201, "type": "file", "path": "/e"}], "is not valid"),
    ([{"name": "x", "type": "flie"}], "type 'flie' is unknown. Use one of: file, thing."),
    ([{"name": "x"}], "`type` is missing. Use one of: file, thing."),
    ([{"name": "x", "type": "thing", "count": True}], "count: is bool, not int."),
    ([{"name": "x", "type": "thing", "mode": "c"}], "mode: 'c' is not known. Use one of: a, b."),
    ([{"name": "x", "type": "thing", "versioned": True}], "type thing can't be versioned."),
    ([{"name": "x", "type": "thing", "versioned": "yes"}], "versioned: is str, not bool."),
    ([{"name": "x", "type": "thing"}, {"name": "x", "type": "thing"}], "the name 'x' is used twice."),
    ([{"query": "file"}], "resources[0].query: is str, not a dictionary."),
    ([{"query": {"type": "thing"}}], "type thing has no query."),
    ([{"query": {"type": "file"}}], "`pattern` is missing."),
    ([{"query": {"type": "file", "pattern": "/x"}, "path": "/y"}], "unknown key 'path'."),
    ([{"query": {"type": "file", "pattern": "/x"}, "name": "y"}], "unknown key 'name'."),
]


@pytest.mark.parametrize(("raw", "expected"), BAD)
def test_what_is_wrong_is_named_in_one_sentence(raw: Any, expected: str) -> None:
    with pytest.raises(errors.ResourceInvalid) as caught:
        parse(raw, INTERFACES)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
