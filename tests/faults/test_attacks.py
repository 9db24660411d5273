# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root shadows and restores the tree of a user who does his worst meanwhile: nobody else is harmed, and nobody waits.

The moments are those of the tracer: just before each call that takes a name, one of many things is done, by a process
that runs as that user. So every window is tried, not only those that a race happens to hit; the race is beside it.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import UmbraError
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import restore
from ansible_collections.umbra.rollback.tests.faults.attacks import (
    DATABASE_NAMES,
    KINDS,
    NAMES,
    Attacker,
    Victim,
    give,
    racing,
)
from ansible_collections.umbra.rollback.tests.faults.tracer import Tracer
from ansible_collections.umbra.rollback.tests.faults.worlds import FileWorld, SqliteWorld, Unrestored, World
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.providers.conformance import (
    check_sentence,
    spread,
)
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.tree.trees import remove

VERBS = ("create", "drift", "restore", "undo")
PLANTED = ("hard_link", "temporary")  # of a file that has a name in the tree, its content may be in the store
ROUNDS = 3  # until what is late is gone


class Owned(World):
    """What a user owns, in a directory that is his as well; the store is root's. `names` are in `yard`."""

    names: tuple[str, ...]

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.aside = root / "aside"
        self.aside.mkdir()
        root.chmod(0o755)

    @property
    def yard(self) -> Path:
        """Where the owner does his worst."""
        raise NotImplementedError

    def build(self) -> None:
        super().build()  # type: ignore[safe-super]
        give(self.live, self.aside)

    def update(self) -> None:
        super().update()  # type: ignore[safe-super]
        give(self.live)

    def drift(self) -> Any:
        """What a restore would do: check mode."""
        return restore.check(self.target(), restore.Request())

    def tidy(self) -> None:
        """What an operator does who is told that something is in the way: he moves it away."""
        if self.yard.is_symlink() or not self.yard.is_dir():
            remove(self.yard)
            return
        self.yard.chmod(0o755)
        for path in self.yard.iterdir():
            remove(path)

    def mend(self) -> None:
        """There is something to be shadowed, whatever was done to it."""


class Tree(Owned, FileWorld):
    """A tree."""

    names = NAMES

    @property
    def yard(self) -> Path:
        return self.place

    def mend(self) -> None:
        if not os.path.lexists(self.place):
            self.place.mkdir()


class Database(Owned, SqliteWorld):
    """A database."""

    names = DATABASE_NAMES

    @property
    def yard(self) -> Path:
        return self.live

    def state(self) -> object:
        for suffix in ("-wal", "-shm", "-journal"):
            beside = self.live / f"it{suffix}"
            if os.path.lexists(beside) and (beside.is_symlink() or not beside.is_file() or beside.stat().st_nlink > 1):
                remove(beside)  # with what he left there, the owner can't use it himself
        return super().state()

    def mend(self) -> None:
        self.tidy()
        self.build()


class Case:
    """A verb at a moment where it has something to do."""

    def __init__(self, world: Owned, verb: str) -> None:
        self.world, self.verb = world, verb
        self.one = world.state()
        if verb != "create":
            world.create()
            world.update()
        self.two = world.state()
        if verb == "undo":
            world.restore()
        world.save()

    def call(self) -> Any:
        """The verb."""
        return self.world.restore(undo=True) if self.verb == "undo" else getattr(self.world, self.verb)()

    def finish(self) -> None:
        """With the attacker gone it ends well, and all is what its shadow says."""
        if self.verb in ("restore", "undo"):
            self._finish_restore()
            assert self.world.state() == (self.one if self.verb == "restore" else self.two)
            return
        if self.verb == "drift":
            self.world.drift()
            return
        self.world.mend()
        self.world.create("late")
        before = self.world.state()
        self.world.wreck()
        self.world.restore("late")
        assert self.world.state() == before

    def _finish_restore(self) -> None:
        """What came after the failed state was kept is never removed: the message says so, and the operator does."""
        for _round in range(ROUNDS):
            try:
                self.call()
                return
            except Unrestored as error:
                check_sentence(error)
                self.world.tidy()
        self.call()


@pytest.fixture(params=[Tree, Database])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Owned:
    for place in (tmp_path, *list(tmp_path.parents)[:3]):
        place.chmod(stat.S_IMODE(place.stat().st_mode) | 0o111)  # pytest's are closed, and the owner has to get there
    made: Owned = request.param(tmp_path / "world")
    monkeypatch.setenv("TMPDIR", str(made.scratch))
    monkeypatch.setattr("tempfile.tempdir", None)
    made.build()
    return made


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Victim]:
    made = Victim(tmp_path / "victim")
    yield made
    made.close()


def test_the_victim_notices(victim: Victim, tmp_path: Path) -> None:
    """Else the tests below would prove nothing."""
    store = tmp_path / "none"
    assert victim.harm(store) == []
    (victim.path / "secret").read_bytes()
    assert any("secret" in event for event in victim.harm(store))
    os.listdir(victim.path / "etc")
    assert victim.harm(store)
    (victim.path / "secret").chmod(0o666)
    assert "it is not as it was" in victim.harm(store)


@pytest.mark.parametrize("verb", VERBS)
def test_an_attack_in_every_window(
    request: pytest.FixtureRequest,
    world: Owned,
    victim: Victim,
    tracer: Tracer,
    calls: dict[int, str],
    verb: str,
    twin: str,
) -> None:
    case = Case(world, verb)
    whole = tracer.run(case.call, UmbraError, meddle=lambda: None)
    assert (whole.status, whole.text) == (0, "")
    strikes = list(product(KINDS, world.names))
    random.Random(verb).shuffle(strikes)
    most = request.config.getoption("--points") or whole.calls
    for number, at in enumerate(spread(whole.calls, most)):
        kind, name = strikes[number % len(strikes)]
        world.go_back()
        attacker = Attacker(world.yard, world.aside, victim)
        ended = tracer.run(case.call, UmbraError, at, meddle=attacker.strike(kind, name))
        where = f"{kind} {name!r} at {at} of {whole.calls} ({calls.get(ended.struck or 0)}): {ended.text}"
        print(where)  # pytest shows it with a failure
        assert attacker.failures == [], where
        assert not ended.killed and not ended.is_broken, where
        if ended.status:
            check_sentence(Unrestored(reason=ended.text))
        assert victim.harm(world.store, kind in PLANTED) == [], where
        attacker.clear()
        case.finish()
        assert victim.harm(world.store, kind in PLANTED) == [], where


@pytest.mark.parametrize("planted", [False, True], ids=["", "hard-links"])
def test_a_race(
    request: pytest.FixtureRequest,
    world: Owned,
    victim: Victim,
    tracer: Tracer,
    capsys: pytest.CaptureFixture[str],
    planted: bool,
    twin: str,
) -> None:
    """The same at random, by processes of the owner that never pause, while the verbs run one after the other."""
    rounds = request.config.getoption("--points") // 8 or 100
    seed = int(os.environ.get("UMBRA_TEST_SEED") or time.time())
    with capsys.disabled():
        print(f" seed {seed}", end="", flush=True)
    cases = {}
    for verb in VERBS:
        world.tidy()
        shutil.rmtree(world.store, ignore_errors=True)
        world.build()
        world.saved = world.root / f"saved-{verb}"
        cases[verb] = Case(world, verb)
    for number in range(rounds):
        verb = VERBS[number % len(VERBS)]
        case = cases[verb]
        world.saved = world.root / f"saved-{verb}"
        world.go_back()
        with racing(world.yard, world.aside, victim, seed + 10 * number, planted):
            ended = tracer.run(case.call, UmbraError)
        where = f"{verb}, seed {seed}, round {number}: {ended.text}"
        assert not ended.is_broken, where
        if ended.status:
            check_sentence(Unrestored(reason=ended.text))
        assert victim.harm(world.store, planted) == [], where
