# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One bit, anywhere in a store: a way back refuses and touches nothing, or leads to exactly the state before.

The seed is printed; UMBRA_TEST_SEED repeats a run, UMBRA_TEST_FLIPS is how many flips each kind of file gets.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import StoreError
from ansible_collections.umbra.rollback.plugins.module_utils.plan import host_plan
from ansible_collections.umbra.rollback.plugins.module_utils.store import reach
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import commit, create, prestage, restore
from ansible_collections.umbra.rollback.plugins.module_utils.verbs.outcome import Restored

from .conftest import Shop, touched

SEED = int(os.environ.get("UMBRA_TEST_SEED", time.time_ns() % 1_000_000))
FLIPS = int(os.environ.get("UMBRA_TEST_FLIPS", "2"))
HOST = "updates/u1/web1"
KINDS = [
    "FORMAT",
    "objects/*/*",
    "packs/*.pack",
    "packs/*.idx",
    f"{HOST}/manifest.json",
    f"{HOST}/secrets.json",
    f"{HOST}/plan.json",
    f"{HOST}/leases.json",
    f"{HOST}/journal.jsonl",
    f"{HOST}/displaced-1.json",
    "history/web1.jsonl",
    "replicas/web1.json",
    "versions.git/**/*",
]
HARMLESS = ("replicas/", "versions.git/")  # no state is read from them


class Flipped:
    """A shop that went back once and broke again; `good` is a copy of its store, and `flip` damages the store."""

    def __init__(self, root: Path, replica: bool) -> None:
        self.shop = shop = Shop(root / "shop")
        self.good = root / "good"
        (shop.config / "large").write_bytes(os.urandom(200_000))
        replicas = (str(root / "replica"),) if replica else ()
        secret = {"environment": {"TOKEN": "hunter2"}}
        resources = shop.resources(config={"versioned": True}, service=secret)
        earlier = shop.target("u0", replicas=())
        create.create(earlier, resources)
        commit.commit(earlier, None, None)
        (shop.config / "main.conf").write_text("version = 1.1\n")
        created = create.create(shop.target(replicas=replicas), resources)
        plan = host_plan("u1", "web1", created.manifest.shadows)
        prestage.prestage(shop.target(plan=plan), prestage.Budget(disk=4096))
        self.before = shop.state()
        shop.update()
        assert not shop.restore().bad
        shutil.copytree(shop.store, self.good, symlinks=True)
        self.break_again()

    def break_again(self) -> None:
        """What is to be brought back again."""
        (self.shop.config / "main.conf").write_text("version = 3\n")
        (self.shop.config / "new.conf").write_text("new\n")
        (self.shop.config / "sites" / "4.conf").unlink(missing_ok=True)
        (self.shop.config / "large").write_bytes(b"small")
        self.shop.service.write_text("failed\n")

    def renew(self) -> None:
        """The store as it was, and something to bring back."""
        shutil.rmtree(self.shop.store)
        shutil.copytree(self.good, self.shop.store, symlinks=True)
        self.break_again()

    def live(self) -> dict[str, Any]:
        """Whether anything but the store was touched."""
        return {name: one for name, one in touched(self.shop.root).items() if not name.startswith(str(self.shop.store))}


def flip(path: Path, offset: int, bit: int) -> None:
    """In place: the same call again takes it back."""
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def needed(path: Path) -> list[tuple[Path, int, int]]:
    """Where the small contents are that a manifest needs: the pack, the offset and the size."""
    store = Store.open(str(path), "web1")
    manifests = [manifest for update in store.directories() for manifest in reach.manifests(update)]
    roots = {root for manifest in manifests for root in manifest.roots}
    digests = {raw for root in roots for raw in reach.contents_of(root, store.contents)}
    found = [store.contents.packs.find(raw) for raw in sorted(digests)]
    return [(Path(one[0].path), *one[1]) for one in found if one and one[1].length]


def trials(store: Path, kind: str, count: int) -> Iterator[tuple[str, int, int]]:
    """Which bits of files of that kind: a path in the store, an offset and a bit.

    In packs only what is needed: what is between two contents means nothing, nor does the second copy of one.
    """
    chance = random.Random(f"{SEED} {kind}")
    paths = sorted(path for path in store.glob(kind) if path.is_file() and path.stat().st_size)
    places = needed(store)
    for _number in range(count):
        path = chance.choice(paths)
        start, size = 0, path.stat().st_size
        if kind == "packs/*.pack":
            path, start, size = chance.choice(places)
        yield str(path.relative_to(store)), start + chance.randrange(size), chance.randrange(8)


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "replica"])
def flipped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Flipped:
    return Flipped(tmp_path_factory.mktemp("flipped"), request.param)


@pytest.mark.parametrize("kind", KINDS)
def test_one_bit_is_refused_or_mended_or_does_not_matter(flipped: Flipped, kind: str) -> None:
    alone = not (flipped.good / "replicas").exists()
    if alone and kind.startswith("replicas"):
        return  # there is no such file
    for name, offset, bit in trials(flipped.good, kind, FLIPS):
        where = f"UMBRA_TEST_SEED={SEED}: bit {bit} of byte {offset} of {name}"
        path = flipped.shop.store / name
        flip(path, offset, bit)
        problems = found(flipped.shop.store)
        live = flipped.live()
        try:
            done: Restored | None = restore.restore(flipped.shop.target(), restore.Request())
        except StoreError as error:
            done = None
            assert alone, f"{where}: {error}"
            assert problems, f"{where}: verify found nothing, and yet: {error}"
            assert flipped.live() == live, where
        if done is None:
            flip(path, offset, bit)
            continue
        assert not done.bad, f"{where}: {done.to_dict()}"
        assert flipped.shop.state() == flipped.before, where
        assert problems or name.startswith(HARMLESS), f"{where}: verify found nothing"
        if done.repaired:
            assert problems and any("taken from" in note for note in done.notes), where
            assert not found(flipped.shop.store), where
        flipped.renew()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith(HARMLESS)])
def test_reading_the_store_back_finds_every_bit(flipped: Flipped, kind: str) -> None:
    store = flipped.shop.store
    assert found(store) == ()
    for name, offset, bit in trials(flipped.good, kind, 5 * FLIPS):
        flip(store / name, offset, bit)
        assert found(store), f"UMBRA_TEST_SEED={SEED}: bit {bit} of byte {offset} of {name}"
        flip(store / name, offset, bit)


def found(path: Path) -> tuple[str, ...]:
    """What reading all of the store back finds."""
    try:
        return Store.open(str(path), "web1").verify().problems
    except StoreError as error:
        return (str(error),)
