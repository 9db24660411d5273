# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running programs: no shell, a deadline for the whole group, the end of what they printed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import errors
from ansible_collections.umbra.rollback.plugins.module_utils.context import Context


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context("u1", "web1", str(tmp_path), environment={"COLOUR": "blue"})


def test_output_and_status(context: Context) -> None:
    done = context.run(["sh", "-c", 'printf %s "$COLOUR $LC_ALL"; echo oh >&2; exit 3'])
    assert (done.status, done.stdout, done.last_words) == (3, "blue C", "oh")


def test_arguments_are_not_interpreted(context: Context) -> None:
    assert context.run(["printf", "%s", "$(id); *"]).stdout == "$(id); *"


def test_a_missing_program_is_named(context: Context) -> None:
    with pytest.raises(errors.ToolMissing, match="no-such-program"):
        context.run(["no-such-program"])


def test_the_deadline_ends_children_too(context: Context, tmp_path: Path) -> None:
    begun = time.monotonic()
    done = context.run(["sh", "-c", 'sleep 60 & echo $! > "$1"; wait', "sh", str(tmp_path / "pid")], timeout=0.5)
    assert done.status == -9 and "killed after" in done.last_words and time.monotonic() - begun < 20
    child = int((tmp_path / "pid").read_text())
    for dummy in range(100):
        if not os.path.exists(f"/proc/{child}") or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]:
            break
        time.sleep(0.02)
    else:
        pytest.fail("the child lives")


def test_a_daemon_that_is_left_behind_is_not_waited_for(context: Context, tmp_path: Path) -> None:
    """It has the program's standard output still open."""
    begun = time.monotonic()
    done = context.run(["sh", "-c", 'setsid sleep 60 & echo $! > "$1"; echo said', "sh", str(tmp_path / "pid")])
    assert (done.status, done.stdout, done.stderr) == (0, "said\n", "") and time.monotonic() - begun < 20
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_check_raises_with_the_last_words(context: Context) -> None:
    with pytest.raises(errors.CommandFailed) as caught:
        context.check("thing", ["sh", "-c", "seq 1000; exit 1"])
    assert "1000" in str(caught.value) and len(str(caught.value)) < 600
