# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store edited by somebody who can make checksums: what leads elsewhere is refused, and nothing is touched."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import canonical
from ansible_collections.umbra.rollback.plugins.module_utils.errors import StoreError
from ansible_collections.umbra.rollback.plugins.module_utils.store.seal import Seal
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import create, prune, restore

from .conftest import Shop, touched

ROOT = b"d 755 0 0 1 .\n"
EMPTY = hashlib.sha256(b"").hexdigest().encode()
FILE = b" 0 " + EMPTY + b" 0\n"


def file(path: bytes) -> bytes:
    return ROOT + b"f 644 0 0 1 " + path + FILE


LISTINGS = {
    "up": file(b".."),
    "up in between": ROOT + b"d 755 0 0 1 a\nf 644 0 0 1 a/../../evil" + FILE,
    "up, below a directory of that name": ROOT + b"d 755 0 0 1 ..\nf 644 0 0 1 ../evil" + FILE,
    "absolute": file(b"/etc/evil"),
    "an empty name": ROOT + b"d 755 0 0 1 a\nf 644 0 0 1 a//evil" + FILE,
    "a slash at the end": file(b"evil/"),
    "a dot": ROOT + b"d 755 0 0 1 %2E\nf 644 0 0 1 ./evil" + FILE,
    "a NUL": file(b"e%00vil"),
    "a slash that is escaped": file(b"a%2Fevil"),
    "below a file": file(b"a") + b"f 644 0 0 1 a/evil" + FILE,
    "below a symlink": ROOT + b"l 777 0 0 1 a /etc\nf 644 0 0 1 a/evil" + FILE,
    "below nothing": file(b"a/evil"),
    "twice": file(b"a") + b"f 644 0 0 1 a" + FILE,
    "a hard link to elsewhere": ROOT + b"h 0 0 0 0 a /etc/passwd\n",
    "a hard link up": ROOT + b"h 0 0 0 0 a ../shop.db\n",
    "a link with a NUL": ROOT + b"l 777 0 0 1 a /etc%00/x\n",
    "a digest that is a path": ROOT
    + b"f 644 0 0 1 a 0 ../../../../../../../../../../../../../../../../../../etc/passwd_____ 0\n",
    "a digest in capitals": ROOT + b"f 644 0 0 1 a 0 " + EMPTY.upper() + b" 0\n",
    "a digest that is short": ROOT + b"f 644 0 0 1 a 0 " + EMPTY[:-2] + b" 0\n",
    "an attribute with a NUL": ROOT + b"f 644 0 0 1 a 0 " + EMPTY + b" 0 user.%00x 1\n",
    "no root": b"f 644 0 0 1 evil" + FILE,
}


def edit(shop: Shop, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what the manifest says, and give it a checksum that fits."""
    path = shop.store / "updates/u1/web1/manifest.json"
    raw = json.loads((shop.root / "manifest.good").read_bytes())
    body = {key: value for key, value in raw.items() if key != "checksum"}
    change(body)
    path.write_bytes(canonical.dumps(Seal().close(body, "u1/web1/manifest.json")) + b"\n")


def refused(shop: Shop) -> str:
    """The sentence of a restore, which touched nothing but the store."""

    def live() -> dict[str, Any]:
        return {name: one for name, one in touched(shop.root).items() if not name.startswith(str(shop.store))}

    before = live()
    with pytest.raises(StoreError) as caught:
        shop.restore()
    assert live() == before
    return str(caught.value)


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop to be brought back, whose store has all that a forged listing may name."""
    shop = Shop(tmp_path_factory.mktemp("edited"))
    shop.shadow()
    shutil.copy(shop.store / "updates/u1/web1/manifest.json", shop.root / "manifest.good")
    shop.update()
    store = Store.open(str(shop.store), "web1")
    with store.lock("create", "u1"):
        store.contents.put(b"")
        store.contents.flush()
    return shop


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS.keys())
@pytest.mark.parametrize("name", ["config", "service"])
def test_a_listing_that_leads_elsewhere_is_refused(edited: Shop, name: str, listing: bytes) -> None:
    store = Store.open(str(edited.store), "web1")
    with store.lock("create", "u1"):
        digest = store.contents.put(b"umbra-tree 1\n" + listing)
        store.contents.flush()

    def change(body: dict[str, Any]) -> None:
        (shadow,) = (one for one in body["shadows"] if one["resource"]["name"] == name)
        shadow["roots"][0] = ["tree", digest]

    edit(edited, change)
    refused(edited)
    assert not list(edited.root.rglob("evil"))


def the(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda body: next(one for one in body["shadows"] if one["resource"]["name"] == name)


CONFIG, DATABASE, SERVICE = the("config"), the("database"), the("service")
EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a root that is a path": lambda body: CONFIG(body)["roots"][0].__setitem__(1, "../../../../etc/passwd"),
    "a root of a kind that is none": lambda body: DATABASE(body)["roots"].__setitem__(0, [7, "0" * 64]),
    "too few roots": lambda body: CONFIG(body)["roots"].pop(),
    "a path that leads up": lambda body: CONFIG(body)["resource"].update(path="/srv/../etc"),
    "a path that is relative": lambda body: CONFIG(body)["resource"].update(path="etc"),
    "a path with a NUL": lambda body: DATABASE(body)["resource"].update(path="/srv/a\0b"),
    "a path that is none": lambda body: CONFIG(body)["resource"].update(path=7),
    "an unknown type": lambda body: CONFIG(body)["resource"].update(type="../evil"),
    "an option that no provider has": lambda body: CONFIG(body)["resource"].update(evil=1),
    "a name that is none": lambda body: CONFIG(body)["resource"].update(name="../evil\n"),
    "a parent that leads up": lambda body: CONFIG(body)["data"].update(parent="/srv/../etc"),
    "a parent that is relative": lambda body: CONFIG(body)["data"].update(parent="etc"),
    "files that no database has": lambda body: DATABASE(body)["data"].update(files={"/../evil": "0" * 64}),
    "a file that no database has": lambda body: DATABASE(body)["data"].update(files={"-evil": "0" * 64}),
    "a command with a NUL": lambda body: SERVICE(body)["resource"].update(restore=["/bin/sh", "a\0b"]),
    "another update": lambda body: body.update(update_id="../u1"),
    "another host": lambda body: body.update(host="../web1"),
    "an update before that leads up": lambda body: CONFIG(body).update(previous="../../u0"),
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS.keys())
def test_an_edit_that_leads_elsewhere_is_refused(edited: Shop, change: Callable[[dict[str, Any]], Any]) -> None:
    edit(edited, change)
    assert "the manifest of" in (told := refused(edited)) or "manifest.json is damaged" in told


@pytest.mark.parametrize("name", ["..%2F..%2Fevil", "%2Fevil", "web1%00", "web1\n"])
def test_a_directory_with_a_name_that_no_host_has_leads_nowhere(shop: Shop, name: str) -> None:
    shop.shadow()
    os.rename(shop.store / "updates/u1/web1", shop.store / "updates/u1" / name)
    before = touched(shop.root)
    with pytest.raises(StoreError):
        shop.restore()
    problems = Store.open(str(shop.store), "web1").verify().problems
    assert len(problems) == 1 and "damaged" in problems[0]
    told = prune.prune(shop.target(""), prune.Request(keep_last=0, garbage=False))
    assert told.dropped == ()
    assert {key: one for key, one in touched(shop.root).items() if key in before}.keys() == before.keys()


def test_a_plan_that_was_edited_with_the_key_in_use_is_refused(shop: Shop) -> None:
    key = "the key of the team"
    create.create(shop.target(store_key=key), shop.resources())
    path = Path(shop.store / "updates/u1/web1/plan.json")
    path.write_bytes(canonical.dumps(Seal().close({"format": "umbra-plan 1"}, "u1/web1/plan.json")))
    with pytest.raises(StoreError, match="plan.json was not written with this `store_key`"):
        restore.restore(shop.target(store_key=key), restore.Request())
