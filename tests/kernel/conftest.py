# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The script that builds the kernel, and what it builds now; these tests need requirements/kernel.txt."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "extensions" / "kernel"
SCRIPT = importlib.util.spec_from_file_location("umbra_kernel_build", SOURCES / "build.py")


@pytest.fixture(scope="session")
def script() -> ModuleType:
    """extensions/kernel/build.py, as a module."""
    module = importlib.util.module_from_spec(SCRIPT)
    SCRIPT.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the kernel for all platforms, built now, from a copy of the sources in another place."""
    folder = tmp_path_factory.mktemp("kernel")
    shutil.copytree(SOURCES, folder / "elsewhere")
    argv = [sys.executable, "-B", str(folder / "elsewhere" / "build.py"), "--out", str(folder / "built")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "built"
