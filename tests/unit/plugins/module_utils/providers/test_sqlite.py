# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sqlite provider: the conformance suite on both journal modes, and what is special to databases in use."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import (
    ProviderError,
    RestoreFailed,
    ShadowFailed,
    ToolMissing,
    ValidationFailed,
)
from ansible_collections.umbra.rollback.plugins.module_utils.providers.base import Estimate, Outcome
from ansible_collections.umbra.rollback.plugins.module_utils.providers.sqlite import SqliteProvider
from ansible_collections.umbra.rollback.plugins.module_utils.resource import Resource, parse_one
from ansible_collections.umbra.rollback.plugins.module_utils.shadow import Shadow
from ansible_collections.umbra.rollback.plugins.module_utils.sqlite import database, files
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.providers.conformance import (
    FileSteps,
    MemorySteps,
    ProviderConformance,
    Subject,
    check_sentence,
    context,
    run_and_kill,
    spread,
)
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents

ROWS = 3000


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def dump(path: Path) -> list[str]:
    """What the database says, in SQL: independent of how the provider reads it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        return list(connection.iterdump())


def files_of(path: Path) -> dict[str, bytes]:
    """Names and contents of the database's files; the -shm is shared memory, and changes with its readers."""
    found = path.parent.glob(f"{glob.escape(path.name)}*")
    return {one.name: b"" if one.name.endswith("-shm") else one.read_bytes() for one in found}


class SqliteSubject(Subject):
    """A small shop's database."""

    def __init__(self, tmp_path: Path, journal_mode: str = "delete", **options: Any) -> None:
        self.directory = tmp_path / "shop"
        self.directory.mkdir(mode=0o750)
        self.path = self.directory / "shop's 100% #1?.db"
        self.provider = SqliteProvider(context(tmp_path))
        raw = {"name": "shop-db", "type": "sqlite", "path": str(self.path), "timeout": 0.5, **options}
        self.resource = parse_one(raw, {"sqlite": SqliteProvider.interface}, "resources[0]")
        execute(
            self.path,
            f"PRAGMA journal_mode={journal_mode}",
            "PRAGMA user_version=1",
            "CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, item TEXT, price REAL, note BLOB)",
            "CREATE INDEX by_item ON orders (item)",
            "CREATE VIEW cheap AS SELECT * FROM orders WHERE price < 10",
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})"
            " INSERT INTO orders (item, price, note) SELECT 'item ' || i, i * 1.5, randomblob(20) FROM n",
        )
        self.path.chmod(0o640)

    def change(self) -> None:
        execute(
            self.path,
            "ALTER TABLE orders ADD COLUMN vat REAL DEFAULT 0.2",
            "UPDATE orders SET price = price * 2 WHERE id % 7 = 0",
            "DELETE FROM orders WHERE id % 100 = 0",
            "DROP VIEW cheap",
            "PRAGMA user_version=2",
        )
        self.path.chmod(0o644)

    def snapshot(self) -> object:
        """The dump is only taken where SQLite can: looking must not repair."""
        if not self.path.exists():
            return files_of(self.path)
        copy = self.directory.parent / "looked-at.db"
        for old in copy.parent.glob("looked-at.db*"):
            old.unlink()
        for name, data in files_of(self.path).items():
            if not name.endswith("-shm"):
                (copy.parent / name.replace(self.path.name, copy.name)).write_bytes(data)
        found = self.path.stat()
        with closing(sqlite3.connect(copy)) as connection:
            pragmas = ("user_version", "page_size", "journal_mode", "encoding", "integrity_check")
            facts = [connection.execute(f"PRAGMA {name}").fetchall() for name in pragmas]
        return dump(copy), facts, found.st_mode, found.st_uid, found.st_gid

    def destroy(self) -> None:
        for name in files_of(self.path):
            (self.directory / name).unlink()

    def refused(self) -> Iterator[Resource]:
        bad = {"missing": None, "text": b"x" * 5000, "half": b"SQLite format 3\0", "damaged": self._damaged()}
        for name, data in bad.items():
            path = self.directory.parent / f"{name}.db"
            if data is not None:
                path.write_bytes(data)
            yield self._at(name, path)
        yield self._at("directory", self.directory)

    def query(self) -> Mapping[str, Any]:
        return {"pattern": f"{self.directory.parent}/**"}

    def _damaged(self) -> bytes:
        data = bytearray(self.path.read_bytes())
        data[4096 * 3 : 4096 * 4] = bytes(4096)
        return bytes(data)

    def _at(self, name: str, path: Path) -> Resource:
        return parse_one(
            {"name": name, "type": "sqlite", "path": str(path)}, {"sqlite": SqliteProvider.interface}, "resources[0]"
        )


class TestSqlite(ProviderConformance):
    @pytest.fixture(params=["delete", "wal"])
    def subject(self, request: pytest.FixtureRequest, tmp_path: Path) -> SqliteSubject:
        return SqliteSubject(tmp_path, request.param)


# --- other processes

PRELUDE = """
import os, signal, sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
def ready():
    print("ready", flush=True)
    sys.stdin.readline()
"""
IDLE = "db.execute('SELECT count(*) FROM orders').fetchone(); ready()"
LOCKING = "db.execute('PRAGMA locking_mode=EXCLUSIVE'); db.execute('BEGIN EXCLUSIVE'); ready()"
# Money moves from one account to another, in transactions that touch many pages; the sum never changes.
TRANSFERRING = """
import threading
import time
threading.Thread(target=ready, daemon=True).start()
for turn in range(100000):
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE account SET money = money - 1 WHERE id % 40 = ?", (turn % 20,))
    db.execute("UPDATE account SET money = money + 1 WHERE id % 40 = ?", (turn % 20 + 20,))
    db.execute("COMMIT")
"""
DYING = """
db.execute("PRAGMA cache_size=5")
db.execute("PRAGMA wal_autocheckpoint=0")
{statements}
os.kill(os.getpid(), signal.SIGKILL)
"""


@contextmanager
def process(path: Path, script: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has the database open, once it is ready."""
    argv = [sys.executable, "-c", PRELUDE + script, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout and running.stdout.readline() == "ready\n"
            yield running
        finally:
            running.kill()


def die(path: Path, *statements: str) -> None:
    """Execute the statements in a process that is then killed without closing the database."""
    script = DYING.format(statements="\n".join(f"db.execute({statement!r})" for statement in statements))
    done = subprocess.run([sys.executable, "-c", PRELUDE + script, str(path)], stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.fixture
def contents() -> MemoryContents:
    return MemoryContents()


@pytest.fixture(params=["delete", "wal"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def subject(tmp_path: Path, mode: str) -> SqliteSubject:
    return SqliteSubject(tmp_path, mode)


def create(subject: SqliteSubject, contents: MemoryContents) -> Shadow:
    return ProviderConformance.create(subject, contents)


def restore(subject: SqliteSubject, shadow: Shadow, contents: MemoryContents) -> Outcome:
    outcome = subject.provider.restore(shadow, contents, MemorySteps())
    subject.provider.validate(shadow, contents)
    return outcome


# --- databases in use


def test_a_copy_made_while_others_write_is_of_one_moment(
    tmp_path: Path, mode: str, contents: MemoryContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "CHUNK_PAGES", 40)  # many chances for the writer to come in between
    subject = SqliteSubject(tmp_path, mode, timeout=20)
    execute(
        subject.path,
        "CREATE TABLE account (id INTEGER PRIMARY KEY, money INT, filler TEXT)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
        " INSERT INTO account SELECT i, 100, hex(randomblob(40)) FROM n",
    )
    copies = []
    with process(subject.path, TRANSFERRING):
        for _turn in range(3):
            copies.append(create(subject, contents))
    assert len({copy.checksum for copy in copies}) == 3, "nobody wrote meanwhile"
    for copy in copies:
        path = tmp_path / "copy.db"
        path.write_bytes(contents.blobs[copy.data["database"]])
        with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
            assert connection.execute("SELECT sum(money) FROM account").fetchone() == (2000000,)
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_who_has_it_open_sees_the_old_state_and_goes_on(subject: SqliteSubject, contents: MemoryContents) -> None:
    shadow = create(subject, contents)
    subject.change()
    before = subject.path.stat()
    with closing(sqlite3.connect(subject.path, isolation_level=None)) as other, process(subject.path, IDLE):
        assert other.execute("SELECT count(*) FROM orders").fetchone() == (ROWS - 30,)
        assert restore(subject, shadow, contents).method == "online"
        assert other.execute("SELECT count(*) FROM orders").fetchone() == (ROWS,)
        other.execute("INSERT INTO orders (item) VALUES ('after the rollback')")
    after = subject.path.stat()
    assert (before.st_ino, before.st_uid) == (after.st_ino, after.st_uid)
    assert dump(subject.path)[-1] == "COMMIT;"
    assert subject.provider.drift(shadow, contents).changes[0].what == "rows of table orders"


def test_looking_leaves_no_trace(subject: SqliteSubject, contents: MemoryContents) -> None:
    shadow = create(subject, contents)
    before, then = files_of(subject.path), subject.path.stat()
    subject.provider.estimate(subject.resource)
    subject.provider.drift(shadow, contents)
    subject.provider.validate(shadow, contents)
    subject.provider.displace(shadow, contents)
    assert subject.provider.restore(shadow, contents, MemorySteps()).items == 0
    now = subject.path.stat()
    assert files_of(subject.path) == before
    assert list(before) == [subject.path.name]
    assert (now.st_ino, now.st_mtime_ns, now.st_ctime_ns) == (then.st_ino, then.st_mtime_ns, then.st_ctime_ns)


@pytest.mark.parametrize("shm", [True, False], ids=["with shm", "without shm"])
def test_what_a_dead_process_left_in_the_log_counts(tmp_path: Path, contents: MemoryContents, shm: bool) -> None:
    subject = SqliteSubject(tmp_path, "wal")
    die(subject.path, "DELETE FROM orders WHERE id > 100")
    if not shm:
        Path(f"{subject.path}-shm").unlink()
    before = files_of(subject.path)
    shadow = create(subject, contents)
    assert files_of(subject.path) == before
    assert len(before) == (3 if shm else 2)
    assert shadow.items == 100 + 1  # and sqlite_sequence
    assert shadow.data["opened"] == ("shared" if shm else "apart")
    state = subject.snapshot()
    subject.change()
    restore(subject, shadow, contents)
    assert subject.snapshot() == state


def test_what_a_dead_process_left_undone_is_not_copied(tmp_path: Path, contents: MemoryContents) -> None:
    subject = SqliteSubject(tmp_path)
    clean = create(subject, contents)
    die(subject.path, "BEGIN IMMEDIATE", "UPDATE orders SET item = 'half'", "DELETE FROM orders WHERE id % 2 = 0")
    before = files_of(subject.path)
    assert len(before) == 2 and len(before[f"{subject.path.name}-journal"]) > 1000
    shadow = create(subject, contents)
    assert (shadow.checksum, shadow.data["opened"]) == (clean.checksum, "apart")
    assert not subject.provider.drift(clean, contents)
    assert files_of(subject.path) == before  # repairing it is left to who writes to it next
    subject.provider.validate(clean, contents)


def test_a_log_that_somebody_opens_meanwhile_is_noticed(tmp_path: Path, contents: MemoryContents) -> None:
    """A database that nobody had open is read without locks: if it changes meanwhile, that is done again."""
    subject = SqliteSubject(tmp_path, "wal")
    seen = []

    def use(live: database.Live) -> int:
        rows = live.connection.execute("SELECT count(*) FROM orders").fetchone()[0]
        seen.append((live.how, rows))
        if len(seen) == 1:
            execute(subject.path, "DELETE FROM orders WHERE id = 1")
        return int(rows)

    assert database.look(str(subject.path), str(tmp_path), 1.0, use) == ROWS - 1
    assert seen == [("immutable", ROWS), ("immutable", ROWS - 1)]


def test_one_that_is_locked_for_too_long_is_named_with_who_has_it(tmp_path: Path, contents: MemoryContents) -> None:
    subject = SqliteSubject(tmp_path)
    shadow = create(subject, contents)
    subject.change()
    before = files_of(subject.path)
    with process(subject.path, LOCKING) as holder:
        calls: dict[type[ProviderError], Callable[[], object]] = {
            ShadowFailed: lambda: create(subject, contents),
            RestoreFailed: lambda: subject.provider.restore(shadow, contents, MemorySteps()),
            ValidationFailed: lambda: subject.provider.validate(shadow, contents),
            ProviderError: lambda: subject.provider.drift(shadow, contents),
        }
        for error, call in calls.items():
            with pytest.raises(error) as raised:
                call()
            check_sentence(raised.value)
            assert "is locked" in str(raised.value) and f"pid {holder.pid}" in str(raised.value)
        with pytest.raises(ShadowFailed):
            subject.provider.displace(shadow, contents)
    assert files_of(subject.path) == before
    restore(subject, shadow, contents)


def test_a_restore_waits_for_a_reader(tmp_path: Path, contents: MemoryContents) -> None:
    subject = SqliteSubject(tmp_path, timeout=0.3)
    shadow = create(subject, contents)
    subject.change()
    reading = "db.execute('BEGIN'); db.execute('SELECT count(*) FROM orders').fetchone(); ready()"
    with process(subject.path, reading) as holder:
        begun = time.monotonic()
        with pytest.raises(RestoreFailed, match=f"was locked for 0 s; it is open in .*pid {holder.pid}"):
            subject.provider.restore(shadow, contents, MemorySteps())
        assert 0.3 <= time.monotonic() - begun < 10
        patient = SqliteProvider(replace(subject.provider.context, patience=100.0))
        threading.Timer(0.3, holder.kill).start()
        assert patient.restore(shadow, contents, MemorySteps()).method == "online"
    subject.provider.validate(shadow, contents)


def test_who_writes_all_the_time_can_not_keep_a_copy_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy begins again when somebody wrote between two chunks; the last one holds a lock, and lets nobody in."""
    monkeypatch.setattr(database, "CHUNK_PAGES", 10)
    subject = SqliteSubject(tmp_path)
    turns = 0
    with closing(sqlite3.connect(subject.path, isolation_level=None, timeout=0)) as writer:

        class Watch(database._Patience):
            def __call__(self, status: int, remaining: int, total: int) -> None:
                nonlocal turns
                turns += 1
                assert turns < 1000
                super().__call__(status, remaining, total)
                with suppress(sqlite3.OperationalError):
                    writer.execute("UPDATE orders SET price = price + 1 WHERE id = 1")

        monkeypatch.setattr(database, "_Patience", Watch)
        copy = tmp_path / "copy.db"
        database.look(str(subject.path), str(tmp_path), 5.0, lambda live: database.copy_out(live, str(copy), 5.0))
    assert dump(copy)[-1] == "COMMIT;"
    assert len(dump(copy)) == len(dump(subject.path))


# --- what the update did


def test_another_page_size_is_taken_back(subject: SqliteSubject, contents: MemoryContents) -> None:
    state, shadow = subject.snapshot(), create(subject, contents)
    before = subject.path.stat()
    execute(subject.path, "PRAGMA journal_mode=delete", "PRAGMA page_size=8192", "VACUUM", "DELETE FROM orders")
    execute(subject.path, f"PRAGMA journal_mode={shadow.data['journal_mode']}")
    assert restore(subject, shadow, contents).method == "online"
    assert subject.snapshot() == state
    assert subject.path.stat().st_ino == before.st_ino


def test_another_page_size_of_a_log_that_is_in_use_needs_it_closed(tmp_path: Path, contents: MemoryContents) -> None:
    subject = SqliteSubject(tmp_path, "wal")
    state, shadow = subject.snapshot(), create(subject, contents)
    execute(subject.path, "PRAGMA journal_mode=delete", "PRAGMA page_size=8192", "VACUUM", "PRAGMA journal_mode=wal")
    changed = subject.snapshot()
    with process(subject.path, IDLE) as holder:
        with pytest.raises(RestoreFailed, match=f"is locked; it is open in .*pid {holder.pid}"):
            subject.provider.restore(shadow, contents, MemorySteps())
        assert subject.snapshot() == changed
    restore(subject, shadow, contents)
    assert subject.snapshot() == state


@pytest.mark.parametrize("also", [(), ("DELETE FROM orders",)], ids=["alone", "and more"])
def test_another_journal_mode_is_taken_back(
    subject: SqliteSubject, mode: str, contents: MemoryContents, also: tuple[str, ...]
) -> None:
    state, shadow = subject.snapshot(), create(subject, contents)
    other = {"wal": "delete", "delete": "wal"}[mode]
    execute(subject.path, f"PRAGMA journal_mode={other}", *also)
    assert ("journal mode", other, mode) in [
        (change.what, change.before, change.after) for change in subject.provider.drift(shadow, contents).changes
    ]
    restore(subject, shadow, contents)
    assert subject.snapshot() == state


def test_metadata_alone_is_put_back_without_writing_the_database(
    subject: SqliteSubject, contents: MemoryContents
) -> None:
    os.setxattr(subject.path, "user.kept", b"yes")
    shadow = create(subject, contents)
    data, before = files_of(subject.path), subject.path.stat()
    subject.path.chmod(0o600)
    os.removexattr(subject.path, "user.kept")
    os.setxattr(subject.path, "user.new", b"x")
    changes = subject.provider.drift(shadow, contents).changes
    assert [(change.action, change.what) for change in changes] == [
        ("metadata", f"mode, extended attributes of {subject.path}")
    ]
    assert restore(subject, shadow, contents) == Outcome(1, 0, "metadata")
    after = subject.path.stat()
    assert (files_of(subject.path), after.st_mtime_ns, after.st_mode) == (data, before.st_mtime_ns, before.st_mode)
    assert os.listxattr(subject.path) == ["user.kept"]


def test_drift_and_validation_say_what_differs(tmp_path: Path, contents: MemoryContents) -> None:
    subject = SqliteSubject(tmp_path)
    shadow = create(subject, contents)
    execute(subject.path, "DELETE FROM orders WHERE id <= 10")
    (change,) = subject.provider.drift(shadow, contents).changes
    assert (change.what, change.before, change.after) == ("rows of table orders", f"{ROWS - 10} rows", f"{ROWS} rows")
    with pytest.raises(ValidationFailed, match="rows of table orders differs .2990 rows instead of 3000 rows"):
        subject.provider.validate(shadow, contents)


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE k (a TEXT, b INT, PRIMARY KEY (a, b)) WITHOUT ROWID; INSERT INTO k VALUES ('x', 2), ('x', 1)",
        "CREATE VIRTUAL TABLE f USING fts5(body); INSERT INTO f VALUES ('the cat sat'), ('on the mat')",
        "CREATE VIRTUAL TABLE r USING rtree(id, a, b); INSERT INTO r VALUES (1, 2.0, 3.0)",
        "CREATE TABLE b (t TEXT, b BLOB, n); INSERT INTO b VALUES ('x', x'00ff', 1e300), (x'78', 'x', NULL)",
        "CREATE TABLE g (a INT, b INT AS (a * 2) STORED); INSERT INTO g (a) VALUES (1)",
        "PRAGMA auto_vacuum = 1; VACUUM; CREATE TABLE a AS SELECT zeroblob(99999) AS z",
        "PRAGMA application_id = 77; PRAGMA user_version = -5",
    ],
)
def test_whatever_sqlite_can_hold_comes_back(tmp_path: Path, contents: MemoryContents, script: str) -> None:
    subject = SqliteSubject(tmp_path)
    with closing(sqlite3.connect(subject.path)) as connection:
        connection.executescript(script)
    state, shadow = subject.snapshot(), create(subject, contents)
    tables = [name for name in shadow.data["tables"] if name != "sqlite_sequence"]
    execute(subject.path, *(f'DELETE FROM "{name}"' for name in tables if "_" not in name), "PRAGMA user_version=9")
    assert subject.provider.drift(shadow, contents)
    restore(subject, shadow, contents)
    assert subject.snapshot() == state


# --- what SQLite can't read


def damage(subject: SqliteSubject) -> None:
    """Overwrite pages in the middle: the header is good, so that only reading shows it."""
    with subject.path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(4096 * 8))


def overwrite(subject: SqliteSubject) -> None:
    subject.path.write_bytes(b"an update that went wrong\n" * 1000)


def mix_up(subject: SqliteSubject) -> None:
    """A log and a journal that have nothing to do with the database."""
    overwrite(subject)
    Path(f"{subject.path}-wal").write_bytes(os.urandom(5000))
    Path(f"{subject.path}-journal").write_bytes(os.urandom(3000))


def truncate(subject: SqliteSubject) -> None:
    os.truncate(subject.path, 5000)


def orphan(subject: SqliteSubject) -> None:
    """Only a log is left."""
    subject.destroy()
    Path(f"{subject.path}-wal").write_bytes(os.urandom(5000))


BREAKAGES = [damage, overwrite, mix_up, truncate, orphan]


@pytest.mark.parametrize("break_it", BREAKAGES)
def test_a_broken_database_is_kept_byte_for_byte_and_replaced(
    subject: SqliteSubject, contents: MemoryContents, break_it: Callable[[SqliteSubject], None]
) -> None:
    state, shadow = subject.snapshot(), create(subject, contents)
    break_it(subject)
    broken = files_of(subject.path)
    displaced = ProviderConformance.publish(subject, subject.provider.displace(shadow, contents))
    assert (displaced.method, displaced.items) == ("raw", len(broken))
    assert subject.provider.drift(shadow, contents)
    assert files_of(subject.path) == broken
    restore(subject, shadow, contents)
    assert subject.snapshot() == state
    assert set(files_of(subject.path)) == {subject.path.name}
    restore(subject, displaced, contents)
    assert files_of(subject.path) == broken
    assert restore(subject, displaced, contents).items == 0
    assert sorted(one.name for one in subject.directory.iterdir()) == sorted(broken)


@pytest.mark.parametrize("break_it", BREAKAGES)
def test_replacing_a_broken_database_may_be_killed_anywhere(
    tmp_path: Path, contents: MemoryContents, break_it: Callable[[SqliteSubject], None]
) -> None:
    subject = SqliteSubject(tmp_path, "wal")
    state, shadow = subject.snapshot(), create(subject, contents)
    call = partial(subject.provider.restore, shadow, contents)
    break_it(subject)
    acts = run_and_kill(partial(call, FileSteps(tmp_path / "steps")))
    assert acts and subject.snapshot() == state
    for kill_at in spread(acts, 15):
        break_it(subject)
        steps = FileSteps(tmp_path / f"steps-{kill_at}")
        assert run_and_kill(partial(call, steps), kill_at) is None
        call(steps)
        subject.provider.validate(shadow, contents)
        assert subject.snapshot() == state
        assert set(os.listdir(subject.directory)) == {subject.path.name}


def test_what_a_killed_restore_left_beside_it_goes(tmp_path: Path, contents: MemoryContents) -> None:
    """Also when there is nothing to do any more: somebody else has put the database back."""
    subject = SqliteSubject(tmp_path)
    shadow = create(subject, contents)
    for suffix in files.KEPT:
        Path(files._temporary(str(subject.path)) + suffix).touch()
    assert restore(subject, shadow, contents).items == 0
    assert list(subject.directory.iterdir()) == [subject.path]


def test_an_index_that_contradicts_its_table_is_refused_and_mended(tmp_path: Path, contents: MemoryContents) -> None:
    """Every row can be read, so only integrity_check tells."""
    subject = SqliteSubject(tmp_path)
    state, shadow = subject.snapshot(), create(subject, contents)
    with closing(sqlite3.connect(subject.path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, '(item)', '(price)') WHERE name = 'by_item'")
    execute(subject.path, "PRAGMA writable_schema=ON", "UPDATE orders SET price = price + 1 WHERE id = 5")
    with closing(sqlite3.connect(subject.path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, '(price)', '(item)') WHERE name = 'by_item'")
    with pytest.raises(ShadowFailed, match="is damaged .*by_item") as refused:
        create(subject, contents)
    check_sentence(refused.value)
    restore(subject, shadow, contents)
    assert subject.snapshot() == state


def test_a_broken_database_that_is_still_open_is_not_pulled_away(tmp_path: Path, contents: MemoryContents) -> None:
    subject = SqliteSubject(tmp_path, "wal")
    shadow = create(subject, contents)
    with process(subject.path, IDLE) as holder:
        overwrite(subject)
        before = files_of(subject.path)
        with pytest.raises(RestoreFailed, match=f"has to be replaced.*pid {holder.pid}") as refused:
            subject.provider.restore(shadow, contents, MemorySteps())
        check_sentence(refused.value)
        assert files_of(subject.path) == before
        subject.path.unlink()
        with pytest.raises(RestoreFailed, match=f"pid {holder.pid}"):  # it has the removed file open
            subject.provider.restore(shadow, contents, MemorySteps())
    assert restore(subject, shadow, contents).method == "replace"


def test_what_is_no_file_any_more_bars_the_way_back(tmp_path: Path, contents: MemoryContents) -> None:
    subject = SqliteSubject(tmp_path)
    shadow = create(subject, contents)
    subject.destroy()
    subject.path.mkdir()
    with pytest.raises(ShadowFailed, match="is not a regular file"):
        subject.provider.displace(shadow, contents)
    with pytest.raises(RestoreFailed):
        subject.provider.restore(shadow, contents, MemorySteps())
    assert subject.path.is_dir()


# --- where it is


def test_its_directory_is_made_again(tmp_path: Path, contents: MemoryContents) -> None:
    subject = SqliteSubject(tmp_path)
    state, shadow = subject.snapshot(), create(subject, contents)
    shutil.rmtree(subject.directory)
    restore(subject, shadow, contents)
    assert subject.snapshot() == state
    assert subject.directory.stat().st_mode & 0o7777 == 0o750


def test_what_the_update_made_is_removed_and_can_be_brought_back(tmp_path: Path, contents: MemoryContents) -> None:
    subject = SqliteSubject(tmp_path, allow_missing=True)
    made = subject.snapshot()
    data = files_of(subject.path)
    subject.destroy()
    assert subject.provider.estimate(subject.resource) == Estimate(0, 0)
    shadow = create(subject, contents)
    assert (shadow.method, shadow.roots, subject.provider.verify(shadow, contents)) == ("absent", (), 0)
    assert not subject.provider.drift(shadow, contents)
    subject.path.write_bytes(data[subject.path.name])
    subject.path.chmod(0o640)
    displaced = ProviderConformance.publish(subject, subject.provider.displace(shadow, contents))
    with pytest.raises(ValidationFailed):
        subject.provider.validate(shadow, contents)
    with process(subject.path, IDLE) as holder:
        outcome = restore(subject, shadow, contents)
        assert (outcome.items, outcome.method) == (1, "remove")
        assert f"pid {holder.pid}" in outcome.notes[0]
    assert list(subject.directory.iterdir()) == []
    assert restore(subject, shadow, contents).items == 0
    restore(subject, displaced, contents)
    assert subject.snapshot() == made


def test_an_empty_file_is_an_empty_database(tmp_path: Path, contents: MemoryContents) -> None:
    subject = SqliteSubject(tmp_path)
    subject.path.write_bytes(b"")
    shadow = create(subject, contents)
    assert shadow.items == 0
    execute(subject.path, "CREATE TABLE t AS SELECT 1")
    restore(subject, shadow, contents)
    with closing(sqlite3.connect(subject.path)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_a_symlink_is_followed_and_stays(tmp_path: Path, contents: MemoryContents) -> None:
    subject = SqliteSubject(tmp_path)
    link = tmp_path / "link.db"
    link.symlink_to(subject.path)
    subject.resource = replace(subject.resource, options={**subject.resource.options, "path": str(link)})
    state, shadow = subject.snapshot(), create(subject, contents)
    overwrite(subject)
    restore(subject, shadow, contents)
    assert subject.snapshot() == state
    assert link.is_symlink()
    moved = tmp_path / "moved.db"
    subject.path.rename(moved)
    link.unlink()
    link.symlink_to(moved)
    execute(moved, "DELETE FROM orders")
    assert "is " + str(moved) + " now" in restore(subject, shadow, contents).notes[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be led to what others can't write")
def test_a_symlink_that_others_can_turn_does_not_lead_root_elsewhere(tmp_path: Path, contents: MemoryContents) -> None:
    subject = SqliteSubject(tmp_path)
    shadow = create(subject, contents)
    victim = tmp_path / "shadow"
    victim.write_text("root:secret")
    subject.path.unlink()
    subject.path.symlink_to(victim)
    os.chown(subject.path, 12345, 12345, follow_symlinks=False)
    with pytest.raises(RestoreFailed, match="a symlink that is not root's") as refused:
        subject.provider.restore(shadow, contents, MemorySteps())
    check_sentence(refused.value)
    assert victim.read_text() == "root:secret"


def test_a_query_takes_databases_only_and_each_once(tmp_path: Path) -> None:
    subject = SqliteSubject(tmp_path)
    (subject.directory / "notes.db").write_text("no database")
    (subject.directory / "z.db").symlink_to(subject.path)
    os.mkfifo(subject.directory / "fifo.db")
    (subject.directory / "dangling.db").symlink_to("nowhere")
    found = subject.provider.query({"pattern": f"{subject.directory}/*"})
    assert [one["path"] for one in found] == [str(subject.path)]


# --- kill -9 inside SQLite


def test_a_large_restore_may_be_killed_at_any_moment(
    tmp_path: Path, mode: str, contents: MemoryContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 MB, killed after so many chunks and at odd moments; others then see the failed state, and never a mixture."""
    monkeypatch.setattr(database, "CHUNK_PAGES", 200)
    subject = SqliteSubject(tmp_path, mode)
    execute(subject.path, "CREATE TABLE big (id INTEGER PRIMARY KEY, data BLOB)")
    fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
    execute(subject.path, f"{fill} INSERT INTO big SELECT i, randomblob(4000) FROM n")
    shadow = create(subject, contents)
    assert shadow.bytes > 20_000_000
    execute(subject.path, "UPDATE big SET data = randomblob(3000)", "DELETE FROM orders")
    failed = create(subject, contents).checksum
    call = partial(subject.provider.restore, shadow, contents, MemorySteps())
    for chunks in (1, 12, 24):
        assert run_and_kill(partial(_die_after_chunks, call, chunks)) is None
        assert create(subject, contents).checksum == failed
    for delay in (0.05, 0.2):
        run_and_kill(partial(_die_after_seconds, call, delay))
        assert create(subject, contents).checksum in (failed, shadow.checksum)
    restore(subject, shadow, contents)
    assert call() == Outcome(0, 0, "none")


def _die_after_chunks(call: Callable[[], object], chunks: int) -> None:
    """Runs in a process of its own, so that what it replaces stays as it was elsewhere."""

    def watch(_self: object, _status: int, _remaining: int, _total: int) -> None:
        nonlocal chunks
        chunks -= 1
        if chunks == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    database._Patience.__call__ = watch  # type: ignore[assignment]
    call()


def _die_after_seconds(call: Callable[[], object], delay: float) -> None:
    """The kernel ends this process (of its own) after `delay` seconds, wherever it is."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, delay)
    call()


# --- the host


def test_a_python_without_sqlite_is_told(
    tmp_path: Path, contents: MemoryContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = SqliteSubject(tmp_path)
    shadow = create(subject, contents)
    monkeypatch.setattr(database, "sqlite3", None)  # what its import leaves there
    calls: list[Callable[[], object]] = [
        lambda: subject.provider.estimate(subject.resource),
        lambda: create(subject, contents),
        lambda: subject.provider.drift(shadow, contents),
        lambda: subject.provider.displace(shadow, contents),
        lambda: subject.provider.restore(shadow, contents, MemorySteps()),
    ]
    for call in calls:
        with pytest.raises(ToolMissing) as missing:
            call()
        check_sentence(missing.value)


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "full.db"
    with pytest.raises(database.Full), database.translated(), closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA max_page_count=2")  # SQLite then answers as on a full disk
        connection.execute("CREATE TABLE t AS SELECT randomblob(99999) AS b")
