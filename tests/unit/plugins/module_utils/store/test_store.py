# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening a store, finding updates in it, and letting go of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import (
    StoreError,
    StoreFormatUnknown,
    StoreMissing,
    UpdateIdInvalid,
)
from ansible_collections.umbra.rollback.plugins.module_utils.resource import Resource
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store, default_path
from ansible_collections.umbra.rollback.plugins.module_utils.store.update import HostUpdate

from .helpers import HOST, files_below, flip, modes_below, open_store, publish, run_and_kill

DAY = 86400.0
NOW = 1000 * DAY


def test_a_new_store_has_a_format_and_is_closed_to_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = open_store(tmp_path / "a/b/store")
        publish(store, "u1", {"a": b"content", "b": os.urandom(200_000)})
        store.history().append({})
        store.update("u1").journal.append("commit")
    finally:
        os.umask(before)
    assert (tmp_path / "a/b/store/FORMAT").read_text().startswith("umbra-store 1\nsha256:")
    for path, is_directory, mode in modes_below(tmp_path / "a"):
        assert mode == (0o700 if is_directory else 0o600), path


def test_an_empty_directory_becomes_a_store_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "store/lost+found").mkdir(parents=True)
    (tmp_path / "store").chmod(0o755)
    open_store(tmp_path / "store")
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700


def test_opening_again_changes_nothing(store: Store) -> None:
    before = {path: path.stat() for path in [Path(store.path), *Path(store.path).rglob("*")]}
    for create in (False, True):
        Store.open(store.path, "web2", create)
    assert {path: path.stat() for path in [Path(store.path), *Path(store.path).rglob("*")]} == before


def test_what_is_no_store_is_told_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match=str(tmp_path / "none")):
        Store.open(str(tmp_path / "none"), HOST)
    assert not (tmp_path / "none").exists()
    with pytest.raises(StoreMissing):
        Store.open(str(tmp_path), HOST)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(StoreError, match=r"other files \(mine.txt\) and no FORMAT"):
        open_store(tmp_path)
    with pytest.raises(StoreError, match="Not a directory"):
        open_store(tmp_path / "mine.txt")
    with pytest.raises(StoreError, match="Not a directory"):
        open_store(tmp_path / "mine.txt/store")
    assert files_below(tmp_path) == {"mine.txt"}


@pytest.mark.parametrize("text", ["umbra-store 2\n", "", "umbra-store 10", "\0" * 20, "x" * 1000])
@pytest.mark.parametrize("create", [False, True])
def test_an_unknown_format_is_refused(store: Store, text: str, create: bool) -> None:
    path = Path(store.path) / "FORMAT"
    path.write_text(text)
    with pytest.raises(StoreFormatUnknown, match=f"{path} says format") as caught:
        Store.open(store.path, HOST, create)
    assert len(str(caught.value)) < 400


def test_one_damaged_bit_of_format_is_told_and_mended(store: Store) -> None:
    path = Path(store.path) / "FORMAT"
    good = path.read_bytes()
    for offset in range(len(good)):
        flip(path, offset, offset % 8)
        again = open_store(Path(store.path))
        assert [f"{path} is damaged" in problem for problem in again.verify().problems] == [True]
        with again.lock("create", "u1"):
            assert path.read_bytes() == good


def test_a_store_whose_making_was_killed_is_made_again(memory_path: Path) -> None:
    killed = 0
    while run_and_kill(partial(open_store, memory_path / f"store{killed}"), killed + 1):
        store = open_store(memory_path / f"store{killed}")
        publish(store, "u1", {"a": b"content"})
        assert store.verify().problems == ()
        killed += 1
    assert killed > 5


def test_the_default_is_the_user_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_path() == "/var/lib/umbra"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/some/state")
    assert default_path() == "/some/state/umbra"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_path() == "/home/me/.local/state/umbra"


@pytest.mark.parametrize("update_id", ["", "..", "a/b", ".hidden", "a~1", "x" * 129])
def test_an_update_id_is_one_name(store: Store, update_id: str) -> None:
    with pytest.raises(UpdateIdInvalid):
        store.update(update_id)


def test_updates_are_this_host_s_oldest_first(store: Store) -> None:
    other = open_store(Path(store.path), "web2")
    for update_id, created in (("c", 1.0), ("a", 3.0), ("b", 2.0)):
        publish(store, update_id, {"a": b"content"}, created=created)
    publish(other, "a", {"a": b"content"}, created=0.0)
    publish(other, "d", {"a": b"content"}, created=9.0)
    store.update("unpublished").journal.append("restore-begin")
    assert [update.update_id for update in store.updates()] == ["c", "b", "a"]
    assert [update.update_id for update in other.updates()] == ["a", "d"]
    everyone = [(update.update_id, update.host) for update in store.hosts_updates()]
    assert everyone == [("a", "web1"), ("a", "web2"), ("b", "web1"), ("c", "web1"), ("d", "web2")]


def test_updates_with_a_damaged_manifest_are_listed(store: Store) -> None:
    for number in range(3):
        publish(store, f"u{number}", {"a": b"content"}, created=float(number))
    flip(Path(store.update("u1").manifest_path))
    assert sorted(update.update_id for update in store.updates()) == ["u0", "u1", "u2"]


def test_a_host_with_an_odd_name_finds_its_own(tmp_path: Path) -> None:
    names = ["web1", "web1~1", "web1~dropped", "../x", "größe", ".", "%41", "A"]
    for host in names:
        publish(open_store(tmp_path / "store", host), "u1", {"a": host.encode()})
    for host in names:
        (update,) = open_store(tmp_path / "store", host).updates()
        assert update.manifest().host == update.host == host
    assert len(open_store(tmp_path / "store").hosts_updates()) == len(names)


def test_the_latest_shadow_is_of_the_same_resource(store: Store) -> None:
    def latest(name: str, path: str) -> tuple[str, str] | None:
        found = open_store(Path(store.path)).latest_shadow(Resource(name, "file", {"path": path}))
        return (found[0], found[1].checksum) if found else None

    assert latest("r0", "/etc/r0") is None
    sums = []
    for number in range(3):
        update = publish(store, f"u{number}", {"a": b"%d" % number}, created=float(number))
        sums.append((update.update_id, update.manifest().shadows[0].checksum))
    publish(open_store(Path(store.path), "web2"), "u9", {"a": b"other"}, created=99.0)
    assert latest("r0", "/etc/r0") == sums[2]
    assert latest("r0", "/etc/moved") is None
    assert latest("r1", "/etc/r1") is None
    assert store.latest_shadow(Resource("r0", "sqlite", {"path": "/etc/r0"})) is None
    store.update("u2").archive()
    assert latest("r0", "/etc/r0") == sums[2]
    flip(Path(store.path) / "updates/u2/web1~1/manifest.json")
    assert latest("r0", "/etc/r0") == sums[1]


def aged(store: Store, days: float, state: str, archived: bool = False) -> HostUpdate:
    """An update that was shadowed so many days before NOW and came to `state`."""
    update = publish(store, f"d{days:g}", {"a": b"content"}, created=NOW - days * DAY)
    if state != "open":
        update.journal.append("commit" if state == "committed" else "restore-begin", source="shadow")
    if state == "rolled_back":
        update.journal.append("restore-end", ok=True)
    assert update.state == state
    if archived:
        update.archive()
    return update


RETENTION = [
    (None, None, []),
    (0, None, ["d9", "d5", "d4", "d1"]),
    (1, None, ["d9", "d5", "d4"]),
    (3, None, ["d9"]),
    (4, None, []),
    (9, None, []),
    (None, 0, ["d9", "d5", "d4", "d1"]),
    (None, 4.5, ["d9", "d5"]),
    (None, 100, []),
    (1, 4.5, ["d9", "d5"]),
    (3, 4.5, ["d9"]),
    (4, 0, []),
    (0, 100, []),
]


@pytest.mark.parametrize("keep_last, keep_days, expected", RETENTION)
def test_retention(store: Store, keep_last: int | None, keep_days: float | None, expected: Sequence[str]) -> None:
    """d9, d5, d4 and d1 are committed (d5 is an ended attempt); what is not committed never expires."""
    for days, state in ((50, "open"), (40, "restoring"), (30, "rolled_back"), (9, "committed"), (4, "committed")):
        aged(store, days, state)
    aged(store, 5, "committed", archived=True)
    aged(store, 35, "rolled_back", archived=True)
    aged(store, 1, "committed")
    aged(open_store(Path(store.path), "web2"), 60, "committed")
    assert [update.update_id for update in store.expired(keep_last, keep_days, NOW)] == expected


def test_what_cannot_be_read_does_not_expire(store: Store) -> None:
    damaged_manifest, damaged_journal = aged(store, 5, "committed"), aged(store, 4, "committed")
    aged(store, 3, "committed")
    flip(Path(damaged_manifest.manifest_path))
    journal = Path(damaged_journal.path) / "journal.jsonl"
    journal.write_bytes(b'damaged: was it "restore-begin"?\n' + journal.read_bytes())
    assert [update.update_id for update in store.expired(0, 0, NOW)] == ["d3"]


def test_a_dropped_update_is_gone_with_its_empty_directory(store: Store) -> None:
    publish(store, "u1", {"a": b"content"})
    publish(open_store(Path(store.path), "web2"), "u1", {"a": b"content"})
    publish(store, "u2", {"a": b"content"})
    for update_id in ("u1", "u2"):
        with store.lock("prune", update_id):
            store.drop(store.update(update_id))
            store.drop(store.update(update_id))
    assert {str(update.host) for update in store.hosts_updates()} == {"web2"}
    assert os.listdir(f"{store.path}/updates") == ["u1"]


def test_a_drop_that_was_killed_is_complete_or_did_not_happen(store: Store) -> None:
    killed = 0
    while True:
        update = publish(store, "u1", {"a": b"content"})
        update.journal.append("commit")

        def drop(update: HostUpdate = update) -> None:
            with store.lock("prune", "u1"):
                store.drop(update)

        if not run_and_kill(drop, killed + 1):
            break
        found = open_store(Path(store.path)).update("u1")
        assert found.state in ("committed", "missing")
        if found.exists():
            assert found.manifest().names == ("r0",)
            store.drop(found)
        else:
            assert found.journal.events() == [], "a new attempt must not inherit it"
        killed += 1
    assert killed > 5
    assert open_store(Path(store.path)).hosts_updates() == []
    store.collect(0, NOW * 10)
    assert not os.path.exists(f"{store.path}/updates/u1")
