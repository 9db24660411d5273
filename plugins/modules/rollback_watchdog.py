#!/usr/bin/python
# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: the dead-man switch of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_watchdog
short_description: Let a host go back by itself when nobody says that the update is good
version_added: 0.1.0
author: The umbra.rollback authors (@umbra-rollback)
description:
  - Arms a dead-man switch on the host. When the deadline passes before M(umbra.rollback.shadow_commit), or a condition
    of O(health) fails, the host restores itself by its saved plan, with no controller, no network and no Ansible.
  - Under systemd, as root, it is a service and a timer that survive a reboot. Elsewhere it is a daemon that survives
    the session, and a reboot ends it; the result says which.
  - A commit, an extension or a disarming that comes after the switch fired is refused, and says why and when it did.
    M(umbra.rollback.shadow_commit), and a restore that brought everything back, disarm it.
extends_documentation_fragment:
  - umbra.rollback.common
  - umbra.rollback.common.plan
attributes:
  diff_mode:
    description: Shows how it is armed, before and after.
    support: full
options:
  state:
    description:
      - V(armed) arms it, or arms it anew with other settings; the update has to be shadowed, and open.
      - V(extended) gives it a new deadline, and leaves the other settings as they are.
      - V(disarmed) takes it away; the update stays open.
    type: str
    choices: [armed, extended, disarmed]
    default: armed
  deadline:
    description:
      - Seconds from now after which it fires. They pass while the host sleeps, too, and no step of the clock moves
        them.
    type: float
    default: 3600.0
  health:
    description:
      - Conditions that make it fire before the deadline. Each has one of C(command), C(tcp), C(http) and C(unit).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is called in messages. The default is what it looks at.
        type: str
      command:
        description: A program, by its absolute path, and its arguments. It has to end with status 0.
        type: list
        elements: str
      tcp:
        description: A host and port that has to accept a connection, as C(host:port).
        type: str
      http:
        description: A URL that has to answer. No proxy is used.
        type: str
      status:
        description: The good answers of O(health[].http). The default is every status below 400.
        type: list
        elements: int
        default: []
      unit:
        description: A unit of systemd that has to be active.
        type: str
      interval:
        description: Seconds from one sample to the next.
        type: float
        default: 10.0
      timeout:
        description: Seconds after which a sample without an answer has failed.
        type: float
        default: 5.0
      n:
        description: The condition has failed when so many of the last O(health[].m) samples did.
        type: int
        default: 3
      m:
        description: Of how many samples O(health[].n) counts.
        type: int
        default: 5
      start_delay:
        description: Seconds after arming before the first sample.
        type: float
        default: 0.0
  on_reboot:
    description:
      - What a reboot during the update means. With V(wait) the seconds that were left count on from the boot; with
        V(rollback) the host goes back as soon as it has booted.
    type: str
    choices: [wait, rollback]
    default: wait
  hooks:
    description:
      - Whom to tell what it does, beside the system's log and C(status.json) in the store. Each has one of C(command)
        and C(url).
    type: list
    elements: dict
    default: []
    suboptions:
      command:
        description: A program, by its absolute path, and its arguments; it gets a JSON object on its standard input.
        type: list
        elements: str
      url:
        description: Where the same JSON object is posted to. It is treated as a secret.
        type: str
      events:
        description: Which of its events to tell.
        type: list
        elements: str
        choices: [fired, rolled_back, failed]
        default: [fired, rolled_back, failed]
      timeout:
        description: Seconds for one try.
        type: float
        default: 10.0
      retries:
        description: How often it is tried again.
        type: int
        default: 5
      backoff:
        description: Seconds before the second try, doubled with each further one.
        type: float
        default: 2.0
  store_key_file:
    description:
      - With O(store_key), a file on the host that has that key, and that nobody else can read; it is needed to arm, for
        nobody is there to give the key when the host goes back by itself. Keep it outside the store.
    type: path
  max_attempts:
    description: How often a resource is tried, as in M(umbra.rollback.shadow_restore).
    type: int
    default: 3
  force:
    description: With O(state=disarmed), disarm one that fired and could not bring the host back, too.
    type: bool
    default: false
seealso:
  - module: umbra.rollback.shadow_commit
  - module: umbra.rollback.shadow_restore
"""

EXAMPLES = r"""
- name: Go back in half an hour unless this update is committed, or when the shop does not answer
  umbra.rollback.rollback_watchdog:
    update_id: shop-2.4.0
    deadline: 1800
    health:
      - http: http://127.0.0.1:8080/health
        start_delay: 600
    hooks:
      - command: [/usr/bin/logger, -t, shop]

- name: Another half hour
  umbra.rollback.rollback_watchdog:
    update_id: shop-2.4.0
    state: extended
    deadline: 1800

- name: Leave it to a person
  umbra.rollback.rollback_watchdog:
    update_id: shop-2.4.0
    state: disarmed
"""

RETURN = r"""
update_id:
  description: The update.
  returned: success
  type: str
host:
  description: The name below which the shadows lie.
  returned: success
  type: str
store:
  description: Directory of the store.
  returned: success
  type: str
state:
  description: C(armed) or C(disarmed).
  returned: success
  type: str
  sample: armed
deadline:
  description: Seconds from now until it fires; none when it is disarmed.
  returned: success
  type: float
  sample: 1800.0
deadline_utc:
  description: When that is, by the host's clock now.
  returned: success
  type: str
  sample: 2026-11-23 03:30:00 UTC
mode:
  description: C(systemd) or C(daemon).
  returned: success
  type: str
  sample: systemd
survives_reboot:
  description: Whether it goes on after a reboot.
  returned: success
  type: bool
unit:
  description: Name of its service and timer under systemd, without the suffix.
  returned: success
  type: str
pid:
  description: The process that watches.
  returned: success
  type: int
tool:
  description: The file that it runs, with all that it needs.
  returned: success
  type: str
  sample: /var/lib/umbra/umbra
interpreters:
  description: The Pythons that it may run with, in this order; each was tried.
  returned: success
  type: list
  elements: str
  sample: [/usr/bin/python3]
watched:
  description: Names of the conditions that it watches.
  returned: success
  type: list
  elements: str
hooks:
  description: Whom it tells; of a URL the host alone.
  returned: success
  type: list
  elements: str
kernel:
  description: Which twin of the kernel ran, C(native) or C(pure).
  returned: always
  type: str
  sample: native
kernel_reason:
  description: Why it was that one.
  returned: always
  type: str
  sample: >-
    /root/.cache/umbra/umbra_kernel.x86_64-linux-gnu.0f3a5c1e9b7d2468.so has the SHA-256 that this release says.
code:
  description: The error's code; the operator's guide has a section for each.
  returned: failure
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.umbra.rollback.plugins.module_utils import edge
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import arm

CHECK = {
    "name": {"type": "str"},
    "command": {"type": "list", "elements": "str"},
    "tcp": {"type": "str"},
    "http": {"type": "str"},
    "status": {"type": "list", "elements": "int", "default": []},
    "unit": {"type": "str"},
    "interval": {"type": "float", "default": 10.0},
    "timeout": {"type": "float", "default": 5.0},
    "n": {"type": "int", "default": 3},
    "m": {"type": "int", "default": 5},
    "start_delay": {"type": "float", "default": 0.0},
}
HOOK = {
    "command": {"type": "list", "elements": "str"},
    "url": {"type": "str", "no_log": True},
    "events": {
        "type": "list",
        "elements": "str",
        "choices": ["fired", "rolled_back", "failed"],
        "default": ["fired", "rolled_back", "failed"],
    },
    "timeout": {"type": "float", "default": 10.0},
    "retries": {"type": "int", "default": 5},
    "backoff": {"type": "float", "default": 2.0},
}
SPEC = {
    **edge.COMMON,
    **edge.PLAN,
    "state": {"type": "str", "choices": ["armed", "extended", "disarmed"], "default": "armed"},
    "deadline": {"type": "float", "default": 3600.0},
    "health": {"type": "list", "elements": "dict", "default": [], "options": CHECK},
    "on_reboot": {"type": "str", "choices": ["wait", "rollback"], "default": "wait"},
    "hooks": {"type": "list", "elements": "dict", "default": [], "options": HOOK},
    "store_key_file": {"type": "path"},
    "max_attempts": {"type": "int", "default": 3},
    "force": {"type": "bool", "default": False},
}


def main() -> None:
    """Hand over to the verb."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    edge.conclude(module, lambda target: arm.from_module(target, module))


if __name__ == "__main__":
    main()
