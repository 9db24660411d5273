# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller needs of a host to analyze it, packed into a module's result."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..shadow import Manifest

PAYLOAD_BYTES = 32 << 10
HISTORY_RECORDS = 300


def pack(manifest: Manifest, history: Sequence[Mapping[str, Any]]) -> str:
    """The manifest without the providers' own data, and the last lessons of the history: base64 of zlib of JSON.

    '' when it is too large for a result: then the controller fetches the manifest itself.
    """
    lean = replace(manifest, shadows=tuple(replace(shadow, data={}) for shadow in manifest.shadows))
    packed = zlib.compress(
        json.dumps({"manifest": lean.to_dict(), "history": list(history)[-HISTORY_RECORDS:]}).encode(), 9
    )
    text = base64.b64encode(packed).decode("ascii")
    return text if len(text) <= PAYLOAD_BYTES else ""
