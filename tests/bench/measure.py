# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one job takes: time, CPU and memory of some commands. As a script, the small process that measures them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LIMIT = 3600.0  # seconds for the commands of one job
SHOWN = 5  # lines of a failed command's output


class JobFailed(Exception):
    """A command of a job failed, could not be run, or gave a wrong result; the text says which and why."""


@dataclass(frozen=True)
class Command:
    """A program with its arguments, and the directory to run it in."""

    argv: tuple[str, ...]
    cwd: str = "/"


@dataclass(frozen=True)
class Usage:
    """What commands took together: seconds, CPU seconds with all their children, and the largest process in bytes."""

    wall: float
    cpu: float
    peak: int


def measure(commands: Sequence[Command], environment: Mapping[str, str], log: Path) -> Usage:
    """Run commands one after the other; what they print goes to the end of `log`. Raises JobFailed.

    They are started by a small process: a child begins with its parent's peak of memory, and this one's is large.
    """
    job = {"commands": [asdict(command) for command in commands], "environment": dict(environment), "log": str(log)}
    argv = [sys.executable, "-I", "-S", os.path.abspath(__file__)]
    before = log.stat().st_size if log.exists() else 0
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            answer, dummy = process.communicate(json.dumps(job).encode(), LIMIT)
        except subprocess.TimeoutExpired:
            raise JobFailed(f"{commands[0].argv[0]} did not end within {LIMIT:.0f} s") from None
        finally:
            _end_group(process)
    if process.returncode != 0:
        raise JobFailed(f"what measures {commands[0].argv[0]} ended with {process.returncode}")
    done = json.loads(answer)
    if done["failed"]:
        with log.open("rb") as file:
            file.seek(before)
            said = file.read().decode("utf-8", "replace").splitlines()[-SHOWN:]
        raise JobFailed(f"{done['failed']}: {' | '.join(said) or 'no output'}")
    return Usage(done["wall"], done["cpu"], done["peak"])


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Whatever is left of the job: nothing, unless it was interrupted."""
    with contextlib.suppress(ProcessLookupError):  # all of it has ended, as it should
        os.killpg(process.pid, signal.SIGKILL)


def _run(job: Mapping[str, Any]) -> dict[str, Any]:
    output = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    files = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
    wall = cpu = 0.0
    peak = 0
    for command in job["commands"]:
        argv = command["argv"]
        os.chdir(command["cwd"])
        begin = time.perf_counter()
        try:
            pid = os.posix_spawnp(argv[0], argv, job["environment"], file_actions=files)
        except OSError as error:
            return {"failed": f"{argv[0]} can't be run ({error.strerror})"}
        dummy, status, used = os.wait4(pid, 0)
        wall += time.perf_counter() - begin
        cpu += used.ru_utime + used.ru_stime
        peak = max(peak, used.ru_maxrss * 1024)
        if code := os.waitstatus_to_exitcode(status):
            return {"failed": f"{' '.join(argv[:3])} ended with {code}"}
    return {"failed": "", "wall": wall, "cpu": cpu, "peak": peak}


if __name__ == "__main__":
    print(json.dumps(_run(json.load(sys.stdin))))
