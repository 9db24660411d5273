# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one face of all package managers: what the package provider asks of apt and of dnf."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

from ..context import Context

INSTALLED = "installed"
CONFIGURED = "config-files"  # removed, but for its configuration (Debian)
ABSENT = "not-installed"


@dataclass(frozen=True)
class Package:
    """One package as the database of packages has it.

    `status` is INSTALLED, CONFIGURED, ABSENT, or the manager's word for one that is half-way. `held`: never upgraded by
    itself; `lock` says how, where there is more than one way. `auto`: there only because others need it.
    """

    name: str
    arch: str
    version: str
    status: str = INSTALLED
    held: bool = False
    auto: bool = False
    lock: str = ""

    @property
    def key(self) -> str:
        """Its name among all that are installed."""
        return f"{self.name}:{self.arch}"


@dataclass(frozen=True)
class Preview:
    """What a change would do beyond what was asked: packages that it `hurts`; or why that is `unknown`."""

    hurts: tuple[str, ...] = ()
    unknown: str = ""


class Manager(ABC):
    """One package manager of this host, for the resource `name`. What it calls is ended after `timeout` seconds.

    Unless it says so, a method only reads, and raises CommandFailed or ToolMissing when the manager does not answer.
    """

    kind: ClassVar[str]
    suffix: ClassVar[str]  # of an archive's name
    leavings: ClassVar[tuple[str, ...]]  # suffixes of what the manager leaves beside a configuration file

    def __init__(self, context: Context, name: str, timeout: float) -> None:
        self.context = context
        self.name = name
        self.timeout = timeout

    @abstractmethod
    def installed(self) -> dict[str, Package]:
        """Every package of the host that is not ABSENT, by key."""

    def keys(self, word: str, state: Mapping[str, Package]) -> list[str]:
        """The keys in `state` that a user means by a name, or by name:arch."""
        return [key for key, package in state.items() if word in (key, package.name)]

    @abstractmethod
    def find(self, pattern: str) -> list[str]:
        """Names of the installed packages that match a shell pattern, sorted."""

    @abstractmethod
    def size(self, key: str) -> int:
        """Bytes that an installed package takes, roughly."""

    @abstractmethod
    def companions(self, names: Collection[str], state: Mapping[str, Package]) -> set[str]:
        """Keys of other installed packages that an update of `names` is likely to change or remove along with them."""

    @abstractmethod
    def leftovers(self, names: Collection[str], state: Mapping[str, Package]) -> set[str]:
        """Keys of automatically installed packages that only `names` need, or that nothing needs any more."""

    @abstractmethod
    def config_paths(self, keys: Collection[str]) -> dict[str, set[str]]:
        """Absolute paths of the configuration files that packages brought, by key."""

    @abstractmethod
    def damage(self, keys: Collection[str]) -> dict[str, dict[str, str]]:
        """Files that are not as they were packaged, configuration left out: by key, path to what is wrong."""

    @abstractmethod
    def fetch(self, package: Package, directory: str, network: bool) -> str | None:
        """The path of an archive of exactly this package: out of the manager's cache, or with `network` from its
        repository (into `directory`). None when it is nowhere."""

    @abstractmethod
    def lock(self) -> AbstractContextManager[None]:
        """Hold the package database against everybody else. Raises RestoreFailed, with the holder, after `timeout`."""

    @abstractmethod
    def preview(self, archives: Collection[str], remove: Collection[Package]) -> Preview:
        """What `change` would do to other packages."""

    @abstractmethod
    def change(self, archives: Mapping[str, str], remove: Collection[Package], forced: bool) -> None:
        """Install archives (path by key; older than what is there or equal is fine), and remove packages: those that
        are to become ABSENT with their configuration, CONFIGURED without. Asks nothing.

        `forced`: `preview` said that it hurts nobody, so that what goes may go at once. Under `lock`; may be repeated.
        Raises RestoreFailed.
        """

    @abstractmethod
    def mark(self, packages: Iterable[Package]) -> None:
        """Set `held`, `lock` and `auto` of installed packages as given. Under `lock()`; may be repeated.

        Raises RestoreFailed.
        """

    @abstractmethod
    def problem(self, keys: Collection[str]) -> str:
        """What the manager finds wrong with these packages, in one line; empty when they are sound."""
