# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Journals and the history: what was appended is there, whatever a crash left behind it."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import JournalDamaged, StoreCorrupt
from ansible_collections.umbra.rollback.plugins.module_utils.store import journal as module
from ansible_collections.umbra.rollback.plugins.module_utils.store.journal import History, Journal, Lines
from ansible_collections.umbra.rollback.plugins.module_utils.store.seal import Seal
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store

from .helpers import flip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some/where/journal.jsonl"


@pytest.fixture
def journal(path: Path, tmp_path: Path) -> Journal:
    return Journal(str(path), str(tmp_path))


def names(journal: Journal) -> list[str]:
    return [event["event"] for event in journal.events()]


def test_events_come_back_in_order_with_their_time(journal: Journal, path: Path) -> None:
    assert journal.events() == []
    before = time.time()
    journal.append("restore-begin", round=1, resources=["größe\n", "b"], of=None)
    journal.append("step", name="b")
    first, second = journal.events()
    assert before <= first.pop("time") <= second.pop("time") <= time.time()
    assert first == {"event": "restore-begin", "round": 1, "resources": ["größe\n", "b"], "of": None}
    assert second == {"event": "step", "name": "b"}
    assert path.read_bytes().isascii() and path.read_bytes().count(b"\n") == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


TORN = [b'{"event":"st', b"{", b"\0" * 5000, b'{"event":"step","name":"b"}', b"x" * 10_000]


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_last_line_is_not_there_and_is_cut_before_the_next(journal: Journal, path: Path, torn: bytes) -> None:
    journal.append("one")
    with path.open("ab") as file:
        file.write(torn)
    assert names(journal) == ["one"]
    journal.check()
    journal.append("two")
    assert names(journal) == ["one", "two"]
    assert len(path.read_bytes().splitlines()) == 2


def test_a_journal_that_is_one_torn_line(journal: Journal, path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * 9000)
    assert journal.events() == []
    journal.append("one")
    assert names(journal) == ["one"]


DAMAGE = [b"garbage", b"[1, 2]", b'{"no": "event"}', b'{"event": 7}', b"\xff\xfe", b""]


@pytest.mark.parametrize("line", DAMAGE)
def test_a_damaged_line_is_refused_and_told(journal: Journal, path: Path, line: bytes) -> None:
    journal.append("one")
    journal.append("two")
    first, second = path.read_bytes().splitlines(keepends=True)
    for damaged in (first + line + b"\n" + second, first + line + b"\n"):
        path.write_bytes(damaged)
        for call in (journal.events, journal.check, lambda: Journal(str(path), "").append("three")):
            with pytest.raises(JournalDamaged, match=f"{path}, line 2 is damaged: .*move it away"):
                call()
        assert path.read_bytes() == damaged


@pytest.mark.parametrize("change", [lambda a, b, c: a + c, lambda a, b, c: a + c + b, lambda a, b, c: a + b + b + c])
def test_lines_that_are_missing_or_moved_are_told(
    journal: Journal, path: Path, change: Callable[[bytes, bytes, bytes], bytes]
) -> None:
    for name in ("one", "two", "three"):
        journal.append(name)
    path.write_bytes(change(*path.read_bytes().splitlines(keepends=True)))
    with pytest.raises(JournalDamaged, match="says that it is line"):
        journal.events()


@pytest.mark.parametrize("round_", ["../../evil", None, 1.5, True])
def test_a_round_that_is_no_number_is_refused(path: Path, round_: Any) -> None:
    Lines(str(path), "/", Seal(), "journal").append({"n": 1, "event": "restore-begin", "round": round_})
    with pytest.raises(JournalDamaged, match="a number in it is none"):
        Journal(str(path), "/").events()


def test_every_bit_of_a_journal_counts(journal: Journal, path: Path) -> None:
    for name in ("one", "two", "three"):
        journal.append(name, round=1, text="x" * 20)
    good = path.read_bytes()
    for offset in range(len(good)):
        flip(path, offset, offset % 8)
        with pytest.raises(JournalDamaged, match=f"{path}, line "):
            journal.events()
        path.write_bytes(good)
    assert names(journal) == ["one", "two", "three"]


def test_threads_do_not_mix_lines(journal: Journal, path: Path, tmp_path: Path) -> None:
    def work(number: int) -> None:
        for step in range(20):
            Journal(str(path), str(tmp_path)).append("step", number=number, step=step, text="x" * 500)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = [(event["number"], event["step"]) for event in journal.events()]
    assert sorted(seen) == [(number, step) for number in range(4) for step in range(20)]
    journal.check()


def test_a_line_is_on_disk_before_append_returns(journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, int]] = []
    fsync = os.fsync

    def note(fd: int) -> None:
        fsync(fd)
        synced.append((os.readlink(f"/proc/self/fd/{fd}"), os.fstat(fd).st_size))

    monkeypatch.setattr(os, "fsync", note)
    journal.append("one")
    assert (str(path), path.stat().st_size) in synced
    assert str(path.parent) in {name for name, _size in synced}, "the new name is on disk too"


def test_the_history_of_a_host_skips_what_it_cannot_read(store: Store) -> None:
    history = store.history()
    assert isinstance(history, History) and history.read() == []
    history.append({"verb": "create", "seconds": 1.5})
    path = Path(store.path) / "history/web1.jsonl"
    with path.open("ab") as file:
        file.write(b"damaged\n")
    store.history().append({"verb": "restore"})
    with path.open("ab") as file:
        file.write(b'{"torn')
    assert store.history().read() == [{"verb": "create", "seconds": 1.5}, {"verb": "restore"}]
    with pytest.raises(StoreCorrupt, match=f"{path}, line 2 is damaged"):
        history.check()


def test_the_end_is_found_far_from_it(journal: Journal, path: Path) -> None:
    journal.append("long", text="x" * 20_000)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"y" * 20_000)
    fd = os.open(path, os.O_RDWR)
    assert module._end_of_last_line(fd) == size
    os.close(fd)
