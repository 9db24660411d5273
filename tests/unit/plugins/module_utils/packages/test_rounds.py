# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which packages come and go, with a host in a dictionary (the real ones are tested with the provider)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import RestoreFailed
from ansible_collections.umbra.rollback.plugins.module_utils.packages.face import ABSENT, Package
from ansible_collections.umbra.rollback.plugins.module_utils.packages.rounds import Rounds


class Host(Rounds):
    """A package can't go while one that is there needs it, nor come while one that it can't bear is there."""

    def __init__(self, there: Collection[str], needs: Mapping[str, str], hates: Mapping[str, str]) -> None:
        self.there, self.needs, self.hates = set(there), needs, hates
        self.done: list[str] = []

    def remove(self, packages: Collection[Package], force: bool) -> dict[str, str]:
        """Note what goes."""
        return self._each([package.key for package in packages], "-", force)

    def install(self, archives: Mapping[str, str], force: bool) -> dict[str, str]:
        """Note what comes; an archive is called as its package will be."""
        return self._each(list(archives.values()), "+", force)

    def _each(self, keys: Collection[str], sign: str, force: bool) -> dict[str, str]:
        failed = {}
        for key in keys:
            bad = [
                one for one in self.there if (self.needs.get(one) == key if sign == "-" else self.hates.get(key) == one)
            ]
            if bad and not force:
                failed[key] = f"because of {bad[0]}"
                continue
            (self.there.discard if sign == "-" else self.there.add)(key)
            self.done.append(f"{sign}{key}{'!' * bool(bad)}")
        return failed


def absent(*keys: str) -> list[Package]:
    """Packages that are to go."""
    return [Package(*key.split(":"), "1", ABSENT) for key in keys]


def test_each_round_does_what_the_one_before_made_possible() -> None:
    """old hates new, which can only go when the other version of tool is there."""
    host = Host({"new:all", "toolnew:all"}, {"toolnew:all": "new:all"}, {"old:all": "new:all"})
    host.run("x", {"old:all": "old:all"}, absent("new:all", "toolnew:all"), forced=False)
    assert host.done[:3] == ["-toolnew:all", "-new:all", "+old:all"]


def test_what_is_stuck_is_not_forced_when_the_end_is_not_known_to_be_sound() -> None:
    host = Host({"new:all", "user:all"}, {"user:all": "new:all"}, {"old:all": "new:all"})
    with pytest.raises(RestoreFailed, match="new:all, old:all could not be changed: because of user:all"):
        host.run("x", {"old:all": "old:all"}, absent("new:all"), forced=False)
    assert host.there == {"new:all", "user:all"}


def test_when_it_is_packages_go_first() -> None:
    host = Host({"new:all", "user:all"}, {"user:all": "new:all"}, {"old:all": "new:all"})
    host.run("x", {"old:all": "old:all"}, absent("new:all"), forced=True)
    assert host.done == ["-new:all!", "+old:all"]


def test_what_went_without_force_may_have_taken_files_along_so_all_comes_again() -> None:
    host = Host({"new:all"}, {}, {})
    host.run("x", {"old:all": "old:all"}, absent("new:all"), forced=False)
    assert host.done == ["-new:all", "+old:all", "+old:all"]
