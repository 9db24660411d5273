# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proves what became of the demo's shop. It knows nothing of umbra.rollback: it walks, reads and compares by itself.

Usage: evidence.py HOME take FILE | evidence.py HOME same FILE | evidence.py HOME migrated FILE

`same` compares with what `take` wrote: all must be equal. `migrated`: every row must be there, as release 2 has it.
It prints what was found equal, one line each; differences are listed, and the exit status is 1.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

TREES = ("app", "etc", "feeds")  # what the update was to change, and nothing else
SHOWN = 10


def entries(home: Path) -> dict[str, list[Any]]:
    """Everything below the trees: kind, mode, owner, group, time of change (ns), and contents (digest) or link text."""
    found: dict[str, list[Any]] = {}
    for tree in TREES:
        for path in [home / tree, *sorted((home / tree).rglob("*"))]:
            status = path.lstat()
            kind = stat.filemode(status.st_mode)[0]
            if kind == "l":
                content = os.readlink(path)
            else:
                content = hashlib.sha256(path.read_bytes()).hexdigest() if kind == "-" else ""
            mode = f"{stat.S_IMODE(status.st_mode):o}"
            found[str(path.relative_to(home))] = [kind, mode, status.st_uid, status.st_gid, status.st_mtime_ns, content]
    return found


def database(home: Path) -> dict[str, Any]:
    """Schema, its version, every row of every table, read by SQLite itself; and whether it calls the file sound."""
    with closing(sqlite3.connect(home / "data" / "shop.db")) as connection:
        connection.row_factory = sqlite3.Row
        names = [
            row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        ]
        return {
            "sound": connection.execute("PRAGMA integrity_check").fetchone()[0],
            "version": connection.execute("PRAGMA user_version").fetchone()[0],
            "schema": [
                row[0] for row in connection.execute("SELECT sql FROM sqlite_master WHERE sql > '' ORDER BY name")
            ],
            "tables": {name: rows(connection, name) for name in names},
        }


def rows(connection: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    """Every row of a table."""
    quoted = table.replace('"', '""')
    return [dict(row) for row in connection.execute(f'SELECT * FROM "{quoted}" ORDER BY id')]


def take(home: Path) -> dict[str, Any]:
    """All there is to compare, JSON-ready."""
    return {"entries": entries(home), "database": database(home)}


def same(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Every difference between two states."""
    old, new = before["entries"], now["entries"]
    for path in sorted({*old, *new}):
        if old.get(path) != new.get(path):
            yield f"{path}: was {old.get(path, 'not there')}, is {new.get(path, 'not there')}"
    for key in ("sound", "version", "schema"):
        if before["database"][key] != now["database"][key]:
            yield f"shop.db: {key} was {before['database'][key]}, is {now['database'][key]}"
    old, new = before["database"]["tables"], now["database"]["tables"]
    for table in sorted({*old, *new}):
        if old.get(table) != new.get(table):
            yield f"shop.db: the rows of {table} differ"


def migrated(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Every row of before that is not there as release 2 should have it, computed here from what was before."""
    old, new = before["database"]["tables"], now["database"]["tables"]
    if now["database"]["sound"] != "ok" or now["database"]["version"] != 2:
        yield f"shop.db: {now['database']['sound']}, schema {now['database']['version']}"
    prices = {row["id"]: row["price_cents"] for row in old["products"]}
    wanted = {
        "customers": [_customer(row) for row in old["customers"]],
        "products": [{**row, "currency": "EUR"} for row in old["products"]],
        "orders": [{**row, "total_cents": row["quantity"] * prices[row["product_id"]]} for row in old["orders"]],
    }
    for table, rows in wanted.items():
        if new.get(table) != rows:
            yield f"shop.db: the rows of {table} are not as they should be"
    for path in sorted({*before["entries"], *now["entries"]}):
        kept = before["entries"].get(path) == now["entries"].get(path)
        if path.startswith("etc/shipping/") and path.endswith(".ini") and kept:
            yield f"{path}: still that of release 1"


def _customer(row: dict[str, Any]) -> dict[str, Any]:
    renamed = {"full_name" if key == "name" else key: value for key, value in row.items()}
    return {**renamed, "given_name": row["name"].partition(" ")[0]}


def summary(state: dict[str, Any], word: str) -> Iterator[str]:
    """What was compared, counted, for a person."""
    kinds = [entry[0] for entry in state["entries"].values()]
    tables = state["database"]["tables"]
    counted = f"{kinds.count('-')} files, {kinds.count('d')} directories, {kinds.count('l')} symbolic links"
    counted_rows = f"{sum(map(len, tables.values()))} rows in {len(tables)} tables"
    version = state["database"]["version"]
    if word == "same":
        yield f"{counted}: contents, modes, owners, times to the nanosecond and link texts are as before"
        yield f"{counted_rows}: each as before, in schema {version}; SQLite calls the file sound"
    elif word == "migrated":
        yield f"{counted}: those of release 2"
        yield f"{counted_rows}: each as release 2 has it, in schema {version}; SQLite calls the file sound"
    else:
        yield f"{counted}; {counted_rows}"


def main(arguments: list[str]) -> int:
    """See the usage in this file's first lines."""
    checks = {"same": same, "migrated": migrated}
    if len(arguments) != 3 or arguments[1] not in ("take", *checks):
        sys.exit(__doc__)
    home, word, file = Path(arguments[0]), arguments[1], Path(arguments[2])
    state = take(home)
    if word == "take":
        file.write_text(json.dumps(state), encoding="utf-8")
    else:
        differences = list(checks[word](json.loads(file.read_text(encoding="utf-8")), state))
        if differences:
            print("\n".join(differences[:SHOWN]))
            print(f"{len(differences)} differences in all")
            return 1
    print("\n".join(summary(state, word)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
