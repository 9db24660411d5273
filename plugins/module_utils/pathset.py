# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths that belong together without being one tree (unit files, configuration files), each kept with full fidelity."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .errors import StoreCorrupt
from .providers.base import Contents, Drift, Estimate, Outcome
from .shadow import Root, Shadow
from .tree import entry, messages, rootfs
from .tree.apply import apply
from .tree.capture import capture
from .tree.capture import estimate as estimate_tree
from .tree.drift import SHOWN, drift
from .tree.scan import TreeOptions


@dataclass(frozen=True)
class PathSet:
    """Some paths as they were. `data` is what `PathSet.load` takes, JSON-ready; `roots` are the contents.

    data: `paths`, for each path that was there the digests of its listing and stat index; `directories`, for each
    directory of one its mode, uid and gid and those of all above it; `absent`, the digest of the listing of nothing.
    """

    paths: Mapping[str, Sequence[str]]
    directories: Mapping[str, Sequence[Sequence[int]]]
    absent: str
    bytes: int = 0
    items: int = 0

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> PathSet:
        """The set that has this `data`. Raises StoreCorrupt for a path that is none."""
        for path in (*data["paths"], *data["directories"]):
            if not path.startswith("/"):
                raise StoreCorrupt(path="a manifest", problem=f"{path!r} is not an absolute path")
        return cls(data["paths"], data["directories"], data["absent"])

    @property
    def data(self) -> dict[str, Any]:
        """What a shadow keeps of it."""
        directories = {path: [list(one) for one in modes] for path, modes in self.directories.items()}
        return {"paths": {k: list(v) for k, v in self.paths.items()}, "directories": directories, "absent": self.absent}

    @property
    def roots(self) -> tuple[Root, ...]:
        """The contents that it stands on."""
        found = {Root("tree", self.absent): None}
        for tree, stats in self.paths.values():
            found.update({Root("tree", tree): None, Root("blob", stats): None})
        return tuple(found)

    @property
    def state(self) -> dict[str, str]:
        """Equal for equal states: the digest of each path's listing."""
        return {path: digests[0] for path, digests in self.paths.items()}

    def without(self, paths: Collection[str]) -> PathSet:
        """The set but for some paths."""
        return replace(self, paths={path: digests for path, digests in self.paths.items() if path not in paths})

    def drift(self, contents: Contents, name: str, gone: Iterable[str] = ()) -> Drift:
        """What `restore` would change. Raises as tree.drift."""
        options = _options(name)
        found = [drift(os.fsencode(path), tree, stats, contents, options) for path, tree, stats in self._each(gone)]
        changes = [change for one in found for change in one.changes]
        return Drift(sum(one.total for one in found), tuple(changes[:SHOWN]), sum(one.bytes for one in found))

    def restore(self, contents: Contents, name: str, gone: Iterable[str] = ()) -> Outcome:
        """Make each path as it was, and those of `gone` absent; what is equal is not touched. Raises as tree.apply."""
        return self._apply(self._each(gone), contents, name)

    def remove(self, contents: Contents, name: str, gone: Iterable[str]) -> Outcome:
        """Make only the paths of `gone` absent. Raises as tree.apply."""
        return self._apply([(path, self.absent, None) for path in gone], contents, name)

    def _apply(self, wanted: Iterable[tuple[str, str, str | None]], contents: Contents, name: str) -> Outcome:
        items = size = 0
        for path, tree, stats in wanted:
            self._make_directory(path, name)
            outcome = apply(os.fsencode(path), tree, stats, contents, _options(name))
            items, size = items + outcome.items, size + outcome.bytes
        return Outcome(items, size, "in place")

    def _each(self, gone: Iterable[str]) -> list[tuple[str, str, str | None]]:
        there: list[tuple[str, str, str | None]] = [(path, tree, stats) for path, (tree, stats) in self.paths.items()]
        return there + [(path, self.absent, None) for path in gone if path not in self.paths]

    def _make_directory(self, path: str, name: str) -> None:
        directory = os.path.dirname(path)
        recorded = self.directories.get(directory)
        if recorded is None or os.path.isdir(directory):
            return
        try:
            rootfs.make_parents(os.fsencode(directory), recorded)
        except OSError as error:
            raise messages.not_restored(name, os.fsencode(directory), error) from error


def capture_paths(paths: Iterable[str], contents: Contents, name: str) -> PathSet:
    """Keep what is at each of `paths` (absolute, their directories without symlinks). Raises as tree.capture."""
    kept: dict[str, Sequence[str]] = {}
    directories: dict[str, Sequence[Sequence[int]]] = {}
    size = items = 0
    for path in sorted(set(paths)):
        captured = capture(os.fsencode(path), contents, _options(name))
        if captured.items:
            kept[path] = (captured.tree, captured.stat)
            directories[os.path.dirname(path)] = _modes(os.path.dirname(path), name)
            size, items = size + captured.bytes, items + captured.items
    return PathSet(kept, directories, contents.put(entry.encode(())), size, items)


def estimate_paths(paths: Iterable[str], name: str) -> Estimate:
    """Size of all, by stat alone. Raises as tree.estimate."""
    sizes = [estimate_tree(os.fsencode(path), _options(name)) for path in set(paths)]
    return Estimate(sum(size.bytes for size in sizes), sum(size.items for size in sizes))


def resolve(path: str) -> str:
    """The same path, its directory without symlinks."""
    directory, name = os.path.split(path)
    return os.path.join(os.path.realpath(directory), name)


def verify(shadow: Shadow, contents: Contents) -> int:
    """Read all that a shadow with a `set` stands on; how many bytes. Raises StoreCorrupt, ContentMissing."""
    PathSet.load(shadow.data["set"])
    return verify_roots(shadow.roots, contents)


def verify_roots(roots: Iterable[Root], contents: Contents) -> int:
    """Read every content, those that listings name too; how many bytes. Raises StoreCorrupt, ContentMissing."""
    digests = set()
    for root in roots:
        digests.add(root.digest)
        if root.kind == "tree":
            listing = contents.get(root.digest)
            entry.decode(listing)
            digests.update(entry.digests(listing))
    return contents.verify(sorted(digests))


def _modes(directory: str, name: str) -> Sequence[Sequence[int]]:
    try:
        return rootfs.parents(os.fsencode(directory))
    except OSError as error:
        raise messages.unreadable(name, os.fsencode(directory), error) from error


def _options(name: str) -> TreeOptions:
    return TreeOptions(name=name)
