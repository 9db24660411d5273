# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`engine_job.py JSON`: one job of the engine in this process; what it took is written to the file `report` names."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.umbra.rollback.plugins.module_utils.errors import UmbraError
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import selected
from ansible_collections.umbra.rollback.plugins.module_utils.tree.scan import TreeOptions, open_root, scan
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import create, prune, restore
from ansible_collections.umbra.rollback.plugins.module_utils.verbs.run import Target

HOST = "bench"


def shadow(target: Target, tree: str) -> str:
    """Shadow the tree; incremental to the last shadow, if there is one."""
    made = create.create(target, [{"name": "tree", "type": "file", "path": tree}])
    return "" if made.changed else "nothing was shadowed"


def back(target: Target, _tree: str) -> str:
    """Bring the tree back: what differs in it, or all of it when it is gone."""
    results = restore.restore(target, restore.Request()).results
    return "; ".join(f"{one.action}: {one.reason}" for one in results if one.action != "restored")


def verify(target: Target, _tree: str) -> str:
    """Read the whole store back."""
    return "; ".join(prune.check(target, prune.Request(verify=True)).problems)


def look(_target: Target, tree: str) -> str:
    """Look at everything that stat knows of the tree."""
    options = TreeOptions(name="tree")
    with open_root(os.fsencode(tree), options) as fs:
        return "" if scan(fs, options).nodes else "nothing was found"


CALLS: Mapping[str, Callable[[Target, str], str]] = {
    "first": shadow,
    "unchanged": shadow,
    "changed": shadow,
    "drift": back,
    "full": back,
    "verify": verify,
    "scan": look,
}


def main(asked: Mapping[str, Any]) -> None:
    """Do one job. Ends with a sentence when it goes wrong."""
    path, digest = asked["kernel"] or (None, None)
    target = Target("" if asked["job"] == "verify" else asked["update_id"], HOST, asked["store"])
    try:
        selected.choose(asked["twin"], path, digest)
        begin, cpu = time.perf_counter(), time.process_time()
        wrong = CALLS[asked["job"]](target, asked["tree"])
        took = {"wall": time.perf_counter() - begin, "cpu": time.process_time() - cpu}
    except UmbraError as error:
        sys.exit(str(error))
    if wrong or asked["twin"] != selected.NAME:
        sys.exit(wrong or f"{selected.NAME} ran instead of {asked['twin']}: {selected.WHY}")
    with open(asked["report"], "w", encoding="utf-8") as file:
        json.dump(took, file)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
