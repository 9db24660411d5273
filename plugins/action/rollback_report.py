# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print what happened in this run, as a short timeline; or record why the update failed on this host."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils.errors import UmbraError
from ..module_utils.resource import check_update_id
from ..plugin_utils import timeline
from ..plugin_utils.host_action import this_run

SPEC = {
    "update_id": {"type": "str", "required": True},
    "failure": {"type": "str"},
    "task": {"type": "str", "default": ""},
    "show": {"type": "bool", "default": True},
}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    """See the module's documentation."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Record, or print."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        checked = ArgumentSpecValidator(SPEC).validate(self._task.args)
        if checked.error_messages:
            return {
                **result,
                "failed": True,
                "msg": f"rollback_report: {' '.join(checked.error_messages)}.",
                "code": "input",
            }
        args = checked.validated_parameters
        try:
            run = this_run(check_update_id(args["update_id"]))
        except UmbraError as error:
            return {**result, "failed": True, "msg": str(error), "code": error.code}
        if args["failure"] is not None:
            host = str((task_vars or {})["inventory_hostname"])
            run.record("failed", host=host, task=args["task"], message=args["failure"])
            return {**result, "changed": False}
        lines = timeline.lines(run.events(), args["update_id"])
        if args["show"]:
            Display().display("\n".join(lines))
        return {**result, "changed": False, "lines": lines}
