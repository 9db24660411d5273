# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dead-man switch is armed with stands in three places, so that no damaged file takes the way back away.

These are watchdog.json, its copy, and the journal: there without checks and hooks, which may have secrets in them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import StoreCorrupt, StoreError, StoreFormatUnknown
from ..store.update import WATCHDOG, WATCHDOG_COPY, HostUpdate
from ..watchdog.armed import Armed

ARMED, DISARMED, FIRED, ENDED = "watchdog-armed", "watchdog-disarmed", "watchdog-fired", "watchdog-ended"  # in journals
UNTOLD = ("checks", "hooks")
BY_COPY = "The dead-man switch goes by its copy, {name}."
BY_JOURNAL = (
    "The dead-man switch goes by the journal: its deadline counts, checks and hooks are lost until it is armed."
)
BY_NOTHING = "Nobody knows until when the dead-man switch is armed: roll the update back, commit it, or arm it anew."


class Found(NamedTuple):
    """What a switch is armed with (None: it isn't, or that can't be known), whether that is all of it, and what is
    wrong with its record, if anything is."""

    one: Armed | None
    whole: bool = True
    problem: StoreError | None = None

    @property
    def text(self) -> str:
        """What is wrong, and what counts instead; '' when all is well."""
        if self.problem is None:
            return ""
        by = BY_NOTHING if self.one is None else BY_COPY if self.whole else BY_JOURNAL
        return f"{self.problem} {by.format(name=WATCHDOG_COPY)}"


def save(update: HostUpdate, one: Armed) -> None:
    """Have the switch armed with `one`. Raises NoSpace, StoreError."""
    raw = one.to_dict()
    update.save_watchdog(raw)
    told = {key: value for key, value in raw.items() if key not in UNTOLD}
    update.journal.append(ARMED, seconds=one.seconds, mode=one.mode, store=update.store, switch=told)


def read(update: HostUpdate) -> Found:
    """What the switch is armed with. Where watchdog.json is damaged or lost, the journal says whether it is armed at
    all, and until when; and where the journal is damaged, too, the copy does. Raises StoreError."""
    one, problem = _file(update, WATCHDOG)
    if one:
        return Found(one)
    copy, dummy = _file(update, WATCHDOG_COPY)
    try:
        said = _said(update)
    except StoreCorrupt:
        if not (copy or problem):
            raise
        return Found(copy, True, problem or _missing(update))
    if said is None or not (copy or problem or said.get("store") == update.store):
        return Found(None)  # disarmed; or it is the switch of the store that this is a copy of
    told, dummy = _parsed(said.get("switch"), update.journal.path)
    if copy and (told is None or told.stamp == copy.stamp):
        return Found(copy, True, problem or _missing(update))
    return Found(told, False, problem or _missing(update))


def mend(update: HostUpdate, known: Armed | None = None) -> bool:
    """Write the record anew where it is damaged, out of its copy, or out of `known` when that is what the switch is
    still armed with; whether it was. Called with the host's lock held. Raises NoSpace, StoreError."""
    found = read(update)
    if found.problem is None or found.one is None:
        return False
    whole = found.one if found.whole else known
    if whole is None or whole.stamp != found.one.stamp:
        return False
    update.save_watchdog(whole.to_dict())
    return True


def last_event(update: HostUpdate, *names: str) -> dict[str, Any] | None:
    """The last event of the journal that has one of these names. Raises StoreError."""
    return next((event for event in reversed(update.journal.events()) if event["event"] in names), None)


def _said(update: HostUpdate) -> dict[str, Any] | None:
    """The event with which it was armed, as the journal has it; None when it was disarmed since, or never armed."""
    event = last_event(update, ARMED, DISARMED, ENDED)
    return event if event and event["event"] == ARMED else None


def _file(update: HostUpdate, name: str) -> tuple[Armed | None, StoreError | None]:
    try:
        raw = update.watchdog(name)
    except StoreCorrupt as error:
        return None, error
    return (None, None) if raw is None else _parsed(raw, os.path.join(update.path, name))


def _parsed(raw: Mapping[str, Any] | None, path: str) -> tuple[Armed | None, StoreError | None]:
    try:
        return Armed.from_dict(raw, path), None
    except (StoreCorrupt, StoreFormatUnknown) as error:
        return None, error


def _missing(update: HostUpdate) -> StoreCorrupt:
    return StoreCorrupt(path=os.path.join(update.path, WATCHDOG), problem="it is missing, and the switch is armed")
