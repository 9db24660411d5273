# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One bed for all tests: the images are made once, and guests resume from a saved state."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.tests.guests.shops import PROGRAMS, Shop, open_shop
from ansible_collections.umbra.rollback.tests.testbed.guests import Bed, Guest
from ansible_collections.umbra.rollback.tests.testbed.hosts import Hosts

seed = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """What is left to chance can be repeated."""
    parser.addoption("--seed", type=int, help="of what is chosen at random; each run says its own")
    parser.addoption("--runs", type=int, default=1, help="how often a controller is killed at a random moment")
    parser.addoption("--whole", action="store_true", help="all that guests are for; it takes more time than CI has")


def pytest_configure(config: pytest.Config) -> None:
    """Choose a seed."""
    config.addinivalue_line("markers", "whole: runs only with --whole")
    given = config.getoption("--seed")
    config.stash[seed] = random.SystemRandom().randrange(1 << 32) if given is None else given


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes more time than CI has."""
    if not config.getoption("--whole"):
        left_out = [item for item in items if item.get_closest_marker("whole")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_report_header(config: pytest.Config) -> str:
    """Say which seed was chosen."""
    return f"--seed {config.stash[seed]}"


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """What is chosen at random is chosen with this."""
    return random.Random(f"{request.config.stash[seed]} {request.node.name}")


@pytest.fixture(scope="session")
def bed() -> Iterator[Bed]:
    """Ends all guests that are left."""
    with Bed() as made:
        yield made


@pytest.fixture
def resumed(bed: Bed) -> Iterator[Callable[[str], Guest]]:
    """Makes a guest that is booted and can be logged in to; it ends with the test."""
    with ExitStack() as stack:

        def make(name: str) -> Guest:
            guest = stack.enter_context(bed.guest(name))
            guest.resume()
            return guest

        yield make


@pytest.fixture(scope="session")
def stocked(bed: Bed) -> Path:
    """The images of a guest in which version 1 of a shop runs."""
    return bed.kept("shop", "".join(PROGRAMS.values()), open_shop)


@pytest.fixture
def shops(bed: Bed, stocked: Path) -> Iterator[Callable[..., list[Shop]]]:
    """Makes guests of these names, each with a shop; they end with the test."""
    with ExitStack() as stack:

        def make(*names: str) -> list[Shop]:
            guests = [stack.enter_context(bed.guest(name, stocked)) for name in names]
            for guest in guests:
                guest.resume()
            return [Shop(guest) for guest in guests]

        yield make


@pytest.fixture
def few(pytestconfig: pytest.Config) -> bool:
    """Whether to do with one guest where more would do the same: each takes its share of the processors."""
    return not pytestconfig.getoption("--whole") and pytestconfig.getoption("--runs") == 1


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints what was measured, at once and whatever pytest captures."""

    def line(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", end="", flush=True)

    return line


@pytest.fixture(scope="module")
def twenty() -> Iterator[Hosts]:
    """Twenty hosts, for the tests of one file."""
    with Hosts(20) as made:
        yield made
