# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arming, extending and disarming: with the tool in the store, and a daemon that watches for real."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import errors, processes
from ansible_collections.umbra.rollback.plugins.module_utils.emergency import build
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import arm, commit, create, info, switch_record
from ansible_collections.umbra.rollback.plugins.module_utils.verbs.run import working
from ansible_collections.umbra.rollback.plugins.module_utils.watchdog import daemon, units
from ansible_collections.umbra.rollback.plugins.module_utils.watchdog.armed import Check, Hook

from .conftest import Shop, touched

pytestmark = pytest.mark.pure
IN_TIME = 60.0  # seconds for what takes one or two
FAR = 1e6


def until(condition: Callable[[], object]) -> None:
    """Wait for it."""
    end = time.monotonic() + IN_TIME
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def armable(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A shop that is shadowed, where no systemd is; what watches it is gone at the end."""
    monkeypatch.setattr(units, "here", lambda: False)
    shop.shadow()
    yield shop
    (shop.store / "updates/u1/web1/watchdog.json").unlink(missing_ok=True)
    until(lambda: daemon.watcher(str(shop.store / "updates/u1/web1")) is None)


def test_a_daemon_of_its_own_watches_and_goes_back(armable: Shop) -> None:
    shop, before = armable, armable.state()
    done = arm.arm(shop.target(), arm.Settings(FAR)).to_dict()
    assert (done["state"], done["mode"], done["survives_reboot"]) == ("armed", "daemon", False)
    assert 0 < done["deadline"] <= FAR and done["interpreters"] and done["tool"] == str(shop.store / "umbra")
    watcher = processes.look(done["pid"])
    assert watcher and watcher.comm == processes.COMM and watcher.session not in (os.getsid(0), watcher.pid)
    assert os.readlink(f"/proc/{watcher.pid}/cwd") == "/"
    opened = [os.readlink(f"/proc/{watcher.pid}/fd/{fd}") for fd in range(3)]
    assert opened == ["/dev/null"] * 3
    assert info.info(shop.target()).details["watchdog"]["pid"] == watcher.pid  # type: ignore[index]
    shop.update()
    assert arm.extend(shop.target(), 0.5).pid == watcher.pid
    until(lambda: shop.state() == before)
    until(lambda: not processes.is_alive(watcher.pid, watcher.start))
    assert info.info(shop.target()).details["watchdog"]["state"] == "fired"  # type: ignore[index]


def test_it_goes_back_in_a_store_that_has_a_key(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads the key from a file of the host, and is refused where it could not."""
    monkeypatch.setattr(units, "here", lambda: False)
    key, file = "a key of the night", shop.root / "key"
    file.write_text("another key of sixteen\n")
    target = shop.target(store_key=key)
    create.create(target, shop.resources())
    before = shop.state()
    with pytest.raises(errors.InputError, match="nobody to give it the `store_key`"):
        arm.arm(target, arm.Settings(FAR))
    with pytest.raises(errors.InputError, match="has another key"):
        arm.check_arm(target, arm.Settings(FAR, store_key_file=str(file)))
    with pytest.raises(errors.InputError, match="can't be read"):
        arm.arm(target, arm.Settings(FAR, store_key_file="/nowhere"))
    assert not (shop.store / "updates/u1/web1/watchdog.json").exists()
    file.write_text(f"{key}\n")
    done = arm.arm(target, arm.Settings(FAR, store_key_file=str(file)))
    assert done.pid and key.encode() not in Path(f"/proc/{done.pid}/cmdline").read_bytes()
    shop.update()
    arm.extend(target, 0.5)
    until(lambda: shop.state() == before)
    until(lambda: daemon.watcher(str(shop.store / "updates/u1/web1")) is None)
    assert not [path for path in shop.store.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]


def test_one_that_was_killed_watches_again_after_an_extension_and_ends_with_a_commit(armable: Shop) -> None:
    shop = armable
    first = arm.arm(shop.target(), arm.Settings(FAR)).pid
    assert first
    os.kill(first, signal.SIGKILL)
    until(lambda: daemon.watcher(str(shop.store / "updates/u1/web1")) is None)
    second = arm.extend(shop.target(), FAR).pid
    assert second and second != first
    process = processes.look(second)
    commit.commit(shop.target(), None, None)
    assert process
    until(lambda: not processes.is_alive(process.pid, process.start))
    left = os.listdir(shop.store / "updates/u1/web1")
    assert not {"watchdog.json", "watchdog.left", "watchdog.spare"} & set(left)


def test_a_tool_that_does_not_start_is_told_and_nothing_is_armed(
    armable: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = armable
    monkeypatch.setattr(arm, "START_SECONDS", 0.5)

    def broken(store: str, *dummy: Any) -> str:
        path = os.path.join(store, "umbra")
        with open(path, "w", encoding="ascii") as file:
            file.write("echo no Python works here >&2; exit 2\n")
        return path

    monkeypatch.setattr(build, "write", broken)
    with pytest.raises(errors.WatchdogNotStarted, match="no Python works here"):
        arm.arm(shop.target(), arm.Settings(FAR))
    with pytest.raises(errors.WatchdogNotArmed):
        arm.extend(shop.target(), FAR)


def test_what_fails_when_it_is_armed_anew_does_not_disarm_who_watches(
    armable: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """systemd is asked for units in a directory that it does not know, or does not run."""
    first = arm.arm(armable.target(), arm.Settings(FAR)).pid
    monkeypatch.setattr(units, "here", lambda: True)
    monkeypatch.setattr(units, "DIRECTORY", str(tmp_path / "units"))
    monkeypatch.setattr(units, "WANTS", str(tmp_path / "units/wants"))
    (tmp_path / "units").mkdir()
    done = arm.arm(armable.target(), arm.Settings(FAR / 2))
    assert first and (done.pid, done.to_dict()["state"]) == (first, "armed")
    assert "is watched as before, but not all of it could be renewed" in done.warnings[-1]
    assert arm.check_extend(armable.target(), 1.0).before == done.armed
    done = arm.extend(armable.target(), FAR)  # now the units are there, and somebody watches
    assert (done.pid, done.warnings) == (first, ())
    unit = tmp_path / "units" / f"{done.armed.unit}.timer"  # type: ignore[union-attr]
    unit.write_text("another's\n")
    assert arm.extend(armable.target(), FAR).warnings and unit.read_text() != "another's\n"
    os.kill(first, signal.SIGKILL)
    until(lambda: daemon.watcher(str(armable.store / "updates/u1/web1")) is None)
    with pytest.raises(errors.WatchdogNotStarted):
        arm.extend(armable.target(), FAR)
    assert not arm.check_disarm(armable.target()).changed


def test_check_mode_tells_that_one_which_fired_would_be_disarmed_by_force(shop: Shop) -> None:
    shop.shadow()
    with working(shop.target(), "fire") as work:
        work.update.journal.append(switch_record.FIRED, why="its deadline passed")
    assert arm.check_disarm(shop.target(), force=True).changed
    assert arm.disarm(shop.target(), force=True).changed
    assert not arm.check_disarm(shop.target(), force=True).changed
    assert not arm.disarm(shop.target(), force=True).changed


def test_check_mode_touches_nothing_and_says_what_would_be(shop: Shop) -> None:
    shop.shadow()
    before = touched(shop.store)
    check = Check("shop", "tcp", ("127.0.0.1:1",))
    done = arm.check_arm(shop.target(), arm.Settings(60.0, (check,), (Hook((), "https://h/secret"),)))
    assert done.changed and done.to_dict()["watched"] == ["shop"] and done.to_dict()["hooks"] == ["https://h"]
    assert done.diff()["before"] == "disarmed\n" and "secret" not in done.diff()["after"]
    assert not arm.check_disarm(shop.target()).changed
    with pytest.raises(errors.WatchdogNotArmed):
        arm.check_extend(shop.target(), 60.0)
    assert touched(shop.store) == before


def test_what_is_not_open_is_not_armed(shop: Shop) -> None:
    with pytest.raises(errors.StoreMissing):
        arm.arm(shop.target(), arm.Settings(60.0))
    shop.shadow()
    commit.commit(shop.target(), None, None)
    with pytest.raises(errors.StateRefused, match="committed"):
        arm.arm(shop.target(), arm.Settings(60.0))
    assert not arm.disarm(shop.target()).changed


@pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="here systemd runs")
def test_a_unit_can_t_be_watched_where_no_systemd_is(shop: Shop) -> None:
    shop.shadow()
    with pytest.raises(errors.Unsupported, match="systemd does not run"):
        arm.arm(shop.target(), arm.Settings(60.0, (Check("shop", "unit", ("shop.service",)),)))


def test_what_fails_already_is_warned_of(armable: Shop) -> None:
    done = arm.arm(armable.target(), arm.Settings(FAR, (Check("shop", "tcp", ("127.0.0.1:1",), start_delay=FAR),)))
    assert "shop fails already now: [Errno 111] Connection refused" in done.warnings
    assert arm.disarm(armable.target()).changed
    assert not arm.disarm(armable.target()).changed
