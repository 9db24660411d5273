# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Garbage collection: what is needed stays, whatever happens; the rest goes."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import time
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import (
    ContentMissing,
    NoSpace,
    StoreCorrupt,
    StoreError,
)
from ansible_collections.umbra.rollback.plugins.module_utils.shadow import Root
from ansible_collections.umbra.rollback.plugins.module_utils.store import collect as module
from ansible_collections.umbra.rollback.plugins.module_utils.store.collect import Collected
from ansible_collections.umbra.rollback.plugins.module_utils.store.packs import SMALL
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store

from .helpers import (
    HOUR,
    files_below,
    flip,
    make_old,
    manifest,
    open_store,
    publish,
    put_tree,
    run_and_kill,
    shadow,
)


def drop(store: Store, update_id: str) -> None:
    with store.lock("prune", update_id):
        store.drop(store.update(update_id))


def collect_all(store: Store) -> Collected:
    """Collect without grace, in a process that has seen nothing yet."""
    return open_store(Path(store.path)).collect(0, time.time() + 1)


def sizes(store: Store, pattern: str) -> list[int]:
    return sorted(path.stat().st_size for path in Path(store.path).glob(pattern))


def has(store: Store, data: bytes) -> bool:
    """Whether the content can be read."""
    contents = open_store(Path(store.path)).contents
    digest = hashlib.sha256(data).hexdigest()
    return contents.has(digest) and contents.get(digest) == data


def test_what_nothing_needs_goes_and_what_something_needs_stays(store: Store) -> None:
    large, shared = os.urandom(SMALL + 1), os.urandom(SMALL + 2)
    publish(store, "u1", {"a": b"small", "b": large, "c": shared})
    publish(store, "u2", {"a": b"other", "c": shared})
    drop(store, "u1")
    found = collect_all(store)
    assert (found.objects, found.packs) == (1, 1)
    assert found.bytes > len(large)
    assert sizes(store, "objects/*/*") == [len(shared)]
    checked = store.verify()
    assert checked.problems == () and checked.contents == 3
    assert collect_all(store) == Collected()


def test_grace_is_respected(store: Store) -> None:
    publish(store, "u1", {"a": b"small", "b": os.urandom(SMALL + 1)})
    drop(store, "u1")
    before = files_below(Path(store.path))
    assert store.collect(HOUR, time.time()) == Collected()
    assert files_below(Path(store.path)) == before
    make_old(Path(store.path), 2 * HOUR)
    found = store.collect(HOUR, time.time())
    assert (found.objects, found.packs) == (1, 1)
    assert not sizes(store, "packs/*") and not sizes(store, "objects/*/*")


def test_everything_that_names_a_content_keeps_it(store: Store) -> None:
    """A manifest, an ended attempt, a displaced state, another host; a blob, and what a tree names."""
    kept = {name: os.urandom(1000) for name in ("attempt", "displaced", "host", "blob", "tree")}
    publish(store, "u1", {"a": kept["attempt"]})
    store.update("u1").archive()
    publish(open_store(Path(store.path), "web2"), "u9", {"a": kept["host"]})
    with store.lock("restore", "u1"):
        update = store.update("u1")
        roots = put_tree(store.contents, {"x": kept["tree"]}), Root("blob", store.contents.put(kept["blob"]))
        update.publish(manifest(store, "u1", shadow("r0", *roots)), {})
        displaced = put_tree(store.contents, {"x": kept["displaced"]})
        update.save_displaced(1, manifest(store, "u1", shadow("r0", displaced)))
        store.contents.put(b"garbage")
        store.contents.flush()
    collect_all(store)
    assert all(has(store, data) for data in kept.values())
    update.forget_displaced()
    collect_all(store)
    assert [name for name, data in kept.items() if not has(store, data)] == ["displaced"]


DAMAGE = ["manifest", "displaced", "attempt", "listing", "lost listing", "index", "newer format"]


@pytest.mark.parametrize("what", DAMAGE)
def test_doubt_stops_it_before_anything_is_removed(store: Store, what: str) -> None:
    publish(store, "u0", {"garbage": os.urandom(SMALL + 1)})
    update = publish(store, "u1", {f"{number}": b"x" for number in range(5000)})
    update.save_displaced(1, update.manifest())
    if what == "attempt":
        update.archive()
    drop(store, "u0")
    path = {
        "manifest": Path(update.manifest_path),
        "newer format": Path(update.manifest_path),
        "attempt": Path(update.path + "~1/manifest.json"),
        "displaced": Path(update.displaced_path(1)),
        "index": next(Path(store.path).glob("packs/*.idx")),
    }.get(what)
    if path is None:
        path = Path(store.contents.location(update.manifest().roots[0].digest).path)
    if what == "lost listing":
        path.unlink()
    elif what == "newer format":
        path.write_text(path.read_text().replace("umbra-manifest 1", "umbra-manifest 9"))
    else:
        flip(path)
    before = files_below(Path(store.path))
    with pytest.raises(ContentMissing if what == "lost listing" else StoreError, match=path.name):
        collect_all(store)
    assert files_below(Path(store.path)) == before


def test_a_root_of_an_unknown_kind_is_doubt(store: Store) -> None:
    with store.lock("create", "u1"):
        root = Root("forest", store.contents.put(b"content"))
        store.update("u1").publish(manifest(store, "u1", shadow("r0", root)), {})
    with pytest.raises(StoreCorrupt, match="unknown kind 'forest'"):
        collect_all(store)


def test_a_listing_that_is_none_is_doubt(store: Store) -> None:
    with store.lock("create", "u1"):
        root = Root("tree", store.contents.put(b"no listing"))
        store.update("u1").publish(manifest(store, "u1", shadow("r0", root)), {})
    with pytest.raises(StoreCorrupt, match=root.digest):
        collect_all(store)


@pytest.mark.parametrize("kept, again", [(5, 1), (15, 0)])
def test_a_pack_is_written_again_when_less_than_half_is_needed(store: Store, kept: int, again: int) -> None:
    tree = {f"{number}": os.urandom(10_000) for number in range(20)}
    publish(store, "u1", tree)
    before = set(Path(store.path).glob("packs/*"))
    publish(store, "u2", {name: tree[name] for name in list(tree)[:kept]})
    drop(store, "u1")
    found = collect_all(store)
    assert found.packs == again
    assert before <= set(Path(store.path).glob("packs/*")) if not again else found.bytes > 100_000
    assert all(has(store, data) for data in list(tree.values())[:kept])
    assert store.verify().problems == ()
    assert collect_all(store).packs == 0


def test_many_little_packs_are_joined(store: Store) -> None:
    tree: dict[str, bytes] = {}
    for number in range(module.LITTLE_MOST):
        tree[f"{number}"] = os.urandom(1000)
        publish(store, f"u{number}", tree)
        assert len(sizes(store, "packs/*.idx")) == number + 1
        if number < module.LITTLE_MOST - 1:
            assert collect_all(store).packs == 0
    assert collect_all(store).packs == module.LITTLE_MOST
    assert len(sizes(store, "packs/*.idx")) == len(sizes(store, "packs/*.pack")) == 1
    assert store.verify().problems == ()
    assert collect_all(store) == Collected()


def test_a_pack_that_comes_out_as_it_was_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a pack is made of its bytes: what is written again may get the name of what is to be removed."""
    monkeypatch.setattr(module, "LITTLE_MOST", 1)
    publish(store, "u1", {"a": b"content"})
    for dummy in range(2):
        collect_all(store)
        assert has(store, b"content")
        assert store.verify().problems == ()


def publish_together(one: Store, other: Store, first: dict[str, bytes], second: dict[str, bytes]) -> None:
    """Two hosts that shadow at the same time, so that neither sees what the other has put."""
    with one.lock("create", "u1"), other.lock("create", "u1"):
        roots = put_tree(one.contents, first), put_tree(other.contents, second)
        for store, root in zip((one, other), roots):
            store.update("u1").publish(manifest(store, "u1", shadow("r0", root)), {})


def test_what_two_packs_have_is_kept_once(store: Store) -> None:
    tree = {f"{number}": os.urandom(1000) for number in range(10)}
    other = open_store(Path(store.path), "web2")
    publish_together(store, other, {**tree, "own": b"one"}, {**tree, "own": b"two"})
    assert len(sizes(store, "packs/*.pack")) == 2
    assert sum(sizes(store, "packs/*.pack")) > 20_000
    collect_all(store)
    assert sum(sizes(store, "packs/*.pack")) < 15_000
    assert store.verify().problems == ()


def test_the_good_one_of_two_is_kept(store: Store) -> None:
    """The same content in two packs, damaged in the one that is looked at first: then neither goes."""
    other = open_store(Path(store.path), "web2")
    publish_together(store, other, {"a": b"content", "b": b"only here"}, {"a": b"content", "c": b"only there"})
    digest = hashlib.sha256(b"content").digest()
    first = min(open_store(Path(store.path)).contents.packs.all(), key=lambda pack: pack.name)
    place = first.find(digest, int.from_bytes(digest[:8], "big"))
    assert place
    flip(Path(first.path), place.offset)
    before = files_below(Path(store.path))
    collect_all(store)
    assert files_below(Path(store.path)) == before


def test_damage_in_a_pack_that_is_written_again_keeps_it(store: Store) -> None:
    tree = {f"{number}": os.urandom(10_000) for number in range(20)}
    publish(store, "u1", tree)
    publish(store, "u2", {"0": tree["0"]})
    drop(store, "u1")
    location = store.contents.location(hashlib.sha256(tree["0"]).hexdigest())
    flip(Path(location.path), location.offset)
    before = files_below(Path(store.path))
    with pytest.raises(StoreCorrupt, match=location.path):
        collect_all(store)
    assert files_below(Path(store.path)) == before


def test_a_full_disk_while_packs_are_written_again_loses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that says so stands in for the full disk; a real one is in test_objects."""
    tree = {f"{number}": os.urandom(10_000) for number in range(20)}
    publish(store, "u1", tree)
    publish(store, "u2", {"0": tree["0"]})
    drop(store, "u1")
    before = files_below(Path(store.path))

    def refuse(*_args: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", refuse)
        with pytest.raises(NoSpace):
            collect_all(store)
    assert files_below(Path(store.path)) == before
    collect_all(store)
    assert has(store, tree["0"]) and store.verify().problems == ()


def test_what_killed_verbs_left_goes_after_the_grace(store: Store) -> None:
    top = Path(store.path)
    publish(store, "u1", {"a": b"content"})
    before = files_below(top)
    (top / "updates/u0/web3").mkdir(parents=True)
    (top / "updates/u0/web3/secrets.json").write_text("{}")
    (top / "updates/u0/web4~dropped").mkdir()
    (top / "updates/u0/web4~dropped/journal.jsonl").write_text("{}")
    (top / "updates/u1/web1/plan.json.tmp").write_text("{")
    (top / "updates/u1/web1/reserve").write_text("held")
    (top / "packs" / ("ab" * 32 + ".pack")).write_text("without an index")
    (top / "tmp/web3-0123456789abcdef").mkdir()
    (top / "tmp/web4-0123456789abcdef").write_text("half")
    assert store.collect(HOUR, time.time()).temporaries == 1, "a dropped update needs no grace"
    make_old(top, 2 * HOUR)
    assert store.collect(HOUR, time.time()).temporaries == 5
    assert files_below(top) == before | {"updates/u1/web1/reserve"}
    assert not (top / "updates/u0").exists()


@pytest.mark.parametrize("beside", ["displaced-1.json", "journal.jsonl", "plan.json", "reserve", "notes.txt"])
def test_a_manifest_that_was_lost_is_doubt(store: Store, beside: str) -> None:
    update = publish(store, "u1", {"a": b"content"})
    (Path(update.path) / beside).write_text("{}")
    os.unlink(update.manifest_path)
    make_old(Path(store.path), 2 * HOUR)
    with pytest.raises(StoreCorrupt, match=f"{update.manifest_path} is damaged: it is missing, but {beside}"):
        store.collect(HOUR, time.time())
    assert has(store, b"content")
    assert any(update.manifest_path in problem for problem in store.verify().problems)


def test_foreign_files_are_left_alone(store: Store) -> None:
    publish(store, "u1", {"a": os.urandom(SMALL + 1)})
    drop(store, "u1")
    foreign = ["objects/README", "objects/ab/notes.txt", "packs/notes.txt", "updates/README", "updates/u9/notes.txt"]
    for name in foreign:
        path = Path(store.path) / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    make_old(Path(store.path))
    collect_all(store)
    assert set(foreign) <= files_below(Path(store.path))


@pytest.mark.parametrize("seed", range(6))
def test_nothing_that_is_needed_is_ever_removed(memory_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random lives of a store of two hosts; after every collection all that manifests name can be read."""
    monkeypatch.setattr(module, "LITTLE_MOST", 3)
    chance = random.Random(seed)
    pool = [chance.randbytes(chance.choice((0, 10, 3000, SMALL + 1))) for dummy in range(60)]
    expected: dict[tuple[str, str], dict[str, bytes]] = {}
    for number in range(40):
        host = chance.choice(("web1", "web2"))
        store = open_store(memory_path / "store", host)
        mine = [update_id for update_id, owner in expected if owner == host]
        action = chance.random()
        if action < 0.5 or not mine:
            tree = {f"f{name}": chance.choice(pool) for name in range(chance.randrange(12))}
            publish(store, f"u{number}", tree)
            expected[f"u{number}", host] = tree
        elif action < 0.75:
            update_id = chance.choice(mine)
            drop(store, update_id)
            del expected[update_id, host]
        else:
            collect_all(store)
            assert all(has(store, data) for tree in expected.values() for data in tree.values())
    collect_all(store)
    checked = store.verify()
    assert checked.problems == ()
    needed = {data for tree in expected.values() for data in tree.values()}
    objects = [data for data in needed if len(data) > SMALL]
    assert len(sizes(store, "objects/*/*")) == len(objects)


def busy(path: Path) -> tuple[Store, list[bytes]]:
    """A store in which a collection has everything to do, and the contents that it has to keep."""
    store = open_store(path)
    kept = [os.urandom(size) for size in (10, 3000, SMALL + 1)]
    garbage = {f"g{number}": os.urandom(5000) for number in range(5)} | {"large": os.urandom(SMALL + 1)}
    publish(store, "u1", {**garbage, **{f"k{number}": data for number, data in enumerate(kept)}})
    publish(store, "u2", {f"k{number}": data for number, data in enumerate(kept)})
    publish(store, "u3", {"other": b"x" * 2000})
    for update_id in ("u1", "u3"):
        drop(store, update_id)
    (path / "updates/u0/web1~dropped").mkdir(parents=True)
    (path / "updates/u0/web1~dropped/journal.jsonl").touch()
    return store, kept


def test_a_collection_that_is_killed_anywhere_loses_nothing_and_goes_on(memory_path: Path) -> None:
    made, kept = busy(memory_path / "made")
    shutil.copytree(made.path, memory_path / "whole")
    whole = open_store(memory_path / "whole")
    collect_all(whole)
    final = sizes(whole, "packs/*.pack"), sizes(whole, "objects/*/*")
    killed = 0
    while True:
        path = memory_path / f"killed{killed}"
        shutil.copytree(made.path, path)
        if not run_and_kill(lambda: open_store(path).collect(0, time.time() + 1), killed + 1):  # noqa: B023
            break
        store = open_store(path)
        assert store.verify().problems == ()
        assert all(has(store, data) for data in kept)
        collect_all(store)
        assert store.verify().problems == ()
        assert (sizes(store, "packs/*.pack"), sizes(store, "objects/*/*")) == final
        assert not list(path.glob("tmp/*")) and not (path / "updates/u0").exists()
        shutil.rmtree(path)
        killed += 1
    assert killed > 10
