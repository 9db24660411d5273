# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who goes back when one host fails: scopes, batches, strategies, and hosts that drop out."""

from __future__ import annotations

from lab import NEW, OLD, RESCUED, RESOURCES, UPGRADE, Case, main

BACK = (OLD, "rolled_back")
DONE = (NEW, "committed")
LEFT = (NEW, "open")
NEVER = (OLD, "none")


def failing_on(host: str) -> str:
    """An upgrade whose last task fails on one host."""
    return f"{UPGRADE}\n- name: Break\n  ansible.builtin.fail:\n  when: inventory_hostname == '{host}'\n"


# From here on nothing can be written below the remote temporary directory of h2, which Ansible calls unreachable. (Only
# without pipelining; a closed port would do, but could not be opened in the middle.)
LOSE_H2 = (
    UPGRADE
    + """
- name: Lose h2
  ansible.builtin.shell: rm -r {{ root }}/remote_tmp && touch {{ root }}/remote_tmp
  when: inventory_hostname == 'h2'
- name: Go on
  ansible.builtin.command: 'true'
"""
)
CAN_BE_LOST = {"h2": {"ansible_pipelining": False, "ansible_remote_tmp": "{{ lab }}/h2/remote_tmp"}}
CASES = [
    Case(
        "scope batch, serial: a batch of one that went back ends the run, an earlier one stays",
        {"h1": DONE, "h2": BACK, "h3": NEVER},
        2,
        upgrade=failing_on("h2"),
        play={"serial": 1},
        says=["Update shop-2 failed: h2: task Break failed: "],
        shows=[("serial", "batch")],
    ),
    Case(
        "scope batch, serial: a batch of two goes back with one, and ends the run",
        {"h1": BACK, "h2": BACK, "h3": NEVER},
        2,
        upgrade=failing_on("h2"),
        play={"serial": 2},
        says=["h1 is back in the state before it"],
        shows=[("task", "batch")],
        again=True,
    ),
    Case(
        "scope play, serial: earlier batches go back too",
        {"h1": BACK, "h2": BACK, "h3": NEVER},
        2,
        upgrade=failing_on("h2"),
        guard={"guard_scope": "play"},
        play={"serial": 1},
        says=["h1 is back in the state before it", "h2 is back in the state before it"],
        shows=[("task", "play"), ("serial", "play")],
    ),
    Case(
        "scope play, serial: earlier batches go back when a later one can't begin",
        {"h1": BACK, "h2": NEVER},
        2,
        guard={
            "guard_scope": "play",
            "guard_resources": [
                {**RESOURCES[0], "path": "{{ root }}/{{ 'x' if inventory_hostname == 'h2' else 'etc' }}"},
                RESOURCES[1],
            ],
        },
        play={"serial": 1},
        says=["Update shop-2 was not started: h2: ", "Nothing was changed on h2. h1 is back in the state before it"],
        shows=[("not-shadowed", "play")],
    ),
    Case(
        "scope play, serial: all are committed at the end of the last batch",
        {"h1": DONE, "h2": DONE},
        0,
        upgrade=UPGRADE + RESCUED,
        guard={"guard_scope": "play"},
        play={"serial": 1},
        shows=[("rescued", "play")],
    ),
    Case(
        "a host drops out, scope batch: the others go back, and it is named",
        {"h1": BACK, "h2": LEFT},
        4,
        upgrade=LOSE_H2,
        host_vars=CAN_BE_LOST,
        says=[
            "Update shop-2 failed: h2 left the play, unreachable or ended by its own tasks. h1 is back",
            "h2 is NOT wholly back: the rest unknown (",
            "ansible-playbook umbra.rollback.rollback -e umbra_update_id=shop-2 -e umbra_hosts=h2",
        ],
        shows=[("gone", "batch")],
    ),
    Case(
        "a host ends itself, scope batch: the others go back, and so does it",
        {"h1": BACK, "h2": BACK},
        2,
        upgrade=UPGRADE
        + """
- name: End h2
  ansible.builtin.meta: end_host
  when: inventory_hostname == 'h2'
- name: Go on
  ansible.builtin.set_fact:
    went_on: true
""",
        says=["h2 left the play, unreachable or ended by its own tasks", "h2 is back in the state before it"],
        shows=[("end-host", "batch")],
    ),
    Case(
        "strategy free, scope batch: refused before anything is changed",
        {"h1": (OLD, "committed"), "h2": (OLD, "committed")},
        2,
        play={"strategy": "ansible.builtin.free"},
        says=["guard_scope batch needs hosts that wait for each other; use strategy linear, or guard_scope host"],
        shows=[("lockstep", "free")],
    ),
]

if __name__ == "__main__":
    main(CASES)
