# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which paths make up a unit."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.systemd import files

FILES = (
    "etc/shop.service",
    "etc/shop.service.d/a.conf",
    "etc/shop@.service",
    "etc/shop@one.service.d/a.conf",
    "etc/other.service",
    "etc/service.d/all.conf",
    "etc/shop.service.wants/other.service",
    "lib/shop.service",
)
LINKS = {
    "etc/multi-user.target.wants/shop.service": "/lib/shop.service",
    "etc/multi-user.target.wants/shop@one.service": "/etc/shop@.service",
    "etc/multi-user.target.wants/shop@two.service": "/etc/shop@.service",
    "etc/multi-user.target.wants/alias.service": "../shop.service",
    "etc/alias.service": "shop.service",
    "etc/alias@.service": "shop@.service",
    "etc/multi-user.target.requires/other.service": "/etc/other.service",
    "lib/basic.target.upholds/shop.service": "../shop.service",
}


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    """Two directories of units, and one that is not there."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    for name, target in LINKS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(target)
    return [f"{tmp_path}/{name}" for name in ("etc", "lib", "missing")]


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        (
            "shop.service",
            [
                "etc/alias.service",
                "etc/multi-user.target.wants/alias.service",
                "etc/multi-user.target.wants/shop.service",
                "etc/shop.service",
                "etc/shop.service.d",
                "lib/basic.target.upholds/shop.service",
                "lib/shop.service",
            ],
        ),
        (
            "shop@one.service",
            [
                "etc/alias@.service",
                "etc/multi-user.target.wants/shop@one.service",
                "etc/shop@.service",
                "etc/shop@one.service.d",
            ],
        ),
        ("other.service", ["etc/multi-user.target.requires/other.service", "etc/other.service"]),
        ("none.service", []),
    ],
)
def test_what_belongs_to_a_unit(tmp_path: Path, places: list[str], unit: str, expected: list[str]) -> None:
    assert files.find(places, unit) == [f"{tmp_path}/{name}" for name in expected]


@pytest.mark.parametrize(
    ("path", "defines"),
    [
        ("/etc/systemd/system/shop@.service", True),
        ("/etc/systemd/system/shop@one.service.d", True),
        ("/etc/systemd/system/shop@one.service.d/a.conf", True),
        ("/etc/systemd/system/multi-user.target.wants/shop@one.service", False),
        ("/etc/systemd/system/alias@.service", False),
    ],
)
def test_what_says_what_a_unit_does(path: str, defines: bool) -> None:
    assert files.is_definition(path, "shop@one.service") is defines


def test_only_empty_directories_of_links_are_removed(tmp_path: Path) -> None:
    for name in ("a.wants", "b.wants", "c.d"):
        (tmp_path / name).mkdir()
    (tmp_path / "b.wants/x").touch()
    files.remove_empty([f"{tmp_path}/{name}/gone" for name in ("a.wants", "b.wants", "c.d", "missing.wants")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.wants", "c.d"]


@pytest.mark.parametrize(
    ("unit", "name"), [("a-b.mount", "a-b.mount"), ("-.mount", "_-.mount"), ("a\\x2db.mount", "a_x2db.mount")]
)
def test_a_resource_s_name(unit: str, name: str) -> None:
    assert files.resource_name(unit) == name
