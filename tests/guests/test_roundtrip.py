# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guarded update of a small service over SSH, under real systemd, dpkg and apt: it breaks all, and all comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ansible_collections.umbra.rollback.tests.guests.plays import Controller
from ansible_collections.umbra.rollback.tests.guests.shops import CHECKS, RESOURCES, Shop, guarded, part
from ansible_collections.umbra.rollback.tests.integration.support.lab import expect

MORE = [
    {"name": "report", "type": "systemd_unit", "unit": "shop-report.timer"},
    {"name": "legacy", "type": "systemd_unit", "unit": "shop-legacy.service"},
]


def test_an_update_that_breaks_all_comes_back(shops: Callable[..., list[Shop]], tmp_path: Path) -> None:
    """Packages, units (drop-ins, masked, enabled, active), files and a database; and so it is after a reboot."""
    (shop,) = shops("shop1")
    before = shop.picture()
    controller = Controller.of_guests(tmp_path, shop.guest)
    controller.write("upgrade.yml", [part("upgrade")])
    controller.write("checks.yml", CHECKS)
    run = controller.play(guarded([*RESOURCES, *MORE], guard_validate_tasks="checks.yml"))
    assert shop.picture() == before, run.output
    expect(run, 2, "Update shop-2 failed: shop1: task Check failed: ", "shop1 is back in the state before it")
    assert shop.do("check") == "1 tea\n"
    shop.guest.reboot()
    assert shop.picture() == before
