# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of an update: commit, retention, garbage, and what the store tells."""

from __future__ import annotations

import os

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import errors
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import commit, info, prestage, prune

from .conftest import Shop, touched


def states(shop: Shop) -> dict[str, str]:
    return {update["update_id"]: update["state"] for update in info.info(shop.target("")).updates}


def test_commit_gives_everything_back_and_twice_is_fine(shop: Shop) -> None:
    shop.shadow(service={"environment": {"TOKEN": "t0k3n"}})
    prestage.prestage(shop.target(), prestage.Budget())
    assert commit.commit(shop.target(), None, None).changed
    assert states(shop) == {"u1": "committed"}
    assert not list(shop.store.rglob("reserve")) and not list(shop.store.rglob("secrets.json"))
    assert not commit.commit(shop.target(), None, None).changed


@pytest.mark.parametrize(("wave", "state"), [(None, "rolled_back"), (0, "restoring")])
def test_what_went_back_is_not_committed(shop: Shop, wave: int | None, state: str) -> None:
    shop.shadow()
    shop.update()
    shop.restore(wave=wave)
    with pytest.raises(errors.StateRefused, match=state):
        commit.commit(shop.target(), None, None)


def test_retention_keeps_what_is_asked_for_and_all_that_is_not_committed(shop: Shop) -> None:
    for number in range(5):
        shop.shadow(f"u{number}")
        if number != 1:
            commit.commit(shop.target(f"u{number}"), None, None)
    done = prune.prune(shop.target(""), prune.Request(keep_last=2, grace=0))
    assert set(done.dropped) == {"u0", "u2"} and done.kept_open == ("u1",)
    assert states(shop) == {"u1": "open", "u3": "committed", "u4": "committed"}
    shop.update()
    assert shop.restore("u1").state == "rolled_back"


def test_commit_applies_retention(shop: Shop) -> None:
    for number in range(3):
        shop.shadow(f"u{number}")
        dropped = commit.commit(shop.target(f"u{number}"), 1, None).dropped
    assert dropped == ("u1",) and states(shop) == {"u2": "committed"}


def test_garbage_goes_and_what_is_needed_stays(shop: Shop) -> None:
    for number in range(50):
        (shop.config / f"{number}.bin").write_bytes(os.urandom(4000))
    shop.shadow("u1")
    commit.commit(shop.target("u1"), None, None)
    for path in shop.config.rglob("*.bin"):
        path.unlink()
    for path in shop.config.rglob("*.conf"):
        path.write_bytes(os.urandom(2000))
    shop.shadow("u2")
    before = shop.state()
    done = prune.prune(shop.target("u1"), prune.Request(grace=0, verify=True))
    assert done.dropped == ("u1",) and done.bytes > 0 and not done.problems
    shop.update()
    shop.restore("u2")
    assert shop.state() == before


def test_what_may_still_go_back_is_not_dropped_by_name(shop: Shop) -> None:
    shop.shadow()
    with pytest.raises(errors.StateRefused, match="commit it, or roll it back"):
        prune.prune(shop.target(), prune.Request())
    shop.update()
    shop.restore()
    assert prune.prune(shop.target(), prune.Request()).dropped == ("u1",)
    with pytest.raises(errors.ManifestMissing):
        prune.prune(shop.target(), prune.Request())


@pytest.mark.parametrize("verb", ["commit", "prune"])
def test_earlier_attempts_go_with_the_update(shop: Shop, verb: str) -> None:
    shop.shadow()
    shop.update()
    shop.restore()
    shop.shadow()
    assert [path.name for path in (shop.store / "updates" / "u1").iterdir() if "~" in path.name] == ["web1~1"]
    if verb == "commit":
        commit.commit(shop.target(), None, None)
    else:
        shop.restore()
        prune.prune(shop.target(), prune.Request())
    assert not list(shop.store.glob("updates/*/*~*"))


def test_verify_names_what_is_damaged(shop: Shop) -> None:
    shop.shadow()
    assert prune.prune(shop.target(""), prune.Request(verify=True)).problems == ()
    pack = next((shop.store / "packs").glob("*.pack"))
    content = bytearray(pack.read_bytes())
    content[3] ^= 4  # every content is longer, and what follows the first may mean nothing
    pack.write_bytes(content)
    told = prune.prune(shop.target(""), prune.Request(garbage=False, verify=True)).to_dict()
    assert "damaged" in told["msg"] and told["problems"]


def test_check_mode_of_prune_and_commit_touch_nothing(shop: Shop) -> None:
    for number in range(2):
        shop.shadow(f"u{number}")
        commit.commit(shop.target(f"u{number}"), None, None)
    before = touched(shop.root)
    assert prune.check(shop.target(""), prune.Request(keep_last=1)).dropped == ("u0",)
    assert commit.check(shop.target("u1"), 1, None).dropped == ("u0",)
    assert touched(shop.root) == before


def test_info_tells_all_and_one(shop: Shop) -> None:
    assert info.info(shop.target("")).updates == ()
    shop.shadow()
    told = info.info(shop.target()).to_dict()
    assert [update["update_id"] for update in told["updates"]] == ["u1"]
    assert {shadow["name"] for shadow in told["details"]["shadows"]} == {"service", "config", "database"}
    shop.update()
    shop.restore()
    assert len(info.info(shop.target()).to_dict()["details"]["displaced"]) == 1
    with pytest.raises(errors.ManifestMissing, match="u1"):
        info.info(shop.target("nope"))
