# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store that somebody else could exchange is none that root shadows into."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import StoreUnsafe
from ansible_collections.umbra.rollback.plugins.module_utils.store import safety
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import create
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.providers.conformance import check_sentence
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.tree.trees import NOBODY, root_only
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.verbs.conftest import Shop

pytestmark = [root_only, pytest.mark.pure]
STAFF = 50


def _give(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


def _link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")
    os.lchown(path, NOBODY, NOBODY)


def _allow(path: Path) -> None:
    subprocess.run(["setfacl", "-m", f"u:{NOBODY}:rwx", str(path)], check=True)


def _group(path: Path) -> None:
    os.chown(path, 0, STAFF)
    path.chmod(0o775)


# What is done to a directory above the store, and what is said of it.
UNSAFE: dict[str, tuple[Callable[[Path], None], str]] = {
    "another user's": (_give, f"above belongs to user {NOBODY}"),
    "open to all": (lambda path: path.chmod(0o777), "everybody may write to"),
    "open to a group": (_group, f"may write to .*above .group {STAFF}"),
    "open by an ACL": (_allow, "may write to .*above .*ACL"),
    "another user's symlink": (_link, f"above is a symlink of user {NOBODY}"),
}
SAFE: dict[str, Callable[[Path], None]] = {
    "closed": lambda path: path.chmod(0o755),
    "sticky": lambda path: path.chmod(0o1777),
    "open to root's group": lambda path: path.chmod(0o775),
    "root's symlink": lambda path: path.rename(path.with_name("other")).with_name("above").symlink_to("other"),
}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Its store is to be below `above`, which is there, and a directory that isn't."""
    made = Shop(tmp_path)
    (tmp_path / "above").mkdir()
    made.store = tmp_path / "above" / "deep" / "store"
    return made


@pytest.mark.parametrize("kind", UNSAFE)
def test_root_shadows_into_none_that_others_could_exchange(shop: Shop, kind: str) -> None:
    act, says = UNSAFE[kind]
    act(shop.root / "above")
    for verb in (create.create, create.check):
        with pytest.raises(StoreUnsafe, match=says) as refused:
            verb(shop.target(), shop.resources())
        check_sentence(refused.value)
    assert not shop.store.parent.exists()


@pytest.mark.parametrize("kind", sorted(UNSAFE.keys() - {"another user's symlink"}))  # root follows it to no tree
def test_a_way_back_from_one_goes_on_and_says_so(shop: Shop, kind: str) -> None:
    shop.shadow()
    before = shop.state()
    shop.update()
    UNSAFE[kind][0](shop.root / "above")
    done = shop.restore()
    assert shop.state() == before and any("is not safe" in note for note in done.notes)
    with pytest.raises(StoreUnsafe):
        shop.shadow("u2")


@pytest.mark.parametrize("kind", SAFE)
def test_others_are_taken(shop: Shop, kind: str) -> None:
    SAFE[kind](shop.root / "above")
    shop.shadow()
    shop.update()
    assert shop.restore().notes == ()


def test_a_directory_that_somebody_made_for_it_is_his(shop: Shop) -> None:
    shop.store.mkdir(parents=True)
    _give(shop.store)
    with pytest.raises(StoreUnsafe, match=f"store belongs to user {NOBODY}"):
        shop.shadow()


def test_of_a_replica_it_is_a_warning(shop: Shop) -> None:
    (shop.root / "far").mkdir()
    (shop.root / "far").chmod(0o777)
    target = replace(shop.target(), replicas=(str(shop.root / "far" / "replica"),))
    created = create.create(target, shop.resources())
    assert any("far/replica is not safe: everybody may write" in warning for warning in created.warnings)


def test_who_is_not_root_is_not_asked(shop: Shop) -> None:
    (shop.root / "above").chmod(0o777)
    assert safety.look(str(shop.store))
    os.seteuid(NOBODY)
    try:
        assert safety.look(str(shop.store)) == ""
    finally:
        os.seteuid(0)
