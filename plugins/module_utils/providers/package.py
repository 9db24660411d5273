# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets of packages: versions, configuration files, holds and marks; the way back needs no network."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .. import canonical, pathset
from ..errors import RestoreFailed, ShadowFailed, SourceMissing, ValidationFailed
from ..packages import managers
from ..packages.archives import Archives
from ..packages.face import ABSENT, CONFIGURED, INSTALLED, Manager, Package, Preview
from ..packages.host import Host
from ..packages.plan import Kept, Move, Work, mark_change, moves, paths_of, same_name, unmarked, with_leavings
from ..pathset import PathSet
from ..present import is_there
from ..resource import Interface, Option, Resource
from ..shadow import Claim, Root, Shadow
from .base import Change, Contents, Drift, Estimate, Outcome, Provider, Steps

PASSES = 3  # that something which came along is not needed any more can be seen only when what needed it is gone
SHOWN = 100
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._@:/-]")


class PackageProvider(Provider):
    """Packages that the user names, and their companions: others that an update of these is likely to change along.

    data: `manager`; `packages`, each as Kept; `host`, the digest of a Host; `set`, a PathSet of configuration files
    and of files of packages that people had changed.
    """

    type = "package"
    interface = Interface(
        options={
            "packages": Option("list", "Names of packages, as name or name:arch.", required=True),
            "manager": Option("str", "Whose packages.", default="auto", choices=("auto", "apt", "dnf")),
            "fetch": Option("bool", "Keep the present archives: then the way back needs no network.", default=True),
            "timeout": Option("float", "Seconds that a call of the manager, or its lock, may take.", default=600.0),
            "allow_missing": Option("bool", "That one of them is not installed is a state too.", default=False),
        },
        query_options={
            "pattern": Option("str", "Installed packages to look for, such as nginx*.", required=True),
            "manager": Option("str", "Whose packages.", default="auto", choices=("auto", "apt", "dnf")),
        },
    )

    def query(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Installed packages that match, a resource each. Raises Unsupported."""
        kind = options["manager"]
        found = managers.choose(self.context, f"query {options['pattern']}", kind, 600.0).find(options["pattern"])
        named = [{"name": _NOT_IN_NAMES.sub("_", name), "packages": [name], "manager": kind} for name in found]
        return sorted(named, key=lambda one: str(one["name"]))

    def estimate(self, resource: Resource) -> Estimate:
        """What the packages and their companions take, installed. Raises SourceMissing, ShadowFailed, Unsupported."""
        manager = self._manager(resource)
        covered = _covered(resource, manager, manager.installed())
        _require_whole(resource, covered)
        return Estimate(_size(manager, covered), len(covered))

    def create(self, resource: Resource, previous: Shadow | None, contents: Contents) -> Shadow:
        """Keep the archives, and what people made of their files. Raises SourceMissing, ShadowFailed, Unsupported."""
        manager = self._manager(resource)
        live = manager.installed()
        covered = _covered(resource, manager, live)
        _require_whole(resource, covered)
        shadow = self._shadow(resource, manager, live, covered, contents, resource.options["fetch"])
        if manager.installed() != live:
            remedy = "Run again when the package manager is done."
            raise ShadowFailed(name=resource.name, problem="packages were changed meanwhile", remedy=remedy)
        return shadow

    def displace(self, shadow: Shadow, contents: Contents) -> Shadow:
        """What a restore is about to change, however broken; archives only where the manager's cache has them."""
        manager = self._manager(shadow.resource)
        live = manager.installed()
        lenient = replace(shadow.resource, options={**shadow.resource.options, "allow_missing": True})
        covered = {one.package.key: one for one in _covered(lenient, manager, live)}
        for move in self._moves(shadow, manager, live, contents):
            package = move.live or replace(move.target, status=ABSENT)
            covered.setdefault(package.key, Kept(package, not move.companion))
        return self._shadow(shadow.resource, manager, live, list(covered.values()), contents, False)

    def claims(self, resource: Resource) -> Sequence[Claim]:
        """It provides its packages."""
        return [Claim("provides", "package", name, "option packages") for name in resource.options["packages"]]

    def verify(self, shadow: Shadow, contents: Contents) -> int:
        """Read every archive and file. Raises StoreCorrupt, ContentMissing."""
        return pathset.verify(shadow, contents)

    def drift(self, shadow: Shadow, contents: Contents) -> Drift:
        """Packages, marks, and files with their texts."""
        manager = self._manager(shadow.resource)
        live = manager.installed()
        changes = [move.change for move in self._moves(shadow, manager, live, contents)]
        changes += [mark_change(live[one.key], one) for one in unmarked(live, _kept(shadow))]
        kept, gone = self._files(shadow, manager, live, contents)
        paths = kept.drift(contents, shadow.name, gone)
        return Drift(len(changes) + paths.total, (*changes, *paths.changes)[:SHOWN], paths.bytes)

    def restore(self, shadow: Shadow, contents: Contents, steps: Steps) -> Outcome:
        """Packages, then their files, then marks. What is done can be seen, so `steps` stay empty.

        A companion that has no archive, or that others need as it is now, stays and is noted. Raises RestoreFailed,
        NoSpace.
        """
        manager, notes = self._manager(shadow.resource), dict[str, None]()
        items = size = 0
        with manager.lock():
            for dummy in range(PASSES):
                live = manager.installed()
                work = self._foresee(shadow, manager, self._moves(shadow, manager, live, contents), contents, notes)
                if not work:
                    break
                kept, gone = self._files(shadow, manager, live, contents)
                kept.remove(contents, shadow.name, gone)  # while they belong to what brought them
                manager.change(work.archives, work.remove, work.forced)
                items += len(work.moves)
                size += sum(map(os.path.getsize, work.archives.values()))
            live = manager.installed()
            kept, gone = self._files(shadow, manager, live, contents)
            files = kept.restore(contents, shadow.name, gone)
            marks = unmarked(live, _kept(shadow))
            manager.mark(marks)
        return Outcome(items + files.items + len(marks), size + files.bytes, manager.kind, tuple(notes))

    def validate(self, shadow: Shadow, contents: Contents) -> None:
        """Compare all, and have the manager look; a companion may have stayed. Raises ValidationFailed."""
        manager = self._manager(shadow.resource)
        live = manager.installed()
        wrong = [move.change for move in self._moves(shadow, manager, live, contents) if not move.may_stay]
        named = [one for one in _kept(shadow) if one.named]
        wrong += [mark_change(live[one.key], one) for one in unmarked(live, named)]
        kept, gone = self._files(shadow, manager, live, contents)
        wrong += kept.drift(contents, shadow.name, gone).changes
        problem = "; ".join(map(_words, wrong[:3])) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        problem = problem or manager.problem([one.package.key for one in named if one.target.status == INSTALLED])
        if problem:
            remedy = "Look at what the package manager says, then restore again."
            raise ValidationFailed(name=shadow.name, problem=problem, remedy=remedy)

    def _manager(self, resource: Resource) -> Manager:
        return managers.choose(self.context, resource.name, resource.options["manager"], resource.options["timeout"])

    def _moves(self, shadow: Shadow, manager: Manager, live: Mapping[str, Package], contents: Contents) -> list[Move]:
        known = Host.load(contents.get(shadow.data["host"])).packages
        return moves(manager, live, shadow.resource.options["packages"], _kept(shadow), known)

    def _foresee(
        self, shadow: Shadow, manager: Manager, found: list[Move], contents: Contents, notes: dict[str, None]
    ) -> Work:
        """What can be done of `found`. Raises RestoreFailed when that is not all that the user named."""
        store = Archives(self.context, manager, contents)
        paths = {}
        for move in filter(lambda one: one.installs, found):
            path = store.bring(move.target, move.digest)
            if path is not None:
                paths[move.target.key] = path
            elif move.companion:
                notes[f"{move.stays}: its archive was not kept, and no repository has it"] = None
            else:
                problem = (
                    f"the archive of {move.target.key} {move.target.version} was not kept, and no repository has it"
                )
                remedy = f"Put it into the cache of {manager.kind}, or have a repository that has it, then run again."
                raise RestoreFailed(name=shadow.name, problem=problem, remedy=remedy)
        work = Work(tuple(move for move in found if not move.installs or move.target.key in paths), paths)
        preview = manager.preview(*work.split)
        if preview.hurts:
            work = self._harmless(shadow, manager, work, notes)
            preview = Preview()
        if preview.unknown and work:
            notes[f"{manager.kind} could not foresee this: {preview.unknown}"] = None
        return replace(work, forced=not preview.unknown)

    def _harmless(self, shadow: Shadow, manager: Manager, work: Work, notes: dict[str, None]) -> Work:
        """What was named, with each companion that hurts nobody. Raises RestoreFailed when what was named does."""
        chosen = [move for move in work.moves if not move.companion]
        hurts = manager.preview(*work.only(chosen).split).hurts
        if hurts:
            problem = f"going back would remove or change {', '.join(hurts)} too"
            remedy = "Remove that or bring it back as well, then run again; nothing was changed."
            raise RestoreFailed(name=shadow.name, problem=problem, remedy=remedy)
        for move in work.moves:
            if move.companion:
                hurts = manager.preview(*work.only([*chosen, move]).split).hurts
                if hurts:
                    notes[f"{move.stays}: {', '.join(hurts)} would suffer"] = None
                else:
                    chosen.append(move)
        return work.only(chosen)

    def _files(
        self, shadow: Shadow, manager: Manager, live: Mapping[str, Package], contents: Contents
    ) -> tuple[PathSet, list[str]]:
        """The files of all packages that are as they were, and the paths beside them that are new since."""
        kept = _kept(shadow)
        stayed = {path for one in kept if not one.named and not one.is_back(live) for path in paths_of(one, manager)}
        host = Host.load(contents.get(shadow.data["host"]))
        keys = [now.key for one in kept for now in same_name(replace(one.package, arch=""), live)]
        config = {path for paths in manager.config_paths(keys).values() for path in paths}
        config.update(path for one in kept for path in one.config)
        new = {path for path in with_leavings(config, manager) if is_there(path) and host.is_new(path)}
        return PathSet.load(shadow.data["set"]).without(stayed), sorted(new - stayed)

    def _shadow(
        self,
        resource: Resource,
        manager: Manager,
        live: Mapping[str, Package],
        covered: Sequence[Kept],
        contents: Contents,
        network: bool,
    ) -> Shadow:
        kept = self._keep(resource, manager, covered, contents, network)
        paths = pathset.capture_paths(
            {path for one in kept for path in paths_of(one, manager)}, contents, resource.name
        )
        host = contents.put(Host.take(live).dump())
        state = {
            path: digest for one in kept if one.named for path, digest in paths.state.items() if path in one.config
        }
        checksum = canonical.digest({"packages": [one.state for one in kept if one.named], "config": state})
        archives = tuple(Root("blob", digest) for digest in dict.fromkeys(one.archive for one in kept if one.archive))
        return Shadow(
            resource=resource,
            method=manager.kind,
            created=self.context.now(),
            seconds=0.0,
            bytes=_size(manager, kept),
            items=len(kept),
            stored_bytes=0,
            checksum=checksum,
            roots=(*archives, Root("blob", host), *paths.roots),
            data={
                "manager": manager.kind,
                "packages": [one.to_dict() for one in kept],
                "host": host,
                "set": paths.data,
            },
        )

    def _keep(
        self, resource: Resource, manager: Manager, covered: Sequence[Kept], contents: Contents, network: bool
    ) -> list[Kept]:
        """With archive, configuration and damage. Raises ShadowFailed when `network` does not have a named one."""
        store = Archives(self.context, manager, contents)
        there = [one.package.key for one in covered if one.package.status != ABSENT]
        config, damage = manager.config_paths(there), manager.damage(there)
        kept = []
        for one in covered:
            key, archive = one.package.key, ""
            if one.target.status == INSTALLED:
                archive = store.keep(one.package, network)
                if network and one.named and not archive:
                    raise _nowhere(resource, one.package)
            paths = tuple(sorted(map(pathset.resolve, config.get(key, ()))))
            kept.append(replace(one, archive=archive, config=paths, damage=damage.get(key, {})))
        return kept


def _covered(resource: Resource, manager: Manager, live: Mapping[str, Package]) -> list[Kept]:
    """The packages that are named, and their companions, sorted. Raises SourceMissing."""
    names = resource.options["packages"]
    named = {}
    for word in names:
        keys = manager.keys(word, live)
        if not keys and not resource.options["allow_missing"]:
            raise SourceMissing(name=resource.name, path=f"package {word}")
        name, dummy, arch = word.partition(":")
        for package in [live[key] for key in keys] or [Package(name, arch, "", ABSENT)]:
            named[package.key] = Kept(package, True)
    companions = [Kept(live[key], False) for key in manager.companions(names, live) if key not in named]
    return sorted([*named.values(), *companions], key=lambda one: (one.package.name, one.package.arch))


def _require_whole(resource: Resource, covered: Iterable[Kept]) -> None:
    """Raise ShadowFailed for a package that is half-way: what it was before can't be known."""
    for one in covered:
        if one.named and one.package.status not in (INSTALLED, CONFIGURED, ABSENT):
            problem = f"{one.package.key} is {one.package.status}"
            remedy = "Finish what the package manager left undone first (dpkg --configure -a)."
            raise ShadowFailed(name=resource.name, problem=problem, remedy=remedy)


def _nowhere(resource: Resource, package: Package) -> ShadowFailed:
    problem = f"no repository has {package.key} {package.version} any more, so the way back would need what is nowhere"
    remedy = "Update it first, put its archive into the cache of the package manager, or set `fetch: false`."
    return ShadowFailed(name=resource.name, problem=problem, remedy=remedy)


def _kept(shadow: Shadow) -> list[Kept]:
    return [Kept.from_dict(raw) for raw in shadow.data["packages"]]


def _size(manager: Manager, kept: Iterable[Kept]) -> int:
    return sum(manager.size(one.package.key) for one in kept if one.package.status != ABSENT)


def _words(change: Change) -> str:
    if change.before == change.after or "\n" in change.before + change.after:
        return f"{change.what} differs"
    return f"{change.what} is {change.before or 'not there'} and was {change.after or 'not there'}"
