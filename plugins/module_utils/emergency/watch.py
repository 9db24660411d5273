# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a way back is: from what the verb that works tells, be it this process or another, and from the journal."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import UmbraError
from ..store.update import JOURNAL, HostUpdate
from ..verbs.outcome import FAILED, RESTORED, UNCHANGED, UNTOUCHED
from .screen import GREEN, RED, YELLOW, Bar

# What verbs/restore.py tells, in its order; what is shown of it; and how much of a resource's bar that is.
STAGES = (
    (re.compile(r"verifying the shadow of ([^\s,]+)"), "verifying its shadow", 0.0, 0.25),
    (re.compile(r"comparing ([^\s,]+) with its shadow"), "comparing", 0.25, 0.4),
    (re.compile(r"keeping the failed state of ([^\s,]+)"), "keeping its failed state", 0.4, 0.5),
    (re.compile(r"restoring ([^\s,]+)(?=,)"), "restoring", 0.5, 0.9),
    (re.compile(r"validating ([^\s,]+)(?=,)"), "validating", 0.9, 1.0),
)
_PERCENT = re.compile(r", (\d+) %$")
ENDS = {
    RESTORED: ("back, verified", GREEN),
    UNCHANGED: ("as before already", GREEN),
    FAILED: ("FAILED", RED),
    UNTOUCHED: ("left alone", YELLOW),
}


@dataclass(frozen=True)
class Told:
    """One telling of a verb: its words, without the percentage; the resource that they name ("": none), and the bar."""

    words: str
    name: str
    text: str
    share: float
    percent: int | None


def parse(told: str) -> Told:
    """What a verb told of its progress."""
    match = _PERCENT.search(told)
    words, percent = (told[: match.start()], int(match[1])) if match else (told, None)
    for pattern, text, begin, end in STAGES:
        found = pattern.match(words)
        if found:
            share = begin + (end - begin) * (percent or 0) / 100
            return Told(words, found[1], f"{text}{words[found.end() :]}" if found.end() else text, share, percent)
    return Told(words, "", words, 0.0, percent)


class Watch:
    """The bars of one way back of `update`, whose resources are `names`."""

    def __init__(self, update: HostUpdate, names: Sequence[str]) -> None:
        self._update = update
        self._bars = {name: Bar(name, 0.0, "waiting") for name in names}
        self._ended: set[str] = set()
        self._size = -1
        self._begun = len(_events(update))  # what the journal says of earlier ways back is no news
        self.now = ""

    def tell(self, told: str) -> None:
        """The verb says what it does now. Safe to call from any thread."""
        one = parse(told)
        self.now = told
        if one.name in self._bars and one.name not in self._ended:
            percent = "" if one.percent is None else f", {one.percent} %"
            self._bars[one.name] = Bar(one.name, one.share, f"{one.text}{percent}")

    def look(self) -> list[str]:
        """Read what the journal has since; the names of the resources that ended meanwhile."""
        size = _size(self._update)
        if size == self._size:
            return []
        self._size = size
        found = []
        for event in _events(self._update)[self._begun :]:
            name = event.get("name", "")
            if event["event"] == "resource-end" and name in self._bars and name not in self._ended:
                self._ended.add(name)
                text, colour = ENDS.get(event["result"]["action"], ("ended", ""))
                self._bars[name] = replace(self._bars[name], share=1.0, text=text, colour=colour)
                found.append(name)
        return found

    def resume(self) -> None:
        """Count what the unfinished way back had done before this process looked at it."""
        events = _events(self._update)
        begins = [number for number, event in enumerate(events) if event["event"] == "restore-begin"]
        self._begun = begins[-1] if begins else len(events)

    @property
    def bars(self) -> list[Bar]:
        """A bar for each resource."""
        return list(self._bars.values())

    @property
    def ended(self) -> int:
        """How many resources ended."""
        return len(self._ended)

    def text(self, name: str) -> str:
        """What is said of a resource now."""
        return self._bars[name].text


def _events(update: HostUpdate) -> list[dict[str, Any]]:
    try:
        return update.journal.events()
    except UmbraError:
        return []  # the verb itself will say what is wrong with it


def _size(update: HostUpdate) -> int:
    try:
        return os.stat(os.path.join(update.path, JOURNAL)).st_size
    except OSError:
        return 0
