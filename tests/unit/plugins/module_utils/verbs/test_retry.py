# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attempt after attempt: what each one runs with, in real programs, and what is said of it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.effort import standing
from ansible_collections.umbra.rollback.plugins.module_utils.effort.exert import Effort, Granted
from ansible_collections.umbra.rollback.plugins.module_utils.errors import StateRefused
from ansible_collections.umbra.rollback.plugins.module_utils.plan import Plan, Step
from ansible_collections.umbra.rollback.plugins.module_utils.store.locks import Locks
from ansible_collections.umbra.rollback.plugins.module_utils.tree import apply as apply_module
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import create, prestage, restore
from ansible_collections.umbra.rollback.plugins.module_utils.verbs.attempts import MAX_DELAY, Attempts, told
from ansible_collections.umbra.rollback.plugins.module_utils.verbs.outcome import Result

from .conftest import Shop

ROOT = os.geteuid() == 0
# What a program has: a line with its niceness, its I/O priority, and how long it may take.
SAYS = 'echo "$(nice) $(ionice)" >> "$1"'


def stubborn(shop: Shop, failures: int, **more: Any) -> dict[str, Any]:
    """A resource whose restore fails so often, and says each time what it runs with."""
    script = f'{SAYS}; [ $(wc -l < "$1") -gt {failures} ] || {{ echo "not yet" >&2; exit 7; }}'
    return {
        "name": "stubborn",
        "type": "command",
        "create": ["sh", "-c", 'echo copy > "$UMBRA_SHADOW/copy"'],
        "restore": ["sh", "-c", script, "sh", str(shop.root / "said")],
        "drift": ["false"],
        **more,
    }


def said(shop: Shop) -> list[str]:
    return (shop.root / "said").read_text().splitlines()


NICE = os.getpriority(os.PRIO_PROCESS, 0)
MINE = f"{NICE} none: prio 0"
MEDIUM = "-5 best-effort: prio 2" if ROOT else f"{NICE} best-effort: prio 2"
HIGH = "-10 best-effort: prio 0" if ROOT else f"{NICE} best-effort: prio 0"
LAST = "-15 realtime: prio 7" if ROOT else f"{NICE} best-effort: prio 0"


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_each_attempt_runs_with_more_than_the_one_before(shop: Shop, failures: int) -> None:
    """Fails never, once, twice, always."""
    create.create(shop.target(), [stubborn(shop, failures), {**stubborn(shop, 0), **OTHER}])
    before = standing.now()
    done = {result.name: result for result in shop.restore().results}
    assert said(shop) == [MINE, MEDIUM, LAST][: failures + 1]
    assert standing.now() == before
    result = done["stubborn"]
    assert result.attempts == min(failures + 1, 3) and len(result.escalations) == failures
    assert result.action == ("restored" if failures < 3 else "failed")
    assert done["other"].action == ("restored" if failures < 3 else "untouched")
    for number, escalation in enumerate(result.escalations, 1):
        assert escalation["attempt"] == number and "not yet" in escalation["why"]
    nexts = [escalation["next"] for escalation in result.escalations]
    assert [given and given["tier"] for given in nexts] == ["medium", "high", {}][:failures]
    assert [given["asked"]["timeouts"] for given in nexts if given] == ["x2", "x4"][:failures]
    if ROOT:
        assert all(given["effective"]["nice"] == given["asked"]["nice"] for given in nexts if given)
    else:
        assert all("only root" in given["refused"]["nice"] for given in nexts if given)
    again = Result.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again.escalations == result.escalations, "a later call reads it from the journal"


OTHER = {"name": "other", "depends_on": ["stubborn"], "restore": ["true"]}


def test_the_lease_says_what_the_first_attempt_has(shop: Shop) -> None:
    create.create(shop.target(), [stubborn(shop, 1)])
    plan = Plan("u1", "web1", (Step("stubborn", 1, tier="medium", score=50.0),), 1)
    prestage.prestage(shop.target(plan=plan), prestage.Budget())
    assert restore.restore(shop.target(), restore.Request()).state == "rolled_back"
    assert said(shop) == [MEDIUM, HIGH]


def test_a_service_that_a_restore_starts_has_none_of_it(shop: Shop) -> None:
    """Neither by `start`, nor where `restore` itself leaves it behind."""
    pids, log = shop.root / "pids", shop.root / "said"
    daemon = f'setsid sh -c \'{SAYS}; echo $$ >> "$2"; exec sleep 300\' sh "$1" "$2" & while ! [ -s "$2" ]; do :; done'
    behind = f'[ -e "$1".again ] || {{ touch "$1".again; exit 7; }}; {daemon}'
    resource = stubborn(
        shop,
        0,
        restore=["sh", "-c", behind, "sh", str(shop.root / "unused"), str(shop.root / "behind")],
        start=["sh", "-c", daemon, "sh", str(log), str(pids)],
    )
    create.create(shop.target(), [resource])
    done = shop.restore(max_attempts=2)
    left = [int(path.read_text()) for path in (shop.root / "behind", pids)]
    try:
        assert done.state == "rolled_back" and done.results[0].attempts == 2
        assert said(shop) == [MINE]
        for process in left:
            assert os.getpriority(os.PRIO_PROCESS, process) == standing.now().nice
            assert standing._io_of(process) == standing.now().io
    finally:
        for process in left:
            os.kill(process, signal.SIGKILL)


def test_there_is_a_pause_that_grows_and_it_is_told(shop: Shop, twin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(Locks, "tell", lambda self, text: lines.append(text))
    create.create(shop.target(), [stubborn(shop, 2)])
    begun = time.monotonic()
    assert shop.restore(retry_delay=0.2).state == "rolled_back"
    assert time.monotonic() - begun >= 0.2 + 0.4
    by = (", method pure", ", method native") if twin == "native" else ("", "")
    assert f"attempt 2 of 3 for stubborn in 0.2 s: medium priority, timeouts x2{by[0]}" in lines
    assert f"attempt 3 of 3 for stubborn in 0.4 s: highest priority, no limits, timeouts x4{by[1]}" in lines


def test_pauses_have_a_bound() -> None:
    attempts = Attempts(20, 2.0, "low", ("",))
    waits = []
    while attempt := attempts.next():
        waits.append(attempt.wait)
        attempts.began(attempt, Granted())
        attempts.failed(attempt, "no", free=False)
    assert len(waits) == 20 and waits[:4] == [0.0, 2.0, 4.0, 8.0] and max(waits) == MAX_DELAY


def test_methods_are_taken_in_turn_and_what_changed_nothing_does_not_count() -> None:
    attempts = Attempts(3, 1.0, "low", ("online", "replace"))
    taken = []
    for free in (False, True, False, False):
        attempt = attempts.next()
        assert attempt is not None
        attempts.began(attempt, Granted(refused={"nice": "not permitted"}))
        attempts.failed(attempt, "no", free)
        taken.append((attempt.number, attempt.method, attempt.wait, attempt.effort.tier))
    assert taken == [
        (1, "online", 0.0, "low"),
        (2, "replace", 1.0, "medium"),
        (3, "replace", 0.0, "medium"),
        (4, "online", 2.0, "high"),
    ]
    assert attempts.next() is None
    first, *dummy, last = attempts.escalations
    assert told(first) == "attempt 1 (online): no; attempt 2 had tier medium, method replace, no nice (not permitted)"
    assert told(last) == "attempt 4 (online): no"


def test_who_stops_the_run_does_not_wait_for_further_attempts(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another resource's thread ends with what is no error of a restore, as Ctrl-C does in the main thread."""
    failed = threading.Event()
    attempted = restore._Restore._try

    def interrupted(self: Any, step: Step, attempt: Any) -> Any:
        if step.name == "other":
            failed.wait(30)
            raise KeyboardInterrupt
        try:
            return attempted(self, step, attempt)
        finally:
            failed.set()

    monkeypatch.setattr(restore._Restore, "_try", interrupted)
    create.create(shop.target(), [{**stubborn(shop, 0), **OTHER, "depends_on": []}, stubborn(shop, 9)])
    with pytest.raises(KeyboardInterrupt):
        shop.restore(retry_delay=MAX_DELAY)
    assert len(said(shop)) == 1
    monkeypatch.undo()
    assert restore.restore(shop.target(), restore.Request(max_attempts=9)).state == "rolled_back"


def test_what_the_native_kernel_can_not_restore_the_pure_twin_does(
    shop: Shop, twin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in makes its bulk fail: no file system here refuses what it does."""
    before = shop.state()
    shop.shadow()
    shop.update()
    for path in (shop.config / "sites").iterdir():
        path.unlink()

    def refused(*dummy: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(apply_module._Apply, "_make_bulk", refused)
    done = shop.restore()
    config, dummy, service = done.results
    assert done.state == "rolled_back" and shop.state() == before
    if twin == "pure":
        assert (config.attempts, service.attempts) == (1, 1), "it has no bulk"
        return
    assert config.attempts == 2 and config.escalations[0]["method"] == "native"
    assert config.escalations[0]["next"]["method"] == "pure" and "not supported" in config.escalations[0]["why"]
    assert (service.attempts, service.action) == (2, "restored"), "its copy is a tree, too"


def test_a_database_that_sqlite_may_not_write_to_is_replaced(shop: Shop) -> None:
    """A newer SQLite has left a version of the format that this one only reads (byte 18)."""
    before = shop.state()
    shop.shadow()
    shop.update()
    with shop.database.open("r+b") as file:
        file.seek(18)
        file.write(b"\x03")
    with sqlite3.connect(shop.database) as connection, pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("delete from orders")
    connection.close()
    done = shop.restore()
    (database,) = (result for result in done.results if result.name == "database")
    assert done.state == "rolled_back" and shop.state() == before
    assert (database.method, database.attempts) == ("replace", 1)


def test_a_locked_database_is_not_replaced(shop: Shop) -> None:
    """Whoever holds the lock would go on writing to the file that was there."""
    shop.shadow(database={"timeout": 0.2})
    shop.update()
    with sqlite3.connect(shop.database, isolation_level=None) as holder:
        holder.execute("BEGIN IMMEDIATE")  # which still lets others read
        inode = shop.database.stat().st_ino
        done = shop.restore(max_attempts=2)
    holder.close()
    (database,) = (result for result in done.results if result.name == "database")
    assert database.action == "failed" and "locked" in database.reason
    assert shop.database.stat().st_ino == inode
    assert shop.restore().state == "rolled_back"


def test_the_message_says_why_each_attempt_failed_what_is_safe_and_what_to_run(shop: Shop) -> None:
    script = 'echo x >> "$1"; echo "reason $(wc -l < "$1")" >&2; exit 7'
    resource = stubborn(shop, 0, restore=["sh", "-c", script, "sh", str(shop.root / "said")])
    create.create(shop.target(), [resource])
    message = shop.restore().to_dict()["msg"]
    for expected in ("after 3 attempts: stubborn", "reason 1", "reason 2", "reason 3", "The shadows are all kept"):
        assert expected in message
    assert "ansible-playbook umbra.rollback.rollback -e umbra_update_id=u1 -e umbra_hosts=web1" in message


def test_many_failures_leave_room_for_every_resource_in_a_result(shop: Shop) -> None:
    long = ["sh", "-c", 'printf "%0500d" 1 >&2; exit 7']
    resources = [stubborn(shop, 0, name=f"r{number}", restore=long) for number in range(14)]
    create.create(shop.target(), resources)
    done = shop.restore()
    told = done.to_dict()["resources"]
    assert len(told) == 14 and all(one["reason"] for one in told)
    assert told[0]["escalations"] and not told[-1]["escalations"]
    assert len(json.dumps([one["escalations"] for one in told])) < 25 << 10
    assert all(len(result.escalations) == 3 for result in done.results), "the journal has them"


def test_what_an_effort_is_for_people() -> None:
    assert [Effort().words, Effort("medium", 2.0).words] == ["low priority", "medium priority, timeouts x2"]


def test_a_refused_restore_leaves_the_thread_as_it_was(shop: Shop) -> None:
    shop.shadow()
    before = standing.now()
    with pytest.raises(StateRefused):
        shop.restore(undo=True)
    assert standing.now() == before
