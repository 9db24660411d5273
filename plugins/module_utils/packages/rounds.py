# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removing some packages and installing others, when the order in which that is possible is not known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping

from ..errors import RestoreFailed
from .face import Package


class Rounds(ABC):
    """Tries all that is left, as long as each round makes something possible that was not before."""

    @abstractmethod
    def remove(self, packages: Collection[Package], force: bool) -> dict[str, str]:
        """Remove packages; what failed, by key, with the manager's last words. `force`: even when others need them."""

    @abstractmethod
    def install(self, archives: Mapping[str, str], force: bool) -> dict[str, str]:
        """Install archives (paths by key), or at least unpack them; as `remove`."""

    def run(self, name: str, archives: Mapping[str, str], packages: Collection[Package], forced: bool) -> None:
        """Do all of it. With `forced`, the end is known to be sound: packages go at once, and what is stuck is forced.

        Without, each goes when nothing needs it any more; it may take files along that belonged to the others before,
        so these are installed once more. Raises RestoreFailed.
        """
        todo, gone, force = dict(archives), list(packages), False
        while todo or gone:
            failed = {**self.remove(gone, forced), **self.install(todo, force)}
            stuck = len(failed) == len(todo) + len(gone)
            if stuck and (force or not forced):
                raise not_changed(name, failed)
            force = force or stuck
            gone = [package for package in gone if package.key in failed]
            todo = {key: path for key, path in todo.items() if key in failed}
        if packages and not forced:
            self.install(archives, False)


def not_changed(name: str, failed: Mapping[str, str]) -> RestoreFailed:
    """The error for packages (by key) that the manager refuses, and what it says of the first."""
    problem = f"{', '.join(failed)} could not be changed: {next(iter(failed.values()))}"
    return RestoreFailed(name=name, problem=problem, remedy="Correct what is named there, then run again.")
