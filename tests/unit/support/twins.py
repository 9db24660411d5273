# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs tests with both twins of the kernel: import `pytest_generate_tests` and `twin` into a conftest or a module.

A test marked `pure` pins what only the pure twin promises, such as the order in which files are read.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import selected

ROOT = Path(__file__).resolve().parents[3]
COMMITTED = ROOT / "plugins/module_utils/kernel/built" / f"umbra_kernel.{platform.machine()}-linux-gnu.so"
# tests/sanitize builds another.
BUILT = Path(os.environ.get("UMBRA_TEST_KERNEL") or COMMITTED)
TWINS = ("pure", "native")


@contextmanager
def using(name: str) -> Iterator[None]:
    """Let that twin do the work. A native kernel that can't be loaded here is a failure."""
    selected.choose(name, str(BUILT) if name == "native" else None, None)
    assert name == selected.NAME
    try:
        yield
    finally:
        selected.choose("pure", None, None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test once with each twin, unless it is marked `pure`."""
    if "twin" in metafunc.fixturenames:
        only_pure = any(mark.name == "pure" for mark in metafunc.definition.iter_markers())
        native = () if only_pure else (pytest.param("native", marks=pytest.mark.native),)
        metafunc.parametrize("twin", ("pure", *native), indirect=True)


@pytest.fixture(autouse=True)
def twin(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of the twin that does the work."""
    with using(request.param):
        yield request.param
