# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the tree room ask for again and again, in short."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible_collections.umbra.rollback.plugins.module_utils.providers.base import Outcome
from ansible_collections.umbra.rollback.plugins.module_utils.tree.apply import apply
from ansible_collections.umbra.rollback.plugins.module_utils.tree.capture import Captured, capture
from ansible_collections.umbra.rollback.plugins.module_utils.tree.compare import Difference, compare
from ansible_collections.umbra.rollback.plugins.module_utils.tree.entry import Entry, decode
from ansible_collections.umbra.rollback.plugins.module_utils.tree.scan import TreeOptions
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents


def shadow(root: Path, contents: MemoryContents, previous: Captured | None = None, **options: Any) -> Captured:
    """Shadow the tree at `root`, incrementally to `previous`."""
    digests = (previous.tree, previous.stat) if previous else None
    return capture(os.fsencode(root), contents, TreeOptions(name="tree", **options), digests)


def restore(root: Path, of: Captured, contents: MemoryContents, **options: Any) -> Outcome:
    """Make the tree at `root` what it was."""
    return apply(os.fsencode(root), of.tree, of.stat, contents, TreeOptions(name="tree", **options))


def differences(root: Path, of: Captured, contents: MemoryContents, **options: Any) -> tuple[Difference, ...]:
    """What a restore would change."""
    return compare(os.fsencode(root), of.tree, of.stat, contents, TreeOptions(name="tree", **options)).differences


def differing(root: Path, of: Captured, contents: MemoryContents, **options: Any) -> list[tuple[str, bytes]]:
    """What a restore would do, and where."""
    return [(one.action, one.path) for one in differences(root, of, contents, **options)]


def entries(of: Captured, contents: MemoryContents) -> dict[bytes, Entry]:
    """The listing, by path."""
    return {entry.path: entry for entry in decode(contents.get(of.tree))}
