# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode: what a store would get is counted, and nothing is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import ContentMissing
from ansible_collections.umbra.rollback.plugins.module_utils.providers.base import Contents
from ansible_collections.umbra.rollback.plugins.module_utils.store.dry import DryContents
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store

from .helpers import files_below, publish


def test_reads_pass_through_and_puts_are_counted(store: Store, tmp_path: Path) -> None:
    publish(store, "u1", {"a": b"there"})
    there = store.contents.put(b"there")
    before = files_below(tmp_path)
    dry: Contents = DryContents(store.contents)
    assert dry.get(there) == b"there" and dry.size(there) == 5 and dry.has(there)
    assert dry.put(b"there") == there
    assert dry.new_bytes == 0
    data = os.urandom(300_000)
    (tmp_path / "source").write_bytes(data)
    fd = os.open(tmp_path / "source", os.O_RDWR)
    digest, size = dry.put_fd(fd)
    assert dry.put(data) == digest and size == len(data) == dry.size(digest) == dry.new_bytes
    assert dry.has(digest) and not store.contents.has(digest)
    assert dry.verify([there, digest]) == 5
    with pytest.raises(ContentMissing):
        dry.get(digest)
    assert dry.copy_to(there, fd) == 5
    os.close(fd)
    assert files_below(tmp_path) == before | {"source"}


def test_files_that_say_they_are_empty(store: Store) -> None:
    dry = DryContents(store.contents)
    fd = os.open("/proc/self/status", os.O_RDONLY)
    assert dry.put_fd(fd)[1] > 100
    os.close(fd)
