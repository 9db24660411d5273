# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The dead-man switch with real playbooks: the controller is killed, a host is not well, a commit comes too late."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

from lab import CHECKS, NEW, OLD, RESOURCES, SILENT, UPDATE_ID, UPGRADE, Lab, expect, guard, shows, try_all

PATIENCE = 120.0
BACK = (OLD, "rolled_back")
COMMON = ("-e", f"umbra_update_id={UPDATE_ID}", "-e", "umbra_store={{ root }}/store")
WHAT = ("-e", json.dumps({"umbra_resources": RESOURCES}))
# The task in flight outlives the controller, and would write into what was restored.
HANG = """
- name: Hang, and write when nobody expects it
  ansible.builtin.shell: |
    touch {{ root }}/waiting
    while [ ! -e {{ root }}/go ]; do sleep 0.1; done
    echo late > {{ root }}/etc/late
"""


def make(root: Path, upgrade: str, *hosts: str) -> Lab:
    """A lab with a playbook that upgrades between begin and commit."""
    lab = Lab(root, hosts or ["h1"])
    lab.write("tasks.yml", upgrade)
    lab.write("checks.yml", CHECKS)
    play = {"name": "Upgrade", "hosts": "all", "gather_facts": False, "handlers": [SILENT]}
    lab.write("upgrade.yml", [{**play, "tasks": [{"ansible.builtin.include_tasks": "tasks.yml"}]}])
    names = ("umbra.rollback.begin", "upgrade.yml", "umbra.rollback.commit")
    lab.write("site.yml", [{"name": name, "ansible.builtin.import_playbook": name} for name in names])
    return lab


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for it."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def kill_when_waiting(lab: Lab, *arguments: str) -> None:
    """Play, and kill ansible-playbook when its hosts are in the middle of the update. What is in flight goes on."""
    process = lab.start(*arguments)
    waiting = [host.root / "waiting" for host in lab.hosts.values()]
    until(lambda: process.poll() is not None or all(path.exists() for path in waiting), "no host waits")
    assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGKILL)
    process.wait()


EXTEND = {
    "hosts": "all",
    "gather_facts": False,
    "tasks": [
        {
            "name": "One second more",
            "umbra.rollback.rollback_watchdog": {
                "update_id": UPDATE_ID,
                "store": "{{ root }}/store",
                "state": "extended",
                "deadline": 1,
            },
        }
    ],
}


def its_own(lab: Lab, name: str) -> None:
    """Wait until the host has gone back by itself, and said so."""
    host = lab.hosts[name]
    told = host.directory() / "status.json"
    until(lambda: told.exists() and host.status()["event"] == "rolled_back", f"{name} is {host.state()}")
    assert host.state() == "rolled_back"


def a_begun_update_is_killed(root: Path) -> None:
    """Each host goes back by itself, ends the task in flight before, and refuses a commit that comes late."""
    lab = make(root, UPGRADE + HANG, "h1", "h2")
    kill_when_waiting(lab, "site.yml", *COMMON, *WHAT, "-e", "umbra_deadline=3600")
    assert {state for dummy, state in lab.states().values()} == {"open"}, lab.states()
    lab.write("extend.yml", [EXTEND])
    expect(lab.play("extend.yml"), 0)  # from a controller that has nothing to do with the one that armed it
    its_own(lab, "h1")
    its_own(lab, "h2")
    for host in lab.hosts.values():
        (host.root / "go").touch()
    ended = [host.status()["ended"] for host in lab.hosts.values()]
    assert any("AnsiballZ" in one["command"] or "python" in one["command"] for one in sum(ended, [])), ended
    time.sleep(1)
    assert lab.states() == {"h1": BACK, "h2": BACK}, lab.states()
    late = lab.play("umbra.rollback.commit", *COMMON)
    expect(late, 2, "The dead-man switch of h1 fired at", "because the update was not committed within 1 s")
    expect(lab.play("umbra.rollback.rollback", *COMMON), 0, "h1 is left as it is, since its update is rolled_back")
    assert lab.states() == {"h1": BACK, "h2": BACK}, lab.states()


@shows(("killed", "batch"))
def a_guarded_update_is_killed(root: Path) -> None:
    """The same with the guard, whose mark tells the tasks of one host from those of another."""
    lab = make(root, UPGRADE + HANG)
    health = [{"command": ["/usr/bin/test", "!", "-e", "{{ root }}/unwell"], "interval": 0.2, "n": 1, "m": 1}]
    settings = {"guard_update_tasks": "tasks.yml", "guard_deadline": 3600, "guard_health": health}
    play = {"hosts": "all", "gather_facts": False, "tasks": [guard(settings)], "handlers": [SILENT]}
    lab.write("play.yml", [play])
    kill_when_waiting(lab, "play.yml")
    (lab.hosts["h1"].root / "unwell").touch()
    its_own(lab, "h1")
    told = lab.hosts["h1"].status()
    (lab.hosts["h1"].root / "go").touch()
    assert any("carries the mark" in one["why"] for one in told["ended"]), told
    time.sleep(1)
    assert lab.states() == {"h1": BACK}, lab.states()


@shows(("fired", "batch"))
def a_host_is_not_well_during_the_update(root: Path) -> None:
    """It goes back at once; the run, which goes on, can't commit it, and reports what it did as its own result."""
    lab = make(root, UPGRADE + "\n- name: Wait\n  ansible.builtin.wait_for:\n    path: '{{ root }}/back'\n")
    health = [
        {"name": "shop", "command": ["/bin/grep", "-q", "version = 1", "{{ root }}/etc/shop.conf"], "interval": 0.2}
    ]
    hook = [{"command": ["/bin/sh", "-c", "cat > {{ root }}/back"], "events": ["rolled_back"]}]
    settings = {"guard_update_tasks": "tasks.yml", "guard_deadline": 3600, "guard_health": health, "guard_hooks": hook}
    play = {"hosts": "all", "gather_facts": False, "tasks": [guard(settings)], "handlers": [SILENT]}
    lab.write("play.yml", [play])
    run = lab.play("play.yml")
    expect(
        run, 2, "The dead-man switch of h1 had fired at", "because shop failed 3 of the last", "restored: db, config"
    )
    assert lab.states() == {"h1": BACK}, lab.states()
    assert json.loads((lab.hosts["h1"].root / "back").read_text())["event"] == "rolled_back"


def committed_in_time(root: Path) -> None:
    """Nothing goes back, and nothing of the switch is left."""
    lab = make(root, UPGRADE)
    expect(lab.play("site.yml", *COMMON, *WHAT, "-e", "umbra_deadline=3600"), 0)
    assert lab.states() == {"h1": (NEW, "committed")}, lab.states()
    left = {path.name for path in lab.hosts["h1"].directory().iterdir()}
    assert not left & {"watchdog.json", "watchdog.left", "watchdog.spare", "status.json"}, left


if __name__ == "__main__":
    try_all(
        [
            a_begun_update_is_killed,
            a_guarded_update_is_killed,
            a_host_is_not_well_during_the_update,
            committed_in_time,
        ]
    )
