# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way in which an update can fail on a host, and what the guard makes of it."""

from __future__ import annotations

import os

from lab import CHECKS, HALF, HANDLER, NEW, OLD, RESOURCES, UPGRADE, Case, guard, main

BACK = (OLD, "rolled_back")
DONE = (NEW, "committed")
HOST = {"guard_scope": "host"}
FAIL = "\n- name: Break\n  ansible.builtin.fail:\n    msg: it broke\n"
FAIL_ONCE = FAIL + "  run_once: true\n"

# Each host fails in its own way.
WAYS = """
- name: End with another status than 0
  ansible.builtin.command: /bin/sh -c 'echo first line >&2; echo the disk is full >&2; exit 3'
  when: inventory_hostname == 'status'
- name: Kill the module
  ansible.builtin.shell: kill -9 $PPID
  when: inventory_hostname == 'killed'
- name: Use what is not defined
  ansible.builtin.debug:
    msg: "{{ nobody_defined_this }}"
  when: inventory_hostname == 'undefined'
- name: Take too long
  ansible.builtin.command: sleep 5
  timeout: 1
  when: inventory_hostname == 'timeout'
- name: Include what is not there
  ansible.builtin.include_tasks: nobody_wrote_this.yml
  when: inventory_hostname == 'include'
- name: Let an action fail on the controller
  ansible.builtin.template:
    src: nobody_wrote_this.j2
    dest: "{{ root }}/etc/x"
    mode: "0600"
  when: inventory_hostname == 'action'
- name: Fail with one item
  ansible.builtin.assert:
    that: "{{ item }}"
  loop: [true, false]
  when: inventory_hostname == 'loop'
- name: Fail with a secret
  ansible.builtin.command: /bin/sh -c 'echo hunter2 >&2; exit 1'
  no_log: true
  when: inventory_hostname == 'secret'
- name: Fail, and recover without help
  when: inventory_hostname == 'recovered'
  block:
    - name: Fail
      ansible.builtin.fail:
  rescue:
    - name: Recover
      ansible.builtin.set_fact:
        recovered: true
- name: Notify what will fail
  ansible.builtin.debug:
    msg: as if something had changed
  changed_when: true
  notify: Fail in a handler
  when: inventory_hostname == 'handler'
"""
BROKEN_ON = (
    CHECKS
    + """
- name: Ask version 2 for its health
  ansible.builtin.assert:
    that: "'version = 1' in lookup('ansible.builtin.file', root ~ '/etc/shop.conf')"
  when: inventory_hostname == 'check'
"""
)

# Fails the third time that it is asked: after the update, in the first round of the soak, and then.
SOUND_TWICE = """
- name: Count
  ansible.builtin.shell: echo x >> {{ root }}/asked; wc -l < {{ root }}/asked
  register: asked
- name: Fail the third time
  ansible.builtin.fail:
    msg: it is not well any more
  when: inventory_hostname == 'h2' and asked.stdout | int == 3
"""
# A resource whose restore fails on h1, and which the configuration needs there.
STUBBORN = {
    "name": "stubborn",
    "type": "command",
    "create": ["sh", "-c", "touch $UMBRA_SHADOW/copy"],
    "restore": ["test", "{{ inventory_hostname }}", "!=", "h1"],
}
# One that takes longer on h2 than the guard waits. It ends by itself soon after.
HANGING = {
    **STUBBORN,
    "name": "hanging",
    "restore": ["sh", "-c", "[ {{ inventory_hostname }} != h2 ] || sleep 15"],
    "drift": ["false"],
}
ESCALATE = """
- name: Call a person
  ansible.builtin.debug:
    msg: "page somebody about {{ item.name }} on {{ item.host }}: {{ item.reason }}"
  loop: "{{ guard_unrestored }}"
"""
# One that fails twice on `twice`, once on `once`, always on `always`, and says each time what it runs with.
TRIES = {"once": 1, "twice": 2, "always": 99}
COUNTED = {
    **STUBBORN,
    "name": "counted",
    "restore": [
        "sh",
        "-c",
        'echo "$(nice), $(ionice)" >> "$1"; [ $(wc -l < "$1") -gt "$2" ] || { echo "try again" >&2; exit 7; }',
        "sh",
        "{{ root }}/said",
        "{{ tries[inventory_hostname] }}",
    ],
    "drift": ["false"],
}
# Only root gets more than the best of what anybody may have.
ROOT = os.geteuid() == 0
NICE = os.getpriority(os.PRIO_PROCESS, 0)
HAD = (NICE, -5, "2; -15, realtime: prio 7") if ROOT else (NICE, NICE, f"2; {NICE}, best-effort: prio 0")
TELL = """
- name: Say what each attempt had
  ansible.builtin.debug:
    msg: >-
      {{ item.name }} on {{ item.host }} was {{ item.action }} after {{ item.attempts }}:
      {{ item.escalations | map(attribute='next') | map(attribute='tier', default='nothing') | join(', ') }}.
      Run {{ item.remedy }}
  loop: "{{ guard_unrestored }}"
"""
SHOWN = """
- name: Show what the attempts said
  ansible.builtin.debug:
    msg: "the attempts had {{ lookup('ansible.builtin.file', root ~ '/said').splitlines() | join('; ') }}"
  when: inventory_hostname == 'twice' and (root ~ '/said') is file
"""

KEY = "nobody reads this key"
# The first byte of every pack: a disk that fails while the update runs.
DAMAGE = """
- name: Damage the shadows
  ansible.builtin.shell: for pack in {{ root }}/store/packs/*.pack; do printf X | dd of=$pack conv=notrunc; done
- name: Break
  ansible.builtin.fail:
"""

CASES = [
    Case(
        "a damaged shadow is mended from the replica, and the key of the store is nowhere",
        {"h1": BACK},
        2,
        upgrade=UPGRADE + DAMAGE,
        guard={"guard_store_key": KEY, "guard_replicas": ["{{ root }}/replica"], "guard_prestage": True},
        arguments=["-vvv"],
        play={"vars": {"ansible_inject_invocation": True}},  # with it, every task shows what it was given
        says=[
            '"store_key": "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"',
            "was damaged or missing: taken from ",
            "h1 is back",
        ],
        never=[KEY],
    ),
    Case(
        "every host in its own way, scope host",
        {
            **dict.fromkeys(("status", "killed", "undefined", "timeout", "include", "action"), BACK),
            **dict.fromkeys(("loop", "secret", "handler", "check"), BACK),
            **dict.fromkeys(("good", "recovered"), DONE),
        },
        2,
        upgrade=UPGRADE + WAYS,
        checks=BROKEN_ON,
        guard={**HOST, "guard_prestage": True},
        play={"handlers": [HANDLER, {"name": "Fail in a handler", "ansible.builtin.fail": {}}]},
        says=[
            "task End with another status than 0 failed: ",
            "the disk is full. status is back in the state before it (restored: db, config). The checks pass.",
            "task Kill the module failed: ",
            "'nobody_defined_this' is undefined",
            "task Take too long failed: ",
            "could not be read (see the error above). include is back",
            "Could not find or access 'nobody_wrote_this.j2' Searched in: ",
            "task Fail with one item failed: ",
            "task Fail with a secret failed (no_log hides why). secret is back",
            "task Fail in a handler failed: ",
            "task Ask version 2 for its health failed: ",
            "The failed state is kept: ",
        ],
        never=["hunter2", "first line the disk"],
        fired=["good", "recovered", "check", "handler"],
        shows=[(line, "host") for line in ("task", "missing-file", "handler", "check", "rescued", "no-log")],
    ),
    Case(
        "a guard inside the user's own rescue: Ansible goes on, and fires what was notified",
        {"h1": BACK},
        0,
        upgrade=UPGRADE + FAIL,
        tasks=[
            {
                "name": "Take it upon oneself",
                "block": [guard({})],
                "rescue": [{"name": "Look at it", "ansible.builtin.debug": {"msg": "{{ ansible_failed_result.msg }}"}}],
            }
        ],
        says=["h1 is back in the state before it"],
        fired=["h1"],
    ),
    Case(
        "a task that runs once fails: all hosts go back, though only one sees it",
        {"h1": BACK, "h2": BACK},
        2,
        upgrade=UPGRADE + FAIL_ONCE,
        guard=HOST,
        says=[
            "task Break failed: ",
            "it broke",
            "a task failed for all hosts at once",
            "h2 is back in the state before it",
        ],
        fired=[],
        shows=[("run-once", "host")],
    ),
    Case(
        "any_errors_fatal: all hosts go back",
        {"h1": BACK, "h2": BACK},
        2,
        upgrade=UPGRADE + FAIL + "  when: inventory_hostname == 'h2'\n",
        guard=HOST,
        play={"any_errors_fatal": True},
        says=[
            "a task failed for all hosts at once",
            "h1 is back in the state before it",
            "h2 is back in the state before it",
        ],
        shows=[("any-errors-fatal", "host")],
    ),
    Case(
        "the checks fail after the rollback too; ignore_errors of the play does not make them optional",
        {"h1": BACK},
        2,
        checks=CHECKS.replace("[12]", "3"),
        play={"ignore_errors": True},
        says=[
            "failed: h1: task Check the shop failed",
            "The state is as before, but its checks fail: task Check the shop failed",
        ],
    ),
    Case(
        "the checks notice it later, while the update soaks",
        {"h1": BACK, "h2": BACK},
        2,
        checks=SOUND_TWICE,
        guard={"guard_soak": 60, "guard_soak_interval": 1},
        says=[
            "task Fail the third time failed: ",
            "h1 is back in the state before it (restored: db, config). The checks pass.",
        ],
        shows=[("soak", "batch")],
    ),
    Case(
        "what can't be restored is named and escalated; neither that nor a host that hangs keeps another back",
        {"h1": (HALF, "failed"), "h2": (NEW, "restoring"), "h3": BACK},
        2,
        upgrade=UPGRADE + FAIL + "  when: inventory_hostname == 'h3'\n",
        guard={
            "guard_resources": [
                {**RESOURCES[0], "depends_on": ["db", "stubborn"]},
                {**RESOURCES[1], "depends_on": ["hanging"]},
                STUBBORN,
                HANGING,
            ],
            "guard_escalation_tasks": "escalate.yml",
            "guard_max_attempts": 2,
            "guard_host_timeout": 10,
        },
        files={"escalate.yml": ESCALATE},
        says=[
            "h3: task Break failed: ",
            "h1 is NOT wholly back: stubborn failed (",
            "config untouched (",
            "; restored: hanging, db.",
            "page somebody about stubborn on h1",
            "page somebody about the rest on h2",
            "umbra.rollback.rollback -e umbra_update_id=shop-2 -e umbra_hosts=h1 (it goes on from here)",
            "h2 is NOT wholly back: the rest unknown (",
            "Timed out after 10 second",
            "h3 is back in the state before it",
        ],
        shows=[("unrestored", "batch")],
    ),
    Case(
        "what fails once, or twice, is given more each time, and comes back; what fails always is escalated",
        {"once": BACK, "twice": BACK, "always": (HALF, "failed")},
        2,
        upgrade=UPGRADE + FAIL,
        checks=CHECKS + SHOWN,
        guard={
            "guard_resources": [{**RESOURCES[0], "depends_on": ["db", "counted"]}, RESOURCES[1], COUNTED],
            "guard_escalation_tasks": "escalate.yml",
            "guard_retry_delay": 0.2,
        },
        play={"vars": {"tries": {name: str(count) for name, count in TRIES.items()}}},
        files={"escalate.yml": TELL},
        says=[
            "once is back in the state before it (restored: counted, db, config).",
            "twice is back in the state before it",
            "the attempts had {}, none: prio 0; {}, best-effort: prio {}".format(*HAD),
            "always is NOT wholly back: counted failed (",
            "try again",
            "config untouched (it needs counted); restored: db.",
            "counted on always was failed after 3: medium, high, nothing. Run ansible-playbook umbra.rollback.rollback"
            " -e umbra_update_id=shop-2 -e umbra_hosts=always",
            "counted, attempt 1",
            "attempt 2 had tier medium",
            "attempt 3 had tier high",
        ],
    ),
    Case(
        "what the guard can't: force_handlers fires handlers on hosts that went back",
        {"h1": BACK},
        2,
        upgrade=UPGRADE + FAIL,
        play={"force_handlers": True},
        fired=["h1"],
    ),
    Case(
        "what the guard can't: meta end_play in the update ends the guard too",
        {"h1": (NEW, "open")},
        0,
        upgrade=UPGRADE + "\n- name: End the play\n  ansible.builtin.meta: end_play\n",
    ),
]

if __name__ == "__main__":
    main(CASES)
