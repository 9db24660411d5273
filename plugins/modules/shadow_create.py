#!/usr/bin/python
# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: shadow the resources of an update."""

from __future__ import annotations

DOCUMENTATION = r"""
module: shadow_create
short_description: Shadow what an update may break, before it starts
version_added: 0.1.0
author: The umbra.rollback authors (@umbra-rollback)
description:
  - Copies every resource into the store of the host, verified by checksums, with the metadata that the way back
    needs.
  - All resources are shadowed, or nothing is published.
  - A second run with the same O(update_id) and the same resources keeps the shadows that are there, so that a play
    that is run again never replaces the state before the update by a half-updated one. After a rollback or a commit
    the same O(update_id) makes new shadows.
extends_documentation_fragment:
  - umbra.rollback.common
  - umbra.rollback.common.payload
options:
  resources:
    description:
      - What to shadow. Each is a dictionary with C(name), C(type), the options of that type, and optionally
        C(depends_on), C(priority) and C(versioned); or a C(query) that is replaced by what it finds now.
      - The types are C(file), C(sqlite), C(systemd_unit), C(package) and C(command); the README has a table of them.
      - One of O(resources) and O(resources_file) is required.
    type: list
    elements: dict
  resources_file:
    description:
      - YAML file on the controller with the list that O(resources) takes. Looked for as C(vars) files of a role are.
    type: str
  reserve_percent:
    description:
      - How much of the shadowed bytes the update may change. So much space has to be free in the store, beside the
        shadow, for the failed state that a rollback keeps; otherwise the update is refused here.
    type: int
    default: 100
seealso:
  - module: umbra.rollback.rollback_analyze
  - module: umbra.rollback.shadow_restore
"""

EXAMPLES = r"""
- name: Shadow the configuration and the database of the shop
  umbra.rollback.shadow_create:
    update_id: shop-2.4.0
    resources:
      - name: shop-db
        type: sqlite
        path: /srv/shop/shop.db
      - name: shop-config
        type: file
        path: /etc/shop
        exclude: ["*.log"]
        priority: high
        depends_on: [shop-db]
      - query:
          type: file
          pattern: /etc/shop.d/*.conf

- name: Shadow what a file of the project names
  umbra.rollback.shadow_create:
    update_id: shop-2.4.1
    resources_file: shop-resources.yml
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
manifest:
  description: Where the record of the shadows lies on the host.
  returned: when there is one
  type: str
tool:
  description:
    - Path of the emergency tool on the host, which brings it back by hand, without Ansible. Not in check mode, and not
      when it could not be written.
  returned: when there is one
  type: str
  sample: /var/lib/umbra/umbra
created:
  description: When the shadows were begun, in seconds since the epoch.
  returned: success
  type: float
existing:
  description: Whether the shadows were there already, and were kept.
  returned: success
  type: bool
seconds:
  description: How long all of it took on the host.
  returned: success
  type: float
strategy:
  description: The strategy of the play; added by the action plugin.
  returned: success
  type: str
  sample: linear
max_fail_percentage:
  description: That keyword of the play, where it is set; added by the action plugin.
  returned: success
  type: float
shadows:
  description: A record per shadow.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the resource.
      type: str
    type:
      description: Type of the resource.
      type: str
    method:
      description: How it was copied.
      type: str
    bytes:
      description: Size of the resource.
      type: int
    item_count:
      description: Number of its parts (files, rows, packages).
      type: int
    stored_bytes:
      description: What the store grew by.
      type: int
    seconds:
      description: How long it took.
      type: float
    checksum:
      description: SHA-256 of the state; equal for equal states.
      type: str
    previous:
      description: The update whose shadow this one is incremental to.
      type: str
    claims:
      description: How many claims (what it provides and uses) were found.
      type: int
totals:
  description: The sums over all shadows.
  returned: success
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
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import create

SPEC = {
    **edge.COMMON,
    **edge.PAYLOAD,
    "resources": {"type": "list", "elements": "dict"},
    "resources_file": {"type": "str"},
    "reserve_percent": {"type": "int", "default": 100},
}


def main() -> None:
    """Hand over to the verb."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    edge.conclude(module, lambda target: create.from_module(target, module))


if __name__ == "__main__":
    main()
