# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which twin runs, and what is said of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import KernelUnavailable
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import selected
from ansible_collections.umbra.rollback.tests.unit.support import kernels

FILE = str(kernels.FILE)


@pytest.fixture(autouse=True)
def chosen_again() -> Iterator[None]:
    """Leave to other tests what was chosen before."""
    before = selected.NAME, selected.WHY, selected.native
    yield
    selected.NAME, selected.WHY, selected.native = before
    selected.limit(0)


@pytest.mark.parametrize("wanted", ["auto", "native"])
def test_the_native_twin_is_chosen(wanted: str) -> None:
    selected.choose(wanted, FILE, kernels.digest(kernels.content()))
    assert selected.NAME == "native" and selected.WHY
    module = selected.kernel()
    assert module is not None and module is selected.native and module.__name__ == "umbra_kernel"


def test_pure_loads_nothing() -> None:
    selected.choose("native", FILE, None)
    selected.choose("pure", FILE, kernels.digest(kernels.content()))
    assert (selected.NAME, selected.kernel()) == ("pure", None)
    assert selected.WHY == "It was asked for (kernel: pure)."


# path, SHA-256, what is given as the reason, what is told
NOT_THERE = [
    (None, None, "", "no file of it was offered to this host"),
    (None, None, "there is none for riscv64", "there is none for riscv64"),
    ("/nonexistent/kernel.so", None, "", "/nonexistent/kernel.so: No such file or directory"),
    ("/", None, "", "/: Is a directory"),
    (FILE, "0" * 64, "", f"{FILE} does not have the SHA-256 {'0' * 64}"),
    (__file__, None, "", "invalid ELF header"),
]


@pytest.mark.parametrize(("path", "sha256", "why_not", "told"), NOT_THERE)
def test_without_it_the_pure_twin_runs_and_a_demand_fails(
    path: str | None, sha256: str | None, why_not: str, told: str
) -> None:
    selected.choose("native", FILE, None)
    selected.choose("auto", path, sha256, why_not)
    assert (selected.NAME, selected.kernel()) == ("pure", None)
    assert selected.WHY.startswith("The native kernel is not used: ") and told in selected.WHY
    selected.choose("native", FILE, None)
    with pytest.raises(KernelUnavailable) as caught:
        selected.choose("native", path, sha256, why_not)
    assert told in str(caught.value) and "kernel: auto" in str(caught.value) and "\n" not in str(caught.value)
    assert (selected.NAME, selected.kernel()) == ("pure", None)


def test_an_attackers_file_is_not_loaded(tmp_path: Path) -> None:
    """Loading it would end this process."""
    evil = tmp_path / "kernel.so"
    evil.write_bytes(kernels.attackers(kernels.content()))
    selected.choose("auto", str(evil), kernels.digest(kernels.content()))
    assert selected.NAME == "pure"


def test_threads() -> None:
    assert selected.threads() == len(os.sched_getaffinity(0))
    selected.limit(3)
    assert selected.threads() == 3
    selected.limit(0)
    assert selected.threads() == len(os.sched_getaffinity(0))
