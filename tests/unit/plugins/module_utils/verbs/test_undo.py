# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Undo brings each state back exactly, whichever it was: failed, half restored, or worked on after the rollback."""

from __future__ import annotations

import os
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import errors
from ansible_collections.umbra.rollback.plugins.module_utils.providers.sqlite import SqliteProvider
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import info
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.tree.trees import (
    break_small,
    build_small,
    picture,
)

from .conftest import Shop


def rows(shop: Shop) -> Any:
    return shop.state()["rows"]


def test_content_and_metadata_of_every_kind_return_in_both_directions_again_and_again(shop: Shop) -> None:
    tree = shop.config / "kinds"
    build_small(tree)
    shop.shadow()
    before = picture(shop.config), rows(shop)
    shop.update()
    break_small(tree)
    failed = picture(shop.config), rows(shop)
    assert failed != before
    for _number in range(2):
        assert shop.restore().state == "rolled_back"
        assert (picture(shop.config), rows(shop)) == before
        assert shop.restore(undo=True).state == "undone"
        assert (picture(shop.config), rows(shop)) == failed


def test_what_an_undo_set_aside_is_brought_back_by_its_round(shop: Shop) -> None:
    shop.shadow()
    before = picture(shop.config), rows(shop)
    shop.update()
    failed = picture(shop.config)
    assert shop.restore().round == 1
    (shop.config / "main.conf").write_text("worked on after the rollback\n")
    os.chmod(shop.config / "main.conf", 0o600)
    worked_on = picture(shop.config)
    undone = shop.restore(undo=True)
    assert picture(shop.config) == failed
    assert undone.to_dict()["undo"].endswith(f"undo: true, round: 2, store: {shop.store}")
    shown = info.info(shop.target()).to_dict()["details"]["rounds"]
    assert [(one["round"], one["by"]) for one in shown] == [(1, "rollback"), (2, "undo")]
    assert "config" in shown[1]["resources"] and shown[1]["bytes"] > 0 and shown[1]["manifest"] == undone.displaced
    assert shop.restore(undo=True, round=2).state == "undone"
    assert picture(shop.config) == worked_on
    assert shop.restore(undo=True, round=1).state == "undone"
    assert picture(shop.config) == failed
    assert shop.restore().state == "rolled_back"
    assert (picture(shop.config), rows(shop)) == before
    (shop.store / "updates/u1/web1/displaced-2.json").write_text("{")
    told = info.info(shop.target()).to_dict()["details"]["rounds"]
    assert [one["round"] for one in told if "problem" not in one] == [1, 3, 4, 5], told


def test_a_round_that_is_none_or_without_undo_is_refused(shop: Shop) -> None:
    shop.shadow()
    shop.update()
    shop.restore()
    before = picture(shop.config)
    with pytest.raises(errors.StateRefused, match="Round 7 has set nothing aside that is kept; those that have: 1"):
        shop.restore(undo=True, round=7)
    with pytest.raises(errors.InputError, match="undo: true"):
        shop.restore(round=1)
    assert picture(shop.config) == before


def test_a_rollback_that_was_broken_off_in_the_middle_is_undone(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree is back and the database is not: undo leads to the failed state of both."""
    shop.shadow()
    shop.update()
    failed = picture(shop.config), rows(shop)

    def die(*_args: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SqliteProvider, "restore", die)
        with pytest.raises(KeyboardInterrupt):
            shop.restore()
    assert info.info(shop.target()).updates[0]["state"] == "restoring"
    assert picture(shop.config) != failed[0]
    assert shop.restore(undo=True).state == "undone"
    assert (picture(shop.config), rows(shop)) == failed
    assert shop.restore().state == "rolled_back"
