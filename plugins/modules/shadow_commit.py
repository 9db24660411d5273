#!/usr/bin/python
# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: the update is good."""

from __future__ import annotations

DOCUMENTATION = r"""
module: shadow_commit
short_description: Say that an update is good
version_added: 0.1.0
author: The umbra.rollback authors (@umbra-rollback)
description:
  - Gives back what was prestaged, forgets what was displaced, marks the update committed, and applies retention.
  - An update that was rolled back, or whose way back is not finished, is refused.
extends_documentation_fragment:
  - umbra.rollback.common
options:
  keep_last:
    description: Keep the shadows of so many committed updates of this host.
    type: int
  keep_days:
    description: Keep the shadows of committed updates that are younger than so many days.
    type: float
notes:
  - With both O(keep_last) and O(keep_days), a committed update is dropped only when it is beyond both. With
    neither, all are kept. What is not committed is never dropped.
"""

EXAMPLES = r"""
- name: The update is good
  umbra.rollback.shadow_commit:
    update_id: shop-2.4.0
    keep_last: 5
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
  description: State of the update now.
  returned: success
  type: str
  sample: committed
dropped:
  description: Older updates that retention let go.
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
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import commit

SPEC = {**edge.COMMON, "keep_last": {"type": "int"}, "keep_days": {"type": "float"}}


def main() -> None:
    """Hand over to the verb."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    edge.conclude(module, lambda target: commit.from_module(target, module))


if __name__ == "__main__":
    main()
