# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of shadow_create: reads `resources_file`, and brings the host's manifest here."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleError

from ..plugin_utils.host_action import HostAction
from ..plugin_utils.this_run import ThisRun


class ActionModule(HostAction):
    """See the module's documentation."""

    module = "shadow_create"
    gives_payload = True

    def prepare(self, args: dict[str, Any], run: ThisRun | None) -> dict[str, Any] | None:
        """Read the resources from the file on the controller."""
        path = args.get("resources_file")
        if path is None or args.get("resources") is not None:
            return None
        try:
            found = self._find_needle("vars", path)
            args["resources"] = self._loader.load_from_file(found)
        except AnsibleError as error:
            problem = " ".join(str(error.message).split())
            return {
                "msg": f"{path}: can't be read as YAML: {problem} Correct the file.",
                "code": "resources-file-invalid",
            }
        if not isinstance(args["resources"], list):
            kind = type(args["resources"]).__name__
            msg = f"{path}: holds {kind}, not a list. Write a list of resources, each with `name` and `type`."
            return {"msg": msg, "code": "resources-file-invalid"}
        return None

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """As HostAction; tells of the play what decides whether a rescue is reached: only the controller knows it."""
        result = super().run(tmp, task_vars)
        play = self._task.get_play()
        return {**result, "strategy": play.strategy, "max_fail_percentage": play.max_fail_percentage}

    def learn(self, result: dict[str, Any], run: ThisRun, host: str) -> None:
        """Record what was shadowed."""
        if not result.get("failed"):
            run.record(
                "shadowed",
                host=host,
                update_id=result["update_id"],
                records=result["shadows"],
                store=result["store"],
                existing=result["existing"],
            )
