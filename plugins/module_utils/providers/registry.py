# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every resource type there is: a new one is its file, one import and one line here."""

from __future__ import annotations

from collections.abc import Mapping

from ..context import Context
from ..resource import Interface
from .base import Provider
from .command import CommandProvider
from .file import FileProvider
from .package import PackageProvider
from .sqlite import SqliteProvider
from .systemd_unit import SystemdUnitProvider

# The imports are static: what a module sends to a host is found by reading its import statements.
PROVIDERS: Mapping[str, type[Provider]] = {
    known.type: known
    for known in (
        CommandProvider,
        FileProvider,
        PackageProvider,
        SqliteProvider,
        SystemdUnitProvider,
    )
}
INTERFACES: Mapping[str, Interface] = {name: known.interface for name, known in PROVIDERS.items()}


def provider(type_: str, context: Context) -> Provider:
    """The provider of the resource type `type_`, for this run. Raises KeyError: the parser knows the same types."""
    return PROVIDERS[type_](context)
