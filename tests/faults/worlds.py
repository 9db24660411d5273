# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small worlds to break: a resource of each kind, an update that goes wrong, and a store."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import UmbraError
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store
from ansible_collections.umbra.rollback.plugins.module_utils.store.temporaries import scratch
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import commit, create, prune, restore
from ansible_collections.umbra.rollback.plugins.module_utils.verbs.run import Target
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.tree.trees import (
    break_small,
    build_small,
    picture,
    write,
)

HOST = "web1"
TICK = 0.03  # seconds; what is older than that is not looked at twice


class Unrestored(UmbraError):
    """{reason}"""


class World(ABC):
    """One resource below `root`/live, a store beside it, and a place for other temporaries."""

    name = "it"
    name_of = ""  # the world, in a table
    costly = False  # each try takes a second
    may_fail_to_keep = False  # a way back may begin although the failed state could not be kept

    def __init__(self, root: Path) -> None:
        self.root, self.live, self.store, self.scratch = root, root / "live", root / "store", root / "scratch"
        self.place = self.live / "it"
        self.live.mkdir(parents=True)
        self.scratch.mkdir()
        self.saved = root / "saved"

    @abstractmethod
    def build(self) -> None:
        """Version 1."""

    @abstractmethod
    def update(self) -> None:
        """What the update leaves, which fails. May be repeated, with another outcome."""

    @property
    @abstractmethod
    def resource(self) -> dict[str, Any]:
        """As a user writes it."""

    def state(self) -> object:
        """All that a way back has to bring back, comparable."""
        return picture(self.place)

    # --- verbs

    def target(self, update_id: str = "u1") -> Target:
        """No lock is waited for: none may be left by the dead."""
        return Target(update_id, HOST, str(self.store), 0.0, None)

    def create(self, update_id: str = "u1") -> create.Created:
        """Shadow it."""
        return create.create(self.target(update_id), [{"name": self.name, **self.resource}])

    def restore(self, update_id: str = "u1", undo: bool = False) -> restore.Restored:
        """Bring it back. Raises Unrestored."""
        done = restore.restore(self.target(update_id), restore.Request(undo=undo, max_attempts=1))
        if bad := [one.reason for one in done.results if not one.ok]:
            raise Unrestored(reason="; ".join(bad))
        return done

    def prune(self) -> prune.Pruned:
        """Let go of all but the last update, and of all garbage."""
        return prune.prune(self.target(""), prune.Request(keep_last=1, grace=0.0))

    def commit(self, update_id: str = "u1") -> commit.Committed:
        """The update is good."""
        return commit.commit(self.target(update_id), None, None)

    def knows(self, update_id: str) -> bool:
        """Whether there is a manifest."""
        return Store.open(str(self.store), HOST).update(update_id).exists()

    def is_committed(self, update_id: str) -> bool:
        """Whether it is good."""
        return Store.open(str(self.store), HOST).update(update_id).state == "committed"

    def sweep(self) -> None:
        """What every verb begins with."""
        Store.open(str(self.store), HOST).sweep()
        with scratch():
            pass

    def wreck(self) -> None:
        """Nothing is left of it."""
        shutil.rmtree(self.live)
        self.live.mkdir()

    # --- the moment that is gone back to

    def save(self) -> None:
        """Remember all of it as it is now."""
        for place in (self.live, self.store):
            if place.exists():
                self._copy(place, self.saved / place.name)

    def go_back(self) -> None:
        """As it was when it was saved, but for inodes and ctimes."""
        for place in (self.live, self.store, self.scratch):
            shutil.rmtree(place, ignore_errors=True)
            if os.path.lexists(place):
                place.unlink()  # an attack has put something else there
            if (self.saved / place.name).exists():
                self._copy(self.saved / place.name, place)
        self.scratch.mkdir()
        time.sleep(TICK)

    def _copy(self, source: Path, target: Path) -> None:
        target.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", str(source), str(target)], check=True)

    def close(self) -> None:  # noqa: B027  # nothing is a sound default
        """Leave nothing behind outside of `root`."""

    # --- what must be true afterwards

    def unsound(self) -> list[str]:
        """What is wrong with the store, or left behind."""
        found = list(Store.open(str(self.store), HOST).verify().problems)
        found += [f"left behind: {path}" for path in (self.store / "tmp").glob("*")]
        found += [f"left behind: {path}" for path in self.scratch.iterdir()]
        found += [f"left behind: {path}" for path in self.live.rglob(".umbra-tmp-*")]
        return found


class FileWorld(World):
    """A tree with small and large files, and names of all kinds."""

    def build(self) -> None:
        build_small(self.place)
        write(self.place / "large", os.urandom(200_000))
        write(self.place / "large-too", os.urandom(200_000))

    def update(self) -> None:
        if (self.place / "large-too").exists():
            break_small(self.place)
            (self.place / "large-too").unlink()
        (self.place / "large").write_bytes(os.urandom(150_000))

    @property
    def resource(self) -> dict[str, Any]:
        return {"type": "file", "path": str(self.place)}


class SqliteWorld(World):
    """A database in WAL mode."""

    def _do(self, *statements: str) -> tuple[Any, ...]:
        """The last row that they give."""
        connection = sqlite3.connect(self.place)
        row: tuple[Any, ...] = ()
        with connection:
            for statement in statements:
                row = connection.execute(statement).fetchone() or row
        connection.close()
        return row

    def build(self) -> None:
        connection = sqlite3.connect(self.place)
        connection.execute("pragma journal_mode=wal")
        connection.close()
        self._do("create table orders (id integer primary key, item text)")
        self._do(*(f"insert into orders (item) values ('item {number}')" for number in range(300)))

    def update(self) -> None:
        (count,) = self._do("select count(*) from orders")
        self._do(f"create table more_{count} (price integer)", "delete from orders where id % 3 = 0")

    @property
    def resource(self) -> dict[str, Any]:
        return {"type": "sqlite", "path": str(self.place)}

    def state(self) -> object:
        connection = sqlite3.connect(f"file:{self.place}?mode=ro", uri=True)
        rows = list(connection.iterdump())
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        connection.close()
        st = self.place.stat()
        return rows, st.st_mode, st.st_uid, st.st_gid


class CommandWorld(World):
    """The user's own commands, which copy a file, and rename it back."""

    may_fail_to_keep = True

    def build(self) -> None:
        write(self.place, "running\n")

    def update(self) -> None:
        self.place.write_text(f"failed at {time.time()}\n")

    @property
    def resource(self) -> dict[str, Any]:
        def script(text: str) -> list[str]:
            return ["/bin/sh", "-ec", text, "sh", str(self.place)]

        return {
            "type": "command",
            "create": script('cp -p "$1" "$UMBRA_SHADOW/state"'),
            "restore": script('cp -p "$UMBRA_SHADOW/state" "$1.new"; mv "$1.new" "$1"'),
            "drift": script('cmp -s "$UMBRA_SHADOW/state" "$1"'),
            "validate": script('cmp -s "$UMBRA_SHADOW/state" "$1"'),
        }


@contextmanager
def built(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """`world` at version 1, the only place for temporaries of whoever works on it."""
    monkeypatch.setenv("TMPDIR", str(world.scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    try:
        world.build()
        yield world
    finally:
        world.close()


WORLDS = {"file": FileWorld, "sqlite": SqliteWorld, "command": CommandWorld}
