# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shadows, manifests and history records as plain values, for tests of what is computed from them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible_collections.umbra.rollback.plugins.module_utils.resource import Resource
from ansible_collections.umbra.rollback.plugins.module_utils.shadow import Claim, Manifest, Shadow

MIB = 2**20


def shadow(
    name: str,
    needs: Iterable[str] = (),
    type: str = "file",
    size: int = MIB,
    items: int = 10,
    seconds: float = 0.1,
    claims: Iterable[Claim] = (),
    priority: str = "normal",
    method: str = "copy",
    previous: str | None = None,
) -> Shadow:
    """One shadow; nothing in a store stands behind it."""
    resource = Resource(name, type, {}, tuple(needs), priority)
    return Shadow(
        resource, method, 0.0, seconds, size, items, size, "0" * 64, claims=tuple(claims), previous=previous
    )  # fmt: skip


def manifest(host: str, *shadows: Shadow, update_id: str = "up-1") -> Manifest:
    """What `host` shadowed."""
    return Manifest(update_id, host, 0.0, tuple(shadows), "test")


def record(name: str = "x", seconds: float = 1.0, time: float = 0.0, **facts: Any) -> dict[str, Any]:
    """A history record of a restore that went well; `facts` say otherwise."""
    return {
        "time": time,
        "verb": "restore",
        "update_id": "earlier",
        "name": name,
        "type": "file",
        "method": "copy",
        "bytes": MIB,
        "items": 10,
        "seconds": seconds,
        "ok": True,
        "attempts": 1,
        **facts,
    }
