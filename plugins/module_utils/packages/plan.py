# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What packages were, what they are, and what lies between."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .. import pathset
from ..providers.base import Change
from .face import ABSENT, CONFIGURED, INSTALLED, Manager, Package


@dataclass(frozen=True)
class Kept:
    """A package as it was, `named` by the user or a companion. `archive` is a digest; empty when it was not kept.

    `config` are its configuration files, `damage` those of its files that were not as they were packaged.
    """

    package: Package
    named: bool
    archive: str = ""
    config: tuple[str, ...] = ()
    damage: Mapping[str, str] = field(default_factory=dict)

    @property
    def target(self) -> Package:
        """The package as it is to be: one that was half-way can't be made so again, and is installed."""
        status = self.package.status
        return self.package if status in (ABSENT, CONFIGURED) else replace(self.package, status=INSTALLED)

    @property
    def state(self) -> list[Any]:
        """Equal for equal states."""
        package = self.package
        return [package.key, package.version, package.status, _marks(package), dict(self.damage)]

    def is_back(self, live: Mapping[str, Package]) -> bool:
        """Whether it is there as it was, or not there as it was not."""
        return not _moves_of(self, live)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        own = {"named": self.named, "archive": self.archive, "config": list(self.config), "damage": dict(self.damage)}
        return {**asdict(self.package), **own}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Kept:
        """The package that `to_dict` wrote."""
        fields = dict(raw)
        own = {key: fields.pop(key) for key in ("named", "archive", "config", "damage")}
        return cls(Package(**fields), own["named"], own["archive"], tuple(own["config"]), own["damage"])


@dataclass(frozen=True)
class Move:
    """One package that has to become `target`. `kept` is None for what came along with the update."""

    target: Package
    live: Package | None
    kept: Kept | None

    @property
    def installs(self) -> bool:
        """Whether it needs an archive."""
        return self.target.status == INSTALLED

    @property
    def companion(self) -> bool:
        """Whether the user did not name it."""
        return self.kept is None or not self.kept.named

    @property
    def digest(self) -> str:
        """That of its archive, if it was kept."""
        return self.kept.archive if self.kept else ""

    @property
    def may_stay(self) -> bool:
        """Whether it is no failure when it is not done: a companion that is whole."""
        return self.companion and (self.live is None or self.live.status in (INSTALLED, CONFIGURED))

    @property
    def stays(self) -> str:
        """That it was not done, in words."""
        return f"{self.target.key} stays {describe(self.live)} and was {describe(self.target)}"

    @property
    def change(self) -> Change:
        """In words."""
        action = "remove" if not self.installs else "replace" if self.live else "create"
        return Change(action, f"package {self.target.key}", describe(self.live), describe(self.target))


def moves(
    manager: Manager, live: Mapping[str, Package], names: Collection[str], kept: Sequence[Kept], known: Collection[str]
) -> list[Move]:
    """All that a restore has to do. `known` are the keys of all packages that were there when the shadow was made."""
    found = [move for one in kept for move in _moves_of(one, live)]
    moving = {move.target.key for move in found}
    unmoved = {one.package.key: one for one in kept if one.target.status == INSTALLED and one.package.key not in moving}
    for key, damage in manager.damage(list(unmoved)).items():
        if any(unmoved[key].damage.get(path) != wrong for path, wrong in damage.items()):
            found.append(Move(unmoved[key].target, live[key], unmoved[key]))
    came = {key for key, package in live.items() if package.auto} - moving - set(known) - set(unmoved)
    for key in sorted(came & manager.leftovers(names, live)) if came else ():  # to ask takes time
        found.append(Move(replace(live[key], status=ABSENT), live[key], None))
    return found


@dataclass(frozen=True)
class Work:
    """One change of the host: moves, and the archives of those that install. `forced` as in Manager.change."""

    moves: tuple[Move, ...] = ()
    archives: Mapping[str, str] = field(default_factory=dict)
    forced: bool = False

    def __bool__(self) -> bool:
        return bool(self.moves)

    @property
    def remove(self) -> list[Package]:
        """What goes."""
        return [move.target for move in self.moves if not move.installs]

    @property
    def split(self) -> tuple[Collection[str], list[Package]]:
        """Paths of archives, and what goes."""
        return self.archives.values(), self.remove

    def only(self, chosen: Iterable[Move]) -> Work:
        """A part of it."""
        moves = tuple(chosen)
        keys = {move.target.key for move in moves}
        return Work(moves, {key: path for key, path in self.archives.items() if key in keys})


def unmarked(live: Mapping[str, Package], kept: Sequence[Kept]) -> list[Package]:
    """The packages that are back, and are held or marked otherwise than they were."""
    back = [one.target for one in kept if one.target.status == INSTALLED and one.is_back(live)]
    return [one for one in back if _marks(one) != _marks(live[one.key])]


def mark_change(live: Package, target: Package) -> Change:
    """In words."""
    return Change("metadata", f"package {target.key}", _marks(live), _marks(target))


def paths_of(one: Kept, manager: Manager) -> set[str]:
    """The files of a package that are kept by themselves, with what the manager may leave beside them."""
    return with_leavings(one.config, manager) | {pathset.resolve(path) for path in one.damage}


def with_leavings(paths: Iterable[str], manager: Manager) -> set[str]:
    """Paths of configuration files, and what the manager may leave beside them."""
    return {f"{pathset.resolve(path)}{suffix}" for path in paths for suffix in ("", *manager.leavings)}


def same_name(package: Package, live: Mapping[str, Package]) -> list[Package]:
    """What is there under a package's name; of any architecture, when it had none."""
    return [now for now in live.values() if now.name == package.name and package.arch in ("", now.arch)]


def describe(package: Package | None) -> str:
    """Its version, or its status."""
    if package is None:
        return ABSENT
    return package.version if package.status == INSTALLED else f"{package.version} ({package.status})".strip()


def _marks(package: Package) -> str:
    held = f"held{f' ({package.lock})' * bool(package.lock)}" if package.held else "not held"
    return f"{held}, {'automatic' if package.auto else 'manual'}"


def _moves_of(one: Kept, live: Mapping[str, Package]) -> list[Move]:
    target = one.target
    if target.status == INSTALLED:
        now = live.get(target.key)
        if now and (now.version, now.status) == (target.version, INSTALLED):
            return []
        return [Move(target, now or next(iter(same_name(replace(target, arch=""), live)), None), one)]
    fine = (CONFIGURED,) if target.status == CONFIGURED else ()
    return [
        Move(replace(now, status=target.status), now, one) for now in same_name(target, live) if now.status not in fine
    ]
