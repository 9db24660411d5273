# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes, times and texts of others as people read them."""

from __future__ import annotations

import pytest
from ansible_collections.umbra.rollback.plugins.plugin_utils import human

SIZES = [
    (0, "0 B"),
    (1023, "1023 B"),
    (1024, "1.0 KiB"),
    (102_400, "100 KiB"),
    (1_048_575, "1.0 MiB"),
    (5 * 2**40, "5.0 TiB"),
]
DURATIONS = [
    (0, "0 s"),
    (0.04, "0.04 s"),
    (0.51, "0.5 s"),
    (9.94, "9.9 s"),
    (9.96, "10 s"),
    (59.4, "59 s"),
    (59.6, "1 min"),
    (3599.9, "1 h"),
    (200, "3 min 20 s"),
    (7500, "2 h 5 min"),
]
SHARES = [(0, "0.0 %"), (1e-5, "< 0.1 %"), (0.004, "0.4 %"), (0.12, "12 %"), (0.9999, "> 99 %")]


@pytest.mark.parametrize(("count", "text"), SIZES)
def test_size(count: int, text: str) -> None:
    assert human.size(count) == text


@pytest.mark.parametrize(("seconds", "text"), DURATIONS)
def test_duration(seconds: float, text: str) -> None:
    assert human.duration(seconds) == text


@pytest.mark.parametrize(("share", "text"), SHARES)
def test_percent(share: float, text: str) -> None:
    assert human.percent(share) == text


def test_count() -> None:
    assert [human.count(n, "host") for n in (0, 1, 12_000)] == ["0 hosts", "1 host", "12,000 hosts"]
    assert human.count(2, "dependency", "dependencies") == "2 dependencies"


def test_clean_leaves_one_printable_line() -> None:
    assert human.clean("a\tb\n\nc\x1b[31m \udcff \u00e9") == "a b c?[31m ? \u00e9"
