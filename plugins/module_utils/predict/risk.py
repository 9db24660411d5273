# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How likely a restore is to fail: Beta-binomial, each resource shrunk to its type, and each type to all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

P_ASSUMED = 0.01  # an assumption, not a measurement: what is said while nothing was ever restored
STRENGTH_ALL = 10.0  # how many restores that assumption is worth
STRENGTH_TYPE = 10.0  # how many restores of one type "all" is worth
STRENGTH_RESOURCE = 5.0  # how many restores of one resource its type is worth


@dataclass(frozen=True)
class Seen:
    """How many restores were seen, and how many of them failed."""

    restores: int
    failures: int


@dataclass(frozen=True)
class Risks:
    """Counts of restores and of failures: of all, by type, and by (host, name)."""

    restores: Counter[Hashable] = field(default_factory=Counter)
    failures: Counter[Hashable] = field(default_factory=Counter)

    def p_fail(self, host: str, name: str, type: str) -> float:
        """The probability (0 to 1, never quite either) that restoring this resource fails for good."""
        of_all = self._shrunk((), P_ASSUMED, STRENGTH_ALL)
        of_type = self._shrunk((type,), of_all, STRENGTH_TYPE)
        return self._shrunk((host, name), of_type, STRENGTH_RESOURCE)

    def seen(self, host: str, name: str) -> Seen:
        """What was seen of this resource."""
        return Seen(self.restores[(host, name)], self.failures[(host, name)])

    def _shrunk(self, key: Hashable, mean: float, strength: float) -> float:
        """Mean of the posterior, when the prior is a Beta with this `mean`, worth `strength` restores."""
        return (self.failures[key] + strength * mean) / (self.restores[key] + strength)


def fit(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Risks:
    """Count the restores in `histories` (host: its records); other records, or of no known form, are left out."""
    risks = Risks()
    for host, history in histories.items():
        for record in history:
            if record.get("verb") != "restore" or not isinstance(record.get("ok"), bool):
                continue  # another release may have written it: history is advice, and one record is no reason to stop
            keys: list[Hashable] = [(), (record.get("type"),), (host, record.get("name"))]
            risks.restores.update(keys)
            if not record["ok"]:
                risks.failures.update(keys)
    return risks


def together(chances: Iterable[float]) -> float:
    """The probability that at least one of independent failures happens."""
    return 1.0 - math.exp(math.fsum(math.log1p(-min(chance, 1.0 - 1e-12)) for chance in chances))
