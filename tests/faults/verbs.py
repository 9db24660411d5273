# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each verb at a moment where it has something to do, and what has to be true when it was broken off and run again."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from typing import Any

from ansible_collections.umbra.rollback.tests.faults.worlds import Unrestored, World

UNKEPT = "its failed state could not be kept"


class Verb(ABC):
    """A call, and what it has to bring about. `one` is the state of version 1, `two` what the update left."""

    name: str
    spares = True  # the resource is not to be touched, whatever happens

    @abstractmethod
    def lead_up(self, world: World) -> None:
        """From version 2 with a shadow u1 of version 1, to the moment before the call."""

    @abstractmethod
    def call(self, world: World) -> Any:
        """The verb."""

    @abstractmethod
    def check(self, world: World, one: object, two: object) -> None:
        """What must be true once it came to its end. May use the world up."""


class First(Verb):
    """The first shadow, which makes the store."""

    name = "first create"

    def lead_up(self, world: World) -> None:
        shutil.rmtree(world.store)

    def call(self, world: World) -> Any:
        return world.create()

    def check(self, world: World, one: object, two: object) -> None:
        assert world.state() == two
        world.wreck()
        world.restore()
        assert world.state() == two


class Create(First):
    """A shadow that is built upon the last one."""

    name = "create"

    def lead_up(self, world: World) -> None:
        world.commit()

    def call(self, world: World) -> Any:
        return world.create("u2")

    def check(self, world: World, one: object, two: object) -> None:
        assert world.state() == two
        world.wreck()
        world.restore("u2")
        assert world.state() == two


class Restore(Verb):
    """The way back."""

    name = "restore"
    spares = False

    def lead_up(self, world: World) -> None:
        """All is ready."""

    def call(self, world: World) -> Any:
        return world.restore()

    def check(self, world: World, one: object, two: object) -> None:
        assert world.state() == one
        try:
            world.restore(undo=True)
        except Unrestored as told:  # the user's own command may fail to copy what is broken: then that was told
            assert world.may_fail_to_keep and UNKEPT in str(told)
            return
        assert world.state() == two


class Undo(Verb):
    """The failed state is brought back."""

    name = "undo"
    spares = False

    def lead_up(self, world: World) -> None:
        world.restore()

    def call(self, world: World) -> Any:
        return world.restore(undo=True)

    def check(self, world: World, one: object, two: object) -> None:
        assert world.state() == two
        world.restore()
        assert world.state() == one


class Commit(Verb):
    """The update is good."""

    name = "commit"

    def lead_up(self, world: World) -> None:
        """All is ready."""

    def call(self, world: World) -> Any:
        return world.commit()

    def check(self, world: World, one: object, two: object) -> None:
        assert world.state() == two
        assert world.is_committed("u1")


class Prune(Verb):
    """Old updates go, with what only they need; what is open stays."""

    name = "prune"

    def lead_up(self, world: World) -> None:
        world.commit()
        world.create("u2")
        world.update()
        world.commit("u2")
        world.create("u3")

    def call(self, world: World) -> Any:
        return world.prune()

    def check(self, world: World, one: object, two: object) -> None:
        shown = world.state()
        assert not world.knows("u1") and world.knows("u3")
        world.wreck()
        world.restore("u3")
        assert world.state() == shown


VERBS = {verb.name: verb for verb in (First, Create, Restore, Undo, Commit, Prune)}


class Moment:
    """A world just before a call; `again` goes back to it."""

    def __init__(self, world: World, verb: Verb) -> None:
        self.world, self.verb = world, verb
        self.one = world.state()
        world.create()
        world.update()
        self.two = world.state()
        verb.lead_up(world)
        self.before = world.state()
        world.save()

    def again(self) -> None:
        """As it was just before the call."""
        self.world.go_back()

    def call(self) -> Any:
        """The verb."""
        return self.verb.call(self.world)

    def check(self) -> None:
        """Sound, and as it has to be after the call came to its end."""
        self._require_sound()
        self.verb.check(self.world, self.one, self.two)
        self._require_sound()

    def _require_sound(self) -> None:
        found = self.world.unsound()
        assert not found, found
