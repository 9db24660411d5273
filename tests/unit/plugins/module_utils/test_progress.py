# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far it is: told at once when something begins, and then about once a second."""

from __future__ import annotations

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import progress


def test_a_phase_is_told_at_once_and_its_parts_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = progress.Progress(told.append)
    shown.part(1, 2)  # of nothing that has a name
    shown.phase("reading config")
    for done in range(32):
        shown.part(done, 32)
        now[0] += 0.125
    assert told == ["reading config", "reading config, 25 %", "reading config, 50 %", "reading config, 75 %"]
    shown.phase("restoring config")
    assert told[4:] == ["restoring config"]


def test_nobody_need_listen() -> None:
    shown = progress.Progress()
    shown.phase("reading")
    shown.part(1, 1)
