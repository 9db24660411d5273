# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a module ends and the engine begins: parameters in, one result or one sentence out."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from . import processes
from .errors import UmbraError
from .kernel import arrival, selected
from .plan import Plan
from .resource import check_update_id
from .verbs.run import Module, Target

RESULT_BYTES = 60 << 10  # a module's result stays under 64 KiB, with room for what Ansible adds

COMMON: Mapping[str, Mapping[str, Any]] = {
    "update_id": {"type": "str", "required": True},
    "store": {"type": "path"},
    "store_key": {"type": "str", "no_log": True},
    "replicas": {"type": "list", "elements": "path"},
    "host": {"type": "str"},
    "lock_timeout": {"type": "float", "default": 60.0},
    "kernel": {"type": "str", "choices": ["auto", "native", "pure"], "default": "auto"},
    "kernel_threads": {"type": "int", "default": 0},
    "kernel_offer": {
        "type": "dict",
        "options": {
            "sha256": {"type": "dict", "default": {}},
            "content": {"type": "str", "no_log": True},  # no secret: large, and of no use in a log
            "why": {"type": "str", "default": ""},
            "only": {"type": "bool", "default": False},
        },
    },
}
PLAN: Mapping[str, Mapping[str, Any]] = {"plan": {"type": "dict"}}
PAYLOAD: Mapping[str, Mapping[str, Any]] = {"payload": {"type": "bool", "default": False}}


def target(params: Mapping[str, Any]) -> Target:
    """The update, host and store that a module's parameters name. Raises UpdateIdInvalid, StoreFormatUnknown."""
    update_id = params.get("update_id")
    if update_id is not None:
        check_update_id(update_id)
    plan = Plan.from_dict(params["plan"], "the plan of this run") if params.get("plan") else None
    host = params.get("host") or os.uname().nodename
    replicas = params.get("replicas")
    return Target(
        update_id or "",
        host,
        params.get("store"),
        params["lock_timeout"],
        plan,
        params.get("store_key"),
        None if replicas is None else tuple(replicas),
    )


def conclude(module: Module, call: Callable[[Target], dict[str, Any]]) -> NoReturn:
    """Run `call` and end the module: with its result (failed where it has a `msg`), or with one sentence and a code.

    First of all the kernel is chosen; where the action is to send it, the module ends with nothing but that wish.
    """
    processes.name_this()
    try:
        result = _kernel_alone(module)
        if result is None:
            result = {**fit(call(target(module.params))), **_kernel()}
    except UmbraError as error:
        module.fail_json(msg=str(error), code=error.code, **_kernel())
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        module.fail_json(msg=f"{where}{error.strerror or error}. Mend it and run again.", code="system", **_kernel())
    except Exception as error:  # noqa: BLE001  # the edge: a defect of ours must end in a sentence, too
        module.fail_json(
            msg=f"umbra.rollback has a defect ({type(error).__name__}: {error}). What was begun is journaled: run "
            "again to go on, and report this with the output of -vvv.",
            code="internal",
            exception=traceback.format_exc(),
            **_kernel(),
        )
    for warning in result.pop("warnings", ()):
        module.warn(warning)
    if "msg" in result:
        module.fail_json(**result)
    module.exit_json(**result)


def _kernel_alone(module: Module) -> dict[str, Any] | None:
    """Choose the kernel. The result to end with at once: the kernel has to be sent, or was all that was asked for."""
    offer = module.params.get("kernel_offer") or {}
    remote_tmp = getattr(module, "_remote_tmp", None)
    wanted = arrival.arrive(module.params["kernel"], offer, module.check_mode, remote_tmp)
    selected.limit(module.params["kernel_threads"])
    if wanted is not None:
        return {"changed": False, "kernel_wanted": wanted}
    return {"changed": False} if offer.get("only") else None


def _kernel() -> dict[str, Any]:
    return {"kernel": selected.NAME, "kernel_reason": selected.WHY}


def fit(result: dict[str, Any]) -> dict[str, Any]:
    """`result` cut to RESULT_BYTES: the longest lists lose their end, and `truncated` says how many items each had."""
    truncated: dict[str, int] = {}
    while len(json.dumps(result)) > RESULT_BYTES:
        lists = {
            key: len(json.dumps(value)) for key, value in result.items() if isinstance(value, list) and len(value) > 1
        }
        if not lists:
            break
        longest = max(lists, key=lambda key: lists[key])
        truncated.setdefault(longest, len(result[longest]))
        result = {**result, longest: result[longest][: len(result[longest]) // 2]}
        result["truncated"] = truncated
    return result
