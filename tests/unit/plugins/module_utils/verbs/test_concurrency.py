# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verbs of several processes at once, real ones: one works, the others wait or are told who it is."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import errors
from ansible_collections.umbra.rollback.plugins.module_utils.store import store as store_module
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import create, prune, restore
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.store.helpers import fork

from .conftest import Shop

ROUNDS = 3
LONG = 60.0  # seconds that nobody waits for in full
NAMED = r"in use by {verb} of update {update} by pid {pid} on {machine} since 20[-0-9: ]+ UTC"


class Elsewhere:
    """A call in a process of its own. `barrier` is a pipe: the call begins when its other end is closed everywhere."""

    def __init__(self, call: Callable[[], Any], barrier: tuple[int, int] | None = None) -> None:
        self._reader, writer = os.pipe()
        self.pid = fork()
        if not self.pid:
            try:
                if barrier:
                    os.close(barrier[1])
                    os.read(barrier[0], 1)
                try:
                    told = {"result": call()}
                except errors.UmbraError as error:
                    told = {"code": error.code, "says": str(error)}
                os.write(writer, json.dumps(told).encode())
            finally:
                os._exit(0)
        os.close(writer)

    def end(self) -> dict[str, Any]:
        """Wait for it: its `result`, or the `code` and the sentence that it `says`; {} when it was killed."""
        with os.fdopen(self._reader, "rb") as pipe:
            said = pipe.read()
        os.waitpid(self.pid, 0)
        return dict(json.loads(said)) if said else {}


def at_once(*calls: Callable[[], Any]) -> list[dict[str, Any]]:
    """Let calls go at the same moment, each in a process of its own: how they ended, with their `pid`."""
    barrier = os.pipe()
    made = [Elsewhere(call, barrier) for call in calls]
    for fd in barrier:
        os.close(fd)
    return [{"pid": one.pid, **one.end()} for one in made]


class Gate:
    """A command resource whose program waits at `create` or `restore` until it may go on."""

    def __init__(self, shop: Shop, where: str) -> None:
        self._closed, self._there, self.state = (shop.root / f"gate-{name}" for name in ("closed", "there", "state"))
        self.state.write_text("good\n")
        self._where = where

    @property
    def resource(self) -> dict[str, Any]:
        """As a user writes it."""
        wait = 'echo $$ > "$2.new"; mv "$2.new" "$2"; while [ -e "$1" ]; do sleep 0.02; done; '
        scripts = {"create": 'cp "$3" "$UMBRA_SHADOW/state"', "restore": 'cp "$UMBRA_SHADOW/state" "$3"'}
        made: dict[str, Any] = {"name": "gate", "type": "command", "drift": self._sh("grep -q good $3")}
        for name, script in scripts.items():
            made[name] = self._sh(f"{wait}{script}" if name == self._where else script)
        return made

    def _sh(self, script: str) -> list[str]:
        return ["/bin/sh", "-ec", script, "sh", str(self._closed), str(self._there), str(self.state)]

    @contextmanager
    def closed(self, call: Callable[[], Any]) -> Iterator[Elsewhere]:
        """`call` in another process, waiting there as long as the body goes on."""
        self._closed.touch()
        self._there.unlink(missing_ok=True)
        other = Elsewhere(call)
        end = time.monotonic() + LONG
        while not self._there.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        try:
            yield other
        finally:
            self.open()

    def open(self) -> None:
        """Let it go on."""
        self._closed.unlink(missing_ok=True)


def named(verb: str, update: str, pid: int) -> str:
    """How the sentence about a holder reads, as a pattern."""
    return NAMED.format(verb=verb, update=update, pid=pid, machine=re.escape(os.uname().nodename))


def put(shop: Shop, update_id: str, wait: float) -> bool:
    """Shadow the shop."""
    return create.create(shop.target(update_id, lock_timeout=wait), shop.resources()).changed


def back(shop: Shop, wait: float, **request: Any) -> dict[str, Any]:
    """Bring u1 back."""
    return restore.restore(shop.target(lock_timeout=wait), restore.Request(**request)).to_dict()


def sound(shop: Shop) -> bool:
    """Whether the store has all that it should."""
    return not shop.target().open().verify().problems


def test_two_updates_begun_at_once_are_both_shadowed_one_after_the_other(shop: Shop) -> None:
    for number in range(ROUNDS):
        ids = [f"a{number}", f"b{number}"]
        ended = at_once(*(lambda i=i: put(shop, i, LONG) for i in ids))
        assert [one.get("result") for one in ended] == [True, True], ended
        store = shop.target().open()
        assert {store.update(i).state for i in ids} == {"open"}
        for i in ids:
            store.update(i).journal.append("commit")
    assert sound(shop)


def test_who_does_not_wait_is_told_who_works(shop: Shop) -> None:
    gate = Gate(shop, "create")
    resources = [*shop.resources(), gate.resource]
    with gate.closed(lambda: create.create(shop.target("u1"), resources).changed) as other:
        with pytest.raises(errors.StoreLocked, match=named("create", "u1", other.pid)):
            put(shop, "u2", 0.0)
        with pytest.raises(errors.StoreLocked, match=named("create", "u1", other.pid)):
            prune.prune(shop.target("", lock_timeout=0.0), prune.Request(grace=0.0))
    assert other.end() == {"result": True}
    assert put(shop, "u2", LONG) and sound(shop)


def test_garbage_that_another_host_collects_waits_for_a_shadow_that_is_being_made(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a store that several hosts share, the host's own lock is none that the collector takes."""
    monkeypatch.setattr(store_module, "COLLECT_WAIT", 0.2)
    before = shop.state()
    gate = Gate(shop, "create")
    resources = [*shop.resources(), {**gate.resource, "priority": "low"}]  # the others are in the store already
    with gate.closed(lambda: create.create(shop.target("u1"), resources).changed) as other:
        with pytest.raises(errors.StoreLocked) as caught:
            prune.prune(shop.target("", host="web2"), prune.Request(grace=0.0))
        assert re.search(named("create", "u1", other.pid), str(caught.value))
    assert other.end() == {"result": True}
    prune.prune(shop.target("", host="web2"), prune.Request(grace=0.0))
    assert sound(shop)
    shop.update()
    shop.restore()
    assert shop.state() == before


def test_nothing_begins_beside_a_way_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "COLLECT_WAIT", 0.2)
    gate = Gate(shop, "restore")
    create.create(shop.target(), [*shop.resources(), gate.resource])
    shop.update()
    gate.state.write_text("bad\n")
    pattern = "restore of update u1 by pid {pid} on "
    with gate.closed(lambda: back(shop, 0.0)["state"]) as other:
        words = pattern.format(pid=other.pid)
        for call in (
            lambda: put(shop, "u2", 0.0),
            lambda: back(shop, 0.0),
            lambda: back(shop, 0.0, undo=True),
            lambda: prune.prune(shop.target("", lock_timeout=0.0), prune.Request(grace=0.0)),
            lambda: prune.prune(shop.target("", host="web2"), prune.Request(grace=0.0)),
        ):
            with pytest.raises(errors.StoreLocked, match=words):
                call()
        waiting = Elsewhere(lambda: put(shop, "u2", LONG))
    assert other.end() == {"result": "rolled_back"}
    assert waiting.end() == {"result": True}
    assert sound(shop)


def test_two_controllers_go_back_at_once_and_the_second_finds_it_done(shop: Shop) -> None:
    before = shop.state()
    for number in range(ROUNDS):
        update_id = f"u{number}"
        target = shop.target(update_id, lock_timeout=LONG)
        shop.shadow(update_id)
        shop.update()
        failed = shop.state()
        ended = at_once(*[lambda: restore.restore(target, restore.Request()).to_dict()] * 2)  # noqa: B023
        results = [one["result"] for one in ended]
        assert {one["state"] for one in results} == {"rolled_back"}
        first, second = sorted(results, key=lambda one: not one["changed"])
        assert first["changed"] and first["displaced"]
        assert not second["changed"] and not second["displaced"]
        assert {one["action"] for one in second["resources"]} == {"unchanged"}
        assert second["notes"] == [f"Update {update_id} was rolled back already, and nothing has changed since."]
        assert shop.state() == before
        assert shop.restore(update_id, undo=True).state == "undone"
        undone = shop.state()
        assert (undone["tree"], undone["rows"]) == (failed["tree"], failed["rows"])
        shop.restore(update_id)
    assert sound(shop)


def test_two_controllers_that_do_not_wait(shop: Shop) -> None:
    """One wins, whichever; the other is refused with the name of the first, or came so late that all was done."""
    before = shop.state()
    shop.shadow()
    for _number in range(ROUNDS):
        shop.update_again()
        ended = at_once(*[lambda: back(shop, 0.0)] * 2)
        won = [one for one in ended if "result" in one]
        assert won and all(one["result"]["state"] == "rolled_back" for one in won), ended
        for one in ended:
            (other,) = (each["pid"] for each in ended if each is not one)
            if one not in won:
                assert one["code"] == "store-locked"
                assert re.search(named("restore", "u1", other), one["says"]), one
        assert shop.state() == before


@pytest.mark.parametrize("where", ["create", "restore"])
def test_a_dead_holder_is_followed_at_once(shop: Shop, where: str) -> None:
    """SIGKILL while its program runs: the lock is free, whatever that program still does."""
    gate = Gate(shop, where)
    before, resources = shop.state(), [*shop.resources(), gate.resource]
    if where == "restore":
        create.create(shop.target(), resources)
        shop.update()
        gate.state.write_text("bad\n")

    def verb() -> Any:
        if where == "restore":
            return back(shop, 0.0)["state"]
        return create.create(shop.target(lock_timeout=0.0), resources).changed

    with gate.closed(verb) as other:
        os.kill(other.pid, signal.SIGKILL)
        assert other.end() == {}
        gate.open()
        assert verb() == ("rolled_back" if where == "restore" else True)
    assert shop.state() == before and sound(shop)


def test_a_holder_on_another_machine_is_not_taken_for_dead(shop: Shop) -> None:
    """Its pid says nothing here: only the lock itself does."""
    shop.shadow()
    gate = Gate(shop, "create")
    with gate.closed(lambda: create.create(shop.target("u2"), [gate.resource]).changed) as other:
        (lock,) = (shop.store / "locks").glob("web1.lock")
        holder = json.loads(lock.read_text())
        lock.write_text(json.dumps({**holder, "machine": "far-away", "pid": _free_pid()}) + "\n")
        with pytest.raises(errors.StoreLocked, match="create of update u2 by pid [0-9]+ on far-away since"):
            back(shop, 0.3)
    assert other.end() == {"result": True}
    assert back(shop, LONG)["state"] == "rolled_back"


def _free_pid() -> int:
    return next(pid for pid in range(2, 1 << 22) if not Path(f"/proc/{pid}").exists())
