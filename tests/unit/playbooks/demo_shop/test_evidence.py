# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's proof would notice: each kind of difference is found, and equal is equal."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from .conftest import Shop, tool

ZONE = "etc/shipping/at/zone-01.ini"


def sql(home: Path, statement: str) -> None:
    with closing(sqlite3.connect(home / "data" / "shop.db")) as database:
        database.execute(statement)
        database.commit()


def rewrite(home: Path) -> None:
    """Other contents of the same length, with the old time."""
    path = home / ZONE
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"zone = 1", b"zone = 9"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def shift_time(home: Path) -> None:
    """One nanosecond."""
    status = (home / ZONE).stat()
    os.utime(home / ZONE, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def turn_link(home: Path) -> None:
    """A link to something else."""
    (home / "etc" / "link").unlink()
    (home / "etc" / "link").symlink_to("shop.ini")


# What is done to the shop, and what the proof has to name then.
DIFFERENCES: list[tuple[str, Callable[[Path], object]]] = [
    (ZONE, rewrite),
    (ZONE, shift_time),
    (ZONE, lambda home: (home / ZONE).chmod(0o600)),
    (ZONE, lambda home: (home / ZONE).unlink()),
    ("etc/new", lambda home: (home / "etc" / "new").mkdir()),
    ("etc/link", turn_link),
    ("the rows of orders differ", lambda home: sql(home, "UPDATE orders SET quantity = quantity + 1 WHERE id = 4000")),
    ("the rows of customers differ", lambda home: sql(home, "DELETE FROM customers WHERE id = 7")),
    ("schema was", lambda home: sql(home, "ALTER TABLE products ADD COLUMN colour TEXT")),
    ("version was 1", lambda home: sql(home, "PRAGMA user_version = 5")),
]


def test_equal_is_equal_also_while_the_shop_runs(shop: Shop, tmp_path: Path) -> None:
    taken = tool("evidence", shop.home, "take", tmp_path / "evidence")
    assert taken.returncode == 0, taken.stderr
    shop.control("start")
    shop.get("/healthz")
    same = tool("evidence", shop.home, "same", tmp_path / "evidence")
    assert same.returncode == 0, same.stdout
    assert "5440 rows in 3 tables: each as before" in same.stdout


@pytest.mark.parametrize(("named", "change"), DIFFERENCES)
def test_a_difference_is_named(shop: Shop, tmp_path: Path, named: str, change: Callable[[Path], object]) -> None:
    (shop.home / "etc" / "link").symlink_to("payment.ini")
    tool("evidence", shop.home, "take", tmp_path / "evidence")
    change(shop.home)
    same = tool("evidence", shop.home, "same", tmp_path / "evidence")
    assert same.returncode == 1
    assert named in same.stdout


def test_a_migrated_shop_is_told_from_one_that_lost_a_row_on_the_way(shop: Shop, tmp_path: Path) -> None:
    tool("evidence", shop.home, "take", tmp_path / "evidence")
    before = tool("evidence", shop.home, "migrated", tmp_path / "evidence")
    assert before.returncode == 1
    shop.install("2.0.1")
    assert shop.program("migrate").returncode == 0
    after = tool("evidence", shop.home, "migrated", tmp_path / "evidence")
    assert after.returncode == 0, after.stdout
    sql(shop.home, "UPDATE orders SET total_cents = total_cents + 1 WHERE id = 1")
    assert tool("evidence", shop.home, "migrated", tmp_path / "evidence").returncode == 1
