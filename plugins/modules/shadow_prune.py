#!/usr/bin/python
# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: let go of what is no longer needed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: shadow_prune
short_description: Let old shadows go, collect garbage, and verify the store
version_added: 0.1.0
author: The umbra.rollback authors (@umbra-rollback)
description:
  - Drops committed updates beyond the retention that is asked for, and, by name, one update that was rolled back.
  - Removes contents that no shadow needs.
  - Reads the whole store back against its checksums when asked to.
  - An update that is not committed is never dropped by retention; one that is still open, or whose way back is not
    finished, not by name either.
extends_documentation_fragment:
  - umbra.rollback.common
options:
  update_id:
    description: Drop this update, whatever retention says.
    required: false
  keep_last:
    description: Keep the shadows of so many committed updates of this host.
    type: int
  keep_days:
    description: Keep the shadows of committed updates that are younger than so many days.
    type: float
  garbage:
    description: Remove contents that nothing needs.
    type: bool
    default: true
  grace:
    description: Keep contents that are younger than so many seconds; they may belong to a shadow that is being made.
    type: float
    default: 3600.0
  verify:
    description: Read every content of the store, and fail when one is damaged.
    type: bool
    default: false
  repair:
    description: Take what is damaged or lost of this host's shadows from a replica, before all else.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Keep the last five updates
  umbra.rollback.shadow_prune:
    keep_last: 5

- name: Drop one that was rolled back
  umbra.rollback.shadow_prune:
    update_id: shop-2.4.0

- name: Is the store sound?
  umbra.rollback.shadow_prune:
    garbage: false
    verify: true

- name: Mend it from its replicas
  umbra.rollback.shadow_prune:
    garbage: false
    repair: true
    verify: true
"""

RETURN = r"""
host:
  description: The name below which the shadows lie.
  returned: always
  type: str
store:
  description: Directory of the store.
  returned: always
  type: str
dropped:
  description: Updates that were let go.
  returned: always
  type: list
  elements: str
kept_open:
  description: Updates that are not committed; these are never dropped by retention.
  returned: always
  type: list
  elements: str
objects:
  description: Number of objects removed.
  returned: always
  type: int
packs:
  description: Number of packs removed or rewritten.
  returned: always
  type: int
bytes:
  description: Bytes given back.
  returned: always
  type: int
verified_bytes:
  description: Bytes that were read back and found good.
  returned: always
  type: int
repaired:
  description: What was mended; C(name) is that of the resource, or empty for a record of an update.
  returned: always
  type: list
  elements: dict
  sample: [{name: config, what: content 0f3a5c1e9b7d2468, from: /mnt/backup/umbra}]
problems:
  description: What is damaged, as sentences.
  returned: always
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
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import prune

SPEC = {
    **edge.COMMON,
    "update_id": {"type": "str"},
    "keep_last": {"type": "int"},
    "keep_days": {"type": "float"},
    "garbage": {"type": "bool", "default": True},
    "grace": {"type": "float", "default": prune.GRACE},
    "verify": {"type": "bool", "default": False},
    "repair": {"type": "bool", "default": False},
}


def main() -> None:
    """Hand over to the verb."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    edge.conclude(module, lambda target: prune.from_module(target, module))


if __name__ == "__main__":
    main()
