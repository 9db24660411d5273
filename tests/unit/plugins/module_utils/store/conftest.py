# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store in a directory of the test's own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store

from .helpers import open_store


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """As tmp_path, in memory where there is such a place: for hundreds of stores that are killed, not switched off."""
    place = "/dev/shm"
    if not os.access(place, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="umbra-test-", dir=place) as path:
        yield Path(path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A new store of the host web1."""
    return open_store(tmp_path / "store")
