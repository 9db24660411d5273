# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a database says, whatever its pages look like: "umbra-sqlite 1", a JSON text, equal for equal databases.

`schema` is sqlite_master in its order, without page numbers. `tables` has for each real table (those in which virtual
tables keep their data among them) how many rows it has, and a SHA-256 over them. A row is the Python literal of a tuple
and a newline: its rowid, where it has one, then its values, text as bytearray and blobs as bytes, so that they differ.
Rows come in the order of the table's B-tree, by rowid or primary key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import canonical
from ..errors import StoreCorrupt, StoreFormatUnknown
from ..providers.base import Change

if TYPE_CHECKING:
    import sqlite3

FORMAT = "umbra-sqlite 1"
WHERE = "the summary of a SQLite database"
ROWIDS = ("rowid", "_rowid_", "oid")
PRAGMAS = ("encoding", "user_version", "application_id")
BUILT_IN = frozenset({"BINARY", "NOCASE", "RTRIM"})  # collations
SQL_SHOWN = 200


@dataclass(frozen=True)
class Summary:
    """`schema`: type, name, table and SQL of each object; `tables`: rows and digest of each; `pragmas`: see PRAGMAS."""

    schema: tuple[tuple[str, str, str, str], ...]
    tables: Mapping[str, tuple[int, str]]
    pragmas: Mapping[str, Any]

    @property
    def rows(self) -> int:
        """How many rows all tables have together."""
        return sum(rows for rows, _digest in self.tables.values())

    def encode(self) -> bytes:
        """The summary's text."""
        schema = [list(item) for item in self.schema]
        tables = {name: list(table) for name, table in self.tables.items()}
        return canonical.dumps({"format": FORMAT, "schema": schema, "tables": tables, "pragmas": dict(self.pragmas)})

    @classmethod
    def decode(cls, data: bytes) -> Summary:
        """The summary that `encode` wrote. Raises StoreFormatUnknown, StoreCorrupt."""
        try:
            raw = json.loads(data)
            if raw["format"] != FORMAT:
                raise StoreFormatUnknown(path=WHERE, found=raw["format"], known=FORMAT)
            tables = {name: (int(rows), str(digest)) for name, (rows, digest) in raw["tables"].items()}
            return cls(tuple((t, n, b, s) for t, n, b, s in raw["schema"]), tables, raw["pragmas"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreCorrupt(path=WHERE, problem=f"it can't be read ({error})") from error


def take(connection: sqlite3.Connection) -> Summary:
    """Read the whole database, in one transaction. Raises what sqlite3 raises."""
    with _reading(connection):
        query = "SELECT type, name, tbl_name, sql, rootpage FROM sqlite_master ORDER BY rowid"
        master = connection.execute(query).fetchall()
        schema = tuple((_text(t), _text(n), _text(b), _text(s or b"")) for t, n, b, s, _page in master)
        pragmas = {name: _pragma(connection, name) for name in PRAGMAS}
        return Summary(schema, {name: _read(connection, name) for name in _tables(connection)}, pragmas)


def count(connection: sqlite3.Connection) -> int:
    """How many rows all real tables have. Raises what sqlite3 raises."""
    rows = 0
    with _reading(connection):
        for table in _tables(connection):
            with _collations(connection, table):
                rows += connection.execute(f"SELECT count(*) FROM {_quote(table)}").fetchone()[0]
    return rows


@contextmanager
def _reading(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction, in which text comes as bytearray."""
    began = not connection.in_transaction
    if began:
        connection.execute("BEGIN")
    connection.text_factory = bytearray
    try:
        yield
    finally:
        connection.text_factory = str
        if began:
            connection.execute("ROLLBACK")


def _tables(connection: sqlite3.Connection) -> list[str]:
    """Names of the tables that have pages: not the virtual ones, but those in which they keep their data."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage ORDER BY rowid"
    return [_text(name) for (name,) in connection.execute(query)]


def _pragma(connection: sqlite3.Connection, name: str) -> str | int:
    value = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value if isinstance(value, int) else _text(value)


def _read(connection: sqlite3.Connection, table: str) -> tuple[int, str]:
    about = connection.execute(f"PRAGMA table_xinfo({_quote(table)})").fetchall()
    # Without generated columns, which may need functions of the application.
    columns = [_text(name) for _number, name, _type, _notnull, _default, _key, hidden in about if not hidden]
    digest = hashlib.sha256()
    rows = 0
    for row in _rows(connection, table, columns):
        digest.update(b"%a\n" % (row,))
        rows += 1
    return rows, digest.hexdigest()


def _rows(connection: sqlite3.Connection, table: str, columns: Iterable[str]) -> Iterator[tuple[Any, ...]]:
    """The table's rows. Sorting is left to the B-tree, since a key's order may need a collation of the application."""
    taken = {column.lower() for column in columns}
    values = ", ".join(map(_quote, columns))
    source = f"FROM {_quote(table)} NOT INDEXED"
    rowid = next((name for name in ROWIDS if name not in taken), None)
    if rowid and _has(connection, table, rowid):
        yield from connection.execute(f"SELECT {rowid}, {values} {source} ORDER BY {rowid}")
    else:
        with _collations(connection, table):
            yield from connection.execute(f"SELECT {values} {source}")


def _has(connection: sqlite3.Connection, table: str, rowid: str) -> bool:
    """Whether the table has a rowid."""
    try:
        connection.execute(f"SELECT {rowid} FROM {_quote(table)} LIMIT 0")
    except connection.OperationalError as error:
        if "no such column" in str(error) or "no query solution" in str(error):
            return False
        raise
    return True


@contextmanager
def _collations(connection: sqlite3.Connection, table: str) -> Iterator[None]:
    """Give the table's key the application's collations that it names: they have to be there, and are never called."""
    keys = [row[1] for row in connection.execute(f"PRAGMA index_list({_quote(table)})") if row[3] == b"pk"]
    columns = [row for key in keys for row in connection.execute(f"PRAGMA index_xinfo({_quote(_text(key))})")]
    names = {_text(row[4]) for row in columns if row[4]} - BUILT_IN
    for name in names:
        connection.create_collation(name, lambda one, other: (one > other) - (one < other))
    try:
        yield
    finally:
        for name in names:
            connection.create_collation(name, None)


def _text(raw: bytes) -> str:
    """A name or SQL; bytes that are not UTF-8 are shown, so that they count."""
    return bytes(raw).decode("utf-8", "backslashreplace")


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def compare(live: Summary, shadow: Summary) -> list[Change]:
    """What a restore would change, table by table and object by object."""
    return [*_compare_schema(live, shadow), *_compare_tables(live, shadow), *_compare_pragmas(live, shadow)]


def _compare_schema(live: Summary, shadow: Summary) -> Iterator[Change]:
    now, then = ({(t, n): s for t, n, _b, s in one.schema} for one in (live, shadow))
    for key in sorted({*now, *then}):
        if now.get(key) != then.get(key):
            action = "create" if key not in now else "remove" if key not in then else "replace"
            yield Change(action, " ".join(key), _shorten(now.get(key, "")), _shorten(then.get(key, "")))
    if now == then and live.schema != shadow.schema:
        yield Change("metadata", "the order of the schema")


def _compare_tables(live: Summary, shadow: Summary) -> Iterator[Change]:
    for name in sorted({*live.tables, *shadow.tables}):
        now, then = live.tables.get(name), shadow.tables.get(name)
        if now != then:
            rows = [f"{table[0]} rows" if table else "no such table" for table in (now, then)]
            yield Change("replace", f"rows of table {name}", *rows)


def _compare_pragmas(live: Summary, shadow: Summary) -> Iterator[Change]:
    for name in PRAGMAS:
        if live.pragmas.get(name) != shadow.pragmas.get(name):
            yield Change("metadata", name, str(live.pragmas.get(name)), str(shadow.pragmas.get(name)))


def _shorten(sql: str) -> str:
    text = " ".join(sql.split())
    return text if len(text) <= SQL_SHOWN else text[:SQL_SHOWN] + "..."
