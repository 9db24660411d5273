# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One JSON text for one value, and its SHA-256: what checksums of manifests, plans and leases are made of."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def dumps(value: Any) -> bytes:
    """`value` as JSON with sorted keys, no spaces and ASCII only, so that equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def digest(value: Any) -> str:
    """SHA-256 (64 hexadecimal digits) of `dumps(value)`."""
    return hashlib.sha256(dumps(value)).hexdigest()
