# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The attempts at one resource: what each is given, how long to wait before it, and why those that failed did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..effort.exert import Effort, Granted, for_attempt

MAX_DELAY = 60.0  # seconds
WHY_SHOWN = 1000


@dataclass(frozen=True)
class Attempt:
    """One attempt: its number, what it is given, by which of the provider's methods, and after how many seconds."""

    number: int
    effort: Effort
    method: str
    wait: float

    @property
    def words(self) -> str:
        """What it is given, for people."""
        return f"{self.effort.words}, method {self.method}" if self.method else self.effort.words


@dataclass
class Attempts:
    """At most `most` attempts, with a pause of `delay` seconds before the second, twice that before the third, and on.

    `methods` are taken in turn. `failures`, JSON-ready, has for each attempt that failed `attempt`, `method`, `why`,
    and `next`, what the next one was given (`tier`, `method`, `wait`, `asked`, `effective`, `refused`; empty: it was
    the last).
    """

    most: int
    delay: float
    tier: str
    methods: Sequence[str]
    failures: list[dict[str, Any]] = field(default_factory=list)
    _free: int = 0  # attempts that did not count

    def next(self) -> Attempt | None:
        """The next attempt; None when there is none left."""
        number = len(self.failures) + 1
        counted = number - self._free
        if counted > self.most:
            return None
        wait = min(MAX_DELAY, self.delay * 2.0 ** (counted - 2)) if counted > 1 else 0.0
        if self.failures and self.failures[-1]["free"]:
            wait = 0.0
        return Attempt(
            number,
            for_attempt(counted, self.most, self.tier),
            self.methods[(counted - 1) % len(self.methods)],
            wait,
        )

    def began(self, attempt: Attempt, granted: Granted) -> None:
        """`attempt` begins, with what it was given of what it asked for."""
        if self.failures:
            given = {"tier": attempt.effort.tier, "method": attempt.method, "wait": attempt.wait}
            self.failures[-1]["next"] = {**given, **granted.to_dict()}

    def failed(self, attempt: Attempt, why: str, free: bool) -> None:
        """`attempt` failed; a `free` one changed nothing, and does not count."""
        why = why if len(why) <= WHY_SHOWN else f"{why[:WHY_SHOWN]}..."
        self.failures.append(
            {"attempt": attempt.number, "method": attempt.method, "why": why, "next": {}, "free": free}
        )
        self._free += free

    @property
    def of(self) -> int:
        """How many attempts there are at most, with those that did not count."""
        return self.most + self._free

    @property
    def why(self) -> str:
        """Why the last one failed."""
        return str(self.failures[-1]["why"]) if self.failures else "the restore was stopped before its first attempt"

    @property
    def escalations(self) -> tuple[Mapping[str, Any], ...]:
        """`failures` as a result has them."""
        return tuple({key: value for key, value in one.items() if key != "free"} for one in self.failures)


def told(escalation: Mapping[str, Any]) -> str:
    """One escalation for people: "attempt 1 (online): why; attempt 2 had tier medium, method replace"."""
    number, method, given = escalation["attempt"], escalation["method"], escalation["next"]
    text = f"attempt {number}{f' ({method})' if method else ''}: {escalation['why'].rstrip('.')}"
    if given:
        text += f"; attempt {number + 1} had tier {given['tier']}"
        text += f", method {given['method']}" if given["method"] else ""
        text += "".join(f", no {kind} ({why})" for kind, why in given["refused"].items())
    return text
