# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets the switch's tests run in a machine with systemd: mark them `machine` and `root`."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.tests.testbed.inside import (
    pytest_configure,
    pytest_runtest_logreport,
    pytest_runtest_protocol,
)
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.verbs.conftest import Shop

__all__ = ["pytest_configure", "pytest_runtest_logreport", "pytest_runtest_protocol"]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A shop in a directory of its own."""
    return Shop(tmp_path)
