#!/usr/bin/python
# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: documentation of the action plugin rollback_analyze."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback_analyze
short_description: Plan and predict the way back of an update, and refuse the update when it is too long or too risky
version_added: 0.1.0
author: The umbra.rollback authors (@umbra-rollback)
description:
  - Joins what all hosts of the play shadowed into one graph, orders the way back in waves, scores how complex each
    resource's rollback is, and predicts how long the whole takes and how likely it fails.
  - Needs the shadows of every host in this run, from M(umbra.rollback.shadow_create), or
    M(umbra.rollback.shadow_info) for shadows of an earlier run.
  - Runs on the controller, once for all hosts; use it with C(run_once). The next task of this collection on each host
    saves the host's part of the plan in its store.
options:
  update_id:
    description: Name of the update.
    type: str
    required: true
  hosts:
    description: The hosts to join. The default is those of the play's current batch.
    type: list
    elements: str
  depends_on:
    description:
      - Dependencies beside those that the resources declare. Keys and the items of the lists are names of
        resources, or C(host:name).
    type: dict
    default: {}
  weights:
    description: Weights of the score's factors; see docs/analysis.md for the factors and the defaults.
    type: dict
    default: {}
  tiers:
    description: From which score on a resource is of C(medium) and C(high) tier.
    type: dict
    default: {}
  max_rto:
    description: Refuse the update when the way back may take longer than so many seconds (90 % bound).
    type: float
  max_risk:
    description: Refuse the update when the way back fails with a higher probability than this.
    type: float
  workers:
    description: How many resources of a wave are restored at once on one host.
    type: int
    default: 4
  report:
    description: Write an HTML report to this path on the controller.
    type: path
  kernel:
    description:
      - Which twin of the engine's kernel does the work. C(auto) is the native one where it can be used, and the one in
        pure Python elsewhere; both do the same. C(native) is a demand, and the task fails where it can't be met.
      - Results say in C(kernel) which one it was, and in C(kernel_reason) why. See docs/kernel.md.
    type: str
    choices: [auto, native, pure]
    default: auto
  kernel_threads:
    description: How many threads the native kernel uses; C(0) for all cores that the process may run on.
    type: int
    default: 0
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
requirements:
  - networkx on the controller
"""

EXAMPLES = r"""
- name: How long would the way back take?
  umbra.rollback.rollback_analyze:
    update_id: shop-2.4.0
    max_rto: 120
    report: /tmp/shop-2.4.0.html
  run_once: true
"""

RETURN = r"""
resources:
  description: Per C(host:name), its score with contributions, tier, predicted time, risk and wave; highest score first.
  returned: success
  type: dict
edges:
  description: What needs what, and how that is known.
  returned: success
  type: list
  elements: dict
cycles:
  description: Resources that need each other; they are restored as one unit.
  returned: success
  type: list
  elements: list
waves:
  description: Number of waves.
  returned: success
  type: int
rto:
  description: Predicted time of the whole way back in seconds, as C(p50) and C(p90).
  returned: success
  type: dict
risk:
  description: Probability that some resource fails to go back.
  returned: success
  type: float
gate:
  description: Whether the update may start (C(passed)), and why not (C(refusals)).
  returned: success
  type: dict
report:
  description: Where the HTML report is.
  returned: when asked for
  type: str
omitted:
  description: How many entries did not fit into the result; the report has all.
  returned: when there are any
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
