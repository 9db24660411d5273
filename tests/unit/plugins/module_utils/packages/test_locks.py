# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lock files of package managers."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import RestoreFailed
from ansible_collections.umbra.rollback.plugins.module_utils.packages import locks

HOLD = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
TRY = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"


@contextmanager
def holder(path: Path) -> Iterator[int]:
    """Another process that holds a lock, and its number."""
    argv = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def is_free(path: Path) -> bool:
    """Whether another process could take it."""
    return (
        subprocess.run([sys.executable, "-c", TRY, str(path)], stderr=subprocess.DEVNULL, check=False).returncode == 0
    )


def test_it_is_held_and_let_go(tmp_path: Path) -> None:
    with locks.held("x", str(tmp_path / "lock"), (), 5):
        assert not is_free(tmp_path / "lock")
    assert is_free(tmp_path / "lock")


@pytest.mark.parametrize("name", ["lock", "other"])
def test_whoever_holds_it_is_named(tmp_path: Path, name: str) -> None:
    others = (str(tmp_path / "other"),)
    with holder(tmp_path / name) as pid:
        words = rf"x: .*lock is held by process {pid} \(.*import fcntl"
        with pytest.raises(RestoreFailed, match=words), locks.held("x", str(tmp_path / "lock"), others, 0.3):
            pytest.fail("two have it")
    with locks.held("x", str(tmp_path / "lock"), others, 5):
        pass


def test_a_lock_that_programs_take_themselves_is_only_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with holder(tmp_path / "lock") as pid, pytest.raises(RestoreFailed) as busy, locks.waited("x", path, 0.3):
        pytest.fail("two have it")
    assert f"process {pid} " in str(busy.value)
    with locks.waited("x", path, 5):
        assert is_free(tmp_path / "lock")


def test_another_thread_waits_too(tmp_path: Path) -> None:
    """The kernel's lock is the process's: to it both threads are one."""
    path, inside, leave = str(tmp_path / "lock"), threading.Event(), threading.Event()

    def hold() -> None:
        with locks.held("x", path, (), 5):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(10)
    with pytest.raises(RestoreFailed, match="another resource of this run"), locks.held("x", path, (), 0.2):
        pytest.fail("two have it")
    leave.set()
    thread.join()
    with locks.held("x", path, (), 5):
        pass


def test_a_lock_that_can_not_be_opened_is_named(tmp_path: Path) -> None:
    words, path = "no/lock: no such file or directory", str(tmp_path / "no/lock")
    with pytest.raises(RestoreFailed, match=words), locks.held("x", path, (), 1):
        pytest.fail("there is none")
