# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records prove that they are whole, and with a key who wrote them."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import canonical
from ansible_collections.umbra.rollback.plugins.module_utils.errors import (
    InputError,
    ManifestForged,
    StoreCorrupt,
    StoreKeyMissing,
)
from ansible_collections.umbra.rollback.plugins.module_utils.store.seal import Seal
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store

from .helpers import HOST, manifest, publish, shadow

KEY = "the key of the team"
BODY: dict[str, Any] = {"format": "x 1", "größe": [1, 2.5, None], "b": {"a": "\udcff"}}


@pytest.mark.parametrize("key", [None, KEY])
def test_a_record_comes_back_and_says_how_it_is_proven(key: str | None) -> None:
    closed = Seal(key).close(BODY, "u1/web1/plan.json")
    assert closed["checksum"].startswith("sha256:")
    assert ("mac" in closed) == bool(key) and (not key or closed["mac"].startswith("hmac-sha256:"))
    assert Seal(key).read(canonical.dumps(closed), "u1/web1/plan.json", "/p") == BODY
    assert Seal(key).lenient().open(closed, "u1/web1/plan.json", "/p") == BODY


def test_keys_that_are_numbers_come_back_as_text() -> None:
    closed = Seal().close({"rounds": {2: "b", 10: "a"}}, "here")
    assert Seal().read(canonical.dumps(closed), "here", "/p") == {"rounds": {"2": "b", "10": "a"}}


@pytest.mark.parametrize("key", [None, KEY])
def test_any_change_is_damage(key: str | None) -> None:
    seal, closed = Seal(key), Seal(key).close(BODY, "here")
    changes = [{**closed, "more": 1}, {**closed, "format": "x 2"}, {k: v for k, v in closed.items() if k != "checksum"}]
    for changed in changes:
        with pytest.raises(StoreCorrupt, match="/p is damaged: its checksum"):
            seal.open(changed, "here", "/p")
    with pytest.raises(StoreCorrupt):
        seal.open(closed, "there", "/p")
    raws: list[Any] = [[], None, "text", 7]
    for raw in raws:
        with pytest.raises(StoreCorrupt):
            seal.open(raw, "here", "/p")


@pytest.mark.parametrize("key", [None, KEY])
def test_every_single_bit_counts_also_where_the_value_stays_the_same(key: str | None) -> None:
    """The last digit of a time may stand for the same number, and so do both cases of a letter in an escape."""
    seal = Seal(key)
    data = canonical.dumps(seal.close({**BODY, "time": 1763896332.1234567, "one": 0.30000000000000004}, "here"))
    assert seal.read(data + b"\n", "here", "/p")
    same = 0
    for number in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[number // 8] ^= 1 << number % 8
        with pytest.raises(StoreCorrupt):
            seal.read(bytes(flipped), "here", "/p")
        with suppress(ValueError):
            same += json.loads(flipped) == json.loads(data)
    assert same > 2


def test_who_edits_a_record_needs_the_key() -> None:
    edited = Seal().close({**BODY, "format": "evil"}, "here")
    for forged in (edited, {**edited, "mac": Seal(KEY).close(BODY, "here")["mac"]}, {**edited, "mac": None}):
        with pytest.raises(ManifestForged, match="Either the key is another one, or somebody edited the file"):
            Seal(KEY).open(forged, "here", "/p")
    with pytest.raises(ManifestForged):
        Seal(KEY + "!").open(Seal(KEY).close(BODY, "here"), "here", "/p")
    with pytest.raises(StoreKeyMissing, match="Give that key"):
        Seal().open(Seal(KEY).close(BODY, "here"), "here", "/p")


def opened(store: Store, key: str | None) -> Store:
    return Store.open(store.path, HOST, key=key)


def test_a_store_with_a_key_is_read_with_that_key_alone(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"), HOST, True, KEY)
    update = publish(store, "u1", {"a": b"content"})
    with store.lock("restore", "u1"):
        update.journal.append("restore-begin", round=1, source="shadow")
        update.save_displaced(1, manifest(store, "u1", shadow("r0")))
        update.save_leases({"leases": []})
    whole = opened(store, KEY).update("u1")
    assert whole.manifest() == update.manifest() and whole.state == "restoring" and whole.displaced(1)
    for key, error in ((None, StoreKeyMissing), ("another key of a team", ManifestForged)):
        other = opened(store, key).update("u1")
        for read in (other.manifest, other.journal.events, partial(other.displaced, 1), other.leases):
            with pytest.raises(error):
                read()
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in repr(store.__dict__)


def test_what_was_written_without_a_key_is_refused_with_one(store: Store) -> None:
    publish(store, "u1", {"a": b"content"})
    with pytest.raises(ManifestForged, match="it carries no MAC"):
        opened(store, KEY).update("u1").manifest()


def test_a_line_of_a_journal_can_not_be_forged(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"), HOST, True, KEY)
    update = publish(store, "u1", {"a": b"content"})
    update.journal.append("restore-begin", round=1, source="shadow")
    line = Seal().close({"n": 2, "time": 1.0, "event": "commit"}, "u1/web1/journal.jsonl")
    with open(update.journal.path, "ab") as file:
        file.write(canonical.dumps(line) + b"\n")
    with pytest.raises(ManifestForged, match=r"journal.jsonl, line 2 was not written with this `store_key`"):
        update.journal.events()


def test_garbage_and_the_whole_store_are_read_whatever_the_keys(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    for host, key in (("web1", KEY), ("web2", "another key of a team"), ("web3", None)):
        publish(Store.open(path, host, True, key), "u1", {"a": host.encode()})
    for key in (None, KEY):
        store = Store.open(path, HOST, key=key)
        assert store.collect(0.0, 1e12).packs == 0
        assert store.verify().problems == ()
    (problem,) = Store.open(path, HOST, key="a third key of a team").verify().problems
    assert "was not written with this `store_key`" in problem


@pytest.mark.parametrize("key", ["x", "fifteen letters"])
def test_a_key_that_can_be_guessed_is_refused_and_not_told(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError, match="store_key") as caught:
        Store.open(str(tmp_path / "store"), HOST, True, key)
    assert key not in str(caught.value) and not (tmp_path / "store").exists()


def test_an_empty_key_is_none(tmp_path: Path) -> None:
    update = publish(Store.open(str(tmp_path / "store"), HOST, True, ""), "u1", {})
    assert "mac" not in json.loads(Path(update.manifest_path).read_bytes())
