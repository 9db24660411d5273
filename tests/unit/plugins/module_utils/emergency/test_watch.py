# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the verbs tell of their progress is understood, and a screen shows it whatever its size."""

from __future__ import annotations

import io

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.emergency import watch
from ansible_collections.umbra.rollback.plugins.module_utils.emergency.screen import Bar, Screen
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import restore
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.verbs.conftest import Shop


class Seen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_all_that_a_restore_tells_is_of_a_stage(shop: Shop) -> None:
    """It fails when the verb's words change: then STAGES has to follow."""
    told: list[str] = []
    shop.shadow()
    shop.update()
    restore.restore(shop.target(tell=told.append), restore.Request())
    for name in ("config", "database"):
        stages = [watch.parse(one).share for one in told if watch.parse(one).name == name]
        assert stages == [stage[2] for stage in watch.STAGES]
    assert {one for one in told if not watch.parse(one).name} == {"ending what still runs of the update"}


def test_a_percentage_moves_the_bar_within_its_stage() -> None:
    one = watch.parse("restoring shop-db, wave 1 of 2, attempt 2, 50 %")
    assert (one.name, one.text, one.percent) == ("shop-db", "restoring, wave 1 of 2, attempt 2", 50)
    assert one.share == 0.7
    assert watch.parse("something else").name == ""


def test_names_that_begin_alike_are_told_apart(shop: Shop) -> None:
    shop.shadow()
    update = Store.open(str(shop.store), "web1").update("u1")
    seen = watch.Watch(update, ["shop", "shop-db"])
    seen.tell("verifying the shadow of shop-db")
    seen.tell("restoring shop-db, wave 1 of 1")
    assert [(one.name, one.share) for one in seen.bars] == [("shop", 0.0), ("shop-db", 0.5)]


def test_many_resources_fit_on_a_small_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    out = Seen()
    screen = Screen(out, {"TERM": "xterm", "NO_COLOR": "1"})
    bars = [Bar(f"resource-{n}" + "x" * 100, 1.0 if n < 40 else 0.5 if n == 70 else 0.0, "a" * 200) for n in range(100)]
    screen.draw(bars, "foot" * 100)
    lines = out.getvalue().splitlines()
    assert len(lines) <= 22 and all(len(line) < 80 for line in lines)
    assert any("resource-70"[:8] in line and "50 %" in line for line in lines)
    assert lines[-2] == f"... and {100 - len(lines) + 2} more"
