# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks of the collection, around playbooks that know nothing of it and from the command line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from lab import CHECKS, NEW, OLD, RESOURCES, SILENT, UPDATE_ID, UPGRADE, Lab, expect, try_all

FAIL_ON_H2 = "\n- name: Break\n  ansible.builtin.fail:\n  when: inventory_hostname == 'h2'\n"
COMMON = ("-e", f"umbra_update_id={UPDATE_ID}", "-e", "umbra_store={{ root }}/store")
WHAT = ("-e", json.dumps({"umbra_resources": RESOURCES}))


def make(root: Path, upgrade: str = UPGRADE) -> Lab:
    """A lab with a playbook that upgrades, and one that puts it between begin and commit."""
    lab = Lab(root, ["h1", "h2"])
    lab.write("tasks.yml", upgrade)
    lab.write("checks.yml", CHECKS)
    play = {"name": "Upgrade", "hosts": "all", "gather_facts": False, "handlers": [SILENT]}
    lab.write("upgrade.yml", [{**play, "tasks": [{"ansible.builtin.include_tasks": "tasks.yml"}]}])
    names = ("umbra.rollback.begin", "upgrade.yml", "umbra.rollback.commit")
    lab.write("site.yml", [{"name": name, "ansible.builtin.import_playbook": name} for name in names])
    return lab


def around_a_foreign_playbook(root: Path) -> None:
    """begin, the user's own, commit."""
    lab = make(root)
    expect(lab.play("site.yml", *COMMON, *WHAT, "-e", "umbra_keep_last=3"), 0)
    assert lab.states() == {"h1": (NEW, "committed"), "h2": (NEW, "committed")}, lab.states()
    refused = lab.play("umbra.rollback.rollback", *COMMON)
    expect(refused, 2, "h1 is left as it is, since its update is committed. To restore it nevertheless")
    assert lab.states() == {"h1": (NEW, "committed"), "h2": (NEW, "committed")}, lab.states()
    expect(lab.play("umbra.rollback.rollback", *COMMON, "-e", "umbra_force=true", "-e", "umbra_hosts=h1"), 0)
    assert lab.states() == {"h1": (OLD, "rolled_back"), "h2": (NEW, "committed")}, lab.states()


def around_one_that_fails(root: Path) -> None:
    """A host that fails is not committed; the playbook rollback brings it back: one resource first, then the rest."""
    lab = make(root, UPGRADE + FAIL_ON_H2)
    expect(lab.play("site.yml", *COMMON, *WHAT), 2)
    assert lab.states() == {"h1": (NEW, "committed"), "h2": (NEW, "open")}, lab.states()
    would = lab.play("umbra.rollback.rollback", *COMMON, "--check", "--diff")
    expect(would, 0, "h2 would go back (to restore: db, config).", "h1 is left as it is", "-version = 2 +version = 1")
    assert lab.states() == {"h1": (NEW, "committed"), "h2": (NEW, "open")}, lab.states()
    expect(lab.play("umbra.rollback.rollback", *COMMON, "-e", "{umbra_only: [db], umbra_hosts: h2}"), 0, "restored: db")
    assert lab.states()["h2"][0] not in (OLD, NEW), lab.states()
    expect(
        lab.play("umbra.rollback.rollback", *COMMON, "-e", "umbra_validate_tasks=checks.yml"),
        0,
        "h1 is left as it is, since its update is committed",
        "h2 is back in the state before it (restored: config). The checks pass.",
    )
    assert lab.states() == {"h1": (NEW, "committed"), "h2": (OLD, "rolled_back")}, lab.states()


def nobody_begins_when_one_cannot(root: Path) -> None:
    """begin is a barrier; the playbooks behind it are not reached."""
    lab = make(root)
    (lab.hosts["h2"].etc / "shop.conf").rename(lab.hosts["h2"].root / "aside")
    what = [{"name": "config", "type": "file", "path": "{{ root }}/etc/shop.conf"}]
    run = lab.play("site.yml", *COMMON, "-e", json.dumps({"umbra_resources": what}))
    expect(run, 2, "Update shop-2 was not started: h2: config: ", "Nothing was changed on h1.")
    assert "Upgrade the shop" not in run.text
    assert lab.hosts["h1"].state() == "committed"


def by_hand_on_the_host(root: Path) -> None:
    """Without the controller: the tool that begin left in the store brings a host back; the controller finds it so."""
    lab = make(root, UPGRADE + FAIL_ON_H2)
    expect(lab.play("site.yml", *COMMON, *WHAT), 2)
    tool = str(lab.hosts["h2"].store / "umbra")
    said = subprocess.run([tool, "--version"], check=True, env={}, capture_output=True, text=True, timeout=120).stdout
    assert "kernel: native" in said, said
    planned = subprocess.run([tool, "plan", UPDATE_ID], check=True, env={}, capture_output=True, text=True, timeout=120)
    assert "as planned by the analysis before it" in planned.stdout, planned.stdout
    done = subprocess.run(
        [tool, "restore", UPDATE_ID], check=False, env={}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "Update shop-2 is rolled back" in done.stdout, done
    assert lab.states() == {"h1": (NEW, "committed"), "h2": (OLD, "rolled_back")}, lab.states()
    says = "h2 is left as it is, since its update is rolled_back"
    expect(lab.play("umbra.rollback.rollback", *COMMON), 0, says)
    assert lab.states() == {"h1": (NEW, "committed"), "h2": (OLD, "rolled_back")}, lab.states()


def analyzed_before_and_after(root: Path) -> None:
    """analyze tells without touching anything, from what would be shadowed and from what is."""
    lab = make(root)
    says = "The way back of update shop-2 has 2 waves"
    report = root / "report.html"
    expect(lab.play("umbra.rollback.analyze", *COMMON, *WHAT, "-e", f"umbra_report={report}"), 0, says)
    assert lab.states() == {"h1": (OLD, "none"), "h2": (OLD, "none")}, lab.states()
    assert "<svg" in report.read_text()
    expect(lab.play("umbra.rollback.begin", *COMMON, *WHAT), 0)
    expect(lab.play("umbra.rollback.analyze", *COMMON), 0, says)
    assert lab.states() == {"h1": (OLD, "open"), "h2": (OLD, "open")}, lab.states()


def guarded_from_the_command_line(root: Path) -> None:
    """guarded_update, with a file of tasks of which the guard knows nothing; in batches."""
    lab = make(root, UPGRADE + FAIL_ON_H2)
    tasks = UPGRADE.replace("  notify: Restart\n", "") + FAIL_ON_H2
    lab.write("tasks.yml", tasks)
    arguments = (*COMMON, *WHAT, "-e", "umbra_update_tasks=tasks.yml", "-e", "umbra_validate_tasks=checks.yml")
    run = lab.play("umbra.rollback.guarded_update", *arguments, "-e", "umbra_serial=1", "-e", "umbra_scope=play")
    expect(run, 2, "h1 is back in the state before it", "h2 is back in the state before it")
    assert lab.states() == {"h1": (OLD, "rolled_back"), "h2": (OLD, "rolled_back")}, lab.states()


def nobody_has_it(root: Path) -> None:
    """An id with a typing error is an error, not a success."""
    lab = make(root)
    expect(lab.play("umbra.rollback.rollback", *COMMON), 2, "There is no store at")
    only_h1 = ("-e", "umbra_hosts=h1", "-e", "umbra_resources_file=vars/h1.yml")
    expect(lab.play("umbra.rollback.begin", *COMMON, *only_h1), 0)
    wrong = ("-e", "umbra_update_id=shop-tow", "-e", "umbra_store={{ root }}/store")
    expect(lab.play("umbra.rollback.rollback", *wrong), 2, "Update shop-tow was never shadowed on h1", "shop-2")


if __name__ == "__main__":
    try_all(
        [
            around_a_foreign_playbook,
            around_one_that_fails,
            nobody_begins_when_one_cannot,
            by_hand_on_the_host,
            analyzed_before_and_after,
            guarded_from_the_command_line,
            nobody_has_it,
        ]
    )
