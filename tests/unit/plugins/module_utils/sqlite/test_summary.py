# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a database says: equal where databases are equal, different where they differ in the least."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import StoreCorrupt, StoreFormatUnknown
from ansible_collections.umbra.rollback.plugins.module_utils.sqlite.database import integrity
from ansible_collections.umbra.rollback.plugins.module_utils.sqlite.summary import Summary, compare, count, take

BASE = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, v)",
    "INSERT INTO t VALUES (1, 'one'), (2, 'two')",
)
# Two ways to write what must not be taken for the same.
DIFFERENT = {
    "text and blob": ("UPDATE t SET v = 'x'", "UPDATE t SET v = x'78'"),
    "integer and real": ("UPDATE t SET v = 1", "UPDATE t SET v = 1.0"),
    "null and empty": ("UPDATE t SET v = NULL", "UPDATE t SET v = ''"),
    "text with a NUL": ("UPDATE t SET v = 'a'", "UPDATE t SET v = 'a' || char(0) || 'b'"),
    "reals one bit apart": ("UPDATE t SET v = 0.1", "UPDATE t SET v = 0.30000000000000004 - 0.2"),
    "zero and minus zero": ("UPDATE t SET v = 0.0", "UPDATE t SET v = -1e-300 * 1e-300"),
    "text that is not UTF-8": ("UPDATE t SET v = CAST(x'ff' AS TEXT)", "UPDATE t SET v = CAST(x'fe' AS TEXT)"),
    "large integers": ("UPDATE t SET v = 9007199254740993", "UPDATE t SET v = 9007199254740992"),
    "what is in which row": ("UPDATE t SET v = 3 - id", "UPDATE t SET v = id"),
    "a row": ("INSERT INTO t VALUES (3, 3)", "SELECT 1"),
    "a key": ("UPDATE t SET id = 7 WHERE id = 2", "SELECT 1"),
    "a rowid": (
        "CREATE TABLE r AS SELECT 1 AS a",
        "CREATE TABLE r AS SELECT 1 AS a; UPDATE r SET rowid = 9",
    ),
    "a column's type": ("CREATE TABLE u (a INT)", "CREATE TABLE u (a INTEGER)"),
    "an index": ("CREATE INDEX i ON t (v)", "CREATE INDEX i ON t (v DESC)"),
    "a view": ("CREATE VIEW w AS SELECT 1", "CREATE VIEW w AS SELECT 2"),
    "a trigger": (
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 2; END",
    ),
    "an autoincrement counter": (
        "CREATE TABLE s (a INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO s VALUES (5); DELETE FROM s",
        "CREATE TABLE s (a INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO s VALUES (6); DELETE FROM s",
    ),
    "a table without rowid": (
        "CREATE TABLE p (k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO p VALUES ('a', 1)",
        "CREATE TABLE p (k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO p VALUES ('a', 2)",
    ),
    "full text": (
        "CREATE VIRTUAL TABLE f USING fts5(body); INSERT INTO f VALUES ('the cat sat')",
        "CREATE VIRTUAL TABLE f USING fts5(body); INSERT INTO f VALUES ('the dog sat')",
    ),
    "user_version": ("PRAGMA user_version = 7", "PRAGMA user_version = 8"),
    "application_id": ("PRAGMA application_id = 7", "PRAGMA application_id = 8"),
}
# Two ways to write what is the same.
EQUAL = {
    "pages": ("VACUUM", "PRAGMA page_size = 1024; VACUUM"),
    "the order of inserts": (
        "CREATE TABLE p (k TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO p VALUES ('b'); INSERT INTO p VALUES ('a')",
        "CREATE TABLE p (k TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO p VALUES ('a'); INSERT INTO p VALUES ('b')",
    ),
    "free pages": ("CREATE TABLE x AS SELECT zeroblob(99999) AS z; DROP TABLE x", "SELECT 1"),
    "the journal mode": ("PRAGMA journal_mode = wal", "SELECT 1"),
}


def summary(path: Path, *scripts: str) -> Summary:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        for script in scripts:
            connection.executescript(script)
        return take(connection)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        yield connection


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_differs_is_told(case: str, tmp_path: Path) -> None:
    one, other = (summary(tmp_path / f"{number}.db", *BASE, script) for number, script in enumerate(DIFFERENT[case]))
    assert one.encode() != other.encode()
    assert compare(one, other)


@pytest.mark.parametrize("case", EQUAL)
def test_what_is_the_same_is_equal(case: str, tmp_path: Path) -> None:
    one, other = (summary(tmp_path / f"{number}.db", *BASE, script) for number, script in enumerate(EQUAL[case]))
    assert one.encode() == other.encode()
    assert not compare(one, other)


def test_the_encoding_counts_and_is_told(tmp_path: Path) -> None:
    one = summary(tmp_path / "8.db", *BASE)
    other = summary(tmp_path / "16.db", "PRAGMA encoding = 'UTF-16le'", *BASE)
    assert one.tables == other.tables  # text is compared as what it says
    assert [change.what for change in compare(one, other)] == ["encoding"]


def test_tables_with_odd_names_and_columns_are_read(connection: sqlite3.Connection) -> None:
    connection.executescript(
        """
        CREATE TABLE "a ""quoted"" name" (rowid, _rowid_ TEXT, "select" BLOB);
        INSERT INTO "a ""quoted"" name" VALUES ('x', 'y', 'z');
        CREATE TABLE everything (rowid, _rowid_, oid);
        INSERT INTO everything VALUES (2, 2, 2), (1, 1, 1);
        CREATE TABLE "keyed" ("rowid" TEXT PRIMARY KEY) WITHOUT ROWID;
        INSERT INTO keyed VALUES ('b'), ('a');
        """
    )
    found = take(connection)
    assert {name: rows for name, (rows, _digest) in found.tables.items()} == {
        'a "quoted" name': 1,
        "everything": 2,
        "keyed": 2,
    }
    assert found.rows == count(connection) == 5


def test_what_only_the_application_has_is_not_needed(tmp_path: Path) -> None:
    """Collations and functions of the application, in keys, indexes, checks and generated columns."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.create_collation("icu", lambda a, b: (a > b) - (a < b))
        connection.create_function("twice", 1, lambda value: value * 2, deterministic=True)
        connection.executescript(
            """
            CREATE TABLE names (name TEXT COLLATE icu PRIMARY KEY, n INT CHECK (twice(n) > 0)) WITHOUT ROWID;
            CREATE TABLE more (a TEXT COLLATE icu, b INT, c INT AS (twice(b)) VIRTUAL);
            CREATE INDEX by_a ON more (a);
            CREATE INDEX by_b ON more (twice(b));
            INSERT INTO names VALUES ('b', 1), ('a', 2);
            INSERT INTO more VALUES ('x', 1), ('y', 2);
            """
        )
    assert summary(path).rows == 4
    with closing(sqlite3.connect(path)) as connection:
        assert count(connection) == 4
        assert integrity(connection)[0] == []


def test_changes_name_tables_objects_and_settings(tmp_path: Path) -> None:
    shadow = summary(tmp_path / "shadow.db", *BASE, "CREATE VIEW w AS SELECT 1", "CREATE TABLE gone (a)")
    live = summary(
        tmp_path / "live.db", *BASE, "CREATE VIEW w AS SELECT 2", "CREATE TABLE new (a)", "DELETE FROM t WHERE id = 2"
    )
    found = [(change.action, change.what, change.before, change.after) for change in compare(live, shadow)]
    assert found == [
        ("create", "table gone", "", "CREATE TABLE gone (a)"),
        ("remove", "table new", "CREATE TABLE new (a)", ""),
        ("replace", "view w", "CREATE VIEW w AS SELECT 2", "CREATE VIEW w AS SELECT 1"),
        ("replace", "rows of table gone", "no such table", "0 rows"),
        ("replace", "rows of table new", "0 rows", "no such table"),
        ("replace", "rows of table t", "1 rows", "2 rows"),
    ]


def test_the_order_of_the_schema_counts(tmp_path: Path) -> None:
    """Triggers fire in it."""
    scripts = ["CREATE VIEW v AS SELECT 1", "CREATE VIEW w AS SELECT 1"]
    one, other = summary(tmp_path / "1.db", *scripts), summary(tmp_path / "2.db", *reversed(scripts))
    assert [change.what for change in compare(one, other)] == ["the order of the schema"]


def test_taking_it_leaves_the_connection_as_it_was(connection: sqlite3.Connection) -> None:
    connection.executescript(";".join(BASE))
    take(connection)
    assert not connection.in_transaction
    assert connection.execute("SELECT v FROM t").fetchone() == ("one",)
    connection.execute("BEGIN")
    take(connection)
    assert connection.in_transaction


def test_a_summary_survives_its_text(connection: sqlite3.Connection) -> None:
    connection.executescript(";".join(BASE))
    found = take(connection)
    assert Summary.decode(found.encode()) == found


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", StoreCorrupt),
        (b"\xff", StoreCorrupt),
        (b"[]", StoreCorrupt),
        (b"{}", StoreCorrupt),
        (json.dumps({"format": "umbra-sqlite 2"}).encode(), StoreFormatUnknown),
        (json.dumps({"format": "umbra-sqlite 1", "tables": {"t": 1}, "schema": []}).encode(), StoreCorrupt),
    ],
)
def test_what_is_no_summary_is_refused(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        Summary.decode(data)
