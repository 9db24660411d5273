# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of a module that works on a store: names the host, brings the plan, learns from the result."""

from __future__ import annotations

import base64
import json
import time
import zlib
from typing import Any, ClassVar

from ansible import constants as C
from ansible.plugins.action import ActionBase

from . import kernel_delivery
from .this_run import ThisRun


class HostAction(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    """Runs `module` on the host with what only the controller knows filled in."""

    module: ClassVar[str]
    takes_plan: ClassVar[bool] = False
    gives_payload: ClassVar[bool] = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, and remember for later tasks of this run what it tells."""
        task_vars = task_vars or {}
        self._supports_check_mode = True
        self._supports_async = True
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = {"host": self.host(task_vars), **self._task.args}
        run = this_run(str(args["update_id"])) if args.get("update_id") else None
        refused = self.prepare(args, run)
        if refused:
            return {**result, "failed": True, **refused}
        if self.takes_plan and run and (plan := run.plan(args["host"])):
            args["plan"] = plan
        if self.gives_payload:
            args["payload"] = True
        wrap_async = bool(self._task.async_val) and not self._connection.has_native_async
        begun = 0.0

        def call(offer: dict[str, Any], background: bool) -> dict[str, Any]:
            nonlocal begun
            begun = time.monotonic()  # of the last call: what it cost to send the kernel comes but once
            name, given = f"umbra.rollback.{self.module}", {**args, "kernel_offer": offer}
            told: dict[str, Any] = self._execute_module(name, given, task_vars=task_vars, wrap_async=background)
            return told

        done = kernel_delivery.run(call, str(args.get("kernel", "auto")), wrap_async)
        result.update(done)
        if run and not wrap_async:
            turn = time.monotonic() - begun - float(done.get("seconds", 0.0))
            self._keep_payload(result, run, args["host"], turn, task_vars)
            if not self._task.check_mode:
                self.learn(result, run, args["host"])
        result.pop("payload", None)
        return result

    def prepare(self, args: dict[str, Any], run: ThisRun | None) -> dict[str, Any] | None:
        """Complete `args`; a result to fail with (msg, code) when that can't be done."""
        return None

    def learn(self, result: dict[str, Any], run: ThisRun, host: str) -> None:
        """Record what happened, for the report."""

    def host(self, task_vars: dict[str, Any]) -> str:
        """The host that the module runs on, as the inventory calls it."""
        delegate: str | None = self._task.delegate_to
        return str(delegate or task_vars["inventory_hostname"])

    def _keep_payload(
        self, result: dict[str, Any], run: ThisRun, host: str, turn: float, task_vars: dict[str, Any]
    ) -> None:
        if result.get("failed") or not self.gives_payload or "payload" not in result:
            return
        if result["payload"]:
            packed = json.loads(zlib.decompress(base64.b64decode(result["payload"])))
            run.keep_host(host, packed["manifest"], packed["history"], turn)
            return
        # too large for a result: the file itself is fetched, and the history is done without
        args = {"src": result["manifest"]}
        slurped = self._execute_module("ansible.legacy.slurp", args, task_vars=task_vars)
        run.keep_host(host, json.loads(base64.b64decode(slurped["content"])), [], turn)


def this_run(update_id: str) -> ThisRun:
    """The directory of this run for an update."""
    return ThisRun(C.DEFAULT_LOCAL_TMP, update_id)
