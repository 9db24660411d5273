# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of shadow_restore: brings the host its part of the plan, and what failed on other hosts."""

from __future__ import annotations

from typing import Any

from ..plugin_utils.host_action import HostAction
from ..plugin_utils.this_run import ThisRun


class ActionModule(HostAction):
    """See the module's documentation."""

    module = "shadow_restore"
    takes_plan = True

    def prepare(self, args: dict[str, Any], run: ThisRun | None) -> dict[str, Any] | None:
        """Name the resources of other hosts that could not be restored."""
        if run and "unmet" not in args:
            args["unmet"] = run.unmet()
        return None

    def learn(self, result: dict[str, Any], run: ThisRun, host: str) -> None:
        """Record how it went."""
        if "resources" in result:
            run.record(
                "restored",
                host=host,
                ok=not result.get("failed"),
                seconds=result["seconds"],
                resources=result["resources"],
                displaced=result["displaced"],
                undo=result["undo"],
                state=result["state"],
                store=result["store"],
                notes=result["notes"],
                undone=bool(self._task.args.get("undo")),
            )
        elif result.get("failed"):
            run.record(
                "restored",
                host=host,
                ok=False,
                seconds=0.0,
                resources=[],
                displaced=None,
                undo="",
                reason=result.get("msg", ""),
                undone=bool(self._task.args.get("undo")),
            )
