# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shadows and manifests: what is written is what is read, and anything else is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import canonical
from ansible_collections.umbra.rollback.plugins.module_utils.errors import StoreCorrupt, StoreFormatUnknown
from ansible_collections.umbra.rollback.plugins.module_utils.resource import Interface, Option, Resource
from ansible_collections.umbra.rollback.plugins.module_utils.shadow import (
    Claim,
    Manifest,
    Root,
    Shadow,
    with_secrets,
    without_secrets,
)

INTERFACE = Interface(
    {
        "path": Option("path", "Path.", required=True),
        "password": Option("str", "Password.", secret=True),
        "token": Option("str", "Token.", secret=True),
    }
)


def shadow(name: str = "db", **facts: Any) -> Shadow:
    resource = Resource(
        name, "file", {"path": "/größe", "exclude": ("*.log", "b"), "ratio": 0.1}, ("web2:x", "y"), "high", True
    )
    fields: dict[str, Any] = {
        "resource": resource,
        "method": "copy",
        "created": 1_700_000_000.123456,
        "seconds": 0.1,
        "bytes": 2**40,
        "items": 3,
        "stored_bytes": 17,
        "checksum": "ab" * 32,
        "roots": (Root("tree", "cd" * 32), Root("blob", "ef" * 32)),
        "data": {"parents": [["a", 1]], "none": None},
        "claims": (Claim("provides", "port", "5432", "pid 7, fd 3"),),
        "previous": "shop-2.3.0",
    }
    return Shadow(**{**fields, **facts})


def manifest(*shadows: Shadow) -> Manifest:
    return Manifest("shop-2.4.0", "web1", 1_700_000_001.5, shadows, "umbra.rollback 0", "12" * 32)


def read(raw: Any) -> Manifest:
    """As from a file: through its JSON text."""
    return Manifest.from_dict(json.loads(canonical.dumps(raw)), "/store/manifest.json")


@pytest.mark.parametrize("shadows", [(), (shadow(),), (shadow("a"), shadow("b", roots=(), claims=(), previous=None))])
def test_what_is_written_is_what_is_read(shadows: tuple[Shadow, ...]) -> None:
    written = manifest(*shadows)
    assert read(written.to_dict()) == written
    assert read(read(written.to_dict()).to_dict()).to_dict() == written.to_dict()


def test_a_manifest_answers_for_its_shadows() -> None:
    both = manifest(shadow("a"), shadow("b", roots=()))
    assert both.names == ("a", "b")
    assert both.shadow("b") == shadow("b", roots=()) and both.shadow("c") is None
    assert both.roots == [Root("tree", "cd" * 32), Root("blob", "ef" * 32)]
    assert (shadow().name, shadow().type) == ("db", "file")


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda raw: {name: value for name, value in raw.items() if name != key}


def in_shadow(**facts: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda raw: {**raw, "shadows": [{**raw["shadows"][0], **facts}]}


# Checksums are right in these: a manifest that somebody made, or a newer release with the same format's name.
WRONG: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("no host", without("host")),
    ("no shadows", without("shadows")),
    ("no engine", without("engine")),
    ("shadows are a number", lambda raw: {**raw, "shadows": 7}),
    ("a shadow is a list", lambda raw: {**raw, "shadows": [[]]}),
    ("a shadow with an unknown field", in_shadow(more=1)),
    ("a root of one field", in_shadow(roots=[["tree"]])),
    ("a root of three", in_shadow(roots=[["tree", "ab", "x"]])),
    ("a claim of one field", in_shadow(claims=[["x"]])),
    ("roots are a number", in_shadow(roots=7)),
    ("a resource without a name", in_shadow(resource={"type": "file"})),
    ("a resource that is a list", in_shadow(resource=[])),
    ("a root that leads up", in_shadow(roots=[["tree", "../../../etc/passwd"]])),
    ("a root in capitals", in_shadow(roots=[["tree", "AB" * 32]])),
    ("a path in data that leads up", in_shadow(data={"parent": "/srv/../etc"})),
    ("a key in data that leads up", in_shadow(data={"set": {"paths": {"/srv/../etc": ["x", "y"]}}})),
    ("a NUL in data", in_shadow(data={"id": ["a\0b"]})),
    ("a previous update that leads up", in_shadow(previous="../u1")),
]


@pytest.mark.parametrize("change", [change for _what, change in WRONG], ids=[what for what, _change in WRONG])
def test_what_is_no_manifest_is_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    with pytest.raises(StoreCorrupt, match="/store/manifest.json is damaged"):
        read(change(manifest(shadow()).to_dict()))


@pytest.mark.parametrize("found", ["umbra-manifest 2", "", None, 1])
def test_another_format_is_refused(found: Any) -> None:
    with pytest.raises(StoreFormatUnknown, match="knows 'umbra-manifest 1'"):
        read({**manifest().to_dict(), "format": found})


@pytest.mark.parametrize("raw", [[], "text", 7, None])
def test_what_is_no_object_is_damage(raw: Any) -> None:
    with pytest.raises(StoreCorrupt, match="it is not a manifest"):
        read(raw)


def test_secrets_are_taken_out_and_put_back() -> None:
    resource = Resource("db", "file", {"path": "/x", "password": "hunter2", "token": None})
    public, secrets = without_secrets(resource, INTERFACE)
    assert secrets == {"password": "hunter2"}
    assert public.options == {"path": "/x", "password": None, "token": None}
    kept = replace(shadow(), resource=public)
    assert b"hunter2" not in canonical.dumps(manifest(kept).to_dict())
    assert with_secrets(kept, secrets).resource == resource
