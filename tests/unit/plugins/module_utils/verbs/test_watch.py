# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a switch does until its update is decided: with real stores, real checks, and a quick pace."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import errors
from ansible_collections.umbra.rollback.plugins.module_utils.store.update import HostUpdate
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import (
    arm,
    commit,
    info,
    restore,
    switch,
    switch_record,
    watch,
)
from ansible_collections.umbra.rollback.plugins.module_utils.verbs.run import working
from ansible_collections.umbra.rollback.plugins.module_utils.watchdog import clock, daemon
from ansible_collections.umbra.rollback.plugins.module_utils.watchdog.armed import Armed, Check, Hook
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.tree.trees import mounted

from .conftest import Shop

pytestmark = pytest.mark.pure
QUICK = watch.Pace(look=0.02, note=0.05, lock=0.2, again=0.05, again_most=0.1, failed=(0.05, 0.05))
FAR = 1e6  # seconds: it does not fire
IN_TIME = 60.0  # seconds for what takes tenths of one


def armed(shop: Shop, seconds: float, **facts: Any) -> Armed:
    """Arm the switch of u1 as the verb does, but for the watcher: the test is that."""
    now, boot = clock.now(), clock.boot_id()
    common = {"mode": "daemon", "stamp": f"{random.random()}", "boot": boot, "begun": now}
    one = Armed("u1", "web1", seconds=seconds, **{"ends": now + seconds, **common, **facts})
    with working(shop.target(), "arm") as work:
        switch_record.save(work.update, one)
        arm._hold(work.update)
    return one


def events(shop: Shop) -> list[dict[str, Any]]:
    """The journal of u1."""
    with open(shop.store / "updates/u1/web1/journal.jsonl", encoding="ascii") as lines:
        return [json.loads(line) for line in lines]


def fired(shop: Shop) -> list[str]:
    """Why it fired, each time."""
    return [event["why"] for event in events(shop) if event["event"] == switch_record.FIRED]


def update_of(shop: Shop) -> HostUpdate:
    """u1 in the store."""
    return shop.target().open().update("u1")


def noted(shop: Shop) -> None:
    """The watcher has looked once more since this was called."""
    path = shop.store / "updates/u1/web1" / switch.NOTE
    before, until = path.stat().st_mtime_ns, time.monotonic() + IN_TIME
    while path.stat().st_mtime_ns == before:
        assert time.monotonic() < until
        time.sleep(0.02)


def status(shop: Shop) -> dict[str, Any]:
    """What the status file says."""
    found: dict[str, Any] = json.loads((shop.store / "updates/u1/web1/status.json").read_text())
    return found


@contextmanager
def watching(shop: Shop, pace: watch.Pace = QUICK) -> Iterator[list[str]]:
    """A watcher at work beside the body; the list gets why it ended, which it has to after the body."""
    ended: list[str] = []
    ready = threading.Event()
    thread = threading.Thread(target=lambda: ended.append(watch.watch(shop.target(), pace, ready.set)), daemon=True)
    thread.start()
    assert ready.wait(IN_TIME)
    yield ended
    thread.join(IN_TIME)
    assert ended


@pytest.fixture
def broken(shop: Shop) -> tuple[Shop, dict[str, Any]]:
    """A shop that is shadowed and then broken by its update; and how it was before."""
    shop.shadow()
    before = shop.state()
    shop.update()
    return shop, before


def test_the_deadline_passes_and_the_host_goes_back(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, before = broken
    armed(shop, 0.3)
    assert watch.watch(shop.target(), QUICK) == "the switch fired"
    assert shop.state() == before
    assert fired(shop) == ["the update was not committed within 0.3 s"]
    assert status(shop)["event"] == "rolled_back" and status(shop)["state"] == "rolled_back"
    left = set(os.listdir(shop.store / "updates/u1/web1"))
    assert left == {"displaced-1.json", "journal.jsonl", "manifest.json", "status.json", "watchdog.lock"}
    assert (shop.store / "updates/u1/web1/status.json").stat().st_mode & 0o777 == 0o600


def test_not_before_the_deadline_and_committed_in_time_nothing_happens(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, before = broken
    armed(shop, FAR)
    with watching(shop) as ended:
        time.sleep(0.5)
        assert not ended
        commit.commit(shop.target(), None, None)
    assert ended == ["the switch is not armed any more"]
    assert shop.state() != before and not fired(shop)
    assert [event["event"] for event in events(shop)] == [switch_record.ARMED, "commit", switch_record.DISARMED]


def test_an_extension_counts_from_when_it_is_said(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, before = broken
    one = armed(shop, FAR)
    with watching(shop), working(shop.target(), "extend") as work:
        switch_record.save(work.update, arm._extended(one, 0.2))
    assert shop.state() == before and fired(shop) == ["the update was not committed within 0.2 s"]


def test_what_comes_late_is_refused_with_what_happened_and_when(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, dummy = broken
    armed(shop, 0.01)
    watch.watch(shop.target(), QUICK)
    why = r"web1 fired at 20\d\d-.* UTC, because the update was not committed within 0.01 s; update u1 is rolled_back"
    for late in (
        lambda: commit.commit(shop.target(), None, None),
        lambda: commit.check(shop.target(), None, None),
        lambda: arm.extend(shop.target(), 10.0),
        lambda: arm.disarm(shop.target()),
        lambda: arm.disarm(shop.target(), force=True),
        lambda: arm.arm(shop.target(), arm.Settings(10.0)),
    ):
        with pytest.raises(errors.WatchdogFired, match=why):
            late()
    shop.restore(undo=True)  # a person says that it was wrong
    assert commit.commit(shop.target(), None, None).changed


def test_a_controller_that_comes_back_is_told_what_the_host_did(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, dummy = broken
    armed(shop, 0.01)
    watch.watch(shop.target(), QUICK)
    result = restore.restore(shop.target(), restore.Request()).to_dict()
    with working(shop.target(), "look") as work:
        told = switch.credit(work.update, result)
    assert not told["changed"] and told["by"] == "watchdog" and "not committed" in told["why"] and told["when"]
    assert {one["name"]: one["action"] for one in told["resources"]} == dict.fromkeys(
        ("config", "database", "service"), "restored"
    )
    assert told["displaced"].endswith("displaced-1.json")


def test_a_restore_by_a_controller_disarms_it(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, before = broken
    armed(shop, FAR)
    with watching(shop) as ended:
        shop.restore()
    assert ended == ["the switch is not armed any more"]
    assert shop.state() == before and not fired(shop)


def test_a_partial_restore_leaves_it_armed(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, before = broken
    armed(shop, 1.0)
    with watching(shop):
        shop.restore(names=("config",))
    assert shop.state() == before and fired(shop)


def test_whoever_holds_the_lock_is_waited_for_and_what_was_decided_meanwhile_counts(
    broken: tuple[Shop, dict[str, Any]],
) -> None:
    shop, before = broken
    one = armed(shop, FAR)
    with watching(shop) as ended, working(shop.target(), "commit") as work:
        switch_record.save(work.update, arm._extended(one, 0.05))
        time.sleep(0.6)  # three times as long as it waits for the lock at once
        assert not ended and shop.state() != before
        work.update.journal.append("commit")
    assert shop.state() != before and not fired(shop)


def test_a_reboot_counts_on_from_what_was_left(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, dummy = broken
    boot = clock.boot_id()
    one = armed(shop, 500.0, boot="an earlier one")
    assert switch.ends(one, None, boot) == 500.0
    assert switch.ends(one, clock.Note(one.stamp, "an earlier one", 9e9, 120.0), boot) == 120.0
    assert switch.ends(one, clock.Note("of another deadline", "an earlier one", 9e9, 120.0), boot) == 500.0
    assert switch.ends(one, clock.Note(one.stamp, boot, 30.0, 90.0), boot) == 120.0


def test_the_rest_is_noted_while_it_watches(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, dummy = broken
    armed(shop, FAR)
    with watching(shop):
        notebook = clock.Notebook(str(shop.store / "updates/u1/web1" / switch.NOTE))
        until = time.monotonic() + IN_TIME
        while (note := notebook.read()) is None and time.monotonic() < until:
            time.sleep(0.01)
        assert note is not None and 0 < FAR - note.left < IN_TIME
        commit.commit(shop.target(), None, None)


def test_a_reboot_with_rollback_fires_at_once(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, before = broken
    armed(shop, FAR, boot="an earlier one", on_reboot="rollback")
    assert watch.watch(shop.target(), QUICK) == "the switch fired"
    assert shop.state() == before and fired(shop) == ["the host was rebooted during the update"]


def test_one_that_was_killed_on_the_way_back_goes_on_at_once(broken: tuple[Shop, dict[str, Any]]) -> None:
    """Whatever made it fire may look well by now, and the deadline may be far."""
    shop, before = broken
    armed(shop, FAR)
    with working(shop.target(), "watchdog") as work:
        work.update.journal.append(switch_record.FIRED, why="the shop was not well")
    shop.restore(wave=0)
    assert shop.state() != before
    assert watch.watch(shop.target(), QUICK) == "the switch fired"
    assert shop.state() == before and fired(shop) == ["the shop was not well"]
    assert status(shop)["why"] == "the shop was not well"


def test_no_step_of_the_clock_moves_it(broken: tuple[Shop, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    shop, before = broken
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + random.choice((-1, 1)) * random.random() * 1e8)
    armed(shop, FAR)
    with watching(shop):
        looks: set[float] = set()
        while len(looks) < 5 and not fired(shop):
            note = clock.Notebook(str(shop.store / "updates/u1/web1" / switch.NOTE)).read()
            looks.update([note.at] if note else [])
        assert not fired(shop)
        armed(shop, 0.2)
    assert shop.state() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces are made by root")
def test_time_asleep_counts(broken: tuple[Shop, dict[str, Any]]) -> None:
    """In a time namespace whose boottime is 10,000 s ahead, and whose monotonic clock is not: as after a sleep."""
    shop, before = broken
    armed(shop, 5000.0)
    code = (
        "import sys; from ansible_collections.umbra.rollback.plugins.module_utils.verbs import run, watch; "
        "print(watch.watch(run.Target('u1', 'web1', sys.argv[1]), watch.Pace(look=0.05)))"
    )
    argv = ["unshare", "--time", "--boottime", "10000", sys.executable, "-c", code, str(shop.store)]
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        argv, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True, timeout=IN_TIME
    )
    assert done.stdout == "the switch fired\n" and shop.state() == before


def test_a_condition_fails_with_n_of_m_samples(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, before = broken
    counter = shop.root / "samples"
    script = 'n=$(cat "$1" 2>/dev/null || echo 0); echo $((n + 1)) > "$1"; test $((n % 2)) = 0'  # each second one fails
    check = Check("shop", "command", ("/bin/sh", "-c", script, "sh", str(counter)), 0.02, 5.0, n=3, m=6)
    armed(shop, FAR, checks=(check,))
    assert watch.watch(shop.target(), QUICK) == "the switch fired"
    assert shop.state() == before
    assert fired(shop)[0].startswith("shop failed 3 of the last 6 times: ended with 1")
    assert int(counter.read_text()) >= 6


def test_a_check_that_hangs_delays_nothing(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, before = broken
    check = Check("slow", "command", ("/bin/sleep", "30"), timeout=25.0)
    armed(shop, 0.2, checks=(check,))
    begun = time.monotonic()
    watch.watch(shop.target(), QUICK)
    assert time.monotonic() - begun < 20
    assert shop.state() == before and "not committed" in fired(shop)[0]


def test_hooks_are_told_again_until_they_listen(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, dummy = broken
    script = 'echo >> "$1"; [ $(wc -l < "$1") -ge 3 ] || exit 1; cat > "$2"'
    told = shop.root / "told"
    argv = ("/bin/sh", "-c", script, "sh", str(shop.root / "tries"), str(told))
    armed(
        shop,
        0.01,
        hooks=(Hook(argv, events=("rolled_back",), backoff=0.01), Hook(("/nowhere",), retries=1, backoff=0.01)),
    )
    watch.watch(shop.target(), QUICK)
    report = json.loads(told.read_text())
    assert (report["event"], report["host"], report["state"]) == ("rolled_back", "web1", "rolled_back")
    assert {one["action"] for one in report["resources"]} == {"restored"}


def test_a_way_back_that_can_t_begin_is_tried_again(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, before = broken
    armed(shop, 0.01)
    packs, away = shop.store / "packs", shop.store / "away"
    packs.rename(away)
    with watching(shop) as ended:
        until = time.monotonic() + IN_TIME
        while not (shop.store / "updates/u1/web1/status.json").exists() or status(shop)["event"] != "failed":
            assert time.monotonic() < until
            time.sleep(0.02)
        assert not ended and status(shop)["code"] == "content-missing" and shop.state() != before
        with pytest.raises(errors.WatchdogFired, match=r"update u1 is open there.*disarm it with `force: true`"):
            commit.commit(shop.target(lock_timeout=IN_TIME), None, None)
        shutil.rmtree(packs, ignore_errors=True)
        away.rename(packs)
    assert shop.state() == before and len(fired(shop)) == 1


def test_a_switch_that_can_t_be_read_keeps_nobody_from_going_back(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, before = broken
    armed(shop, 1000.0)
    path = shop.store / "updates/u1/web1/watchdog.json"
    path.write_bytes(path.read_bytes().replace(b"daemon", b"doemon"))
    told = info.info(shop.target()).details["watchdog"]  # type: ignore[index]
    assert told["state"] == "armed" and "watchdog.json is damaged" in told["problem"] and "copy" in told["problem"]
    done = shop.restore()
    assert shop.state() == before and any("dead-man switch" in note for note in done.notes)
    assert not path.exists()


RECORD, COPY, JOURNAL = "watchdog.json", "watchdog-copy.json", "journal.jsonl"


def flip(shop: Shop, name: str, at: float = 0.5) -> None:
    """One bit of a file of u1 is another one, on its way `at` from its beginning to its end."""
    path = shop.store / "updates/u1/web1" / name
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1
    path.write_bytes(data)


def lose(shop: Shop, name: str) -> None:
    """The file is not there any more."""
    (shop.store / "updates/u1/web1" / name).unlink()


# What is damaged before the watcher begins, and what its switch goes by then.
DAMAGED = [
    ((RECORD,), "its copy"),
    ((RECORD, COPY), "the journal"),
    ((RECORD, JOURNAL), "its copy"),
]


@pytest.mark.parametrize("damage", [flip, lose])
@pytest.mark.parametrize(("names", "by"), DAMAGED)
def test_a_switch_whose_record_is_damaged_fires_all_the_same(
    broken: tuple[Shop, dict[str, Any]], names: tuple[str, ...], by: str, damage: Callable[[Shop, str], None]
) -> None:
    shop, before = broken
    armed(shop, 0.3)
    for name in names:
        damage(shop, name) if name != JOURNAL else flip(shop, name)
    if JOURNAL in names:  # nobody goes back by a damaged journal: it fires as soon as that is mended
        with pytest.raises(errors.JournalDamaged):
            info.info(shop.target())
        with watching(shop):
            until = time.monotonic() + IN_TIME
            while not (shop.store / "updates/u1/web1/status.json").exists() or status(shop)["event"] != "failed":
                assert time.monotonic() < until
                time.sleep(0.02)
            assert status(shop)["code"] == "journal-damaged" and shop.state() != before
            flip(shop, JOURNAL)
    else:
        told = info.info(shop.target()).details["watchdog"]  # type: ignore[index]
        assert told["state"] == "armed" and by in told["problem"]
        assert watch.watch(shop.target(), QUICK) == "the switch fired"
    assert shop.state() == before and fired(shop) == ["the update was not committed within 0.3 s"]


def test_damage_while_it_watches_is_told_and_mended(broken: tuple[Shop, dict[str, Any]]) -> None:
    """Also where it was in both files: the watcher knows checks and hooks, which the journal does not have."""
    shop, before = broken
    check = Check("shop", "command", ("/bin/true",), 0.05)
    one = armed(shop, FAR, checks=(check,))
    with watching(shop):
        for number, names in enumerate([(RECORD,), (RECORD, COPY), (COPY, RECORD)]):
            noted(shop)
            for name in names:
                flip(shop, name, number / 2)
            until = time.monotonic() + IN_TIME
            while switch_record.read(update_of(shop)) != switch_record.Found(one):
                assert time.monotonic() < until
                time.sleep(0.02)
            assert status(shop)["event"] == "damaged" and "watchdog.json is damaged" in status(shop)["why"]
            (shop.store / "updates/u1/web1/status.json").unlink()
        assert shop.state() != before
        commit.commit(shop.target(lock_timeout=IN_TIME), None, None)
    assert not fired(shop)


def test_every_bit_of_the_record_may_flip(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, dummy = broken
    one = armed(shop, FAR)
    update = update_of(shop)
    for name in (RECORD, COPY):
        path = shop.store / "updates/u1/web1" / name
        good = path.read_bytes()
        for at in range(len(good) - 1):  # the newline at its end means nothing
            data = bytearray(good)
            data[at] ^= 1 << at % 8
            path.write_bytes(data)
            found = switch_record.read(update)
            assert found.one == one and bool(found.text) == (name == RECORD)
        assert [name in problem for problem in shop.target().open().verify().problems] == [True]
        path.write_bytes(good)
    assert not shop.target().open().verify().problems


def test_nobody_mends_what_was_disarmed_meanwhile(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, dummy = broken
    one = armed(shop, FAR)
    for name in (RECORD, COPY):
        flip(shop, name)
    with working(shop.target(), "test") as work:
        assert switch_record.read(work.update).one == replace(one, checks=(), hooks=())
        assert not switch_record.mend(work.update, replace(one, stamp="another"))
        assert switch_record.mend(work.update, one) and switch_record.read(work.update).problem is None
        work.update.journal.append(switch_record.DISARMED)
        for name in (RECORD, COPY):
            flip(shop, name)
        assert not switch_record.mend(work.update, one)
        assert switch_record.read(work.update) == switch_record.Found(None)


def test_a_copy_of_the_store_is_guarded_by_no_switch(broken: tuple[Shop, dict[str, Any]], tmp_path: Path) -> None:
    """Its journal says that one is armed: that is the one of the store itself."""
    shop, dummy = broken
    armed(shop, FAR)
    shutil.copytree(shop.store, tmp_path / "replica")
    shop.store = tmp_path / "replica"
    for name in (RECORD, COPY):
        lose(shop, name)
    assert info.info(shop.target()).details["watchdog"] == {"state": "disarmed"}  # type: ignore[index]


def test_whoever_arms_it_anew_while_its_watcher_ends_has_it_watched(broken: tuple[Shop, dict[str, Any]]) -> None:
    """To arm takes a watcher that is there for one that stays. It looks often while the lock is held."""
    shop, before = broken
    armed(shop, FAR)
    path = str(shop.store / "updates/u1/web1")
    with watching(shop) as ended, working(shop.target(), "arm") as work:
        switch.stand_down(work, work.update, "disarmed")
        time.sleep(0.3)
        assert not ended and daemon.watcher(path) == os.getpid()
        now = clock.now()
        one = Armed("u1", "web1", "new", 0.3, clock.boot_id(), now + 0.3, now, "daemon")
        switch_record.save(work.update, one)
    assert ended == ["the switch fired"] and shop.state() == before


def test_one_that_still_tells_its_hooks_watches_what_is_armed_meanwhile(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, before = broken
    slow = shop.root / "slow"
    hook = Hook(("/bin/sh", "-c", 'until [ -e "$1" ]; do sleep 0.1; done', "sh", str(slow)), events=("rolled_back",))
    armed(shop, 0.05, hooks=(replace(hook, timeout=IN_TIME),))
    with watching(shop) as ended:
        until = time.monotonic() + IN_TIME
        while not any(event["event"] == switch_record.ENDED for event in events(shop)):
            assert time.monotonic() < until
            time.sleep(0.02)
        shop.target(lock_timeout=IN_TIME)
        restore.restore(shop.target(lock_timeout=IN_TIME), restore.Request(undo=True))
        assert not ended and shop.state() != before
        armed(shop, 0.3)
        while len(fired(shop)) < 2:
            assert time.monotonic() < until
            time.sleep(0.02)
        slow.touch()
    assert ended == ["the switch fired"] and shop.state() == before


def test_one_that_fired_in_vain_can_be_disarmed_by_force(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, before = broken
    armed(shop, 0.01)
    shutil.rmtree(shop.store / "packs")
    with watching(shop):
        until = time.monotonic() + IN_TIME
        while not fired(shop):
            assert time.monotonic() < until
        patient = shop.target(lock_timeout=IN_TIME)
        with pytest.raises(errors.WatchdogFired):
            arm.disarm(patient)
        assert arm.disarm(patient, force=True).changed
    assert commit.commit(shop.target(), None, None).changed and shop.state() != before


def test_what_can_t_be_brought_back_is_tried_some_times_and_left_to_a_person(shop: Shop) -> None:
    shop.shadow(service={"restore": ["/bin/false"]})
    shop.update()
    armed(shop, 0.01, max_attempts=1)
    assert watch.watch(shop.target(), QUICK) == "the switch fired"
    ends = [event for event in events(shop) if event["event"] == "restore-end"]
    assert len(ends) == 1 + len(QUICK.failed) and not ends[-1]["ok"]
    assert status(shop)["event"] == "failed" and "service" in status(shop)["msg"]
    with pytest.raises(errors.WatchdogFired, match="failed"):
        commit.commit(shop.target(), None, None)


def test_a_second_watcher_ends_at_once(broken: tuple[Shop, dict[str, Any]]) -> None:
    shop, dummy = broken
    armed(shop, FAR)
    with watching(shop):
        assert watch.watch(shop.target(), QUICK) == "another process watches"
        assert daemon.watcher(str(shop.store / "updates/u1/web1")) == os.getpid()
        commit.commit(shop.target(), None, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="file systems are mounted by root")
def test_a_full_disk_does_not_stop_it(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=32m", "none"):
        shop = Shop(disk)
        shop.shadow()
        before = shop.state()
        shop.update()
        armed(shop, 0.3)
        with open(disk / "fill", "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(1 << 16))
        assert watch.watch(shop.target(), QUICK) == "the switch fired"
        assert shop.state() == before
