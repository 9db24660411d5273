# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes, times and texts of others as people read them."""

from __future__ import annotations

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: float) -> str:
    """Bytes: 512 B, 1.2 MiB, 310 GiB."""
    unit = 0
    while count >= 1023.5 and unit < len(UNITS) - 1:
        count /= 1024
        unit += 1
    digits = 1 if unit and count < 99.95 else 0
    return f"{count:.{digits}f} {UNITS[unit]}"


def duration(seconds: float) -> str:
    """Seconds: 0 s, 0.04 s, 3.2 s, 48 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 0.005:
        return "0 s"
    if seconds < 9.95:
        return f"{seconds:.2f} s" if seconds < 0.095 else f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return _two(whole, "min", "s")
    return _two(round(seconds / 60), "h", "min")


def _two(whole: int, large: str, small: str) -> str:
    return f"{whole // 60} {large} {whole % 60} {small}" if whole % 60 else f"{whole // 60} {large}"


def percent(share: float) -> str:
    """A probability: 0.4 %, 12 %, and never 0 % or 100 % for what is not certain."""
    points = 100 * share
    if 0 < points < 0.1:
        return "< 0.1 %"
    if 99.5 < points < 100 or share > 0.995:
        return "> 99 %"
    return f"{points:.0f} %" if points >= 9.95 else f"{points:.1f} %"


def count(number: int, one: str, many: str = "") -> str:
    """1 resource, 2 resources, 3 boxes."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def clean(text: object) -> str:
    """One line that any terminal and any file takes: control characters and broken bytes become '?'."""
    line = " ".join(str(text).split())
    return "".join(char if char.isprintable() else "?" for char in line)
