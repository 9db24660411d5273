# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replicas: they follow the store, and what is damaged or lost in it comes back from them, verified."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import (
    ContentMissing,
    InputError,
    ManifestForged,
    ReplicaUnusable,
    StoreCorrupt,
    StoreError,
    StoreKeyMissing,
)
from ansible_collections.umbra.rollback.plugins.module_utils.plan import host_plan
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import commit, create, info, prune, restore
from ansible_collections.umbra.rollback.plugins.module_utils.verbs.outcome import Restored
from ansible_collections.umbra.rollback.plugins.module_utils.verbs.run import Target

from ..store.helpers import files_below, flip, modes_below
from .conftest import Shop, touched

KEY = "the key of the team"


class Far(Shop):
    """A shop with a replica, a large file, and calls that name the replica."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.replica = root / "replica"
        (self.config / "large").write_bytes(os.urandom(300_000))

    def target(self, update_id: str = "u1", host: str = "web1", **facts: Any) -> Target:
        return replace(super().target(update_id, host), **{"replicas": (str(self.replica),), **facts})

    def later(self, **facts: Any) -> Target:
        """As a verb is called that is told nothing."""
        return self.target(**{"replicas": None, **facts})

    def back(self, **facts: Any) -> Restored:
        """All of it, by a verb that is told nothing."""
        return restore.restore(self.later(**facts), restore.Request())


@pytest.fixture
def far(tmp_path: Path) -> Far:
    return Far(tmp_path)


def problems(path: Path) -> tuple[str, ...]:
    return Store.open(str(path), "web1").verify().problems


def test_a_replica_is_a_store_with_all_of_it_closed_to_others(far: Far) -> None:
    created = far.shadow()
    assert any("is on the file system of the store" in warning for warning in created.warnings)
    assert problems(far.replica) == ()
    theirs = Store.open(str(far.replica), "web1").update("u1")
    assert theirs.manifest() == created.manifest and theirs.state == "open"
    for path, is_directory, mode in modes_below(far.replica):
        assert mode == (0o700 if is_directory else 0o600), path
    assert not [name for name in files_below(far.replica) if name.startswith("tmp/")]


def test_only_what_is_new_is_copied(far: Far) -> None:
    far.shadow()
    before = files_below(far.replica)
    far.shadow()
    assert files_below(far.replica) == before
    (far.config / "main.conf").write_text("version = 1.1\n")
    commit.commit(far.target(), None, None)
    far.shadow("u2")
    new = files_below(far.replica) - before
    assert not [name for name in new if name.startswith("objects/")]
    assert len([name for name in new if name.endswith(".pack")]) == 1
    assert problems(far.replica) == ()


def test_the_host_goes_back_from_the_replica_alone(far: Far) -> None:
    before = far.state()
    far.shadow()
    far.update()
    shutil.rmtree(far.store)
    done = restore.restore(far.target(store=str(far.replica), replicas=None), restore.Request())
    assert not done.bad and far.state() == before


@pytest.mark.parametrize("told", [True, False], ids=["told", "remembered"])
def test_what_the_store_lost_comes_back(far: Far, told: bool) -> None:
    before = far.state()
    far.shadow()
    far.update()
    for name in ("objects", "packs", "updates"):
        shutil.rmtree(far.store / name)
    done = restore.restore(far.target() if told else far.later(), restore.Request())
    assert not done.bad and far.state() == before
    assert {(one.name, one.source) for one in done.repaired} >= {("", str(far.replica)), ("config", str(far.replica))}
    assert any("taken from" in note for note in done.notes)
    assert done.to_dict()["repaired"][0].keys() == {"name", "what", "from"}
    assert problems(far.store) == ()


def damage(far: Far, pattern: str) -> None:
    """In many places: between the contents of a pack are gaps, and not all that is in one is needed for a way back."""
    for path in far.store.glob(pattern):
        for offset in range(0, path.stat().st_size, 997) if path.suffix == ".pack" else [0]:
            flip(path, offset)


EVERY = ["objects/*/*", "packs/*.pack", "packs/*.idx", "updates/u1/web1/manifest.json"]


@pytest.mark.parametrize("pattern", EVERY)
def test_what_is_damaged_is_kept_aside_until_garbage_is_collected(far: Far, pattern: str) -> None:
    before = far.state()
    far.shadow()
    far.update()
    damage(far, pattern)
    done = far.back()
    assert not done.bad and far.state() == before and done.repaired
    assert list((far.store / "damaged").iterdir())
    assert problems(far.store) == ()
    prune.prune(far.later(update_id=""), prune.Request(grace=-60.0))
    assert not list((far.store / "damaged").iterdir())


@pytest.mark.parametrize("pattern", EVERY[:3])
def test_what_the_replica_has_not_good_either_is_refused_before_anything_changes(far: Far, pattern: str) -> None:
    far.shadow()
    far.update()
    damage(far, pattern)
    shutil.rmtree(far.replica / "objects")
    shutil.rmtree(far.replica / "packs")
    before, store = touched(far.config), files_below(far.store)
    with pytest.raises((StoreCorrupt, ContentMissing)):
        far.back()
    assert touched(far.config) == before and files_below(far.store) - store <= {"locks/web1.lock"}


def test_the_second_replica_helps_where_the_first_can_not(far: Far, tmp_path: Path) -> None:
    replicas = (str(far.replica), str(tmp_path / "second"))
    before = far.state()
    create.create(far.target(replicas=replicas), far.resources())
    far.update()
    damage(far, "objects/*/*")
    for path in far.replica.glob("objects/*/*"):
        flip(path)
    done = far.back()
    assert not done.bad and far.state() == before
    assert {one.source for one in done.repaired} == {replicas[1]}


def test_a_replica_of_another_attempt_does_not_help(far: Far) -> None:
    far.shadow()
    other = Far(far.root / "other")
    other.shadow()
    for shop in (far, other):
        update = Store.open(str(shop.store), "web1").update("u1")
        update.save_plan(host_plan("u1", "web1", update.manifest().shadows))
    shutil.rmtree(far.replica / "updates")
    shutil.copytree(other.store / "updates", far.replica / "updates")
    flip(far.store / "updates/u1/web1/plan.json")
    with pytest.raises(StoreCorrupt, match="plan.json is damaged"):
        far.back()


def test_a_replica_that_is_away_does_not_stop_a_way_back(far: Far) -> None:
    before = far.state()
    far.shadow()
    far.update()
    far.replica.rename(far.root / "away")
    done = far.back()
    assert not done.bad and far.state() == before
    assert any(f"The replica {far.replica} can't be used" in note for note in done.notes)
    assert not far.replica.exists(), "it is not mounted, so nothing is made in its place"


def test_check_mode_says_what_would_be_mended_and_writes_nothing(far: Far) -> None:
    far.shadow()
    far.update()
    damage(far, "objects/*/*")
    before = touched(far.root)
    done = restore.check(far.later(), restore.Request())
    assert [one.name for one in done.repaired] == ["config"]
    assert touched(far.root) == before


# --- shadow_create


def test_a_replica_that_can_not_be_written_is_told_before_anything_is_shadowed(far: Far) -> None:
    far.replica.write_text("no directory")
    with pytest.raises(ReplicaUnusable, match=f"The replica {far.replica} can't be used: .* without it"):
        far.shadow()
    assert not list((far.store / "updates").iterdir())


@pytest.mark.parametrize("path", ["store", "store/replica", ".", "link"])
def test_a_replica_is_elsewhere(far: Far, path: str) -> None:
    (far.root / "link").symlink_to("store")
    for verb in (create.create, create.check):
        with pytest.raises(InputError, match="is the store itself, or in it, or around it"):
            verb(far.target(replicas=(str(far.root / path),)), far.resources())
    assert not far.store.exists()


def test_a_replica_that_is_remembered_and_away_is_not_made_anew(far: Far) -> None:
    far.shadow()
    commit.commit(far.target(), None, None)
    shutil.rmtree(far.replica)
    with pytest.raises(ReplicaUnusable):
        create.create(far.later(update_id="u2"), far.resources())
    with pytest.raises(ReplicaUnusable):
        far.shadow("u2")
    create.create(far.target("u2", replicas=()), far.resources())
    create.create(far.later(update_id="u2"), far.resources())


def test_a_mirror_that_failed_is_made_good_by_running_again(far: Far) -> None:
    far.shadow()
    shutil.rmtree(far.replica / "updates")
    assert far.shadow().existing
    assert Store.open(str(far.replica), "web1").update("u1").exists()


def test_a_new_attempt_makes_room_there_too(far: Far) -> None:
    far.shadow()
    far.update()
    far.back()
    (far.config / "main.conf").write_text("version = 1.5\n")
    second = far.shadow()
    replica = Store.open(str(far.replica), "web1")
    assert replica.update("u1").manifest() == second.manifest
    found = [(one.attempt, one.state) for one in replica.hosts_updates()]
    assert found == [(None, "open"), (1, "rolled_back")]
    assert problems(far.replica) == ()


# --- the journal


def rolled_back(far: Far) -> Path:
    far.shadow()
    far.update()
    assert not far.back().bad
    return far.store / "updates/u1/web1/journal.jsonl"


def test_a_replica_knows_what_a_way_back_set_aside(far: Far) -> None:
    rolled_back(far)
    theirs = Store.open(str(far.replica), "web1").update("u1")
    assert theirs.state == "rolled_back" and theirs.displaced_rounds() == [1]
    assert problems(far.replica) == ()


@pytest.mark.parametrize("where", [0, 1, -2, -1], ids=["begin", "second", "last", "newline"])
def test_a_damaged_journal_is_mended_line_by_line(far: Far, where: int) -> None:
    journal = rolled_back(far)
    good = journal.read_bytes()
    flip(journal, len(good) - 1 if where == -1 else good.index(b"\n") + 5 if where == 1 else where % len(good))
    done = far.back()
    assert [one.what for one in done.repaired] == ["journal.jsonl"]
    assert journal.read_bytes().startswith(good)


def test_a_journal_that_no_replica_knows_to_its_end_is_refused(far: Far) -> None:
    journal = rolled_back(far)
    good = journal.read_bytes()
    theirs = far.replica / "updates/u1/web1/journal.jsonl"
    theirs.write_bytes(b"".join(theirs.read_bytes().splitlines(keepends=True)[:-1]))
    flip(journal, len(good) - 10)
    with pytest.raises(StoreCorrupt, match="nobody knows how far the last restore came"):
        far.back()


def test_without_a_replica_a_journal_that_was_moved_away_loses_nothing(shop: Shop) -> None:
    shop.shadow()
    shop.update()
    failed = shop.state()
    shop.restore()
    update = Store.open(str(shop.store), "web1").update("u1")
    kept = Path(update.displaced_path(1)).read_bytes()
    flip(Path(update.journal.path))
    with pytest.raises(StoreCorrupt, match="move it away and run again"):
        shop.restore()
    os.rename(update.journal.path, f"{update.journal.path}.damaged")
    shop.update()
    assert not shop.restore().bad
    assert update.displaced_rounds() == [1, 2] and Path(update.displaced_path(1)).read_bytes() == kept
    shop.restore(undo=True)
    assert shop.state()["rows"] == failed["rows"]


# --- commit and prune


def test_an_open_update_that_the_store_lost_is_not_shadowed_anew_over_that_of_the_replica(far: Far) -> None:
    """What is there now is the state that the update left."""
    far.shadow()
    before = far.state()
    far.update()
    shutil.rmtree(far.store)
    with pytest.raises(ReplicaUnusable, match="Go back with `store: "):
        far.shadow()
    assert far.back(store=str(far.replica)).state == "rolled_back"
    assert far.state() == before


@pytest.mark.parametrize("lost", [False, True])
def test_an_update_whose_manifest_a_replica_has_is_damaged_and_not_missing(far: Far, lost: bool) -> None:
    """So that the playbook goes back, which mends it."""
    far.shadow()
    manifest = far.store / "updates/u1/web1/manifest.json"
    if lost:
        manifest.unlink()
    else:
        flip(manifest)
    assert info.info(far.later()).details["state"] == "damaged"  # type: ignore[index]
    far.update()
    assert far.back().state == "rolled_back"
    shutil.rmtree(far.replica)
    manifest.unlink()
    with pytest.raises(StoreError):
        info.info(far.later())


def test_an_earlier_attempt_is_not_mended_with_the_present_one(far: Far) -> None:
    far.shadow()
    far.update()
    far.back()
    far.update_again()
    far.shadow()
    manifest = far.store / "updates/u1/web1~1/manifest.json"
    flip(manifest)
    damaged = manifest.read_bytes()
    prune.prune(far.later(update_id=""), prune.Request(repair=True, garbage=False))
    assert manifest.read_bytes() == damaged


def test_a_commit_lets_go_of_the_same_there(far: Far) -> None:
    far.shadow()
    commit.commit(far.later(), None, None)
    far.shadow("u2")
    committed = commit.commit(far.later(update_id="u2"), 1, None)
    assert committed.dropped == ("u1",) and committed.warnings == ()
    replica = Store.open(str(far.replica), "web1")
    assert [(one.update_id, one.state) for one in replica.updates()] == [("u2", "committed")]


def test_what_is_let_go_there_is_that_attempt_alone(far: Far) -> None:
    far.shadow()
    commit.commit(far.later(), None, None)
    (far.config / "main.conf").write_text("version = 1.5\n")
    second = far.shadow()
    assert prune.prune(far.later(update_id=""), prune.Request(keep_last=0, garbage=False)).dropped == ("u1",)
    replica = Store.open(str(far.replica), "web1")
    assert [(one.attempt, one.manifest() == second.manifest) for one in replica.hosts_updates()] == [(None, True)]


def test_garbage_goes_there_too_but_never_what_the_store_lost(far: Far) -> None:
    far.shadow()
    commit.commit(far.later(), None, None)
    (far.config / "large").write_bytes(os.urandom(200_000))
    far.shadow("u2")
    shutil.rmtree(far.store / "objects")
    prune.prune(far.later(), prune.Request(grace=-60.0))
    assert len(list(far.replica.glob("objects/*/*"))) == 1
    assert problems(far.replica) == ()
    done = prune.prune(far.later(update_id=""), prune.Request(garbage=False, verify=True, repair=True))
    assert done.problems == () and [one.name for one in done.repaired] == ["config"]
    assert "repaired" in done.to_dict() and "msg" not in done.to_dict()


def test_a_replica_that_can_not_follow_is_a_warning(far: Far) -> None:
    far.shadow()
    shutil.rmtree(far.replica)
    for told in (commit.commit(far.later(), None, None), prune.prune(far.later(), prune.Request())):
        assert any("can't be used" in warning for warning in told.to_dict()["warnings"])


# --- with a key


def test_with_a_key_a_replica_that_was_edited_does_not_help(far: Far) -> None:
    create.create(far.target(store_key=KEY), far.resources())
    plain = Far(far.root / "other")
    plain.shadow()
    far.update()
    manifest = "updates/u1/web1/manifest.json"
    shutil.copy(plain.store / manifest, far.replica / manifest)
    flip(far.store / manifest)
    with pytest.raises(StoreCorrupt):
        far.back(store_key=KEY)


READS: list[Callable[[Far, str | None], object]] = [
    lambda far, key: far.back(store_key=key),
    lambda far, key: commit.commit(far.later(store_key=key), None, None),
    lambda far, key: restore.check(far.later(store_key=key), restore.Request()),
    lambda far, key: create.create(far.later(store_key=key), far.resources()),
]


@pytest.mark.parametrize("read", READS, ids=["restore", "commit", "check", "create"])
def test_every_verb_wants_the_key(far: Far, read: Callable[[Far, str | None], object]) -> None:
    create.create(far.target(store_key=KEY), far.resources())
    before = touched(far.config)
    with pytest.raises(StoreKeyMissing):
        read(far, None)
    with pytest.raises(ManifestForged):
        read(far, "another key of a team")
    assert touched(far.config) == before and not list(far.store.glob("damaged/*"))
    read(far, KEY)
