#!/usr/bin/python
# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: pay for the way back in advance."""

from __future__ import annotations

DOCUMENTATION = r"""
module: prestage
short_description: Hold what the way back needs, before the update starts
version_added: 0.1.0
author: The umbra.rollback authors (@umbra-rollback)
description:
  - Holds the disk space of the way back, which M(umbra.rollback.shadow_create) holds already, reads the shadows of
    resources of medium and high tier once (which checks them and leaves them in the page cache), and lets their
    rollback run at a raised priority.
  - What can't be had on the host is in the lease, with the reason. All is given back by a rollback, by
    M(umbra.rollback.shadow_commit), or with O(state=absent).
extends_documentation_fragment:
  - umbra.rollback.common
  - umbra.rollback.common.plan
options:
  state:
    description: Whether to hold, or to give back.
    type: str
    choices: [present, absent]
    default: present
  budget:
    description:
      - What prestaging may take in all, in bytes, as C(disk) and C(memory) (page cache). Resources with a higher
        score are served first. What is not given is what the host can spare.
    type: dict
    default: {}
  reserve_percent:
    description:
      - How much of what was shadowed the update may change, as M(umbra.rollback.shadow_create) has it; what that holds
        is made more or less.
    type: int
    default: 100
"""

EXAMPLES = r"""
- name: Hold what the way back needs
  umbra.rollback.prestage:
    update_id: shop-2.4.0
    budget:
      memory: 1073741824

- name: Give it back
  umbra.rollback.prestage:
    update_id: shop-2.4.0
    state: absent
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
held_bytes:
  description: Disk space that is held now.
  returned: success
  type: int
leases:
  description: A lease per resource.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the resource.
      type: str
    tier:
      description: Low, medium or high.
      type: str
    asked:
      description: What the tier asks for.
      type: dict
    effective:
      description: What took effect.
      type: dict
    refused:
      description: What could not be had, with the reason.
      type: dict
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
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import prestage

SPEC = {
    **edge.COMMON,
    **edge.PLAN,
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "budget": {"type": "dict", "default": {}},
    "reserve_percent": {"type": "int", "default": 100},
}


def main() -> None:
    """Hand over to the verb."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    edge.conclude(module, lambda target: prestage.from_module(target, module))


if __name__ == "__main__":
    main()
