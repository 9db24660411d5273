# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The door for whatever we don't know: the user's own programs make the copy, compare it and put it back."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from .. import canonical
from ..context import Done
from ..errors import (
    ProviderError,
    RestoreFailed,
    ShadowFailed,
    StoreCorrupt,
    ToolMissing,
    Unsupported,
    ValidationFailed,
)
from ..resource import Interface, Option, Resource
from ..shadow import Root, Shadow
from ..tree import messages
from ..tree.apply import extract
from ..tree.capture import capture
from ..tree.entry import decode, digests, escape
from ..tree.scan import TreeOptions
from .base import SERVICE, Change, Contents, Drift, Estimate, Outcome, Provider, Steps

COPY, NONE = "command", "none"  # methods of a shadow
COMMANDS = ("create", "restore", "verify", "validate", "drift", "stop", "start")
DIFFERS = 1  # what the drift command ends with when the live resource is not as its shadow
CHANGES_SHOWN = 100
LINE_SHOWN = 200
HIDDEN = "********"
AGAIN = "Look at what it says, and run again."


class CommandProvider(Provider):
    """Programs of the user's. What `create` leaves in the directory UMBRA_SHADOW is the copy; the others find it there.

    They also get UMBRA_UPDATE_ID, UMBRA_HOST, UMBRA_RESOURCE and UMBRA_PHASE (which of them is run; displace for a
    create that keeps the failed state). All but create, restore, stop and start must change nothing; those four may be
    run again after they were killed.
    """

    type = "command"
    capabilities = frozenset({SERVICE})
    interface = Interface(
        options={
            "create": Option("command", "Makes the copy in the directory UMBRA_SHADOW.", required=True),
            "restore": Option("command", "Makes the resource equal to UMBRA_SHADOW; may run twice.", required=True),
            "verify": Option("command", "Ends with 0 when the copy in UMBRA_SHADOW is good."),
            "validate": Option("command", "Ends with 0 when the live resource works and equals UMBRA_SHADOW."),
            "drift": Option("command", "Ends with 0 when nothing differs, with 1 and a line per change otherwise."),
            "stop": Option("command", "Stops the resource; may run twice."),
            "start": Option("command", "Starts the resource after a restore; may run twice."),
            "environment": Option("dict", "Variables for the programs; secrets belong here.", secret=True),
            "chdir": Option("path", "Directory in which the programs run."),
            "timeout": Option("float", "After how many seconds a program is killed.", default=300.0),
        },
    )

    def estimate(self, resource: Resource) -> Estimate:
        """Nothing is known before the copy is made. Raises ToolMissing, Unsupported when a program can't be run."""
        environment = self._environment(resource)
        for command in COMMANDS:
            if argv := resource.options.get(command):
                self._check_program(resource, argv, environment)
        return Estimate(0, 0)

    # --- the copy

    def create(self, resource: Resource, previous: Shadow | None, contents: Contents) -> Shadow:
        """Run `create`, and keep what it leaves. Raises ShadowFailed, ToolMissing, Unsupported, Unstable."""
        return self._create(resource, contents, "create")

    def displace(self, shadow: Shadow, contents: Contents) -> Shadow:
        """As `create`. What it can't copy any more must not bar the way back, so then there is a shadow of nothing."""
        try:
            return self._create(shadow.resource, contents, "displace")
        except ProviderError as error:
            now, data = self.context.now(), {"why": str(error)}
            return Shadow(shadow.resource, NONE, now, 0.0, 0, 0, 0, canonical.digest(NONE), data=data)

    def _create(self, resource: Resource, contents: Contents, phase: str) -> Shadow:
        self.estimate(resource)
        with self._room(resource) as room:
            done = self._run(resource, "create", phase, room)
            if done.status != 0:
                raise ShadowFailed(name=resource.name, problem=_ending(resource, "create", done), remedy=AGAIN)
            if _is_empty(room, resource.name):
                raise ShadowFailed(
                    name=resource.name,
                    problem=f"`{_shown(resource, 'create')}` ended well, and left nothing",
                    remedy="It has to leave its copy in the directory that UMBRA_SHADOW names.",
                )
            captured = capture(os.fsencode(room), contents, TreeOptions(name=resource.name))
        checksum = _checksum(contents.get(captured.tree))
        roots = (Root("tree", captured.tree),)
        now = self.context.now()
        return Shadow(resource, COPY, now, 0.0, captured.bytes, captured.items, 0, checksum, roots)

    def verify(self, shadow: Shadow, contents: Contents) -> int:
        """Read the copy, and have `verify` look at it. Raises StoreCorrupt, ContentMissing, ToolMissing."""
        if shadow.method == NONE:
            return 0
        tree = shadow.roots[0].digest
        listing = contents.get(tree)
        decode(listing)
        size = contents.verify(sorted({tree, *digests(listing)}))
        if shadow.resource.options["verify"]:
            done = self._run_on_copy(shadow, "verify", contents)
            if done.status != 0:
                problem = _ending(shadow.resource, "verify", done)
                raise StoreCorrupt(path=f"The copy of {shadow.name}", problem=problem)
        return size

    # --- what differs

    def drift(self, shadow: Shadow, contents: Contents) -> Drift:
        """What `drift` prints; without it nobody knows, which counts as one. Raises ProviderError, StoreError."""
        resource = shadow.resource
        if shadow.method == NONE:
            return Drift(1, (Change("replace", resource.name, after="its failed state, which was not kept"),))
        if not resource.options["drift"]:
            return Drift(1, (Change("replace", resource.name, before="not known without a `drift` command"),))
        done = self._run_on_copy(shadow, "drift", contents)
        if done.status == 0:
            return Drift(0)
        if done.status != DIFFERS:
            raise ProviderError(name=resource.name, problem=_ending(resource, "drift", done), remedy=AGAIN)
        lines = [line.strip()[:LINE_SHOWN] for line in done.stdout.splitlines() if line.strip()] or [resource.name]
        return Drift(len(lines), tuple(Change("replace", line) for line in lines[:CHANGES_SHOWN]), shadow.bytes)

    def validate(self, shadow: Shadow, contents: Contents) -> None:
        """What `validate` says; without it, only the copy can be looked at. Raises ValidationFailed, StoreError."""
        if shadow.method == NONE:
            raise ValidationFailed(name=shadow.name, problem="its failed state was not kept", remedy=shadow.data["why"])
        if not shadow.resource.options["validate"]:
            self.verify(shadow, contents)
            return
        done = self._run_on_copy(shadow, "validate", contents)
        if done.status != 0:
            raise ValidationFailed(
                name=shadow.name, problem=_ending(shadow.resource, "validate", done), remedy="Restore it again."
            )

    # --- the way back

    def stop(self, shadow: Shadow) -> bool:
        """Run `stop`. Raises ProviderError when it fails."""
        if not shadow.resource.options["stop"]:
            return False
        done = self._run(shadow.resource, "stop", "stop")
        if done.status != 0:
            raise ProviderError(name=shadow.name, problem=_ending(shadow.resource, "stop", done), remedy=AGAIN)
        return True

    def start(self, shadow: Shadow) -> None:
        """Run `start`. Raises RestoreFailed when it fails."""
        if shadow.resource.options["start"]:
            done = self._run(shadow.resource, "start", "start")
            if done.status != 0:
                raise RestoreFailed(name=shadow.name, problem=_ending(shadow.resource, "start", done), remedy=AGAIN)

    def restore(self, shadow: Shadow, contents: Contents, steps: Steps) -> Outcome:
        """Run `stop`, `restore` and `start`; only `start` when `drift` finds nothing.

        Raises RestoreFailed, ToolMissing, Unsupported, StoreError.
        """
        resource = shadow.resource
        if shadow.method == NONE:
            raise RestoreFailed(
                name=shadow.name,
                problem="there is nothing to bring back, since its failed state could not be kept",
                remedy=shadow.data["why"],
            )
        notes: list[str] = []
        found = self._differs(shadow, contents, notes)
        if found:
            try:
                self.stop(shadow)
            except ProviderError as error:  # what the update broke may not even stop
                notes.append(str(error))
            done = self._run_on_copy(shadow, "restore", contents)
            if done.status != 0:
                raise RestoreFailed(name=shadow.name, problem=_ending(resource, "restore", done), remedy=AGAIN)
        self.start(shadow)
        if not found:
            return Outcome(0, 0, "none", tuple(notes))
        return Outcome(max(1, shadow.items), shadow.bytes, COPY, tuple(notes))

    def _differs(self, shadow: Shadow, contents: Contents, notes: list[str]) -> bool:
        try:
            return bool(self.drift(shadow, contents))
        except ProviderError as error:  # too broken to be compared: restored, then
            notes.append(str(error))
            return True

    # --- running programs

    @contextmanager
    def _room(self, resource: Resource) -> Iterator[str]:
        """A private directory for one program. Raises ProviderError."""
        try:
            room = tempfile.mkdtemp(prefix="command-", dir=self.context.workdir)
        except OSError as error:
            problem = f"no directory can be made in {self.context.workdir} ({error.strerror})"
            raise ProviderError(name=resource.name, problem=problem, remedy="Look at the store.") from error
        try:
            yield room
        finally:
            shutil.rmtree(room, ignore_errors=True)  # what is left goes with the whole workdir

    def _run_on_copy(self, shadow: Shadow, command: str, contents: Contents) -> Done:
        with self._room(shadow.resource) as room:
            extract(os.fsencode(room), shadow.roots[0].digest, contents, shadow.name)
            return self._run(shadow.resource, command, command, room)

    def _run(self, resource: Resource, command: str, phase: str, room: str = "") -> Done:
        """Run one of the programs; what it says comes without secrets. Raises ToolMissing, Unsupported."""
        environment = {
            **self._environment(resource),
            "UMBRA_SHADOW": room,
            "UMBRA_UPDATE_ID": self.context.update_id,
            "UMBRA_HOST": self.context.host,
            "UMBRA_RESOURCE": resource.name,
            "UMBRA_PHASE": phase,
        }
        argv = resource.options[command]
        program = self._check_program(resource, argv, environment)
        timeout, chdir = float(resource.options["timeout"]), resource.options["chdir"]
        try:
            service = command in ("stop", "start")  # what they start runs on
            done = self.context.run([program, *argv[1:]], timeout, environment, chdir, service=service)
        except OSError as error:
            _not_started(resource, argv, (error.strerror or str(error)).lower())
        return Done(done.status, _hide(resource, done.stdout), _hide(resource, done.stderr))

    def _environment(self, resource: Resource) -> dict[str, str]:
        given = resource.options["environment"] or {}
        environment = {str(key): str(value) for key, value in given.items()}
        for key, value in environment.items():
            if not key or "=" in key or "\0" in key + value:
                problem = f"`environment` has {key!r}, which can't be a variable, or a value with a NUL"
                raise Unsupported(name=resource.name, problem=problem, remedy="Correct it.")
        return environment

    def _check_program(self, resource: Resource, argv: Sequence[str], environment: dict[str, str]) -> str:
        """The program to run: a relative path is one from `chdir`. Raises ToolMissing, Unsupported."""
        program, chdir = argv[0], resource.options["chdir"]
        if chdir and not os.path.isdir(chdir):
            _not_started(resource, argv, f"{chdir} is not a directory")
        if "/" in program:
            program = os.path.join(chdir or "/", program)
        path = environment.get("PATH", os.environ.get("PATH"))
        if shutil.which(program, path=path) is None:
            raise ToolMissing(name=resource.name, tool=_hide(resource, program), package="it, or correct the command")
        return program


def _not_started(resource: Resource, argv: Sequence[str], why: str) -> NoReturn:
    shown = _hide(resource, shlex.join(argv))
    problem = f"`{shown}` can't be started ({why})"
    raise Unsupported(name=resource.name, problem=problem, remedy="Correct the command, or `chdir`.")


def _ending(resource: Resource, command: str, done: Done) -> str:
    """How a program ended, for the middle of a sentence."""
    how = f"ended with {done.status}" if done.status >= 0 else f"was killed by signal {-done.status}"
    return f"`{_shown(resource, command)}` {how} ({done.last_words.rstrip('.')})"


def _shown(resource: Resource, command: str) -> str:
    return " ".join(_hide(resource, shlex.join(resource.options[command])).split())


def _hide(resource: Resource, text: str) -> str:
    """`text` without any value of the environment, whoever printed it."""
    values = {str(value) for value in (resource.options["environment"] or {}).values()}
    for value in sorted(filter(None, values), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text


def _is_empty(room: str, name: str) -> bool:
    try:
        return not os.listdir(room)
    except OSError as error:
        raise messages.unreadable(name, os.fsencode(room), error) from error


def _checksum(listing: bytes) -> str:
    """Equal for equal copies: owners and times are those of the moment in which each was made."""
    return canonical.digest(
        [[escape(one.path), one.kind, one.mode, one.digest, escape(one.target)] for one in decode(listing)]
    )
