# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One tracer for all, each verb at its moment, and how many points were tried, told at the end."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.tests.faults.tracer import Tracer, names
from ansible_collections.umbra.rollback.tests.faults.verbs import VERBS, Moment
from ansible_collections.umbra.rollback.tests.faults.worlds import WORLDS, World
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.providers.conformance import spread
from ansible_collections.umbra.rollback.tests.unit.support.twins import pytest_generate_tests, twin

__all__ = ["pytest_generate_tests", "twin"]
TRIED: Counter[str] = Counter()
FIRST = ("ENOSPC", "EIO", "ESTALE")  # errors that are tried in any case


def pytest_addoption(parser: pytest.Parser) -> None:
    """How many points are tried."""
    help_ = (
        "kill at most at so many calls in each case, spread evenly, and refuse a tenth of that; 0: all, and all errors"
    )
    parser.addoption("--points", type=int, default=40, help=help_)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The twins differ in how they handle trees, and where they are killed: one of them is enough for the rest."""
    few = config.getoption("--points") > 0
    dropped = {item for item in items if _is_much(item) or (few and _is_rare(item))}
    config.hook.pytest_deselected(items=[item for item in items if item in dropped])
    items[:] = [item for item in items if item not in dropped]


def _is_much(item: pytest.Item) -> bool:
    native = "native]" in item.name or "-native-" in item.name
    return native and not ("Tree-" in item.name or ("killed" in item.name and "-file-" in item.name))


def _is_rare(item: pytest.Item) -> bool:
    return "refused" in item.name and not any(f"-{error}-" in item.name for error in FIRST)


@pytest.fixture(scope="session")
def tracer(tmp_path_factory: pytest.TempPathFactory) -> Tracer:
    """Built once."""
    return Tracer(tmp_path_factory.mktemp("tracer"))


@pytest.fixture(scope="session")
def calls() -> dict[int, str]:
    """Names of system calls."""
    return names()


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose programs keep their temporaries in it."""
    made: World = WORLDS[request.param](tmp_path / "world")
    monkeypatch.setenv("TMPDIR", str(made.scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    made.build()
    return made


@pytest.fixture(params=VERBS)
def moment(request: pytest.FixtureRequest, world: World) -> Moment:
    """A verb that is about to be run, in a world where that makes sense."""
    return Moment(world, VERBS[request.param]())


@pytest.fixture
def points(request: pytest.FixtureRequest) -> Callable[..., list[int]]:
    """Which of so many points to try; fewer with `some`. They are counted."""
    what = request.node.name.partition("[")[0].removeprefix("test_")

    def chosen(count: int, verb: str, some: bool = False) -> list[int]:
        most = request.config.getoption("--points") or count * 10
        found = list(spread(count, max(2, most // 10) if some else most))
        TRIED[f"{verb}, {what}"] += len(found)
        return found

    return chosen


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much was tried."""
    for what, count in sorted(TRIED.items()):
        terminalreporter.write_line(f"{count:6} points: {what}")
    terminalreporter.write_line(f"{sum(TRIED.values()):6} points in all{os.linesep}")
