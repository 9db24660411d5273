# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore changes, as Ansible's --diff shows it, up to a bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..providers.base import Change, Drift

SHOWN_BYTES = 24 << 10


def of(drifts: Mapping[str, Drift], room: float = SHOWN_BYTES) -> list[dict[str, Any]]:
    """A list for the `diff` key of a result: texts where both sides are short, a line for every other change.

    What does not fit into `room` bytes is counted."""
    shown: list[dict[str, Any]] = []
    for name, drift in drifts.items():
        lines: list[str] = []
        left = 0
        for change in drift.changes:
            size = len(change.what) + len(change.before) + len(change.after) + 64
            if size > room:
                left += 1
                continue
            room -= size
            if "\n" in change.before + change.after:
                shown.append(_texts(name, change))
            else:
                lines.append(_line(change))
        left += drift.total - len(drift.changes)
        if left:
            lines.append(f"... and {left} more")
        if lines:
            shown.append({"prepared": f"{name}:\n" + "".join(f"  {line}\n" for line in lines)})
    return shown


def _texts(name: str, change: Change) -> dict[str, Any]:
    return {
        "before_header": f"{name}: {change.what} (now)",
        "after_header": f"{name}: {change.what} (shadow)",
        "before": change.before,
        "after": change.after,
    }


def _line(change: Change) -> str:
    detail = f" ({change.before or 'nothing'} -> {change.after or 'nothing'})" if change.before or change.after else ""
    return f"{change.action} {change.what}{detail}"
