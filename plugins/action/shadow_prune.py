# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of shadow_prune."""

from __future__ import annotations

from ..plugin_utils.host_action import HostAction


class ActionModule(HostAction):
    """See the module's documentation."""

    module = "shadow_prune"
