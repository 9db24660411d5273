# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation that several modules share."""

from __future__ import annotations


class ModuleDocFragment:
    """Options and attributes of every module that works on a host's store."""

    DOCUMENTATION = r"""
options:
  update_id:
    description:
      - Name of the update, 1 to 128 letters, digits, dots, underscores and dashes, beginning with a letter or a digit.
    type: str
    required: true
  store:
    description:
      - Directory of the store on the host.
      - The default is C(/var/lib/umbra) for root, and C($XDG_STATE_HOME/umbra) or C(~/.local/state/umbra) for others.
    type: path
  store_key:
    description:
      - Secret of at least 16 characters that proves who wrote the records of the store. With it every manifest, plan
        and journal carries an HMAC-SHA256, and one that was edited, or written with another key or none, is refused.
      - It is never stored, so every task on what was written with it has to be given it. Keep it in a vault.
    type: str
  replicas:
    description:
      - Directories on the host, on other disks or mounted from other machines, that each hold a copy of the host's part
        of the store. M(umbra.rollback.shadow_create) copies to them, and the update must not start when one can't be
        written; other modules have them follow as far as they can be reached, and warn otherwise. What is damaged or
        lost in the store is taken from the first that has it good.
      - The default is what the last M(umbra.rollback.shadow_create) on this host was told; an empty list means none.
    type: list
    elements: path
  host:
    description:
      - Name below which the shadows of this host lie in the store.
      - The default is the name of the host in the inventory (with C(delegate_to), of the host delegated to).
    type: str
  lock_timeout:
    description:
      - Seconds to wait for another run that works on the shadows of this host.
    type: float
    default: 60.0
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
  kernel_offer:
    description: What the controller has of the native kernel; the action plugin fills it in.
    type: dict
    suboptions:
      sha256:
        description: The SHA-256 of the built file for each platform.
        type: dict
        default: {}
      content:
        description: The built file for this host, packed, when the host asked for it.
        type: str
      why:
        description: Why it can't be sent.
        type: str
        default: ''
      only:
        description: Take the kernel, and do nothing else.
        type: bool
        default: false
attributes:
  check_mode:
    description: Can run in C(check_mode) and tell what would be done, without touching anything.
    support: full
  diff_mode:
    description: Tells what would change in diff mode.
    support: none
  platform:
    description: The systems it runs on.
    platforms: linux
    support: full
requirements:
  - Python 3.9 or newer on the host, and nothing else.
"""

    PLAN = r"""
options:
  plan:
    description:
      - The part of the analysis that concerns this host; the action plugin fills it in after
        M(umbra.rollback.rollback_analyze) ran, and it is saved in the host's store.
    type: dict
"""

    PAYLOAD = r"""
options:
  payload:
    description:
      - Return what the controller needs for M(umbra.rollback.rollback_analyze) as well; set by the action plugin.
    type: bool
    default: false
"""
