# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd, asked by systemctl: what a unit is like, and stopping and starting it. Every call ends in time."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass

from ..context import Context, Done
from ..errors import CommandFailed, RestoreFailed, Unsupported
from ..shadow import Claim

BOOTED = "/run/systemd/system"  # is there where systemd is process 1
ASK = 30.0  # seconds for a question
STEADY = 1.0  # seconds that what was started has to last, to be told from what fails at once and is started again
_POLL = 0.1
_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]+\.[a-z]+")
_MOVING = ("activating", "deactivating", "reloading", "refreshing")
_SINCE = "ActiveEnterTimestampMonotonic"
_PROPERTIES = ("Id", "LoadState", "ActiveState", "SubState", "Type", "NeedDaemonReload", "InvocationID", _SINCE)
_NOT_OURS = ("generator", "generator.early", "generator.late", "transient")
_DEPENDENCIES = ("Requires", "Requisite", "BindsTo", "Wants", "After")
# What every unit hangs on says nothing.
_ORDINARY = re.compile(r".*\.(target|slice)|systemd-.*|-\.mount")


@dataclass(frozen=True)
class Unit:
    """A unit as it is, in systemd's own words: LoadState, is-enabled, ActiveState, SubState, Type.

    `stale`: its files changed since systemd read them. `invocation` is another one each time it is started, `since` is
    when it became active, in seconds of the monotonic clock.
    """

    id: str
    load: str
    enabled: str
    active: str
    sub: str
    kind: str
    stale: bool = False
    invocation: str = ""
    since: float = 0.0

    @property
    def steady(self) -> bool:
        """Whether it is active, and not for a moment only."""
        return self.active == "active" and time.monotonic() - self.since >= STEADY

    @property
    def runs(self) -> bool | None:
        """Whether it runs, or is started over and over; None while a job that ends by itself is in progress."""
        if self.active == "activating" and self.kind == "oneshot" and self.sub != "auto-restart":
            return None
        return self.active in ("active", "reloading", "refreshing", "activating")


class Manager:
    """The system's manager, or that of the user who runs this. Raises Unsupported where there is none."""

    def __init__(self, context: Context, name: str, scope: str) -> None:
        self._context = context
        self._name = name
        self._argv = ["systemctl", "--no-pager", "--no-ask-password", *(["--user"] * (scope == "user"))]
        self._environment = {"SYSTEMD_COLORS": "0"}
        if not os.path.isdir(BOOTED):
            remedy = "Use type command with commands that stop and start it."
            raise Unsupported(name=name, problem="systemd does not run on this host", remedy=remedy)
        if scope == "user":
            runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
            self._environment["XDG_RUNTIME_DIR"] = runtime
            if not os.path.isdir(f"{runtime}/systemd"):
                problem = f"no systemd of user {os.geteuid()} runs (there is no {runtime}/systemd)"
                remedy = "Run `loginctl enable-linger USER` once, or use scope system."
                raise Unsupported(name=name, problem=problem, remedy=remedy)
        elif os.geteuid() != 0:
            remedy = "Run with `become: true`, or use scope user."
            raise Unsupported(name=name, problem="units of the system can be restored by root only", remedy=remedy)

    def look(self, unit: str) -> Unit:
        """The unit now; one that does not exist has load `not-found`. Raises Unsupported, CommandFailed."""
        if not _NAME.fullmatch(unit) or "@." in unit:
            remedy = "Write its name with the suffix, and that of an instance for a template: shop@1.service."
            raise Unsupported(name=self._name, problem=f"{unit!r} is not the name of a unit", remedy=remedy)
        found = self._show(unit, *_PROPERTIES)
        enabled = self._run(ASK, "is-enabled", "--", found["Id"][0]).stdout.split()
        return Unit(
            id=found["Id"][0],
            load=found["LoadState"][0],
            enabled=enabled[0] if enabled else "not-found",
            active=found["ActiveState"][0],
            sub=found["SubState"][0],
            kind=found["Type"][0],
            stale=found["NeedDaemonReload"][0] == "yes",
            invocation=found["InvocationID"][0],
            since=int(found[_SINCE][0] or 0) / 1e6,
        )

    def settle(self, unit: str, timeout: float) -> Unit:
        """`look`, once nothing is on its way, and what was just started has lasted; or after `timeout` seconds."""
        until = time.monotonic() + timeout * self._context.patience
        while True:
            found = self.look(unit)
            moving = found.active in _MOVING or (found.active == "active" and not found.steady)
            if not moving or found.runs is None or time.monotonic() > until:
                return found
            time.sleep(_POLL)

    def places(self) -> list[str]:
        """The directories of unit files that people and packages write to, without symlinks."""
        paths = self._show("", "UnitPath")["UnitPath"][0].split()
        return list(dict.fromkeys(os.path.realpath(path) for path in paths if os.path.basename(path) not in _NOT_OURS))

    def find(self, pattern: str) -> list[str]:
        """Names of units that are loaded or have a file, no aliases and no templates. Raises CommandFailed."""
        options = ("--all", "--full", "--plain", "--no-legend")
        loaded = self._check("list-units", *options, "--", pattern).stdout.splitlines()
        known = self._check("list-unit-files", "--full", "--no-legend", "--", pattern).stdout.splitlines()
        found = {line.split()[0] for line in loaded if line.split()[1] != "not-found"}
        found |= {line.split()[0] for line in known if line.split()[1] != "alias"}
        return sorted(unit for unit in found if "@." not in unit)

    def change(self, verb: str, unit: str, timeout: float) -> None:
        """Stop, start, restart or reset-failed, and wait until it is done. Raises RestoreFailed."""
        done = self._run(timeout, verb, "--", unit)
        if done.status == 0 or verb == "reset-failed":  # fails when the unit is not loaded: there is nothing to reset
            return
        problem = f"`systemctl {verb} {unit}` ended with {done.status}: {done.last_words}"
        raise RestoreFailed(name=self._name, problem=problem, remedy=f"Look at `journalctl -u {unit}`, then run again.")

    def reload(self, timeout: float) -> None:
        """Have systemd read all unit files again. Raises RestoreFailed."""
        done = self._run(timeout, "daemon-reload")
        if done.status != 0:
            problem = f"`systemctl daemon-reload` ended with {done.status}: {done.last_words}"
            raise RestoreFailed(name=self._name, problem=problem, remedy="Correct what it names, then run again.")

    def properties(self, unit: str, *names: str) -> dict[str, list[str]]:
        """As systemctl shows them; one that has several lines, such as ExecStart, has several values."""
        return self._show(unit, *names)

    def _show(self, unit: str, *names: str) -> dict[str, list[str]]:
        done = self._check("show", *(f"--property={name}" for name in names), *(["--", unit] if unit else []))
        found: dict[str, list[str]] = {}
        for line in done.stdout.splitlines():
            name, separator, value = line.partition("=")
            if separator and name in names:
                found.setdefault(name, []).append(value)
        return {name: found.get(name, [""]) for name in names}

    def _run(self, timeout: float, *words: str) -> Done:
        return self._context.run([*self._argv, *words], timeout, self._environment)

    def _check(self, *words: str) -> Done:
        done = self._run(ASK, *words)
        if done.status != 0:
            command = f"systemctl {words[0]}"
            raise CommandFailed(name=self._name, command=command, status=done.status, output=done.last_words)
        return done


def unit_claims(manager: Manager, unit: str) -> list[Claim]:
    """What a unit provides and uses, by its directives."""
    shown = manager.properties(unit, "Id", "Names", *_DEPENDENCIES, "EnvironmentFiles", "ExecStart", "WorkingDirectory")
    names = dict.fromkeys([*shown["Id"], *shown["Names"][0].split()])
    claims = [Claim("provides", "unit", name, "unit name") for name in names]
    for directive in _DEPENDENCIES:
        others = [other for other in shown[directive][0].split() if not _ORDINARY.fullmatch(other)]
        claims += [Claim("uses", "unit", other, f"unit directive {directive}") for other in others]
    for value in filter(None, shown["EnvironmentFiles"]):
        path = re.sub(r" \(ignore_errors=(yes|no)\)$", "", value)
        claims.append(Claim("uses", "path", path, "unit directive EnvironmentFile"))
    for value in shown["ExecStart"]:
        program = re.match(r"\{ path=(\S+)", value)
        if program:
            claims.append(Claim("uses", "path", program[1], "unit directive ExecStart"))
    directory = shown["WorkingDirectory"][0].lstrip("!-")
    if directory.startswith("/"):
        claims.append(Claim("uses", "path", directory, "unit directive WorkingDirectory"))
    return claims
