# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of rollback_watchdog: brings the host its part of the plan, by which it would go back alone."""

from __future__ import annotations

from typing import Any

from ..plugin_utils.host_action import HostAction
from ..plugin_utils.this_run import ThisRun


class ActionModule(HostAction):
    """See the module's documentation."""

    module = "rollback_watchdog"
    takes_plan = True

    def learn(self, result: dict[str, Any], run: ThisRun, host: str) -> None:
        """Record how the switch stands."""
        if not result.get("failed"):
            run.record("watchdog", host=host, state=result["state"], deadline=result["deadline"])
