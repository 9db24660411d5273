# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether ctimes tell of every change is found out, and never assumed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import ctimes


def open_directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def test_it_is_as_the_file_system_does(tmp_path: Path) -> None:
    """By another way than the code's: many writes, each after a look."""
    fd = open_directory(tmp_path)
    fine = ctimes.has_fine_clock(fd)
    os.close(fd)
    seen = []
    with (tmp_path / "file").open("wb", buffering=0) as file:
        for _number in range(200):
            file.write(b"x")
            seen.append(os.fstat(file.fileno()).st_ctime_ns)
    assert fine == (len(set(seen)) == len(seen))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_clock_that_ticks_is_coarse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-in for a kernel before 6.13: on one, the second change within a tick has the ctime of the first."""
    monkeypatch.setattr(ctimes, "_change", lambda fd: 1)
    fd = open_directory(tmp_path)
    assert not ctimes.has_fine_clock(fd)
    os.close(fd)


def test_a_clock_that_can_not_be_tried_is_coarse() -> None:
    fd = open_directory(Path("/proc"))
    assert not ctimes.has_fine_clock(fd)
    os.close(fd)
