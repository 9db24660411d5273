# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module costs beside the engine: shadow_create of a few files against a module that does nothing."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TIMES = 5
TRIVIAL = "ansible.builtin.ping"
SHADOW = "umbra.rollback.shadow_create"


def overhead(collections: Path) -> dict[str, float] | None:
    """Medians in seconds: `trivial` and `module` are whole runs of ansible, `engine` what the engine took of that.

    None where there is no ansible beside this Python.
    """
    program = Path(sys.executable).with_name("ansible")
    if not program.exists():
        return None
    unwanted = ("ANSIBLE_", "PYTHONDONTWRITEBYTECODE")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    environment = {**kept, "ANSIBLE_COLLECTIONS_PATH": str(collections)}
    environment |= {"ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
    trivial, whole, engine = [], [], []
    with tempfile.TemporaryDirectory(prefix="umbra-bench-") as folder:
        (Path(folder) / "tree").mkdir()
        (Path(folder) / "tree" / "file").write_text("content\n")
        for number in range(TIMES + 1):
            resources = [{"name": "tree", "type": "file", "path": f"{folder}/tree"}]
            arguments = {"update_id": f"u{number}", "store": f"{folder}/store", "resources": resources}
            seconds, dummy = _run(program, TRIVIAL, {"data": "pong"}, environment)
            more, result = _run(program, SHADOW, arguments, environment)
            if number:  # the first time nothing is in the cache
                trivial.append(seconds)
                whole.append(more)
                engine.append(float(result["seconds"]))
    medians = [statistics.median(times) for times in (trivial, whole, engine)]
    return dict(zip(("trivial", "module", "engine"), medians))


def line(found: Mapping[str, float]) -> str:
    """The same in one line."""
    own = found["module"] - found["trivial"] - found["engine"]
    return (
        f"module: ansible runs {SHADOW} in {found['module']:.3f} s, {TRIVIAL} in {found['trivial']:.3f} s; "
        f"the engine took {found['engine']:.3f} s of that, so the module itself {own:.3f} s"
    )


def _run(
    program: Path, module: str, arguments: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[float, dict[str, Any]]:
    argv = [str(program), "localhost", "-i", "localhost,", "-c", "local", "-m", module, "-a", json.dumps(arguments)]
    argv += ["-e", f"ansible_python_interpreter={sys.executable}"]
    begin = time.perf_counter()
    done = subprocess.run(argv, env=dict(environment), stdin=subprocess.DEVNULL, capture_output=True, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode != 0:
        raise SystemExit(f"{module} failed:\n{done.stdout.decode()}{done.stderr.decode()}")
    return seconds, json.loads(done.stdout.partition(b" => ")[2])  # localhost | SUCCESS => {...}
