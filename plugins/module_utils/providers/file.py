# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files and trees of files: contents, and everything that a file system says about them."""

from __future__ import annotations

import glob
import os
import stat
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..context import Context
from ..errors import RestoreFailed, SourceMissing, StoreCorrupt, Unsupported, ValidationFailed
from ..kernel import selected
from ..resource import Interface, Option, Resource, name_for_path
from ..shadow import Claim, Root, Shadow
from ..tree import messages, native, rootfs
from ..tree.apply import Guard, apply_written
from ..tree.capture import Captured, capture, capture_found, estimate
from ..tree.compare import compare
from ..tree.drift import drift_found, summary
from ..tree.entry import decode, digests, largest
from ..tree.scan import Look, TreeOptions
from ..tree.written import Written
from .base import CHANGE, INCREMENTAL, Contents, Drift, Estimate, Outcome, Provider, Steps

STORE_FORMAT = b"umbra-store "


BLOCK = 4096  # bytes that the smallest file takes on most file systems


class FileProvider(Provider):
    """A file, a directory with all below it, a symlink, or a path at which there is nothing yet.

    A shadow has two contents, the listing (its digest is the checksum) and the stat index. `data`: `parent`, the
    directory of the path without symlinks, and `parents`, mode, uid and gid of its components, both empty when it was
    missing; `skipped`, the first mount points not entered; `unstable`, the first paths that changed each time they were
    read, if that is allowed; `read`, how many files were read.
    """

    type = "file"
    capabilities = frozenset({INCREMENTAL})
    interface = Interface(
        options={
            "path": Option("path", "The file or directory; a symlink is kept as one, not followed.", required=True),
            "exclude": Option("list", "Patterns of names to leave alone: *.log, cache/**, /var/tmp.", default=()),
            "one_file_system": Option("bool", "Do not enter what is mounted below the path.", default=True),
            "allow_missing": Option("bool", "Nothing at the path is a state too.", default=False),
            "allow_unstable": Option("bool", "Take a file as it is when it changes while it is read.", default=False),
        },
        query_options={
            "pattern": Option("path", "Paths to look for, such as /etc/shop/*.conf; ** goes any depth.", required=True),
            "min_age": Option("float", "Only what was modified at least so many seconds ago."),
            "max_age": Option("float", "Only what was modified at most so many seconds ago."),
            "kind": Option("str", "What to look for.", default="any", choices=("any", "file", "directory")),
        },
        versionable=True,
    )

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._written: Written | None = None  # by the last restore
        self._looked: tuple[Shadow, Look] | None = None  # by the last drift, for `displace_compared`

    def query(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What matches the pattern now, named by its path."""
        found = []
        for path in set(glob.iglob(options["pattern"], recursive=True)):
            path = path.rstrip("/") or "/"
            try:
                st = os.lstat(path)
            except OSError:
                continue  # it went away
            if _is_wanted(st, options, self.context.now()):
                found.append({"name": name_for_path(path), "path": path})
        return sorted(found, key=lambda one: one["name"])

    def estimate(self, resource: Resource) -> Estimate:
        """Size by stat alone. Raises SourceMissing, SourceUnreadable, Unsupported."""
        path, options = self._target(resource)
        size = estimate(path, options)
        _require_present(resource, size.items)
        return size

    def create(self, resource: Resource, previous: Shadow | None, contents: Contents) -> Shadow:
        """Shadow the tree; what did not change since `previous` is not read. Raises SourceMissing, SourceUnreadable,
        Unstable, Unsupported.
        """
        return self.create_within(resource, previous, contents, lambda size: None)

    def create_within(
        self, resource: Resource, previous: Shadow | None, contents: Contents, allow: Callable[[Estimate], None]
    ) -> Shadow:
        """As `create`, from one look at the tree."""
        path, options = self._target(resource)

        def allow_if_present(size: Estimate) -> None:
            _require_present(resource, size.items)
            allow(size)

        captured = capture(path, contents, options, _digests(previous) if previous else None, allow_if_present)
        return self._shadow(resource, captured)

    def _shadow(self, resource: Resource, captured: Captured) -> Shadow:
        _require_present(resource, captured.items)  # it may have gone meanwhile
        return Shadow(
            resource=resource,
            method="incremental" if captured.incremental else "copy",
            created=self.context.now(),
            seconds=0.0,
            bytes=captured.bytes,
            items=captured.items,
            stored_bytes=0,
            checksum=captured.tree,
            roots=(Root("tree", captured.tree), Root("blob", captured.stat)),
            data={
                **_place(captured.parent),
                "skipped": list(captured.skipped),
                "unstable": list(captured.unstable),
                "read": captured.read_items,
            },
        )

    def claims(self, resource: Resource) -> Sequence[Claim]:
        """It provides its path."""
        return (Claim("provides", "path", resource.options["path"], "option path"),)

    def verify(self, shadow: Shadow, contents: Contents) -> int:
        """Read the listing and every content in it. Raises StoreCorrupt, StoreFormatUnknown, ContentMissing."""
        if len(shadow.roots) != 2 or str(shadow.data.get("parent", ""))[:1] not in ("", "/"):
            raise StoreCorrupt(path=f"the manifest of {shadow.name}", problem="it is not that of a file tree")
        tree, stats = _digests(shadow)
        kernel = selected.kernel()
        lines, size = native.read_listing(kernel, contents, tree, stats) if kernel else (None, 0)
        if lines is not None:
            return size + native.verify(contents, lines.digests())
        listing = contents.get(tree)
        decode(listing)
        return contents.verify(sorted({tree, stats, *digests(listing)}))

    def drift(self, shadow: Shadow, contents: Contents) -> Drift:
        """What differs now; small texts are given whole."""
        path, options = self._target(shadow.resource)
        self.let_go()
        look = Look(path, options)
        weakref.finalize(look, look.fs.close)  # of who does not say when nobody goes on with it
        self._looked = shadow, look
        return drift_found(look, *_digests(shadow), contents, options)

    def let_go(self) -> None:
        """Close the root that the last `drift` opened."""
        if self._looked:
            self._looked[1].close()
        self._looked = None

    def extra_bytes(self, shadow: Shadow, contents: Contents) -> int:
        """Each file is there twice for a moment; and those that are gone take whole blocks when they come back."""
        blocks = shadow.items * BLOCK
        if shadow.bytes <= blocks:  # then no file is larger
            return blocks
        return max(blocks, largest(contents.get(shadow.roots[0].digest)))

    def displace(self, shadow: Shadow, contents: Contents) -> Shadow:
        """As `create`, of whatever is there: nothing, or what something still writes to."""
        kept = self.create(_lenient(shadow), shadow, contents)
        return replace(kept, resource=shadow.resource)

    def displace_compared(self, shadow: Shadow, contents: Contents) -> Shadow:
        """As `displace`, of what `drift` has seen a moment ago. What comes or changes after that is not as it was kept,
        so that `restore` neither replaces nor removes it; but with `allow_unstable` it would: then we look again.
        """
        (of, look), self._looked = self._looked or (None, None), None
        if look is None:
            return self.displace(shadow, contents)
        with look:
            if of is not shadow or not look.is_fresh() or shadow.resource.options["allow_unstable"]:
                return self.displace(shadow, contents)
            resource = _lenient(shadow)
            captured = capture_found(look, contents, self._target(resource)[1], _digests(shadow))
        return replace(self._shadow(resource, captured), resource=shadow.resource)

    def restore(self, shadow: Shadow, contents: Contents, steps: Steps) -> Outcome:
        """Write what differs; comparing shows what is left to do. Raises RestoreFailed, ChangedSinceKept, NoSpace."""
        path, options = self._target(shadow.resource)
        root, notes = self._find_parent(shadow, path)
        guard = Guard(_digests(steps.kept) if steps.kept else None, lambda: _note_change(steps))
        outcome, self._written = apply_written(root, *_digests(shadow), contents, options, guard)
        return replace(outcome, notes=outcome.notes + notes)

    def validate(self, shadow: Shadow, contents: Contents) -> None:
        """Compare everything again, and read what has another inode or ctime than when it was shadowed; but for what
        this very provider has just restored, if nobody can have changed it since (see Written).
        """
        path, options = self._target(shadow.resource)
        found = compare(path, *_digests(shadow), contents, options, self._written).differences
        # Something excluded may have come or gone since, and set the time of the directory it is in.
        wrong = tuple(one for one in found if not (options.exclude and one.is_directory_time))
        if wrong:
            raise ValidationFailed(
                name=shadow.name,
                problem=f"{len(wrong)} of {shadow.items} differ: {summary(path, wrong)}",
                remedy="Stop what writes there, or exclude it; then restore again.",
            )

    def _target(self, resource: Resource) -> tuple[bytes, TreeOptions]:
        """Where the tree is, and how to look at it. Raises Unsupported."""
        options = resource.options
        path = options["path"]
        if os.path.basename(path.rstrip("/")) in (".", ".."):
            raise Unsupported(name=resource.name, problem="its path ends with a dot", remedy="Name the thing itself.")
        store = store_of(self.context.place)
        if store and _is_below(path, store):
            raise Unsupported(name=resource.name, problem=f"{path} is in the store", remedy="Name another path.")
        return os.fsencode(path), TreeOptions(
            exclude=tuple(_anchored(options["exclude"], path)),
            one_file_system=options["one_file_system"],
            allow_unstable=options["allow_unstable"],
            name=resource.name,
            untouched=(os.fsencode(store),) if store else (),
            progress=self.context.progress,
        )

    def _find_parent(self, shadow: Shadow, path: bytes) -> tuple[bytes, tuple[str, ...]]:
        """The path to restore to, without symlinks on the way, and notes about it; missing parents are made.

        Raises RestoreFailed.
        """
        directory, dummy, name = path.rstrip(b"/").rpartition(b"/")
        known = os.fsencode(shadow.data["parent"])
        notes: list[str] = []
        try:
            try:
                now, owners = _resolve(directory)
            except FileNotFoundError:
                if not shadow.items or not known:
                    return path, ()
                made = rootfs.make_parents(known, shadow.data["parents"])
                notes.append(f"made {made} missing directories above {messages.printable(path)}")
                now, owners = _resolve(directory)
        except OSError as error:
            raise messages.not_restored(shadow.name, directory or b"/", error) from error
        if known and now != known:
            notes.append(_moved(shadow, path, known, now, owners))
        return os.path.join(now, name), tuple(notes)


def store_of(place: str) -> str:
    """The store that `place` is in, which is never shadowed and never restored over; empty when it is in none."""
    above = place
    while above not in ("", "/"):
        try:
            with open(os.path.join(above, "FORMAT"), "rb") as file:
                if file.read(len(STORE_FORMAT)) == STORE_FORMAT:
                    return above
        except OSError:
            pass  # there is no such file here: look further up
        above = os.path.dirname(above)
    return ""


def _is_below(path: str, directory: str) -> bool:
    """Whether `path`, itself not followed, is `directory` or in it."""
    above, name = os.path.split(path.rstrip("/"))
    return os.path.join(os.path.realpath(above), name, "").startswith(os.path.join(os.path.realpath(directory), ""))


def _anchored(patterns: Iterable[str], path: str) -> Iterable[str]:
    """The patterns, those that are written as absolute paths below `path` made relative to it."""
    prefix = path.rstrip("/") + "/"
    for pattern in patterns:
        yield pattern[len(prefix) - 1 :] if pattern.startswith(prefix) else pattern


def _is_wanted(st: os.stat_result, options: Mapping[str, Any], now: float) -> bool:
    kinds = {"any": True, "file": stat.S_ISREG(st.st_mode), "directory": stat.S_ISDIR(st.st_mode)}
    age = now - st.st_mtime
    low, high = options["min_age"], options["max_age"]
    return kinds[options["kind"]] and (low is None or age >= low) and (high is None or age <= high)


def _require_present(resource: Resource, items: int) -> None:
    if not items and not resource.options["allow_missing"]:
        raise SourceMissing(name=resource.name, path=messages.printable(os.fsencode(resource.options["path"])))


def _lenient(shadow: Shadow) -> Resource:
    return replace(shadow.resource, options={**shadow.resource.options, "allow_missing": True, "allow_unstable": True})


def _note_change(steps: Steps) -> None:
    if not steps.done(CHANGE):
        steps.note(CHANGE)


def _digests(shadow: Shadow) -> tuple[str, str]:
    tree, stats = shadow.roots
    return tree.digest, stats.digest


def _resolve(directory: bytes) -> tuple[bytes, frozenset[int]]:
    found = rootfs.locate(directory)
    os.close(found.fd)
    return found.path, found.link_owners


def _place(parent: str | None) -> dict[str, Any]:
    """Where what was shadowed is, and what the components of that path are like."""
    try:
        if parent is not None:
            return {"parent": parent, "parents": [list(one) for one in rootfs.parents(os.fsencode(parent))]}
    except OSError:
        pass  # it went away since
    return {"parent": "", "parents": []}  # it is missing, and so is the root


def _moved(shadow: Shadow, path: bytes, known: bytes, now: bytes, owners: frozenset[int]) -> str:
    """The note that the way to `path` leads elsewhere. Raises RestoreFailed when someone else may have turned it."""
    shown, was, where = (messages.printable(one) for one in (path, known, now))
    if os.geteuid() == 0 and owners - {0}:
        raise RestoreFailed(
            name=shadow.name,
            problem=f"the directory of {shown} was {was}, and a symlink that is not root's makes it {where}",
            remedy="Turn the symlink back, or restore as its owner.",
        )
    return f"the directory of {shown} was {was} and is {where} now: restored there"
