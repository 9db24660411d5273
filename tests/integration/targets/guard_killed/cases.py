# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-playbook is killed (SIGKILL) in the middle of an update, and in the middle of a rollback."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from lab import CHECKS, NEW, OLD, RESOURCES, SILENT, UPDATE_ID, UPGRADE, Lab, expect, guard, shows, try_all

# The task in flight outlives the controller, as it does for real: it makes a file, and ends when that is gone.
WAIT = """
- name: Wait to be killed
  ansible.builtin.shell: touch {{ root }}/waiting; while [ -e {{ root }}/waiting ]; do sleep 0.1; done
"""
ROLL_BACK = ("umbra.rollback.rollback", "-e", f"umbra_update_id={UPDATE_ID}", "-e", "umbra_store={{ root }}/store")
# Its restore waits, the first time, while the rest has not begun.
SLOW = {
    "name": "slow",
    "type": "command",
    "create": ["sh", "-c", "touch $UMBRA_SHADOW/copy"],
    "restore": [
        "sh",
        "-c",
        "[ -e {{ root }}/waited ] && exit; touch {{ root }}/waited {{ root }}/waiting; "
        "while [ -e {{ root }}/waiting ]; do sleep 0.1; done",
    ],
    "drift": ["false"],
}


def make(root: Path, *hosts: str, upgrade: str = UPGRADE, **variables: object) -> Lab:
    """A lab whose play guards an upgrade of the hosts h1 and h2."""
    lab = Lab(root, hosts)
    lab.write("upgrade.yml", upgrade)
    lab.write("checks.yml", CHECKS)
    play = {"hosts": "h1,h2", "gather_facts": False, "tasks": [guard(variables)], "handlers": [SILENT]}
    lab.write("play.yml", [play])
    return lab


def kill_when_waiting(lab: Lab, *hosts: str) -> None:
    """Play, kill ansible-playbook when all `hosts` wait, and let what is in flight there end."""
    process = lab.start("play.yml")
    waiting = [lab.hosts[name].root / "waiting" for name in hosts]
    deadline = time.monotonic() + 120
    while not all(path.exists() for path in waiting):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for path in waiting:
        path.unlink()
    process.communicate()  # the worker processes have it open until the last of them has ended
    assert process.returncode == -signal.SIGKILL


def an_update_is_killed(root: Path) -> None:
    """Killed between two tasks of the update: the playbook rollback gives the state before, where it is needed."""
    lab = make(root, "h1", "h2", "h3", upgrade=UPGRADE + WAIT)
    kill_when_waiting(lab, "h1", "h2")
    assert lab.states() == {"h1": (NEW, "open"), "h2": (NEW, "open"), "h3": (OLD, "none")}, lab.states()
    expect(
        lab.play(*ROLL_BACK, "-e", "umbra_validate_tasks=checks.yml"),
        0,
        "h1 is back in the state before it (restored: db, config). The checks pass.",
        "h3 is left as it is, since its update is missing",
    )
    before = {"h1": (OLD, "rolled_back"), "h2": (OLD, "rolled_back"), "h3": (OLD, "none")}
    assert lab.states() == before, lab.states()
    # Once more, days later: what was written since stays.
    (lab.hosts["h1"].etc / "written-since").write_text("precious")
    expect(lab.play(*ROLL_BACK), 0, "h1 is left as it is, since its update is rolled_back", "umbra_force=true")
    assert (lab.hosts["h1"].etc / "written-since").exists()


@shows(("again", "batch"))
def an_update_is_killed_and_played_again(root: Path) -> None:
    """Played again, the first shadows are kept: when that fails too, it goes back to before the first attempt."""
    lab = make(root, "h1", "h2", upgrade=UPGRADE + WAIT)
    kill_when_waiting(lab, "h1", "h2")
    lab.write("upgrade.yml", "- name: Break\n  ansible.builtin.fail:\n")
    expect(lab.play("play.yml"), 2, "h1 is back in the state before it", "h2 is back in the state before it")
    assert lab.states() == {"h1": (OLD, "rolled_back"), "h2": (OLD, "rolled_back")}, lab.states()


@shows(("killed-back", "batch"))
def a_rollback_is_killed(root: Path) -> None:
    """Killed while the guard restores: the playbook rollback goes on from there."""
    broken = UPGRADE + "\n- name: Break\n  ansible.builtin.fail:\n"
    resources = [RESOURCES[0], {**RESOURCES[1], "depends_on": ["slow"]}, SLOW]
    lab = make(root, "h1", "h2", upgrade=broken, guard_resources=resources)
    kill_when_waiting(lab, "h1", "h2")
    assert lab.states() == {"h1": (NEW, "restoring"), "h2": (NEW, "restoring")}, lab.states()
    expect(lab.play(*ROLL_BACK), 0, "h1 is back in the state before it", "h2 is back in the state before it")
    assert lab.states() == {"h1": (OLD, "rolled_back"), "h2": (OLD, "rolled_back")}, lab.states()


if __name__ == "__main__":
    try_all([an_update_is_killed, an_update_is_killed_and_played_again, a_rollback_is_killed])
