# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is damaged, and what has to hold then: both twins say the same, or refuse it in one clear sentence."""

from __future__ import annotations

import json
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.umbra.rollback.plugins.module_utils import canonical
from ansible_collections.umbra.rollback.plugins.module_utils.errors import UmbraError
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import selected
from ansible_collections.umbra.rollback.plugins.module_utils.shadow import Manifest, Root
from ansible_collections.umbra.rollback.plugins.module_utils.store.seal import Seal
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store
from ansible_collections.umbra.rollback.plugins.module_utils.tree import entry, statindex
from ansible_collections.umbra.rollback.plugins.module_utils.tree.apply import extract
from ansible_collections.umbra.rollback.plugins.module_utils.tree.capture import capture
from ansible_collections.umbra.rollback.plugins.module_utils.tree.compare import compare
from ansible_collections.umbra.rollback.plugins.module_utils.tree.scan import TreeOptions
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.store.helpers import manifest, shadow
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.tree.trees import (
    IS_ROOT,
    break_small,
    build_rich,
    build_small,
    picture,
)
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents
from ansible_collections.umbra.rollback.tests.unit.support.twins import BUILT

OPTIONS = TreeOptions(name="tree")
TWINS = ("pure", "native")
UPDATE = "u-1"


@contextmanager
def using(twin: str) -> Iterator[Any]:
    """Let that twin do the work; the native kernel, or None."""
    selected.choose_content(twin, _KERNEL if twin == "native" else None)
    try:
        yield selected.kernel()
    finally:
        selected.choose_content("pure", None)


_KERNEL = BUILT.read_bytes()


def told(call: Callable[[], Any]) -> Any:
    """What it gives, or the sentence of the UmbraError that it raises."""
    try:
        return call()
    except UmbraError as error:
        said = str(error)
        assert said.endswith(".") and "\n" not in said, said
        return type(error).__name__, said


def both(call: Callable[[], Any]) -> tuple[Any, Any]:
    """What it gives with each twin."""
    found = []
    for twin in TWINS:
        with using(twin):
            found.append(told(call))
    return found[0], found[1]


def is_refusal(found: Any) -> bool:
    """Whether `told` has an error's sentence."""
    return isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], str) and isinstance(found[1], str)


class Target(ABC):
    """One format. `corpus` is good; `check` raises AssertionError, or dies, when damaged data does damage."""

    corpus: Sequence[bytes]

    @abstractmethod
    def check(self, data: bytes) -> None:
        """See what is made of `data`."""


class _Trees(Target):
    """A tree, its shadow, and what became of it."""

    def __init__(self, place: Path) -> None:
        self.contents = MemoryContents()
        self.root = build_small(place / "root")
        self.listings: list[bytes] = []
        self.stats: list[bytes] = []
        for number, build in enumerate((build_small, build_rich) if IS_ROOT else (build_small,)):
            self._shadow(build(place / f"other-{number}"))
        time.sleep(2.1)  # by then no index calls anything racy
        self.shadow = self._shadow(self.root)
        break_small(self.root)
        time.sleep(0.03)
        self._known = dict(self.contents.blobs)

    def _shadow(self, root: Path) -> tuple[str, str]:
        made = capture(os.fsencode(root), self.contents, OPTIONS)
        self.listings.append(self.contents.get(made.tree))
        self.stats.append(self.contents.get(made.stat))
        return made.tree, made.stat

    def _seen(self, tree: str, stats: str) -> Any:
        """All that a comparison with the tree says."""
        found = compare(os.fsencode(self.root), tree, stats, self.contents, OPTIONS)
        differences = [(one.action, one.path, one.entry, one.why) for one in found.differences]
        return differences, found.conflicts, found.links, found.bytes

    def _again(self, tree: str, stats: str) -> Any:
        """The tree's digest in the next shadow."""
        return capture(os.fsencode(self.root), self.contents, OPTIONS, (tree, stats)).tree

    def _reset(self) -> None:
        self.contents.blobs = dict(self._known)


class Listing(_Trees):
    """A listing; its stat index belongs to it as far as it can."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.corpus = self.listings
        self._lines = self.contents.get(self.shadow[1]).split(b"\n", 2)[2]
        self._good = self._again(*self.shadow)

    def check(self, data: bytes) -> None:
        pure = told(lambda: entry.decode(data))
        with using("native") as kernel:
            native = kernel.listing(data)
        if native is not None:
            assert not is_refusal(pure), pure
            assert [native.line(number) for number in range(len(native))] == list(map(entry.format_line, pure))
            assert all(native.find(one.path) == number for number, one in enumerate(pure))
            assert native.digests().hex() == "".join(entry.digests(data))
        tree = self.contents.put(data)
        stats = self.contents.put(statindex.encode(tree, time.time_ns(), self._lines))
        seen = both(lambda: self._seen(tree, stats))
        assert seen[0] == seen[1], seen
        again = both(lambda: self._again(tree, stats))
        # What the native kernel refuses it reads anew.
        assert again[1] in (again[0], self._good), again
        self._reset()


class StatIndex(_Trees):
    """A stat index of a good listing: it saves work, and never changes what is found."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.corpus = [self.contents.get(self.shadow[1]), *self.stats]
        self._good = self._seen(*self.shadow), self._again(*self.shadow)

    def check(self, data: bytes) -> None:
        told(lambda: statindex.decode(data, self.shadow[0], self.listings[-1].count(b"\n") - 1))
        tree, stats = self.shadow[0], self.contents.put(data)
        for found in both(lambda: (self._seen(tree, stats), self._again(tree, stats))):
            assert found == self._good, found
        self._reset()


class _Packed(Target):
    """A store of small contents, one of whose files is damaged."""

    suffix = ""

    def __init__(self, place: Path) -> None:
        self._place, self._number = place, 0
        store = Store.open(str(place / "store"), "h", create=True)
        root = build_small(place / "root")
        for number in range(60):
            (root / f"file-{number}").write_bytes(bytes([number]) * number * 50)
        self._picture = picture(root)
        self._tree = capture(os.fsencode(root), store.contents, OPTIONS).tree
        self._wanted = sorted({self._tree, *entry.digests(store.contents.get(self._tree))})
        store.contents.flush()
        (self._file,) = (place / "store" / "packs").glob(f"*{self.suffix}")
        self.corpus = [self._file.read_bytes()]

    def check(self, data: bytes) -> None:
        self._file.write_bytes(data)
        self._number += 1
        verified = both(lambda: self._open().verify(self._wanted))
        assert verified[0] == verified[1], verified
        lists = both(lambda: [told(lambda: self._open().get(digest)) for digest in self._wanted[::7]])  # noqa: B023
        assert lists[0] == lists[1], lists
        wanted = b"".join(map(bytes.fromhex, self._wanted))
        lacks = both(lambda: self._open().lacking(wanted))
        assert lacks[0] == lacks[1], lacks
        if self._number % 8 == 0:
            made = both(self._restore)
            assert is_refusal(made[0]) == is_refusal(made[1]), made

    def _open(self) -> Any:
        return Store.open(str(self._place / "store"), "h").contents

    def _restore(self) -> Any:
        """A restore is refused, or gives exactly what was shadowed."""
        copy = self._place / "copy"
        try:
            extract(os.fsencode(copy), self._tree, self._open())
            assert picture(copy) == self._picture
        finally:
            shutil.rmtree(copy, ignore_errors=True)


class PackIndex(_Packed):
    """The index of a pack."""

    suffix = ".idx"


class Pack(_Packed):
    """The contents of a pack."""

    suffix = ".pack"


class ManifestFile(Target):
    """The manifest of an update; half of the damaged ones get a checksum that fits, as bad people would."""

    def __init__(self, place: Path) -> None:
        self._store = Store.open(str(place / "store"), "h", create=True)
        shadows = [shadow(f"r{number}", Root("blob", f"{number}" * 64)) for number in range(3)]
        self._update = self._store.update(UPDATE)
        self._good = manifest(self._store, UPDATE, *shadows)
        self._update.publish(self._good, {})
        self._path = Path(self._update.manifest_path)
        self.corpus = [self._path.read_bytes()]

    def check(self, data: bytes) -> None:
        self._read(data)
        try:
            value = json.loads(data)
            if not isinstance(value, dict):
                return
            value.pop("checksum", None)
            data = canonical.dumps(Seal().close(value, f"{UPDATE}/h/manifest.json"))
        except (ValueError, RecursionError):
            return  # it was tried as it is
        self._read(data, forged=True)

    def _read(self, data: bytes, forged: bool = False) -> None:
        self._path.write_bytes(data)
        found = told(self._update.manifest)
        if is_refusal(found):
            return
        assert forged or found == self._good, found
        assert Manifest.from_dict(found.to_dict(), "again") == found
        told(lambda: self._update.state)


class JournalFile(Target):
    """The journal of an update: what can be read of it is read."""

    def __init__(self, place: Path) -> None:
        self._update = Store.open(str(place / "store"), "h", create=True).update(UPDATE)
        for event in ("create", "restore-begin", "restore-end", "commit"):
            self._update.journal.append(event, ok=True)
        (self._path,) = (place / "store").rglob("journal.jsonl")
        self.corpus = [self._path.read_bytes()]

    def check(self, data: bytes) -> None:
        self._path.write_bytes(data)
        found = told(self._update.journal.events)
        assert is_refusal(found) or all(isinstance(event["event"], str) for event in found), found
        told(self._update.journal.check)


TARGETS: dict[str, Callable[[Path], Target]] = {
    "listing": Listing,
    "stat-index": StatIndex,
    "pack-index": PackIndex,
    "pack": Pack,
    "manifest": ManifestFile,
    "journal": JournalFile,
}
