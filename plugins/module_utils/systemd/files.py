# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which paths make up a unit: its file, its drop-ins, and the symlinks that enable, alias or mask it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator

from ..present import is_there

LINK_DIRECTORIES = (".wants", ".requires", ".upholds")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._@:/-]")


def find(places: Iterable[str], unit: str) -> list[str]:
    """All paths of the unit that exist now in the directories `places`, sorted."""
    own = names(unit)
    found: set[str] = set()
    for place in places:
        found.update(path for name in own for path in (f"{place}/{name}", f"{place}/{name}.d") if is_there(path))
        found.update(path for path in _links(place) if _is_link_of(path, unit))
    return sorted(found)


def names(unit: str) -> tuple[str, ...]:
    """The names of its files: its own, and that of the template it is an instance of."""
    template = re.sub(r"@.+(\.[a-z]+)$", r"@\1", unit)
    return (unit,) if template == unit else (unit, template)


def is_definition(path: str, unit: str) -> bool:
    """Whether `path` says what the unit does; else it only says when it is started."""
    directory, name = path.split("/")[-2:]
    own = {part for one in names(unit) for part in (one, f"{one}.d")}
    return not directory.endswith(LINK_DIRECTORIES) and (name in own or directory in own)


def remove_empty(paths: Iterable[str]) -> None:
    """Remove the directories of links that became empty when `paths` were removed, as systemctl does."""
    for directory in {os.path.dirname(path) for path in paths}:
        if directory.endswith(LINK_DIRECTORIES):
            with contextlib.suppress(OSError):  # it holds links of other units, or is gone already
                os.rmdir(directory)


def resource_name(unit: str) -> str:
    """A resource name for a unit: \\x2d and a leading dash are not allowed in one."""
    name = _NOT_IN_NAMES.sub("_", unit)
    return name if name[0].isalnum() else f"_{name}"


def _links(place: str) -> Iterator[str]:
    """Symlinks in a directory of units, and in its directories of links."""
    for entry in _scan(place):
        if entry.is_symlink():
            yield entry.path
        elif entry.name.endswith(LINK_DIRECTORIES):
            yield from (link.path for link in _scan(entry.path) if link.is_symlink())


def _scan(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:
        return []  # not there, no directory, or closed to us: systemd finds nothing in it either


def _is_link_of(path: str, unit: str) -> bool:
    """By its name, or because it leads to the unit; an alias of its template leads to every instance."""
    name = os.path.basename(path)
    try:
        target = os.path.basename(os.readlink(path))
    except OSError:
        return False  # it went away
    if unit in (name, target):
        return True
    return target in names(unit) and "@." in name and not os.path.dirname(path).endswith(LINK_DIRECTORIES)
