# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is held for the way back, by tier, and that it is given back."""

from __future__ import annotations

import os

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import errors
from ansible_collections.umbra.rollback.plugins.module_utils.plan import Plan, Step
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import commit, create, hold, prestage
from ansible_collections.umbra.rollback.plugins.module_utils.verbs.prestage import Budget

from .conftest import Shop, touched

TIERS = Plan(
    "u1",
    "web1",
    (
        Step("database", 1, tier="high", score=80.0),
        Step("config", 1, tier="medium", score=40.0),
        Step("service", 2, ("config", "database"), tier="low", score=5.0),
    ),
    2,
)


def test_each_tier_gets_what_it_asks_for_or_a_reason(shop: Shop) -> None:
    shop.shadow()
    done = prestage.prestage(shop.target(plan=TIERS), Budget())
    leases = {lease.name: lease for lease in done.leases}
    assert [lease.name for lease in done.leases] == ["database", "config", "service"], (
        "the highest score is served first"
    )
    assert set(leases["service"].asked) == {"space"}
    for name, niceness in (("database", -10), ("config", -5)):
        assert leases[name].asked["nice"] == niceness
        assert {**leases[name].effective, **leases[name].refused}.keys() == leases[name].asked.keys()
        assert leases[name].effective["warm"] > 0
    assert ("nice" in leases["database"].effective) == (os.geteuid() == 0)


def test_space_is_really_held(shop: Shop) -> None:
    made = shop.shadow()
    held = shop.store / "updates/u1/web1/reserve"
    before = held.stat()
    assert before.st_blocks * 512 >= before.st_size, "blocks are allocated, not only a length"
    assert before.st_size > sum(shadow.bytes for shadow in made.manifest.shadows) + hold.WRITTEN
    done = prestage.prestage(shop.target(), Budget())
    assert done.held_bytes == before.st_size, "the shadows hold it already"
    assert held.stat().st_ino == before.st_ino, "and it is never given away meanwhile"
    assert not prestage.prestage(shop.target(), Budget()).changed
    less = prestage.prestage(shop.target(), Budget(), reserve_percent=50)
    assert less.changed and 0 < held.stat().st_size == less.held_bytes < before.st_size
    assert prestage.prestage(shop.target(), Budget()).held_bytes == before.st_size


def test_without_prestaging_it_is_held_until_the_way_back_or_the_commit(shop: Shop) -> None:
    shop.shadow()
    assert list(shop.store.rglob("reserve*"))
    commit.commit(shop.target(), None, None)
    assert not list(shop.store.rglob("reserve*"))
    create.create(shop.target("u2"), shop.resources(), reserve_percent=0)
    assert not list(shop.store.rglob("reserve*")), "who says that the update changes nothing"


def test_a_create_that_was_killed_before_it_had_settled_is_settled_by_the_next(shop: Shop) -> None:
    shop.shadow()
    held = shop.store / "updates/u1/web1/reserve"
    size = held.stat().st_size
    held.rename(f"{held}.tmp")
    assert shop.shadow().existing
    assert held.stat().st_size == size and not list(shop.store.rglob("reserve.tmp"))


def test_the_budget_caps_it(shop: Shop) -> None:
    shop.shadow()
    done = prestage.prestage(shop.target(plan=TIERS), Budget(disk=4096, memory=0))
    assert done.held_bytes == 4096
    assert all("warm" in lease.refused for lease in done.leases if lease.tier != "low")


def test_more_than_there_is_is_refused(shop: Shop) -> None:
    shop.shadow()
    with pytest.raises(errors.NoSpace):
        prestage.prestage(shop.target(), Budget(), reserve_percent=1 << 40)
    assert hold.held(shop.target().open().update("u1")), "what was held before is still"


@pytest.mark.parametrize("budget", [{"cpu": 1}, {"disk": -1}, {"disk": "1G"}, {"memory": True}])
def test_a_bad_budget_is_refused(budget: dict[str, object]) -> None:
    with pytest.raises(errors.InputError, match="budget"):
        Budget.from_dict(budget)


def test_release_gives_it_back_and_twice_is_fine(shop: Shop) -> None:
    shop.shadow()
    prestage.prestage(shop.target(), Budget())
    assert prestage.check_release(shop.target()).changed
    assert prestage.release(shop.target()).changed
    assert not list(shop.store.rglob("reserve"))
    assert not prestage.release(shop.target()).changed


def test_only_an_open_update_is_prestaged(shop: Shop) -> None:
    shop.shadow()
    commit.commit(shop.target(), None, None)
    with pytest.raises(errors.StateRefused, match="committed"):
        prestage.prestage(shop.target(), Budget())


def test_check_mode_takes_nothing(shop: Shop) -> None:
    shop.shadow()
    before = touched(shop.root)
    assert not prestage.check(shop.target(), Budget()).changed
    assert prestage.check(shop.target(), Budget(), reserve_percent=10).changed
    assert touched(shop.root) == before


def test_the_plan_of_the_analysis_is_kept_on_the_host(shop: Shop) -> None:
    shop.shadow()
    prestage.prestage(shop.target(plan=TIERS), Budget())
    assert shop.target().open().update("u1").plan() == TIERS
