# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dead-man switch is armed with: its deadline, the checks that it makes, whom it tells."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlsplit

from ..errors import InputError, StoreCorrupt, StoreFormatUnknown

FORMAT = "umbra-watchdog 1"
SYSTEMD, DAEMON = "systemd", "daemon"
WAIT, ROLLBACK = "wait", "rollback"
KINDS = ("command", "tcp", "http", "unit")
EVENTS = ("fired", "rolled_back", "failed")  # what hooks are told of


@dataclass(frozen=True)
class Check:
    """One condition of health. `target` is the argv of a command, or one word: host:port, a URL, the name of a unit.

    Every `interval` seconds a sample is taken, the first one `start_delay` seconds after arming. It fails when it has
    no good answer after `timeout` seconds; the condition fails when `n` of the last `m` samples did.
    """

    name: str
    kind: str
    target: tuple[str, ...]
    interval: float = 10.0
    timeout: float = 5.0
    n: int = 3
    m: int = 5
    start_delay: float = 0.0
    status: tuple[int, ...] = ()


@dataclass(frozen=True)
class Hook:
    """Whom to tell: a command, which gets the report as JSON on its standard input, or a URL, to which it is posted.

    It is tried `retries` times more when it fails, first after `backoff` seconds, then after twice as long, and so on.
    """

    command: tuple[str, ...] = ()
    url: str = ""
    events: tuple[str, ...] = EVENTS
    timeout: float = 10.0
    retries: int = 5
    backoff: float = 2.0

    @property
    def name(self) -> str:
        """What it is, for a result: of a URL, whose rest may be a secret, the host alone."""
        return self.command[0] if self.command else f"{urlsplit(self.url).scheme}://{urlsplit(self.url).hostname}"


@dataclass(frozen=True)
class Armed:
    """A switch that is armed. `ends` is when it fires, in seconds on the clock of the boot `boot` (clock.now), and
    `seconds` how long that was when it was said; `stamp` is another text for each deadline.

    `begun` is when it was armed first, on the same clock: what the update started came later. `origin` says from where
    it was armed (survivors.origin). `interpreters` and `tool` are what it runs with, `unit` is its name under systemd.
    """

    update_id: str
    host: str
    stamp: str
    seconds: float
    boot: str
    ends: float
    begun: float
    mode: str
    on_reboot: str = WAIT
    checks: tuple[Check, ...] = ()
    hooks: tuple[Hook, ...] = ()
    max_attempts: int = 3
    interpreters: tuple[str, ...] = ()
    tool: str = ""
    unit: str = ""
    origin: tuple[str, str] = ("", "")
    store_key_file: str = ""  # has the key that the store is written with, if any

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        checks, hooks = [vars(check) for check in self.checks], [vars(hook) for hook in self.hooks]
        return {**vars(self), "format": FORMAT, "checks": checks, "hooks": hooks}

    @classmethod
    def from_dict(cls, raw: Any, path: str) -> Armed:
        """What `to_dict` wrote; `path` is for messages. Raises StoreFormatUnknown, StoreCorrupt."""
        if not isinstance(raw, Mapping) or raw.get("format") != FORMAT:
            found = raw.get("format") if isinstance(raw, Mapping) else type(raw).__name__
            raise StoreFormatUnknown(path=path, found=found, known=FORMAT)
        try:
            known = {field.name for field in fields(cls)}
            facts = {key: _tuple(value) for key, value in raw.items() if key in known}
            armed = cls(**facts)
            checks = tuple(Check(**{key: _tuple(value) for key, value in one.items()}) for one in armed.checks)  # type: ignore[attr-defined]  # dicts as yet
            hooks = tuple(Hook(**{key: _tuple(value) for key, value in one.items()}) for one in armed.hooks)  # type: ignore[attr-defined]  # dicts as yet
            return replace(armed, checks=checks, hooks=hooks)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreCorrupt(path=path, problem=f"it is not that of a switch: {error}") from error


def parse_checks(raw: Sequence[Mapping[str, Any]]) -> tuple[Check, ...]:
    """The checks as a user wrote them. Raises InputError."""
    return tuple(_check(one, f"health[{number}]") for number, one in enumerate(raw))


def parse_hooks(raw: Sequence[Mapping[str, Any]]) -> tuple[Hook, ...]:
    """The hooks as a user wrote them. Raises InputError."""
    return tuple(_hook(one, f"hooks[{number}]") for number, one in enumerate(raw))


def parse_deadline(seconds: float) -> float:
    """A deadline as a user wrote it. Raises InputError."""
    if not 0 < seconds < 1e9:
        raise InputError(
            where="deadline", problem=f"{seconds:g} is not a number of seconds to come", remedy="Give more than 0."
        )
    return float(seconds)


def _check(raw: Mapping[str, Any], where: str) -> Check:
    kind, target = _one_of(raw, KINDS, where)
    if kind == "tcp" and not target[0].rpartition(":")[2].isdigit():
        raise InputError(where=where, problem=f"tcp: {target[0]!r} has no port", remedy="Write host:port.")
    if kind == "http":
        _refuse_url(target[0], f"{where}: http")
    given = {key: raw[key] for key in ("interval", "timeout", "n", "m", "start_delay") if raw.get(key) is not None}
    name, status = raw.get("name") or f"{kind} {target[0]}", tuple(raw.get("status") or ())
    check = Check(name, kind, target, **given, status=status)
    if not (check.interval > 0 and check.timeout > 0 and check.start_delay >= 0):
        problem = "interval and timeout have to be more than 0 seconds, start_delay at least 0"
        raise InputError(where=where, problem=problem, remedy="Correct it.")
    if not 1 <= check.n <= check.m:
        problem = f"{check.n} of {check.m} samples can't be: n is at least 1, and m at least n"
        raise InputError(where=where, problem=problem, remedy="Correct it.")
    return check


def _hook(raw: Mapping[str, Any], where: str) -> Hook:
    kind, target = _one_of(raw, ("command", "url"), where)
    if kind == "url":
        _refuse_url(target[0], f"{where}: url")
    given = {key: raw[key] for key in ("timeout", "retries", "backoff") if raw.get(key) is not None}
    events = tuple(raw.get("events") or EVENTS)
    hook = Hook(events=events, **given, command=target) if kind == "command" else Hook((), target[0], events, **given)
    if hook.timeout <= 0 or hook.retries < 0 or hook.backoff < 0:
        problem = "timeout has to be more than 0 seconds, retries and backoff at least 0"
        raise InputError(where=where, problem=problem, remedy="Correct it.")
    return hook


def _one_of(raw: Mapping[str, Any], kinds: Sequence[str], where: str) -> tuple[str, tuple[str, ...]]:
    """Which of `kinds` is given, and what it says, as words."""
    given = [kind for kind in kinds if raw.get(kind)]
    if len(given) != 1:
        problem = f"it needs one of {', '.join(kinds)}, and has {' and '.join(given) or 'none'}"
        raise InputError(where=where, problem=problem, remedy="Give one of them.")
    value = raw[given[0]]
    words = (value,) if isinstance(value, str) else tuple(str(word) for word in value)
    if given[0] == "command" and not os.path.isabs(words[0]):
        problem = f"command {words[0]!r} has no absolute path, and an update may break the search for it"
        raise InputError(where=where, problem=problem, remedy="Write the whole path of the program.")
    return given[0], words


def _refuse_url(url: str, where: str) -> None:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise InputError(where=where, problem="that is no URL of the web", remedy="Write http://host:port/path.")


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
