# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What else was on the host: it tells what an update brought from what was there before."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass

CONFIGURATION = "/etc"


@dataclass(frozen=True)
class Host:
    """Keys of all packages, and all names below /etc."""

    packages: frozenset[str]
    names: frozenset[str]

    @classmethod
    def take(cls, packages: Iterable[str]) -> Host:
        """The host now."""
        found = (os.path.join(top, name) for top, below, files in os.walk(CONFIGURATION) for name in (*below, *files))
        return cls(frozenset(packages), frozenset(found))

    @classmethod
    def load(cls, data: bytes) -> Host:
        """The host that `dump` wrote."""
        raw = json.loads(data)
        return cls(frozenset(raw["packages"]), frozenset(raw["names"]))

    def dump(self) -> bytes:
        """Equal for equal hosts."""
        return json.dumps({"packages": sorted(self.packages), "names": sorted(self.names)}).encode("ascii")

    def is_new(self, path: str) -> bool:
        """Whether something at `path` came later. Of what is not below /etc that is not known, and taken for no."""
        return path.startswith(f"{CONFIGURATION}/") and path not in self.names
