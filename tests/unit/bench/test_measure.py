# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a command takes is measured with all its children, and a failure says what the command said."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from measure import Command, JobFailed, measure

ENVIRONMENT = {"PATH": os.environ["PATH"]}


def python(script: str) -> Command:
    return Command((sys.executable, "-I", "-S", "-c", script))


def test_time_cpu_and_memory_of_children_count(tmp_path: Path) -> None:
    busy = "import time; b = bytearray(64 << 20)\nwhile time.process_time() < 0.3: pass"
    parent = f"import os\npid = os.fork()\nif pid == 0:\n    exec({busy!r}); os._exit(0)\nos.waitpid(pid, 0)"
    used = measure([python(parent), Command(("sleep", "0.2"))], ENVIRONMENT, tmp_path / "log")
    assert used.wall >= 0.5
    assert 0.3 <= used.cpu < used.wall
    assert used.peak >= 64 << 20


def test_this_process_memory_does_not_count(tmp_path: Path) -> None:
    large = bytearray(os.urandom(1 << 20) * 128)
    used = measure([Command(("true",))], ENVIRONMENT, tmp_path / "log")
    assert used.peak < len(large) // 2


def test_environment_and_directory_are_those_of_the_job(tmp_path: Path) -> None:
    command = Command(("sh", "-c", "pwd; echo $WORD"), str(tmp_path))
    measure([command], {**ENVIRONMENT, "WORD": "said"}, tmp_path / "log")
    assert (tmp_path / "log").read_text() == f"{tmp_path}\nsaid\n"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (Command(("sh", "-c", "echo the reason >&2; exit 3")), "ended with 3: the reason"),
        (Command(("sh", "-c", "kill -9 $$")), "ended with -9: no output"),
        (Command(("/nonexistent/program",)), "can't be run \\(No such file"),
    ],
)
def test_a_failure_says_why_and_ends_the_job(command: Command, said: str, tmp_path: Path) -> None:
    later = Command(("touch", str(tmp_path / "later")))
    with pytest.raises(JobFailed, match=said):
        measure([command, later], ENVIRONMENT, tmp_path / "log")
    assert not (tmp_path / "later").exists()
