# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What comes before the update: refusals, check mode, settings, tags; and updates that know nothing of the guard."""

from __future__ import annotations

import os
from typing import Any

from lab import CHECKS, HALF, HANDLER, NEW, OLD, RESOURCES, UPGRADE, Case, guard, main

BACK = (OLD, "rolled_back")
DONE = (NEW, "committed")
NEVER = (OLD, "none")
# An update that was shadowed and did not start is closed, so that its shadow is never taken for a later state.
CLOSED = (OLD, "committed")
FAIL = "\n- name: Break\n  ansible.builtin.fail:\n"
MISSING_ON_H2 = [
    {"name": "config", "type": "file", "path": "{{ root }}/{{ 'etc' if inventory_hostname == 'h1' else 'missing' }}"},
    RESOURCES[1],
]


def by_host(**values: Any) -> str:
    """A setting that differs from host to host; the others have `good`."""
    return "{{ " + repr(values) + "[inventory_hostname] | default(" + repr(values["good"]) + ") }}"


# A role that knows nothing of a guard, with defaults, a template, an include of its own and a handler.
SHOP_ROLE = {
    "roles/shop/defaults/main.yml": "shop_version: '2'\n",
    "roles/shop/handlers/main.yml": "- name: Restart the shop\n  ansible.builtin.command: touch {{ root }}/restarted\n",
    "roles/shop/templates/shop.conf.j2": "version = {{ shop_version }}\n",
    "roles/shop/tasks/main.yml": UPGRADE
    + """
- name: Render the configuration
  ansible.builtin.template:
    src: shop.conf.j2
    dest: "{{ root }}/etc/shop.conf"
    mode: "0640"
- name: Do the rest
  ansible.builtin.include_tasks: rest.yml
""",
    "roles/shop/tasks/rest.yml": """
- name: Touch what the handler is for
  ansible.builtin.command: 'true'
  notify: Restart the shop
""",
}
KNOWS_THE_ROLE = (
    CHECKS
    + """
- name: Use what the role defines, after its handler
  ansible.builtin.command: grep -q 'version = {{ shop_version }}' {{ root }}/etc/shop.conf {{ root }}/restarted
"""
)

CASES = [
    Case(
        "the way back would take too long: refused, and nothing is changed",
        {"h1": CLOSED, "h2": CLOSED},
        2,
        guard={"guard_max_rto": 0.001},
        says=["Update shop-2 was not started: ", "max_rto", "Nothing was changed on h2."],
    ),
    Case(
        "one host can't be shadowed, scope batch: nobody starts",
        {"h1": CLOSED, "h2": NEVER},
        2,
        guard={"guard_resources": MISSING_ON_H2},
        says=["Update shop-2 was not started: h2: config: ", "Nothing was changed on h1."],
        never=["Nothing was changed on h1. h1"],
        shows=[("not-shadowed", "batch")],
    ),
    Case(
        "one host can't be shadowed, scope host: the other starts",
        {"h1": DONE, "h2": NEVER},
        2,
        guard={"guard_resources": MISSING_ON_H2, "guard_scope": "host"},
        shows=[("not-shadowed", "host")],
    ),
    Case(
        "wrong settings: one sentence each, nothing is changed",
        {**dict.fromkeys(("neither", "both", "nofile", "soak", "nothing"), NEVER), "good": DONE},
        2,
        guard={
            "guard_scope": "host",
            "guard_update_tasks": by_host(good="upgrade.yml", neither="", nofile="nobody_wrote_this.yml"),
            "guard_update_role": by_host(good="", both="shop"),
            "guard_validate_tasks": by_host(good="checks.yml", soak=""),
            "guard_soak": by_host(good=0, soak=10),
            "guard_resources": by_host(good="use the file", nothing="").replace("'use the file'", "lab_resources"),
        },
        play={"vars": {"lab_resources": RESOURCES}},
        says=[
            "Set one of guard_update_tasks and guard_update_role.",
            "Set one of guard_resources and guard_resources_file.",
            "guard_update_tasks names nobody_wrote_this.yml, which lies neither beside the role",
            "guard_soak without guard_validate_tasks would wait and look at nothing",
        ],
    ),
    Case(
        "max_fail_percentage, with which Ansible can end a play without any rescue: refused",
        {"h1": CLOSED, "h2": CLOSED, "h3": NEVER},
        2,
        play={"max_fail_percentage": 0, "serial": 2},
        says=["Update shop-2 was not started: h1, h2: the play sets max_fail_percentage"],
        shows=[("max-fail-percentage", "batch")],
    ),
    Case(
        "hosts of one update with different ids: refused",
        {"h1": NEVER, "h2": NEVER},
        2,
        guard={"guard_update_id": "shop-{{ inventory_hostname }}"},
        says=["The hosts of one update need one guard_update_id; they have shop-h1, shop-h2."],
    ),
    Case(
        "an id made of the time of day stays what it was",
        {"h1": (NEW, "none")},
        0,
        guard={"guard_update_id": "shop-{{ now().strftime('%H%M%S%f') }}"},
        says=["COMMITTED on h1"],
    ),
    Case(
        "a guard inside a guard: refused, and the outer one goes back",
        {"h1": BACK},
        2,
        upgrade=UPGRADE + "\n- name: Guard again\n  ansible.builtin.include_role:\n    name: umbra.rollback.guard\n",
        says=["A guard can not stand inside another"],
    ),
    Case(
        "check mode: told what would be done, nothing is changed or written",
        {"h1": NEVER},
        0,
        upgrade=UPGRADE,
        arguments=["--check"],
        fired=[],
    ),
    Case(
        "check mode: an update that would fail is not restored",
        {"h1": NEVER},
        2,
        upgrade=UPGRADE + "\n- name: Break\n  ansible.builtin.fail:\n    msg: not today.\n",
        arguments=["--check"],
        says=["Update shop-2 would fail: h1: task Break failed: not today. This was check mode"],
    ),
    Case(
        "tags choose among the tasks of the update, never among those of the guard",
        {"h1": (HALF, "committed")},
        0,
        upgrade=UPGRADE
        + """
- name: Only this
  ansible.builtin.file:
    path: "{{ root }}/etc/chosen"
    state: directory
    mode: "0750"
  tags: config
""",
        tasks=[{**guard({}), "tags": ["config"]}],
        arguments=["--tags", "config"],
        says=["TASK [umbra.rollback.guard : Check the shop]", "COMMITTED on h1"],
        never=["Upgrade the shop"],
    ),
    Case(
        "a foreign role is wrapped as it is",
        {"h1": DONE},
        0,
        checks=KNOWS_THE_ROLE,
        files=SHOP_ROLE,
        guard={"guard_update_tasks": None, "guard_update_role": "shop"},
        play={"gather_facts": True},
        fired=["h1"],
    ),
    Case(
        "a role calls the guard, and its own files are found",
        {"h1": BACK},
        2,
        upgrade="this one beside the playbook is not meant",
        files={
            **{name.replace("roles/shop", "roles/deploy"): text for name, text in SHOP_ROLE.items()},
            "roles/deploy/tasks/upgrade.yml": SHOP_ROLE["roles/shop/tasks/main.yml"] + FAIL,
            "roles/deploy/tasks/main.yml": "- " + repr(guard({})),
        },
        tasks=[{"name": "Deploy", "ansible.builtin.include_role": {"name": "deploy"}}],
        says=["task Break failed", "h1 is back in the state before it"],
        fired=[],
    ),
]
if os.geteuid() == 0:  # su asks nobody but root for no password
    CASES.append(
        Case(
            "inside a play with become",
            {"h1": BACK},
            2,
            upgrade=UPGRADE + FAIL,
            guard={"guard_soak": 1, "guard_soak_interval": 1},
            play={"become": True, "become_method": "ansible.builtin.su", "handlers": [HANDLER]},
            shows=[("become", "batch")],
        )
    )

if __name__ == "__main__":
    main(CASES)
