# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root uses a user's database with that user's rights, and goes where that user may lead it."""

from __future__ import annotations

import ctypes
import errno
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.context import Context
from ansible_collections.umbra.rollback.plugins.module_utils.errors import ProviderError, ShadowFailed
from ansible_collections.umbra.rollback.plugins.module_utils.providers.sqlite import SqliteProvider
from ansible_collections.umbra.rollback.plugins.module_utils.resource import Resource, parse_one
from ansible_collections.umbra.rollback.plugins.module_utils.sqlite import database, files, owner
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.providers.conformance import (
    MemorySteps,
    check_sentence,
)
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.tree.trees import NOBODY, root_only
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents

pytestmark = root_only
USER = 1234  # has no name here
CAP_SETUID = 7
IN_TIME = 60.0  # seconds for what takes few
LIBRARY = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory of a user, whom root's own directories above let in."""
    for path in (tmp_path, *list(tmp_path.parents)[:3]):
        path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o111)
    (tmp_path / "home").mkdir()
    os.chown(tmp_path / "home", USER, USER)
    yield tmp_path / "home"
    assert owner.identity(USER) and os.stat("/proc/thread-self").st_uid == 0  # whoever it was, it is root again


@pytest.fixture
def provider(tmp_path: Path) -> SqliteProvider:
    (tmp_path / "work").mkdir()
    return SqliteProvider(Context("u1", "web1", str(tmp_path / "work")))


def drop(capability: int) -> None:
    """Let this thread be without it: capset(2), version 3, effective, permitted and inheritable, in two halves."""
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert LIBRARY.capget(header, data) == 0
    data[0] &= ~(1 << capability)
    assert LIBRARY.capset(header, data) == 0


def resource(path: Path) -> Resource:
    return parse_one(
        {"name": "shop-db", "type": "sqlite", "path": str(path)}, {"sqlite": SqliteProvider.interface}, "r"
    )


def make(path: Path, rows: int = 3, user: int = USER) -> Path:
    with closing(sqlite3.connect(path)) as opened, opened as connection:
        connection.execute("create table orders (item text)")
        connection.executemany("insert into orders values (?)", [(f"item {number}",) for number in range(rows)])
    os.chown(path, user, user)
    return path


def rows_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("select count(*) from orders").fetchone()[0])


def test_what_is_opened_is_opened_with_the_users_rights(place: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root's")
    secret.chmod(0o640)
    with owner.acting_as(owner.identity(USER)):
        for path in (secret, "/etc/shadow"):
            with pytest.raises(PermissionError):
                open(path).close()
        (place / "mine").touch()
        with owner.acting_as(None):
            assert secret.read_text() == "root's"
        with pytest.raises(PermissionError):
            secret.read_text()
    assert secret.read_text() == "root's"
    assert ((place / "mine").stat().st_uid, (place / "mine").stat().st_gid) == (USER, owner.OVERFLOW)


def test_roots_groups_are_not_the_users(tmp_path: Path, place: Path) -> None:
    before = os.getgroups()
    with owner.acting_as(owner.identity(NOBODY)):
        assert 0 not in os.getgroups()
    assert os.getgroups() == before


def test_where_root_may_become_nobody_it_is_refused_each_time_and_it_stays_root(place: Path) -> None:
    """In a thread without CAP_SETUID, as root is in some containers."""
    found: list[object] = []

    def work() -> None:
        before = os.getgroups()
        drop(CAP_SETUID)
        for dummy in range(2):
            try:
                with owner.acting_as(owner.identity(USER)):
                    found.append("the body ran")
            except PermissionError as error:
                found.append(str(error))
        found.append(os.getgroups() == before)
        found.append(LIBRARY.setfsgid(-1) == os.getegid())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [f"[Errno 1] root may not act as user {USER} here"] * 2 + [True, True]


def test_a_users_database_goes_there_and_back(place: Path, provider: SqliteProvider) -> None:
    path, contents = make(place / "db"), MemoryContents()
    shadow = provider.create(resource(path), None, contents)
    with closing(sqlite3.connect(path)) as opened, opened as connection:
        connection.execute("delete from orders")
    assert provider.restore(shadow, contents, MemorySteps()).method == "online"
    assert (rows_of(path), path.stat().st_uid) == (3, USER)
    path.unlink()
    assert provider.restore(shadow, contents, MemorySteps()).method == "replace"
    assert (rows_of(path), path.stat().st_uid) == (3, USER)


def test_what_the_user_may_not_write_is_replaced(place: Path, provider: SqliteProvider) -> None:
    path, contents = make(place / "db", user=0), MemoryContents()
    shadow = provider.create(resource(path), None, contents)
    with closing(sqlite3.connect(path)) as opened, opened as connection:
        connection.execute("delete from orders")
    assert provider.restore(shadow, contents, MemorySteps()).method == "replace"
    assert (rows_of(path), path.stat().st_uid) == (3, 0)


def test_what_the_user_may_not_read_is_not_read(place: Path, provider: SqliteProvider) -> None:
    path = make(place / "db", user=0)
    path.chmod(0o600)
    with pytest.raises(ShadowFailed) as refused:
        provider.create(resource(path), None, MemoryContents())
    check_sentence(refused.value)
    assert "with the rights of the user who owns its directory" in str(refused.value)


@pytest.mark.parametrize("where", ["above", "itself"])
def test_a_users_symlink_leads_to_nothing_but_his_own(
    place: Path, tmp_path: Path, provider: SqliteProvider, where: str
) -> None:
    (tmp_path / "other").mkdir()
    make(tmp_path / "other" / "db", user=0)
    path = place / "way" / "db" if where == "above" else place / "db"
    link = place / "way" if where == "above" else path
    link.symlink_to(tmp_path / "other" if where == "above" else tmp_path / "other" / "db")
    os.chown(link, USER, USER, follow_symlinks=False)
    for call in (provider.create, lambda what, *_rest: provider.estimate(what)):
        with pytest.raises(ProviderError) as refused:
            call(resource(path), None, MemoryContents())
        check_sentence(refused.value)
        assert "leads through a symlink that is not root's" in str(refused.value)
    os.chown(tmp_path / "other", USER, USER)
    provider.create(resource(path), None, MemoryContents())  # then it is his own


def test_nothing_is_given_to_a_file_that_has_another_name(
    place: Path, tmp_path: Path, provider: SqliteProvider
) -> None:
    """Somebody else's file takes the place of the database, by another name of it, just before it gets its owner."""
    path = make(place / "db")
    facts = files.Facts.of(str(path))
    other = tmp_path / "other"
    other.write_text("somebody else's")
    path.unlink()
    os.link(other, path)
    with pytest.raises(OSError, match="another name"):
        facts.put_back(str(path))
    path.unlink()
    path.symlink_to(other)
    with pytest.raises(OSError):
        facts.put_back(str(path))
    assert other.stat().st_uid == 0


def test_a_symlink_that_came_above_it_is_not_followed(place: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "db").touch()
    (place / "way").symlink_to(tmp_path / "other")
    os.chown(place / "way", USER, USER, follow_symlinks=False)
    for call in (files.remove, files.clean):
        with pytest.raises(PermissionError):
            call(str(place / "way" / "db"))
    assert os.listdir(tmp_path / "other") == ["db"]


def test_a_journal_that_names_another_is_not_followed(place: Path, tmp_path: Path, provider: SqliteProvider) -> None:
    """SQLite removes the file that it names, whatever it is: here it is made by the application that was cut off."""
    path, precious = make(place / "db", 2000), tmp_path / "precious"
    precious.write_bytes(b"")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("pragma cache_size=1")
        connection.execute("begin")
        connection.execute("update orders set item = item || 'x'")
        copy = place / "copy"
        copy.write_bytes(path.read_bytes())
        journal = (place / "db-journal").read_bytes()
    name = os.fsencode(precious)
    tail = name + len(name).to_bytes(4, "big") + (sum(name) & 0xFFFFFFFF).to_bytes(4, "big") + database.JOURNAL_MAGIC
    (place / "copy-journal").write_bytes(journal + bytes(4) + tail)
    os.chown(copy, USER, USER)
    (place / "copy-journal").chmod(0o644)
    with pytest.raises(ShadowFailed) as refused:
        provider.create(resource(copy), None, MemoryContents())
    check_sentence(refused.value)
    assert "a journal that belongs to several databases" in str(refused.value)
    assert precious.exists()


def test_a_fifo_is_not_waited_for(place: Path, provider: SqliteProvider) -> None:
    """It takes the place of the database's journal when SQLite is about to open that."""
    path = make(place / "db")
    there = owner.find(str(path))
    os.mkfifo(place / "db-journal", 0o444)
    os.chown(place / "db-journal", USER, USER)
    with owner.using(there), closing(os.fdopen(os.open(place / "db-journal", os.O_RDONLY), "rb")) as file:
        assert file.read() == b""


def test_a_fifo_that_is_moved_away_while_root_waits_for_it_keeps_nobody_waiting(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody finds it any more to give it a writer."""
    monkeypatch.setattr(owner, "PAUSE", 3.0)  # so that it is moved before anybody looks
    path, away = place / "db", place / "away"
    found: list[int | None] = []

    def wait() -> None:
        with owner.using(owner.find(str(path))):
            found.append(threading.get_native_id())
            try:
                os.close(os.open(path, os.O_RDONLY))
            except FileNotFoundError as error:
                found.append(error.errno)

    os.mkfifo(path)
    os.chown(path, USER, USER)
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    asleep = 0
    while asleep < 10:  # it waits for nothing else so long
        time.sleep(0.02)
        asleep = asleep + 1 if found and owner._sleeps(found[0] or 0) else 0
        assert thread.is_alive()
    path.rename(away)
    thread.join(IN_TIME)
    alive = thread.is_alive()
    os.close(os.open(away, os.O_RDWR | os.O_NONBLOCK))  # else it would wait on
    assert not alive and found[1:] == [errno.ENOENT]
