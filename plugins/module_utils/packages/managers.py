# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which package manager a host has."""

from __future__ import annotations

import os
import shutil

from ..context import Context
from ..errors import Unsupported
from .apt import Apt
from .face import Manager
from .rpm import Dnf

_PROGRAMS = {"apt": ("apt-get", "dpkg", Apt), "dnf": ("dnf", "rpm", Dnf)}
DPKG_STATUS = "/var/lib/dpkg/status"


def choose(context: Context, name: str, wanted: str, timeout: float) -> Manager:
    """The manager `wanted`: apt, dnf, or auto, the one that the host's packages are in. Raises Unsupported."""
    for kind, (*programs, manager) in _PROGRAMS.items():
        if wanted in ("auto", kind) and all(map(shutil.which, programs)) and (wanted == kind or _is_used(kind)):
            return manager(context, name, timeout)
    missing = "neither apt nor dnf" if wanted == "auto" else f"no {wanted}"
    raise Unsupported(
        name=name, problem=f"this host has {missing}", remedy="Use type command with commands of its own."
    )


def _is_used(kind: str) -> bool:
    """Debian has packages of rpm and dnf, and Fedora of dpkg; but only the host's own manager has packages."""
    try:
        return (os.path.getsize(DPKG_STATUS) > 0) == (kind == "apt")
    except FileNotFoundError:
        return kind != "apt"
