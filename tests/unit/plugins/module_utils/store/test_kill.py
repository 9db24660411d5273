# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 at every call that changes the file system: a shadow is there whole, or not at all, and all else goes on."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

from ansible_collections.umbra.rollback.plugins.module_utils.store.packs import SMALL
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store

from .helpers import files_below, manifest, open_store, publish, put_tree, run_and_kill, shadow

TREE = {"small": b"small", "large": random.Random(1).randbytes(SMALL + 1), **{f"{n}": b"%d" % n for n in range(50)}}


def create(path: Path) -> None:
    """What a verb does: shadow, with a secret, then keep some more."""
    store = open_store(path)
    with store.lock("create", "u1"), store.workdir() as workdir:
        (Path(workdir) / "scratch").write_text("x")
        update = store.update("u1")
        if not update.exists():
            update.publish(manifest(store, "u1", shadow("r0", put_tree(store.contents, TREE))), {"r0": {"p": "x"}})
        store.history().append({"verb": "create"})


def restore(path: Path) -> None:
    """What a verb does: keep what it displaces, and note its steps."""
    store = open_store(path)
    with store.lock("restore", "u1"):
        update = store.update("u1")
        update.journal.append("restore-begin", round=1, source="shadow")
        if update.displaced(1) is None:
            root = put_tree(store.contents, {"failed": b"state", "big": TREE["large"][::-1]})
            update.save_displaced(1, manifest(store, "u1", shadow("r0", root)))
        update.journal.append("restore-end", round=1, ok=True, partial=False)


def is_clean(store: Store) -> bool:
    """After a collection nothing is left that nothing names."""
    store.collect(0, time.time() + 1)
    top = Path(store.path)
    half = [name for name in files_below(top) if name.startswith("tmp/") or name.endswith(".tmp")]
    return not half and len(list(top.glob("packs/*.pack"))) == len(list(top.glob("packs/*.idx")))


def test_a_shadow_is_there_whole_or_not_at_all(memory_path: Path) -> None:
    killed = 0
    states = set()
    while True:
        path = memory_path / f"store{killed}"
        if not run_and_kill(lambda: create(path), killed + 1):  # noqa: B023
            break
        store = open_store(path)
        update = store.update("u1")
        states.add(update.state)
        if update.exists():
            root = update.manifest().roots[0].digest
            assert store.contents.get(root) and update.secrets() == {"r0": {"p": "x"}}
        assert store.verify().problems == ()
        assert is_clean(store)
        create(path)
        assert open_store(path).verify().contents == len(TREE) + 1
        assert is_clean(open_store(path))
        shutil.rmtree(path)
        killed += 1
    assert states == {"missing", "open"}
    assert killed > 30


def test_what_a_restore_displaced_is_there_whole_or_not_at_all(memory_path: Path) -> None:
    create(memory_path / "made")
    killed = 0
    states = set()
    while True:
        path = memory_path / f"store{killed}"
        shutil.copytree(memory_path / "made", path)
        if not run_and_kill(lambda: restore(path), killed + 1):  # noqa: B023
            break
        store = open_store(path)
        update = store.update("u1")
        states.add(update.state)
        update.journal.check()
        displaced = update.displaced(1)
        assert displaced is None or store.contents.get(displaced.roots[0].digest)
        assert store.verify().problems == ()
        restore(path)
        assert open_store(path).update("u1").state == "rolled_back"
        assert open_store(path).verify().problems == ()
        assert is_clean(open_store(path))
        shutil.rmtree(path)
        killed += 1
    assert states == {"open", "restoring", "rolled_back"}
    assert killed > 15


def test_a_pack_that_is_full_in_the_middle_of_a_killed_shadow_is_garbage(tmp_path: Path) -> None:
    """The first contents are published already, and nothing names them."""
    store = open_store(tmp_path / "store")
    with store.lock("create", "u1"):
        store.contents.put(b"published, and named by nothing")
        store.contents.flush()
        put_tree(store.contents, TREE)
    assert store.updates() == []
    assert len(list((tmp_path / "store").glob("packs/*.pack"))) == 1
    assert not os.listdir(tmp_path / "store/tmp"), "what was not flushed is gone with the lock"
    found = store.collect(0, time.time() + 1)
    assert (found.objects, found.packs) == (1, 1)
    publish(store, "u1", TREE)
    assert store.verify().problems == ()
