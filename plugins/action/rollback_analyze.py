# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Join what the hosts shadowed into one plan of the way back, predict it, and refuse the update at the gate."""

from __future__ import annotations

import time
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils.errors import NotShadowedHere, UmbraError
from ..module_utils.resource import check_update_id
from ..module_utils.shadow import Manifest
from ..plugin_utils import kernel_delivery, report_html
from ..plugin_utils.analysis import Analysis, AnalysisOptions, analyze
from ..plugin_utils.assess import HostInput
from ..plugin_utils.host_action import this_run
from ..plugin_utils.this_run import ThisRun

SPEC = {
    "update_id": {"type": "str", "required": True},
    "hosts": {"type": "list", "elements": "str"},
    "depends_on": {"type": "dict", "default": {}},
    "weights": {"type": "dict", "default": {}},
    "tiers": {"type": "dict", "default": {}},
    "max_rto": {"type": "float"},
    "max_risk": {"type": "float"},
    "workers": {"type": "int", "default": 4},
    "report": {"type": "path"},
    "kernel": {"type": "str", "choices": ["auto", "native", "pure"], "default": "auto"},
    "kernel_threads": {"type": "int", "default": 0},
}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    """See the module's documentation."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Analyze what `shadow_create` or `shadow_info` brought to this run."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        checked = ArgumentSpecValidator(SPEC).validate(self._task.args)
        if checked.error_messages:
            return {
                **result,
                "failed": True,
                "msg": f"rollback_analyze: {' '.join(checked.error_messages)}.",
                "code": "input",
            }
        args = checked.validated_parameters
        try:
            result.update(kernel_delivery.choose_here(args["kernel"], args["kernel_threads"]))
            check_update_id(args["update_id"])
            run = this_run(args["update_id"])
            wanted = args["hosts"] or list((task_vars or {}).get("ansible_play_batch", []))
            inputs = _inputs(run, args["update_id"], wanted)
            analysis = analyze(args["update_id"], inputs, _options(args))
        except UmbraError as error:
            return {**result, "failed": True, "msg": str(error), "code": error.code}
        result.update(analysis.to_result())
        for warning in result.pop("warnings", ()):
            Display().warning(warning)
        if args["report"] and not self._task.check_mode:
            result["report"] = self._write(args["report"], analysis)
        for host, plan in analysis.plans.items():
            run.keep_plan(host, plan.to_dict())
        run.record("analyzed", **analysis.to_event())
        if not analysis.gate.passed:
            msg = f"Update {args['update_id']} was not started: {' '.join(analysis.gate.refusals)}"
            return {**result, "failed": True, "msg": msg, "code": "gate"}
        return {**result, "changed": bool(args["report"])}

    def _write(self, path: str, analysis: Analysis) -> str:
        target: str = self._loader.path_dwim(path)
        with open(target, "w", encoding="utf-8") as page:
            page.write(report_html.render(analysis, time.time()))
        return target


def _inputs(run: ThisRun, update_id: str, wanted: list[str]) -> list[HostInput]:
    known = run.hosts()
    missing = [host for host in wanted if host not in known]
    if missing or not wanted:
        raise NotShadowedHere(hosts=", ".join(missing) or "no host", update_id=update_id)
    return [
        HostInput(
            host,
            Manifest.from_dict({**known[host]["manifest"]}, f"the manifest of {host}"),
            known[host]["history"],
            known[host]["turn"],
        )
        for host in wanted
    ]


def _options(args: dict[str, Any]) -> AnalysisOptions:
    return AnalysisOptions(
        depends_on=args["depends_on"],
        weights=args["weights"],
        tiers=args["tiers"],
        max_rto=args["max_rto"],
        max_risk=args["max_risk"],
        workers=args["workers"],
    )
