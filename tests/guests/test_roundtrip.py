# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guarded update of a small service over SSH, under real systemd, dpkg and apt: it breaks all, and all comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.umbra.rollback.tests.guests.plays import Controller
from ansible_collections.umbra.rollback.tests.integration.support.lab import expect
from ansible_collections.umbra.rollback.tests.testbed.guests import Guest

HERE = Path(__file__).resolve().parent
DEBS = (HERE.parent / "unit/support/debs.py").read_text()
SHOP = (HERE / "shop.py").read_text()
RESOURCES: list[dict[str, Any]] = [
    {"name": "package", "type": "package", "packages": ["shop"]},
    {"name": "config", "type": "file", "path": "/etc/shop.d"},
    {"name": "db", "type": "sqlite", "path": "/var/lib/shop/shop.db"},
    {
        "name": "service",
        "type": "systemd_unit",
        "unit": "shop.service",
        "depends_on": ["package", "config", "db"],
    },
    {"name": "report", "type": "systemd_unit", "unit": "shop-report.timer"},
    {"name": "legacy", "type": "systemd_unit", "unit": "shop-legacy.service"},
]
UPGRADE = [
    {
        "name": "Upgrade",
        "ansible.builtin.command": {"argv": ["python3", "/root/shop.py", "upgrade"]},
        "changed_when": True,
    },
]
CHECKS = [
    {
        "name": "Serve",
        "ansible.builtin.command": {"argv": ["python3", "/root/shop.py", "check"]},
        "changed_when": False,
    },
]
GUARD = {
    "guard_update_id": "shop-2",
    "guard_resources": RESOURCES,
    "guard_update_tasks": "upgrade.yml",
    "guard_validate_tasks": "checks.yml",
}


def shop(guest: Guest, verb: str) -> str:
    """Run a verb of shop.py on the guest."""
    return guest.ssh(["python3", "/root/shop.py", verb], timeout=600)


def test_an_update_that_breaks_all_comes_back(resumed: Callable[[str], Guest], tmp_path: Path) -> None:
    """Packages, units (drop-ins, masked, enabled, active), files and a database; and so it is after a reboot."""
    guest = resumed("shop1")
    guest.put("/root/debs.py", DEBS)
    guest.put("/root/shop.py", SHOP)
    shop(guest, "install")
    before = json.loads(shop(guest, "picture"))
    controller = Controller.of_guests(tmp_path, guest)
    controller.write("upgrade.yml", UPGRADE)
    controller.write("checks.yml", CHECKS)
    role = {"name": "umbra.rollback.guard"}
    run = controller.play([{"name": "Update", "ansible.builtin.include_role": role, "vars": GUARD}])
    assert json.loads(shop(guest, "picture")) == before, run.output
    expect(run, 2, "Update shop-2 failed: shop1: task Serve failed: ", "shop1 is back in the state before it")
    assert shop(guest, "check") == "1 tea\n"
    guest.reboot()
    assert json.loads(shop(guest, "picture")) == before
