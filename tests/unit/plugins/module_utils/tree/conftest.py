# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the tree room's tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.tree import apply as apply_module
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents
from ansible_collections.umbra.rollback.tests.unit.support.twins import pytest_generate_tests, twin

from .trees import IS_ROOT, NOBODY

__all__ = ["pytest_generate_tests", "twin"]


@pytest.fixture
def contents() -> MemoryContents:
    return MemoryContents()


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-in for waiting for the disk, which hundreds of restores in one test would do; the other tests wait."""
    monkeypatch.setattr(apply_module, "_sync", lambda disk: None)


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A directory of a user without privileges."""
    path = Path(tempfile.mkdtemp())
    if IS_ROOT:
        os.chown(path, NOBODY, NOBODY)
    yield path
    for directory in [path, *path.rglob("*")]:
        if directory.is_dir() and not directory.is_symlink():
            directory.chmod(0o700)
    shutil.rmtree(path)
