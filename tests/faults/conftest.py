# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One tracer for all, each verb at its moment, and how many points were tried, told at the end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.tests.faults.packages import PackageWorld, leave_the_host
from ansible_collections.umbra.rollback.tests.faults.tracer import ERRORS, Tracer, names
from ansible_collections.umbra.rollback.tests.faults.verbs import VERBS, Moment
from ansible_collections.umbra.rollback.tests.faults.worlds import WORLDS as PLAIN
from ansible_collections.umbra.rollback.tests.faults.worlds import World, built
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.providers.conformance import spread
from ansible_collections.umbra.rollback.tests.unit.support.twins import pytest_generate_tests, twin

__all__ = ["pytest_generate_tests", "twin"]
WORLDS: dict[str, type[World]] = {**PLAIN, "package": PackageWorld}
FIRST = ERRORS[:3]  # they are tried in any case


def pytest_addoption(parser: pytest.Parser) -> None:
    """How many points are tried."""
    help_ = (
        "kill at most at so many calls in each case, spread evenly, and refuse a tenth of that (a quarter of both where"
    )
    help_ += " each takes long); 0: all, and all errors"
    parser.addoption("--points", type=int, default=25, help=help_)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The twins differ in how they handle trees, and where they are killed: one of them is enough for the rest."""
    few = config.getoption("--points") > 0
    dropped = {item for item in items if _is_much(item) or (few and _is_rare(item))}
    config.hook.pytest_deselected(items=[item for item in items if item in dropped])
    items[:] = [item for item in items if item not in dropped]


def _is_much(item: pytest.Item) -> bool:
    native = "native" in re.split(r"[][-]", item.name)
    return native and not ("Tree-" in item.name or ("killed" in item.name and "-file-" in item.name))


def _is_rare(item: pytest.Item) -> bool:
    if "refused_at_every_call" not in item.name:
        return False
    if "-package-" in item.name:
        return not any(item.name.endswith(f"-{error}-changing]") for error in FIRST)
    return not any(f"-{error}-" in item.name for error in FIRST)


@pytest.fixture(scope="session", autouse=True)
def _mounts() -> None:
    """Before anything is mounted: what was would stay mounted on the host."""
    leave_the_host()


@pytest.fixture(scope="session")
def tracer(tmp_path_factory: pytest.TempPathFactory) -> Tracer:
    """Built once."""
    return Tracer(tmp_path_factory.mktemp("tracer"))


@pytest.fixture(scope="session")
def calls() -> dict[int, str]:
    """Names of system calls."""
    return names()


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world whose programs keep their temporaries in it."""
    made = WORLDS[request.param](tmp_path / "world")
    made.name_of = request.param
    with built(made, monkeypatch):
        yield made


@pytest.fixture(params=VERBS)
def moment(request: pytest.FixtureRequest, world: World) -> Moment:
    """A verb that is about to be run, in a world where that makes sense."""
    return Moment(world, VERBS[request.param]())


@pytest.fixture
def points(request: pytest.FixtureRequest, moment: Moment) -> Callable[..., list[int]]:
    """Which of so many points to try; fewer with `some`, and in a world where each takes long. They are counted."""
    killing = "killed" in request.node.name
    row = TRIED.setdefault((moment.verb.name, moment.world.name_of), Row())

    def chosen(count: int, some: bool = False) -> list[int]:
        most = request.config.getoption("--points")
        most = max(2, most // (4 if moment.world.costly else 1) // (10 if some else 1)) if most else count
        found = list(spread(count, most))
        if killing:
            row.kills += len(found)
            row.kills_of += count
        else:
            row.refusals += len(found)
            reading = request.node.callspec.params["reading"]
            row.calls[reading] = max(count, row.calls.get(reading, 0))
        return found

    return chosen


@dataclass
class Row:
    """How often a verb was struck in a world, of how many points there are."""

    kills: int = 0
    kills_of: int = 0
    refusals: int = 0
    calls: dict[bool, int] = field(default_factory=dict)

    @property
    def refusals_of(self) -> int:
        """Each error at each call."""
        return sum(self.calls.values()) * len(ERRORS)

    @property
    def numbers(self) -> tuple[int, ...]:
        """As they stand in the table."""
        return self.kills, self.kills_of, self.refusals, self.refusals_of


TRIED: dict[tuple[str, str], Row] = {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much was tried, by verb and world."""
    if not TRIED:
        return
    rows = [(*names, *row.numbers) for names, row in sorted(TRIED.items())]
    sums = [sum(column) for column in list(zip(*rows))[2:]]
    terminalreporter.write_line(f"{'verb':14}{'world':10}{'killed at':>10}{'of':>8}{'refused':>10}{'of':>8}")
    for verb, world, *numbers in [*rows, ("in all", "", *sums)]:
        kills, kills_of, refusals, refusals_of = numbers
        terminalreporter.write_line(f"{verb:14}{world:10}{kills:10}{kills_of:8}{refusals:10}{refusals_of:8}")
