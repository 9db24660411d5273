#!/usr/bin/python
# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: documentation of the action plugin rollback_report."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_report
short_description: Print what was shadowed, predicted and restored in this run
version_added: 0.1.0
author: The umbra.rollback authors (@umbra-rollback)
description:
  - Prints a short timeline of the update on all hosts of this run, whatever callback is in use. Runs on the
    controller; use it with C(run_once).
  - With O(failure), records why the update failed on this host, and prints nothing.
options:
  update_id:
    description: Name of the update.
    type: str
    required: true
  failure:
    description: Why the update failed on this host.
    type: str
  task:
    description: The task that failed.
    type: str
    default: ''
  show:
    description: Whether to print; the lines are returned in any case.
    type: bool
    default: true
attributes:
  check_mode:
    description: Can run in C(check_mode) and tell what would be done, without touching anything.
    support: full
  diff_mode:
    description: Tells what would change in diff mode.
    support: none
  action:
    description: Runs on the controller, as an action plugin.
    support: full
"""

EXAMPLES = r"""
- name: What happened?
  umbra.rollback.rollback_report:
    update_id: shop-2.4.0
  run_once: true
"""

RETURN = r"""
lines:
  description: The timeline.
  returned: when it is not a record of a failure
  type: list
  elements: str
code:
  description: The error's code; the operator's guide has a section for each.
  returned: failure
  type: str
"""
