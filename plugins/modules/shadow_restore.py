#!/usr/bin/python
# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: bring the resources of an update back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: shadow_restore
short_description: Bring back the state before an update
version_added: 0.1.0
author: The umbra.rollback authors (@umbra-rollback)
description:
  - Verifies every shadow that is needed, stops what depends on what will change, keeps the failed state in the
    store, restores the resources wave by wave in dependency order, and validates each.
  - A resource that fails is tried again, up to O(max_attempts); each attempt is given more than the one before, which
    is a higher tier (CPU and I/O priority), twice the time, another method where its type has one, and at the last no
    limits of cgroups. It does not stop those that don't need it.
  - Killed at any moment and run again, it goes on.
extends_documentation_fragment:
  - umbra.rollback.common
  - umbra.rollback.common.plan
attributes:
  diff_mode:
    description: Shows what would change, item by item up to a bound.
    support: full
options:
  resources:
    description: Names of the resources to bring back. The default is all of them.
    type: list
    elements: str
    default: []
  wave:
    description:
      - Only this wave of the plan, so that hosts go back in lockstep. V(0) verifies, stops what depends and keeps
        the failed state, and restores nothing.
      - The default is all waves.
    type: int
  max_attempts:
    description: How often a resource is tried.
    type: int
    default: 3
  retry_delay:
    description:
      - Seconds to wait before the second attempt at a resource; twice that before the third, and so on, up to a minute.
    type: float
    default: 2
  undo:
    description: Bring back what the rollbacks since the last undo displaced.
    type: bool
    default: false
  round:
    description:
      - With O(undo), bring back what this round displaced, and nothing else. A round is one restore; an undo is one,
        too, so what was written after a rollback, and displaced by its undo, is brought back so.
      - M(umbra.rollback.shadow_info) lists the rounds of an update with what they displaced.
    type: int
  force:
    description: Restore an update that is already committed, too; what was written since is displaced.
    type: bool
    default: false
  unmet:
    description:
      - Resources of other hosts, as C(host:name), that could not be restored; what needs them is left alone. The
        action plugin fills it in.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Go back to the state before the update
  umbra.rollback.shadow_restore:
    update_id: shop-2.4.0

- name: Bring the failed state back, to look at it
  umbra.rollback.shadow_restore:
    update_id: shop-2.4.0
    undo: true

- name: Bring back what the undo displaced, the work that was done after the rollback
  umbra.rollback.shadow_restore:
    update_id: shop-2.4.0
    undo: true
    round: 2

- name: Only the configuration
  umbra.rollback.shadow_restore:
    update_id: shop-2.4.0
    resources: [shop-config]
"""

RETURN = r"""
update_id:
  description: The update.
  returned: always
  type: str
host:
  description: The name below which the shadows lie.
  returned: always
  type: str
store:
  description: Directory of the store.
  returned: always
  type: str
state:
  description: State of the update now.
  returned: always
  type: str
  sample: rolled_back
waves:
  description: Number of waves in the plan.
  returned: always
  type: int
resources:
  description: How it went, per resource.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the resource.
      type: str
    type:
      description: Type of the resource.
      type: str
    wave:
      description: Its wave in the plan.
      type: int
    action:
      description: One of C(restored), C(unchanged), C(failed), C(untouched), and C(would_restore) in check mode.
      type: str
    attempts:
      description: How often it was tried.
      type: int
    item_count:
      description: How many of its parts were written.
      type: int
    bytes:
      description: How many bytes were written.
      type: int
    seconds:
      description: How long it took.
      type: float
    validation:
      description: One of C(ok), C(failed), C(skipped).
      type: str
    method:
      description: How it was restored.
      type: str
    escalations:
      description: A dictionary for each attempt that failed.
      type: list
      elements: dict
      contains:
        attempt:
          description: Its number.
          type: int
        method:
          description: By which method of its type; empty where there is but one.
          type: str
        why:
          description: Why it failed.
          type: str
        next:
          description:
            - What the next attempt was given; empty after the last.
            - A dictionary of C(tier), C(method), C(wait) (seconds), C(asked), C(effective), and C(refused) with the
              reasons; the keys of the last three are C(nice), C(io), C(threads), C(timeouts) and C(cgroup).
          type: dict
    notes:
      description: What the operator may want to know.
      type: list
      elements: str
    reason:
      description: Why it failed, or was left alone.
      type: str
seconds:
  description: How long all of it took.
  returned: always
  type: float
round:
  description: Number of the round; 0 in check mode.
  returned: always
  type: int
displaced:
  description: Where the failed state is kept.
  returned: always
  type: str
undo:
  description: How to bring the failed state back.
  returned: always
  type: str
stopped:
  description: Services that were stopped for the restore.
  returned: always
  type: list
  elements: str
repaired:
  description:
    - What was damaged or lost in the store and was taken from a replica, before anything was changed; in check mode,
      what would be. C(name) is that of the resource, or empty for a record of the update.
  returned: when it came to restoring
  type: list
  elements: dict
  sample: [{name: config, what: content 0f3a5c1e9b7d2468, from: /mnt/backup/umbra}]
notes:
  description: What the operator may want to know.
  returned: always
  type: list
  elements: str
ended:
  description: Processes of the update that still ran, and were ended before anything was changed.
  returned: always
  type: list
  elements: dict
  contains:
    pid:
      description: The process.
      type: int
    command:
      description: The program, and the script that it ran.
      type: str
    why:
      description: Why it counted as part of the update.
      type: str
by:
  description: Who brought the host back, C(controller), or C(watchdog) when its own dead-man switch had done it before.
  returned: always
  type: str
why:
  description: Why the switch had fired.
  returned: when C(by) is C(watchdog)
  type: str
when:
  description: When the switch had fired.
  returned: when C(by) is C(watchdog)
  type: str
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
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import restore

SPEC = {
    **edge.COMMON,
    **edge.PLAN,
    "resources": {"type": "list", "elements": "str", "default": []},
    "wave": {"type": "int"},
    "max_attempts": {"type": "int", "default": 3},
    "retry_delay": {"type": "float", "default": 2.0},
    "undo": {"type": "bool", "default": False},
    "round": {"type": "int"},
    "force": {"type": "bool", "default": False},
    "unmet": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    """Hand over to the verb."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    edge.conclude(module, lambda target: restore.from_module(target, module))


if __name__ == "__main__":
    main()
