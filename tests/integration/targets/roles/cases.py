# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The thin roles: each calls its module with what is set, and hands on what the module returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab import NEW, OLD, RESOURCES, SILENT, UPDATE_ID, UPGRADE, Lab, expect, try_all

SECOND = "shop-3"
HEALTH = [{"name": "sound", "command": ["/bin/true"]}]


def role(name: str, then: list[str] | None = None, **variables: Any) -> list[dict[str, Any]]:
    """Tasks that call a thin role, and assert what it registered."""
    given = {f"{name}_{key}": value for key, value in {"store": "{{ root }}/store", **variables}.items()}
    if name == "rollback_analyze":
        del given["rollback_analyze_store"]
    call = {"name": f"Call {name}", "ansible.builtin.include_role": {"name": f"umbra.rollback.{name}"}, "vars": given}
    return [call, {"name": f"Look at what {name} returned", "ansible.builtin.assert": {"that": then or []}}]


def lab_with(root: Path, tasks: list[Any]) -> Lab:
    """A lab of two hosts whose play has these tasks."""
    lab = Lab(root, ["h1", "h2"])
    lab.write("upgrade.yml", UPGRADE)
    lab.write("play.yml", [{"hosts": "h1,h2", "gather_facts": False, "tasks": tasks, "handlers": [SILENT]}])
    return lab


UPGRADE_NOW = [{"name": "Upgrade", "ansible.builtin.include_tasks": "upgrade.yml"}]


def an_update_and_its_way_back(root: Path) -> None:
    """shadow_create, rollback_analyze, prestage, shadow_restore, shadow_info."""
    tasks = [
        *role(
            "shadow_create", ["shadow_create_result.shadows | length == 2"], update_id=UPDATE_ID, resources=RESOURCES
        ),
        *role(
            "rollback_analyze",
            ["rollback_analyze_result.waves == 2", "rollback_analyze_result.resources | length == 4"],
            update_id=UPDATE_ID,
            report=str(root / "report.html"),
        ),
        *role(
            "prestage", ["prestage_result.held_bytes > 0", "prestage_result.leases | length == 2"], update_id=UPDATE_ID
        ),
        *UPGRADE_NOW,
        *role("shadow_restore", ["shadow_restore_result.state == 'open'"], update_id=UPDATE_ID, resources=["db"]),
        *role(
            "shadow_restore",
            [
                "shadow_restore_result.state == 'rolled_back'",
                "shadow_restore_result.resources | map(attribute='action') | sort == ['restored', 'unchanged']",
            ],
            update_id=UPDATE_ID,
        ),
        *role("shadow_info", ["shadow_info_result.updates | map(attribute='state') == ['rolled_back']"]),
    ]
    lab = lab_with(root, tasks)
    expect(lab.play("play.yml"), 0)
    assert lab.states() == {"h1": (OLD, "rolled_back"), "h2": (OLD, "rolled_back")}, lab.states()
    assert "<svg" in (root / "report.html").read_text()


def an_update_and_its_commit(root: Path) -> None:
    """shadow_create, rollback_watchdog, shadow_commit with retention, shadow_prune."""
    create = {"resources_file": "{{ inventory_hostname }}.yml"}
    tasks = [
        *role("shadow_create", update_id=UPDATE_ID, **create),
        *role("rollback_watchdog", ["rollback_watchdog_result.state == 'armed'"], update_id=UPDATE_ID, health=HEALTH),
        *UPGRADE_NOW,
        *role(
            "rollback_watchdog",
            ["rollback_watchdog_result.deadline > 3600", "rollback_watchdog_result.watched == ['sound']"],
            update_id=UPDATE_ID,
            state="extended",
            deadline=7200,
        ),
        *role("shadow_info", ["shadow_info_result.details.watchdog.state == 'armed'"], update_id=UPDATE_ID),
        *role(
            "rollback_watchdog",
            ["rollback_watchdog_result.state == 'disarmed'"],
            update_id=UPDATE_ID,
            state="disarmed",
        ),
        *role("shadow_commit", ["shadow_commit_result.state == 'committed'"], update_id=UPDATE_ID),
        *role("shadow_create", update_id=SECOND, **create),
        *role("shadow_commit", [f"shadow_commit_result.dropped == ['{UPDATE_ID}']"], update_id=SECOND, keep_last=1),
        *role("shadow_prune", ["shadow_prune_result.problems == []"], garbage=False, verify=True),
    ]
    lab = lab_with(root, tasks)
    expect(lab.play("play.yml"), 0)
    assert lab.states() == {"h1": (NEW, "none"), "h2": (NEW, "none")}, lab.states()
    assert {host.state(SECOND) for host in lab.hosts.values()} == {"committed"}


def what_is_missing_is_named(root: Path) -> None:
    """A role checks its arguments before it does anything."""
    lab = lab_with(root, role("shadow_create", resources=RESOURCES))
    expect(lab.play("play.yml"), 2, "missing required arguments: shadow_create_update_id")
    assert lab.states() == {"h1": (OLD, "none"), "h2": (OLD, "none")}, lab.states()


if __name__ == "__main__":
    try_all([an_update_and_its_way_back, an_update_and_its_commit, what_is_missing_is_named])
