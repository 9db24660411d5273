# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/store_format.md: its commands work as they stand there, and a reader written from it reads a store."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.store import versions
from ansible_collections.umbra.rollback.plugins.module_utils.store.packs import SMALL
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store

from .helpers import flip, manifest, put_tree, shadow

PAGE = Path(__file__).parents[5] / "docs/store_format.md"
CHECK_OBJECTS, CHECK_PACKS, LOG, COPY = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
KEY = "a key of the team"
TREE = {"a.conf": b"one\n", "large": bytes(range(256)) * (SMALL // 256 + 1)}


@pytest.fixture
def full(tmp_path: Path) -> Store:
    """A store with large and small contents, a journal and a Git history, proven by a key."""
    store = Store.open(str(tmp_path / "store"), "web1", True, KEY)
    shadowed = manifest(store, "u1", shadow("shop", put_tree(store.contents, TREE), versioned=True))
    store.update("u1").publish(shadowed, {})
    store.update("u1").journal.append("restore-begin", round=1, source="shadow")
    store.update("u1").journal.append("restore-end", round=1, ok=True)
    versions.record(store, shadowed)
    return store


def run(store: Store, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a person would, in the store."""
    return subprocess.run(
        ["sh", "-euc", command],
        cwd=store.path,
        env={"PATH": os.environ["PATH"], "HOME": store.path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_sha256sum_checks_objects_and_indexes(full: Store) -> None:
    assert run(full, CHECK_OBJECTS).returncode == 0
    done = run(full, CHECK_PACKS)
    assert done.returncode == 0
    assert json.loads(done.stdout).items() >= full.update("u1").manifest().to_dict().items()
    for pattern, command in (("objects/*/*", CHECK_OBJECTS), ("packs/*.idx", CHECK_PACKS)):
        (path,) = Path(full.path).glob(pattern)
        flip(path)
        done = run(full, command)
        assert path.name in done.stdout + done.stderr and "FAILED" in done.stdout


def test_git_shows_what_changed(full: Store) -> None:
    assert "+one" in run(full, LOG).stdout


def test_a_copy_is_a_store(full: Store, tmp_path: Path) -> None:
    (tmp_path / "replica").mkdir(mode=0o700)
    done = run(full, COPY, REPLICA=str(tmp_path / "replica"))
    assert done.returncode == 0, done.stderr
    replica = Store.open(str(tmp_path / "replica"), "web1", key=KEY)
    assert replica.verify() == full.verify()
    assert replica.update("u1").manifest() == full.update("u1").manifest()


def test_a_reader_written_from_the_page_reads_everything(full: Store) -> None:
    top = Path(full.path)
    contents = {path.name: path.read_bytes() for path in top.glob("objects/*/*")}
    for index in top.glob("packs/*.idx"):
        data, pack = index.read_bytes(), index.with_suffix(".pack").read_bytes()
        count = int.from_bytes(data[16:24], "big")
        for row in range(count):
            digest = data[24 + 32 * row :][:32].hex()
            place = data[24 + 32 * count + 16 * row :][:16]
            offset, length = int.from_bytes(place[:8], "big"), int.from_bytes(place[8:], "big")
            contents[digest] = pack[offset : offset + length]
    assert all(hashlib.sha256(data).hexdigest() == digest for digest, data in contents.items())
    raw = json.loads((top / "updates/u1/web1/manifest.json").read_text())
    ((kind, digest),) = raw["shadows"][0]["roots"]
    assert kind == "tree"
    lines = contents[digest].decode("ascii").splitlines()
    named = [line.split(" ")[7] for line in lines if line.startswith("f")]
    assert sorted(contents[one] for one in named) == sorted(TREE.values())
    assert_sealed(raw, "u1/web1/manifest.json")
    for number, line in enumerate((top / "updates/u1/web1/journal.jsonl").read_text().splitlines(), 1):
        assert json.loads(line)["n"] == number
        assert_sealed(json.loads(line), "u1/web1/journal.jsonl")


def assert_sealed(raw: dict[str, Any], place: str) -> None:
    """As the page says that `checksum` and `mac` are made."""
    given = raw.pop("checksum"), raw.pop("mac")
    text = (place + "\n" + json.dumps(raw, sort_keys=True, separators=(",", ":"))).encode("ascii")
    assert given[0] == "sha256:" + hashlib.sha256(text).hexdigest()
    assert given[1] == "hmac-sha256:" + hmac.new(KEY.encode(), text, hashlib.sha256).hexdigest()
