# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the store back: all that is wrong is told, with the file, and with who needs it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.shadow import Root
from ansible_collections.umbra.rollback.plugins.module_utils.store.packs import SMALL
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store

from .helpers import flip, manifest, open_store, publish, put_tree, shadow

LARGE = bytes(range(256)) * 1000


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def full(store: Store) -> Store:
    """A store with some of everything."""
    with store.lock("create", "u1"):
        update = store.update("u1")
        first = shadow("r0", put_tree(store.contents, {"a": b"small", "b": LARGE}))
        second = shadow("r1", put_tree(store.contents, {"c": b"c" * 999}))
        update.publish(manifest(store, "u1", first, second), {"r0": {"p": "x"}})
        update.save_leases({"leases": []})
        update.journal.append("restore-begin", round=1, source="shadow")
        displaced = shadow("r0", put_tree(store.contents, {"a": b"failed"}), Root("blob", store.contents.put(b"blob")))
        update.save_displaced(1, manifest(store, "u1", displaced))
    publish(open_store(Path(store.path), "web2"), "u2", {"a": b"small", "d": b"of web2"})
    return store


def test_a_sound_store_is_counted(full: Store) -> None:
    checked = full.verify()
    assert checked.problems == ()
    assert checked.manifests == 3
    listings = 4
    assert checked.contents == listings + len({b"small", LARGE, b"c" * 999, b"failed", b"blob", b"of web2"})
    assert checked.bytes > len(LARGE)


def test_an_empty_store_is_sound(store: Store) -> None:
    checked = store.verify()
    assert (checked.manifests, checked.contents, checked.bytes, checked.problems) == (0, 0, 0, ())


def place(store: Store, what: str) -> tuple[Path, int]:
    """A file of the store, and where in it a bit is to be flipped (-1: in its middle)."""
    if what in ("small", "large"):
        location = store.contents.location(sha(b"c" * 999 if what == "small" else LARGE))
        return Path(location.path), location.offset + 10
    if what == "listing":
        location = store.contents.location(store.update("u1").manifest().roots[1].digest)
        return Path(location.path), location.offset + 20
    if what == "index":
        location = store.contents.location(sha(b"c" * 999))
        return Path(location.path).with_suffix(".idx"), -1
    return Path(store.update("u1").path) / what, -1


USERS = {
    "small": "It is needed by r1 of update u1 on web1.",
    "large": "It is needed by r0 of update u1 on web1.",
    "listing": "It is needed by r1 of update u1 on web1.",
}
PARTS = [*USERS, "index", "manifest.json", "displaced-1.json"]


@pytest.mark.parametrize("what", PARTS)
def test_a_flipped_bit_is_told_with_its_file(full: Store, what: str) -> None:
    path, offset = place(full, what)
    flip(path, offset)
    checked = open_store(Path(full.path)).verify()
    assert any(str(path) in problem for problem in checked.problems)
    if what in USERS:
        (problem,) = checked.problems
        assert problem.endswith(USERS[what])


def test_every_problem_is_told(full: Store) -> None:
    """What was damaged first does not hide the rest."""
    parts = ["small", "large", "displaced-1.json"]
    places = [place(full, what) for what in parts]
    for path, offset in places:
        flip(path, offset)
    for name in ("journal.jsonl", "leases.json", "secrets.json"):
        path = Path(full.update("u1").path) / name
        path.write_bytes(b"damaged\n")
        places.append((path, 0))
    problems = open_store(Path(full.path)).verify().problems
    for path, _offset in places:
        assert any(str(path) in problem for problem in problems), path
    assert len(problems) == len(places)


def test_what_is_lost_is_told(full: Store) -> None:
    location = full.contents.location(sha(LARGE))
    os.unlink(location.path)
    (problem,) = open_store(Path(full.path)).verify().problems
    assert sha(LARGE) in problem and "r0 of update u1 on web1" in problem


def test_a_lost_pack_is_told_and_the_rest_is_still_checked(full: Store) -> None:
    location = full.contents.location(sha(b"of web2"))
    os.unlink(location.path)
    checked = open_store(Path(full.path)).verify()
    assert any(location.path in problem for problem in checked.problems)
    assert checked.contents == 8


def test_damage_in_what_nothing_needs_is_no_problem(store: Store) -> None:
    publish(store, "u1", {"a": b"content"})
    publish(store, "u2", {"a": os.urandom(SMALL + 1)})
    with store.lock("prune", "u2"):
        store.drop(store.update("u2"))
    (path,) = Path(store.path).glob("objects/*/*")
    flip(path)
    assert store.verify().problems == ()
