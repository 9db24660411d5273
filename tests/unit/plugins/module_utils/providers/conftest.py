# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets a provider's tests run in a real machine: mark them `machine` and `root`."""

from __future__ import annotations

from ansible_collections.umbra.rollback.tests.testbed.inside import (
    pytest_configure,
    pytest_runtest_logreport,
    pytest_runtest_protocol,
)

__all__ = ["pytest_configure", "pytest_runtest_logreport", "pytest_runtest_protocol"]
