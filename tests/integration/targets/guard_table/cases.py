# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table in docs/guard.md: what can happen during an update, in each scope and with each strategy.

Here are the cases that no other target has. Many hosts are called after the line of the table that they are.
"""

from __future__ import annotations

from typing import Any

from lab import CHECKS, HANDLER, NEW, OLD, RESCUED, RESOURCES, UPGRADE, Case, main

BACK = (OLD, "rolled_back")
DONE = (NEW, "committed")
LEFT = (NEW, "open")
HOST = {"guard_scope": "host"}
PLAY = {"guard_scope": "play"}

# Each host fails in its own way; `good` does not.
MIXED = (
    RESCUED
    + """
- name: Change another host
  ansible.builtin.copy:
    dest: "{{ lab }}/good/etc/from-elsewhere"
    content: ""
    mode: "0600"
  delegate_to: good
  when: inventory_hostname == 'delegated'
- name: Fail on another host
  ansible.builtin.command: 'false'
  delegate_to: good
  when: inventory_hostname == 'delegated'
- name: Fail in turn
  ansible.builtin.command: "{{ 'false' if inventory_hostname == 'throttle' else 'true' }}"
  throttle: 1
  when: inventory_hostname in ['throttle', 'good']
- name: Fail in nested blocks
  when: inventory_hostname == 'nested'
  block:
    - name: Try
      block:
        - name: Break
          ansible.builtin.fail:
      rescue:
        - name: Try to help
          ansible.builtin.fail:
            msg: it can't be helped
      always:
        - name: Tidy up
          ansible.builtin.file: {path: "{{ lab }}/tidied", state: directory, mode: "0700"}
  always:
    - name: Tidy up again
      ansible.builtin.file: {path: "{{ lab }}/tidied/again", state: directory, mode: "0700"}
- name: Notify what will fail
  ansible.builtin.debug:
    msg: as if something had changed
  changed_when: true
  notify: Fail in a handler
  when: inventory_hostname == 'flush'
- name: Run handlers in the midst of the update
  ansible.builtin.meta: flush_handlers
- name: Not reached by a host whose handler failed
  ansible.builtin.assert:
    that: inventory_hostname != 'flush'
    fail_msg: it went on
"""
)
# What `delegated` did on `good` stays as long as `good` does not go back; both blocks of `nested` were tidied up.
MIXED_CHECKS = (
    CHECKS
    + """
- name: Ask for its health
  ansible.builtin.assert:
    that: inventory_hostname != 'check'
  when: version == '2'
- name: Ask for its health for a while
  ansible.builtin.assert:
    that: inventory_hostname != 'soak' or __guard_watched < 0
  when: version == '2'
- name: Look for what other hosts did
  ansible.builtin.assert:
    that: (lab ~ '/good/etc/from-elsewhere') is file and (lab ~ '/tidied/again') is directory
  when: inventory_hostname == 'good' and 'delegated' in ansible_play_hosts_all and version == '2'
"""
)
WAYS = {
    "delegated": "task Fail on another host failed: ",
    "throttle": "task Fail in turn failed: ",
    "nested": "task Try to help failed: it can't be helped",
    "flush": "task Fail in a handler failed: ",
    "check": "task Ask for its health failed: ",
    "soak": "task Ask for its health for a while failed: ",
}


def mixed(column: str, *hosts: str, good: tuple[str, str], **play: Any) -> Case:
    """Some of the hosts above in one scope, or with one strategy. The host on which nothing fails is then `good`."""
    shows = [*hosts, "rescued"] if good == DONE else hosts
    return Case(
        f"every host in its own way, {column}",
        {"good": good, **dict.fromkeys(hosts, BACK)},
        2,
        upgrade=UPGRADE + MIXED,
        checks=MIXED_CHECKS,
        guard={
            "guard_resources": [{**RESOURCES[0], "depends_on": []}, RESOURCES[1]],
            "guard_scope": column if column in ("batch", "play") else "host",
            "guard_soak": "{{ 1 if inventory_hostname == 'soak' else 0 }}",
            "guard_soak_interval": 0.5,
        },
        play={
            "handlers": [HANDLER, {"name": "Fail in a handler", "ansible.builtin.fail": {}}],
            "vars": {"version": "{{ lookup('ansible.builtin.file', root ~ '/etc/shop.conf')[10] }}"},
            **play,
        },
        says=[*(WAYS[host] for host in hosts), *(f"{host} is back in the state before it" for host in hosts)],
        never=["it went on"],
        shows=[(line, column) for line in shows],
    )


def lost(host: str) -> str:
    """Tasks after which a host is unreachable: nothing can be written below its remote temporary directory.

    (Only without pipelining; a closed port would do, but could not be opened in the middle.)
    """
    directory = f"{{{{ lab }}}}/{host}/remote_tmp"
    return f"""
- name: Lose {host}
  ansible.builtin.shell: rm -r {directory} && touch {directory}
  when: inventory_hostname == '{host}'
- name: Go on
  ansible.builtin.command: 'true'
  when: inventory_hostname == '{host}'
"""


def can_be_lost(*hosts: str) -> dict[str, dict[str, Any]]:
    """Their variables."""
    return {
        host: {"ansible_pipelining": False, "ansible_remote_tmp": f"{{{{ lab }}}}/{host}/remote_tmp"} for host in hosts
    }


# A host that reboots: its switch dies, and it does not answer for a while.
REBOOT = """
- name: Know what watches
  umbra.rollback.shadow_info:
    update_id: shop-2
    store: "{{ root }}/store"
  register: known
- name: Go down and come back
  ansible.builtin.shell: |
    kill -9 {{ known.details.watchdog.pid }}
    rm -r {{ root }}/remote_tmp && touch {{ root }}/remote_tmp
    (sleep 2; rm {{ root }}/remote_tmp) > /dev/null 2>&1 < /dev/null &
- name: Wait until it is back
  ansible.builtin.wait_for_connection:
    sleep: 1
    timeout: 120
"""
FAIL = "\n- name: Break\n  ansible.builtin.fail:\n    msg: it broke\n"
END_HOST = """
- name: End this host
  ansible.builtin.meta: end_host
  when: inventory_hostname == 'ended'
"""
# Ansible calls a host unreachable that delegates to one that is.
DELEGATE_TO_NOBODY = """
- name: Know a host that never answers
  ansible.builtin.add_host:
    name: nowhere
    ansible_connection: local
    ansible_pipelining: false
    ansible_remote_tmp: /dev/null/nowhere
- name: Ask it
  ansible.builtin.command: 'true'
  delegate_to: nowhere
  when: inventory_hostname == 'asks'
"""
# What a switch can look at where nothing listens: whether the host was lost. It says when it has brought it back.
SWITCH = {
    "guard_deadline": "{{ 3600 if inventory_hostname == 'switch' else 0 }}",
    "guard_health": [
        {"command": ["/usr/bin/test", "!", "-f", "{{ root }}/remote_tmp"], "interval": 0.2, "n": 1, "m": 1},
    ],
    "guard_hooks": [{"command": ["/usr/bin/touch", "{{ root }}/back"], "events": ["rolled_back"]}],
}
WAIT_FOR_SWITCH = """
- name: Wait for what the switch does
  ansible.builtin.wait_for:
    path: "{{ lab }}/switch/back"
  when: inventory_hostname == 'h1'
"""
# `while` answers again for what is delegated to it: another connection reaches it.
FIND_AGAIN = """
- name: Let it be found again
  ansible.builtin.file:
    path: "{{ lab }}/while/remote_tmp"
    state: absent
  when: inventory_hostname == 'h1'
"""

# `returns` is a host that boots until h1 is back. So it can't be brought back along with h1.
RETURNS = """
- name: Boot for long
  ansible.builtin.shell: |
    rm -r {{ root }}/remote_tmp && touch {{ root }}/remote_tmp
    (until grep -q 'version = 1' {{ lab }}/h1/etc/shop.conf; do sleep 0.2; done; rm {{ root }}/remote_tmp) \\
      > /dev/null 2>&1 < /dev/null &
  when: inventory_hostname == 'returns'
- name: Find nobody there
  ansible.builtin.command: 'true'
  when: inventory_hostname == 'returns'
"""

CASES = [
    mixed("host", "delegated", "throttle", "nested", "flush", "soak", good=DONE),
    mixed("batch", "delegated", "nested", "flush", "check", good=BACK),
    mixed("play", "flush", "check", good=BACK, serial=[1, "100%"]),
    mixed("free", "flush", "check", "soak", good=DONE, strategy="free"),
    mixed("host_pinned", "throttle", "check", good=DONE, strategy="ansible.builtin.host_pinned"),
    Case(
        "strategy host_pinned, scope play: refused before anything is changed",
        {"h1": (OLD, "committed"), "h2": (OLD, "committed")},
        2,
        guard=PLAY,
        play={"strategy": "host_pinned"},
        says=["guard_scope play needs hosts that wait for each other; use strategy linear, or guard_scope host"],
        shows=[("lockstep", "host_pinned")],
    ),
    Case(
        "any_errors_fatal, scope batch: all go back",
        {"h1": BACK, "h2": BACK},
        2,
        upgrade=UPGRADE + FAIL + "  when: inventory_hostname == 'h2'\n",
        play={"any_errors_fatal": True},
        says=["h1 is back in the state before it", "h2 is back in the state before it"],
        shows=[("any-errors-fatal", "batch")],
    ),
    Case(
        "a task that runs once fails, scope play: the earlier batch goes back too",
        {"h1": BACK, "h2": BACK, "h3": BACK},
        2,
        upgrade=UPGRADE + FAIL + "  run_once: true\n  when: \"'h2' in ansible_play_batch\"\n",
        guard=PLAY,
        play={"serial": [1, 2]},
        says=["h1 is back in the state before it", "h3 is back in the state before it"],
        shows=[("run-once", "play")],
    ),
    Case(
        "a reboot: the host is waited for, its switch is started again, and the update goes on",
        {"h1": DONE, "h2": DONE},
        0,
        upgrade=UPGRADE + REBOOT + RESCUED,
        guard={"guard_deadline": 3600},
        host_vars=can_be_lost("h1", "h2"),
        shows=[("reboot", "batch"), ("rescued", "batch")],
    ),
    Case(
        "hosts drop out, scope host: the others are committed, and they are named; one that has a switch goes back",
        {"h1": DONE, "h2": LEFT, "asks": LEFT, "switch": BACK},
        4,
        upgrade=UPGRADE + lost("h2") + DELEGATE_TO_NOBODY + lost("switch") + WAIT_FOR_SWITCH,
        host_vars=can_be_lost("h2", "switch"),
        guard={**HOST, **SWITCH},
        says=[
            "h2, asks, switch left the play, unreachable or ended by its own tasks, in the middle of update shop-2",
            "umbra_hosts=h2,asks,switch",
        ],
        shows=[("gone", "host"), ("delegate-gone", "host"), ("switch", "host")],
    ),
    Case(
        "hosts drop out but can be reached, at once or later, scope batch: another host brings them back",
        {"h1": BACK, "while": BACK, "asks": BACK, "returns": BACK},
        4,
        upgrade=UPGRADE + RETURNS + lost("while") + FIND_AGAIN + DELEGATE_TO_NOBODY,
        guard={"guard_reconnect": 120},
        host_vars=can_be_lost("while", "returns"),
        says=[f"{host} is back in the state before it" for host in ("h1", "while", "asks", "returns")],
        never=["NOT wholly back"],
        shows=[("found-again", "batch"), ("delegate-gone", "batch"), ("returns", "batch")],
    ),
    Case(
        "a host drops out, scope play: the others go back, and it is named",
        {"h1": BACK, "h2": LEFT, "h3": BACK},
        4,
        upgrade=UPGRADE + lost("h2"),
        host_vars=can_be_lost("h2"),
        guard=PLAY,
        play={"serial": [1, 2]},
        says=["h2 is NOT wholly back: the rest unknown (", "h1 is back in the state before it", "umbra_hosts=h2"],
        shows=[("gone", "play")],
    ),
    Case(
        "a host drops out, strategy free: the others are committed",
        {"h1": DONE, "h2": LEFT},
        4,
        upgrade=UPGRADE + lost("h2"),
        host_vars=can_be_lost("h2"),
        guard=HOST,
        play={"strategy": "free"},
        shows=[("gone", "free")],
    ),
    Case(
        "a host ends itself, scope host: the others are committed, and it is named",
        {"h1": DONE, "ended": LEFT},
        0,
        upgrade=UPGRADE + END_HOST,
        guard=HOST,
        says=["ended left the play, unreachable or ended by its own tasks", "umbra_hosts=ended"],
        shows=[("end-host", "host")],
    ),
]

if __name__ == "__main__":
    main(CASES)
