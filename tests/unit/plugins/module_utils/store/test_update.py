# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host's part of one update: published whole, refused when damaged, its state from the journal."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import canonical
from ansible_collections.umbra.rollback.plugins.module_utils.errors import (
    ManifestExists,
    ManifestMissing,
    StoreCorrupt,
    StoreError,
    StoreFormatUnknown,
)
from ansible_collections.umbra.rollback.plugins.module_utils.plan import Plan, Step
from ansible_collections.umbra.rollback.plugins.module_utils.shadow import Root
from ansible_collections.umbra.rollback.plugins.module_utils.store.seal import Seal
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store

from .helpers import flip, manifest, open_store, publish, shadow

BEGIN = ("restore-begin", {"source": "shadow"})
IDLE = ("restore-begin", {"source": "shadow", "drifted": [], "stopped": []})
BUSY = ("restore-begin", {"source": "shadow", "drifted": ["r0"], "stopped": []})
UNDO = ("restore-begin", {"source": "displaced"})
GOOD = ("restore-end", {"ok": True, "partial": False})
BAD = ("restore-end", {"ok": False, "partial": False})
PART = ("restore-end", {"ok": True, "partial": True})
COMMIT: tuple[str, dict[str, Any]] = ("commit", {})
STEP = ("step", {"name": "r0"})

STATES = [
    ((), "open"),
    ((BEGIN,), "restoring"),
    ((BEGIN, STEP), "restoring"),
    ((BEGIN, GOOD), "rolled_back"),
    ((BEGIN, BAD), "failed"),
    ((BEGIN, BAD, BEGIN), "restoring"),
    ((BEGIN, BAD, BEGIN, GOOD), "rolled_back"),
    # The host's switch had done it all; the controller that looks once more is killed.
    ((BEGIN, GOOD, IDLE), "rolled_back"),
    ((BEGIN, GOOD, IDLE, GOOD), "rolled_back"),
    ((BEGIN, GOOD, IDLE, BAD), "failed"),
    ((BEGIN, GOOD, BUSY), "restoring"),
    ((IDLE,), "restoring"),
    ((BEGIN, PART), "open"),
    ((BEGIN, BAD, BEGIN, PART), "open"),
    ((BEGIN, BEGIN, PART), "open"),
    ((BEGIN, GOOD, UNDO), "restoring"),
    ((BEGIN, GOOD, UNDO, GOOD), "undone"),
    ((BEGIN, GOOD, UNDO, PART), "rolled_back"),
    ((BEGIN, GOOD, UNDO, BAD), "failed"),
    ((BEGIN, GOOD, UNDO, GOOD, BEGIN, GOOD), "rolled_back"),
    ((COMMIT,), "committed"),
    ((BEGIN, GOOD, UNDO, GOOD, COMMIT), "committed"),
    ((COMMIT, BEGIN), "restoring"),
]


@pytest.mark.parametrize("events, state", STATES)
def test_the_state_is_what_the_journal_tells(store: Store, events: tuple[Any, ...], state: str) -> None:
    update = publish(store, "u1", {"a": b"content"})
    for name, facts in events:
        update.journal.append(name, round=1, **facts)
    assert update.state == store.update("u1").state == state


def test_without_a_manifest_there_is_nothing(store: Store) -> None:
    update = store.update("u1")
    update.journal.append("commit")
    assert not update.exists()
    assert update.state == "missing"
    assert (update.secrets(), update.plan(), update.leases()) == ({}, None, {})
    assert (update.displaced(1), update.displaced_rounds()) == (None, [])
    update.forget_secrets()
    update.forget_displaced()
    with pytest.raises(ManifestMissing, match="known updates: none"):
        update.manifest()


def test_a_missing_manifest_names_the_updates_there_are(store: Store) -> None:
    for update_id in ("u2", "u1"):
        publish(store, update_id, {"a": b"content"})
    publish(open_store(Path(store.path), "web2"), "u3", {"a": b"content"})
    with pytest.raises(ManifestMissing, match=r"known updates: u1, u2\."):
        store.update("u9").manifest()


def test_a_manifest_comes_back_and_is_found_where_it_says(store: Store) -> None:
    update = publish(store, "u1", {"a": b"content"}, {"b": b"other"})
    found = open_store(Path(store.path)).update("u1")
    assert found.manifest() == update.manifest()
    assert found.manifest().names == ("r0", "r1")
    assert json.loads(Path(found.manifest_path).read_bytes())["format"] == "umbra-manifest 1"
    assert stat.S_IMODE(os.stat(found.manifest_path).st_mode) == 0o600


def test_a_second_manifest_is_refused(store: Store) -> None:
    publish(store, "u1", {"a": b"content"})
    with pytest.raises(ManifestExists, match="1970-01-01 00:00:01 UTC"):
        publish(store, "u1", {"a": b"other"})
    assert store.update("u1").manifest().created == 1.0


def test_contents_are_on_disk_before_the_manifest_names_them(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of what reaches the disk, as seen from the calls."""
    calls: list[str] = []
    rename, fsync = os.rename, os.fsync

    def note_rename(source: str, target: str) -> None:
        calls.append(os.path.basename(target).rpartition(".")[2])
        rename(source, target)

    def note_fsync(fd: int) -> None:
        calls.append("fsync " + os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        fsync(fd)

    with store.lock("create", "u1"):
        root = Root("blob", store.contents.put(b"content"))
        monkeypatch.setattr(os, "rename", note_rename)
        monkeypatch.setattr(os, "fsync", note_fsync)
        store.update("u1").publish(manifest(store, "u1", shadow("r0", root)), {"r0": {"password": "x"}})
    renames = [call for call in calls if not call.startswith("fsync")]
    assert renames == ["pack", "idx", "json", "json"]
    assert "fsync packs" in calls[calls.index("idx") : calls.index("json")]
    assert calls[-3:] == ["fsync manifest.json.tmp", "json", "fsync web1"]


def test_secrets_are_apart_from_the_manifest(store: Store) -> None:
    with store.lock("create", "u1"):
        update = store.update("u1")
        update.publish(manifest(store, "u1", shadow("db")), {"db": {"password": "hunter2"}})
    assert update.secrets() == {"db": {"password": "hunter2"}}
    assert b"hunter2" not in Path(update.manifest_path).read_bytes()
    assert stat.S_IMODE((Path(update.path) / "secrets.json").stat().st_mode) == 0o600
    update.forget_secrets()
    update.forget_secrets()
    assert update.secrets() == {}


def test_secrets_of_an_attempt_that_never_was_are_not_inherited(store: Store) -> None:
    update = store.update("u1")
    Path(update.path).mkdir(parents=True)
    (Path(update.path) / "secrets.json").write_text('{"db": {"password": "old"}}')
    with store.lock("create", "u1"):
        update.publish(manifest(store, "u1", shadow("db")), {})
    assert update.secrets() == {}


def test_plan_and_leases_come_back(store: Store) -> None:
    update = publish(store, "u1", {"a": b"content"})
    plan = Plan("u1", "web1", (Step("r0", 1, ("r1",)), Step("r1", 1)), 1, (1.5, 3.0), "analysis")
    update.save_plan(plan)
    update.save_leases({"leases": [{"name": "r0", "effective": {"nice": -5}}]})
    found = store.update("u1")
    assert found.plan() == plan
    assert found.leases() == {"leases": [{"name": "r0", "effective": {"nice": -5}}]}


def test_displaced_states_are_kept_by_round(store: Store) -> None:
    update = publish(store, "u1", {"a": b"content"})
    with store.lock("restore", "u1"):
        for round_ in (1, 2, 10):
            root = Root("blob", store.contents.put(b"failed %d" % round_))
            update.save_displaced(round_, manifest(store, "u1", shadow("r0", root), created=float(round_)))
    found = open_store(Path(store.path)).update("u1")
    assert found.displaced_rounds() == [1, 2, 10]
    kept = found.displaced(10)
    assert kept and kept.created == 10.0
    assert store.contents.get(kept.roots[0].digest) == b"failed 10"
    assert found.displaced_path(10) == f"{found.path}/displaced-10.json"
    assert found.displaced(3) is None
    found.forget_displaced()
    assert found.displaced_rounds() == []


def test_an_archived_attempt_makes_room(store: Store) -> None:
    for created in (1.0, 2.0, 3.0):
        publish(store, "u1", {"a": b"%f" % created}, created=created)
        store.update("u1").journal.append("restore-begin", source="shadow")
        store.update("u1").archive()
    assert store.update("u1").state == "missing"
    publish(store, "u1", {"a": b"last"}, created=4.0)
    found = [(update.attempt, update.manifest().created, update.state) for update in store.hosts_updates()]
    assert found == [(None, 4.0, "open"), (1, 1.0, "restoring"), (2, 2.0, "restoring"), (3, 3.0, "restoring")]
    assert [update.attempt for update in store.updates()] == [None]


FILES = ["manifest.json", "plan.json", "leases.json", "secrets.json", "displaced-1.json"]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'"text"', b"\0" * 100])
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_json_object_is_damage_and_named(store: Store, name: str, data: bytes) -> None:
    update = publish(store, "u1", {"a": b"content"})
    path = Path(update.path) / name
    path.write_bytes(data)
    reads: dict[str, Callable[[], Any]] = {
        "manifest.json": update.manifest,
        "plan.json": update.plan,
        "leases.json": update.leases,
        "secrets.json": update.secrets,
        "displaced-1.json": lambda: update.displaced(1),
    }
    with pytest.raises(StoreError, match=str(path)):
        reads[name]()


def test_every_bit_of_a_manifest_counts(store: Store) -> None:
    update = publish(store, "u1", {"a": b"content"})
    path = Path(update.manifest_path)
    good = path.read_bytes()
    for offset in range(0, len(good) - 1, 7):
        flip(path, offset, offset % 8)
        with pytest.raises((StoreCorrupt, StoreFormatUnknown), match=str(path)):
            update.manifest()
        path.write_bytes(good)


def test_a_manifest_of_another_update_or_host_is_refused(store: Store) -> None:
    one = publish(store, "u1", {"a": b"content"})
    other = store.update("u2")
    os.makedirs(other.path)
    Path(other.manifest_path).write_bytes(Path(one.manifest_path).read_bytes())
    with pytest.raises(StoreCorrupt, match="its checksum does not match"):
        other.manifest()


def test_one_file_does_not_stand_for_another(store: Store) -> None:
    update = publish(store, "u1", {"a": b"content"})
    update.save_displaced(1, manifest(store, "u1"))
    os.replace(update.displaced_path(1), update.manifest_path)
    with pytest.raises(StoreCorrupt, match="its checksum does not match"):
        update.manifest()


def test_a_manifest_of_a_newer_format_is_refused(store: Store) -> None:
    update = publish(store, "u1", {"a": b"content"})
    raw = {**update.manifest().to_dict(), "format": "umbra-manifest 2"}
    Path(update.manifest_path).write_bytes(canonical.dumps(Seal().close(raw, "u1/web1/manifest.json")))
    with pytest.raises(StoreFormatUnknown, match="umbra-manifest 2"):
        update.manifest()
