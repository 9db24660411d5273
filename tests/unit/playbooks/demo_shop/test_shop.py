# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's releases: the first works, the second has the bug that the demo is about, the third has not."""

from __future__ import annotations

import json

import pytest

from .conftest import Shop


def upgrade(shop: Shop, version: str) -> None:
    shop.install(version)
    for verb in ("migrate", "feeds"):
        done = shop.program(verb)
        assert done.returncode == 0, done.stderr
    assert shop.control("restart").returncode == 0


def test_release_1_is_well_and_sells(shop: Shop) -> None:
    assert shop.control("start").returncode == 0
    assert shop.health() == (200, {"version": "1.0.0", "ok": True, "problems": []})
    assert "240 products, sold by release 1.0.0" in shop.get("/")[1]
    assert len(json.loads(shop.get("/api/orders")[1])) == 4000
    assert shop.get("/api/nothing")[0] == 404
    assert shop.get("/../etc/shop.ini")[0] == 404


def test_release_2_reads_a_column_that_its_migration_renamed(shop: Shop) -> None:
    shop.control("start")
    upgrade(shop, "2.0.0")
    status, health = shop.health()
    assert (status, health["version"]) == (500, "2.0.0")
    assert health["problems"] == ["sql/customers.sql: no such column: name"]


def test_release_2_1_is_well_and_its_orders_have_a_total(shop: Shop) -> None:
    shop.control("start")
    upgrade(shop, "2.0.1")
    assert shop.health() == (200, {"version": "2.0.1", "ok": True, "problems": []})
    prices = {row["title"]: row["price_cents"] for row in json.loads(shop.get("/api/products")[1])}
    orders = json.loads(shop.get("/api/orders")[1])
    assert all(row["total_cents"] == row["quantity"] * prices[row["product"]] for row in orders)


def test_migrating_twice_changes_nothing_more(shop: Shop) -> None:
    shop.install("2.0.1")
    assert [shop.program("migrate").returncode for number in range(2)] == [0, 0]


@pytest.mark.parametrize(
    ("path", "text", "problem"),
    [
        ("etc/shipping/at/zone-01.ini", "[zone]\nformat = 2\n", "zone-01.ini: [zone] is not of format 1"),
        ("etc/payment.ini", "no section\n", "payment.ini: File contains no section headers"),
    ],
)
def test_configuration_of_another_release_or_none_is_noticed(shop: Shop, path: str, text: str, problem: str) -> None:
    (shop.home / path).write_text(text)
    shop.control("start")
    status, health = shop.health()
    assert status == 500
    assert len(health["problems"]) == 1
    assert health["problems"][0].startswith(problem)
