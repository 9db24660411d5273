# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of one copy (Shadow), and of all that one host shadowed for one update (Manifest)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import StoreCorrupt, StoreFormatUnknown
from .resource import NAME, UPDATE_ID, Interface, Resource

MANIFEST_FORMAT = "umbra-manifest 1"
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Root:
    """One content in the store that a shadow stands on.

    `kind` is blob, or tree (a listing that names more contents).
    """

    kind: str
    digest: str


@dataclass(frozen=True)
class Claim:
    """What a resource provides or uses (`role`), of which `kind` (path, port, unit, package ...), and how that is
    known."""

    role: str
    kind: str
    value: str
    evidence: str


@dataclass(frozen=True)
class Shadow:
    """The copy of one resource at one moment.

    `resource` has no secret options. `created` is seconds since the epoch (UTC), `seconds` what it took. `bytes` and
    `items` describe the resource, `stored_bytes` what the store grew by. `checksum` (SHA-256, hexadecimal) is equal
    for equal states. `roots` are the contents it needs, `data` is the provider's own (JSON), `previous` the update it
    is incremental to.
    """

    resource: Resource
    method: str
    created: float
    seconds: float
    bytes: int
    items: int
    stored_bytes: int
    checksum: str
    roots: tuple[Root, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    previous: str | None = None

    @property
    def name(self) -> str:
        """The resource's name."""
        return self.resource.name

    @property
    def type(self) -> str:
        """The resource's type."""
        return self.resource.type

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        return {
            "resource": self.resource.to_dict(),
            "method": self.method,
            "created": self.created,
            "seconds": self.seconds,
            "bytes": self.bytes,
            "items": self.items,
            "stored_bytes": self.stored_bytes,
            "checksum": self.checksum,
            "roots": [[root.kind, root.digest] for root in self.roots],
            "data": dict(self.data),
            "claims": [[claim.role, claim.kind, claim.value, claim.evidence] for claim in self.claims],
            "previous": self.previous,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Shadow:
        """The shadow that `to_dict` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        fields = dict(raw)
        fields["resource"] = _resource(raw["resource"])
        fields["roots"] = tuple(_root(*root) for root in raw["roots"])
        fields["claims"] = tuple(Claim(*claim) for claim in raw["claims"])
        if not isinstance(raw["data"], Mapping) or not isinstance(raw["checksum"], str):
            raise TypeError("data")
        _check_paths(raw["data"])
        if raw["previous"] is not None and not UPDATE_ID.fullmatch(raw["previous"]):
            raise ValueError("previous")
        return cls(**fields)


def _root(kind: str, digest: str) -> Root:
    if not isinstance(kind, str) or not _DIGEST.fullmatch(digest):
        raise ValueError(f"a root that is a digest, and has {digest!r}")
    return Root(kind, digest)


def _check_paths(value: Any) -> None:
    """Raise ValueError when a name in `value` (JSON) leads up, or ends before its end: providers make paths of it."""
    if isinstance(value, str):
        if "\0" in value or (value.startswith("/") and ".." in value.split("/")):
            raise ValueError(f"a path, and has {value!r}")
    elif isinstance(value, Mapping):
        for pair in value.items():
            _check_paths(list(pair))
    elif isinstance(value, (list, tuple)):
        for one in value:
            _check_paths(one)


def _resource(raw: Mapping[str, Any]) -> Resource:
    """A resource out of a manifest: it was checked when it was shadowed, and lists were tuples then."""
    common = ("name", "type", "depends_on", "priority", "versioned")
    if not NAME.fullmatch(raw["name"]) or not isinstance(raw["type"], str):
        raise ValueError(f"a name, and has {raw['name']!r}")
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items() if k not in common}
    return Resource(raw["name"], raw["type"], options, tuple(raw["depends_on"]), raw["priority"], raw["versioned"])


def without_secrets(resource: Resource, interface: Interface) -> tuple[Resource, dict[str, Any]]:
    """The resource with every secret option emptied, and those options with their values."""
    secret = {k: v for k, v in resource.options.items() if interface.options[k].secret and v is not None}
    public = {k: None if interface.options[k].secret else v for k, v in resource.options.items()}
    return replace(resource, options=public), secret


def with_secrets(shadow: Shadow, secrets: Mapping[str, Any]) -> Shadow:
    """The shadow whose resource has its secret options again."""
    return replace(shadow, resource=replace(shadow.resource, options={**shadow.resource.options, **secrets}))


@dataclass(frozen=True)
class Manifest:
    """What one host shadowed for one update: `shadows` in the order in which they were made. `created` as in Shadow.

    `request` is the digest of the resources and queries that were asked for, without secrets: equal for the same
    request. `machine` is what the host called itself then ('': nobody noted it).
    """

    update_id: str
    host: str
    created: float
    shadows: tuple[Shadow, ...]
    engine: str
    request: str = ""
    machine: str = ""

    def shadow(self, name: str) -> Shadow | None:
        """The shadow of the resource `name`, or None."""
        return next((shadow for shadow in self.shadows if shadow.name == name), None)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all shadowed resources."""
        return tuple(shadow.name for shadow in self.shadows)

    @property
    def roots(self) -> Sequence[Root]:
        """Every content that the shadows stand on."""
        return [root for shadow in self.shadows for root in shadow.roots]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the format's name."""
        return {
            "format": MANIFEST_FORMAT,
            "update_id": self.update_id,
            "host": self.host,
            "created": self.created,
            "engine": self.engine,
            "request": self.request,
            "machine": self.machine,
            "shadows": [shadow.to_dict() for shadow in self.shadows],
        }

    @classmethod
    def from_dict(cls, raw: Any, path: str) -> Manifest:
        """The manifest that `to_dict` wrote; `path` is for messages. Raises StoreFormatUnknown, StoreCorrupt."""
        if not isinstance(raw, Mapping):
            raise StoreCorrupt(path=path, problem="it is not a manifest")
        if raw.get("format") != MANIFEST_FORMAT:
            raise StoreFormatUnknown(path=path, found=raw.get("format"), known=MANIFEST_FORMAT)
        try:
            shadows = tuple(Shadow.from_dict(shadow) for shadow in raw["shadows"])
            facts = {key: raw[key] for key in ("update_id", "host", "created", "engine", "request")}
            return cls(**facts, shadows=shadows, machine=str(raw.get("machine", "")))
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise StoreCorrupt(path=path, problem=f"it lacks {error}") from error
