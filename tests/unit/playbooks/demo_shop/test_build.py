# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The place that the demo makes: the same each time, and never where somebody else's files are."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

from .conftest import Shop, tool


def dump(home: Path) -> list[str]:
    """The whole database as SQL."""
    with closing(sqlite3.connect(home / "data" / "shop.db")) as database:
        return list(database.iterdump())


def test_a_directory_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    done = tool("build", tmp_path)
    assert done.returncode == 1
    assert "no demo made" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_relative_home_is_refused() -> None:
    assert tool("build", "shop").returncode == 1


def test_building_again_stops_the_shop_and_removes_what_the_earlier_demo_left(shop: Shop) -> None:
    assert shop.control("start").returncode == 0
    (shop.home / "store").mkdir()
    built = tool("build", shop.home)
    assert built.returncode == 0, built.stderr
    assert shop.control("status").returncode == 3
    assert not (shop.home / "store").exists()
    assert json.loads(built.stdout)["port"] > 1023


def test_the_same_rows_and_feeds_each_time(first_shop: Shop, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert tool("build", other).returncode == 0
    rows = dump(other)
    assert len(rows) > 5440
    assert rows == dump(first_shop.home)
    for feed in ("prices.csv", "sales.csv"):
        assert (other / "feeds" / feed).read_bytes() == (first_shop.home / "feeds" / feed).read_bytes()


def test_a_release_is_some_hundred_files_with_modes_and_nothing_outside(shop: Shop) -> None:
    with tarfile.open(shop.home / "releases" / "shop-2.0.1.tar.gz") as archive:
        members = {member.name: member for member in archive}
        customers = archive.extractfile("app/sql/customers.sql")
        assert customers is not None
        assert b"full_name, given_name" in customers.read()
    assert len(members) > 300
    assert all(name.startswith(("app", "etc")) and ".." not in name for name in members)
    assert members["etc/payment.ini"].mode == 0o600
