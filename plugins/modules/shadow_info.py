#!/usr/bin/python
# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: what the store holds."""

from __future__ import annotations

DOCUMENTATION = r"""
module: shadow_info
short_description: Tell what is shadowed, and how each update stands
version_added: 0.1.0
author: The umbra.rollback authors (@umbra-rollback)
description:
  - Lists the updates that were shadowed on the host, with their state; with O(update_id), that one in full.
  - With O(update_id) it also brings the shadows' records to the controller, so that
    M(umbra.rollback.rollback_analyze) can plan the way back in a later run.
extends_documentation_fragment:
  - umbra.rollback.common
  - umbra.rollback.common.payload
options:
  update_id:
    description: The update to describe in full.
    required: false
"""

EXAMPLES = r"""
- name: What is there?
  umbra.rollback.shadow_info:
  register: shadows

- name: How does one update stand?
  umbra.rollback.shadow_info:
    update_id: shop-2.4.0
"""

RETURN = r"""
host:
  description: The name below which the shadows lie.
  returned: success
  type: str
store:
  description: Directory of the store.
  returned: success
  type: str
manifest:
  description: Where the record of the shadows lies on the host.
  returned: when there is one
  type: str
updates:
  description: The updates of this host, oldest first.
  returned: success
  type: list
  elements: dict
  contains:
    update_id:
      description: Name of the update.
      type: str
    state:
      description: One of C(open), C(restoring), C(failed), C(rolled_back), C(undone), C(committed), C(damaged).
      type: str
    created:
      description: When it was shadowed, in seconds since the epoch.
      type: float
    created_utc:
      description: The same for people.
      type: str
    resources:
      description: Number of shadows.
      type: int
    bytes:
      description: Size of what was shadowed.
      type: int
    held_bytes:
      description: Disk space that is held for its way back.
      type: int
details:
  description:
    - The update that was asked for, with C(shadows), C(plan), C(leases), C(displaced), and C(rounds), the last 20
      restores that displaced something, each with C(round), C(by) (C(rollback) or C(undo)), C(created),
      C(created_utc), C(resources), C(bytes) and C(manifest).
    - C(watchdog) tells of its dead-man switch. C(state) is C(armed), C(fired), C(disarmed) or C(damaged). One that is
      armed has C(deadline), the seconds that are left, C(mode), C(unit), C(pid) (none when nothing watches) and
      C(tool); one that fired C(fired), when, and C(why); a damaged one C(problem).
  returned: success
  type: dict
busy:
  description: What works on this host now, since when, and how far it is; empty when nothing does.
  returned: success
  type: str
  sample: "restore of update u1 by pid 4711 on web1 since 2026-11-23 03:12:09 UTC: restoring config, wave 1 of 2, 43 %"
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
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import info

SPEC = {**edge.COMMON, **edge.PAYLOAD, "update_id": {"type": "str"}}


def main() -> None:
    """Hand over to the verb."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    edge.conclude(module, lambda target: info.from_module(target, module))


if __name__ == "__main__":
    main()
