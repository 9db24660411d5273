# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a provider may use of the world: the names of this run, programs to call, a place for temporary files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from typing import Any

from .effort import exert, orphans
from .errors import CommandFailed, ToolMissing
from .progress import Progress

OUTPUT_SHOWN = 400


@dataclass(frozen=True)
class Done:
    """How a program ended: its exit status (negative: the signal), and what it printed."""

    status: int
    stdout: str
    stderr: str

    @property
    def last_words(self) -> str:
        """The end of what it printed, on one line, for a message."""
        text = " ".join((self.stderr.strip() or self.stdout.strip() or "no output").split())
        return text if len(text) <= OUTPUT_SHOWN else "..." + text[-OUTPUT_SHOWN:]


class Room:
    """A private directory in `place`, made by `make` when it is first asked for: most calls need none."""

    def __init__(self, place: str, make: Callable[[], str]) -> None:
        self.place = place
        self._make = make
        self._path = ""
        self._making = threading.Lock()

    @property
    def path(self) -> str:
        """The directory, which is there now. Raises what `make` does."""
        with self._making:
            self._path = self._path or self._make()
            return self._path


@dataclass(frozen=True)
class Context:
    """The run that a provider works in. `room` is a private directory (0700) in the store, emptied by each verb; one
    that is there already, or one that is made when a provider first asks for its `workdir`.

    `patience` multiplies every timeout: a resource that failed to restore gets more time at the next attempt.
    `method` is the one of its provider's `methods` that a restore is to take; empty: the first. `progress` is told what
    takes long.
    """

    update_id: str
    host: str
    room: str | Room
    environment: Mapping[str, str] = field(default_factory=dict)
    patience: float = 1.0
    method: str = ""
    progress: Progress = field(default_factory=Progress, compare=False)

    @property
    def workdir(self) -> str:
        """The private directory. Raises StoreError, NoScratch when it can't be made."""
        return self.room if isinstance(self.room, str) else self.room.path

    @property
    def place(self) -> str:
        """The directory that `workdir` is in, or would be; to ask makes nothing."""
        return os.path.dirname(self.room) if isinstance(self.room, str) else self.room.place

    def run(
        self,
        argv: Sequence[str],
        timeout: float = 300.0,
        environment: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bytes = b"",
        service: bool = False,
    ) -> Done:
        """Run a program, never through a shell, in a process group of its own; C locale. Raises ToolMissing.

        It has the priority of this thread, but for a `service`, or what starts one: that gets what this process had
        before a restore tried harder. So does, when the program ends, whatever it leaves behind.

        After `timeout` seconds (times `patience`) the whole group is killed, and the status is -9. Its output goes to
        memory and not to a pipe: a pipe's end would not come before that of a daemon which the program started.
        """
        env = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C", **self.environment, **(environment or {})}
        if shutil.which(argv[0], path=env.get("PATH")) is None:
            raise ToolMissing(name=argv[0], tool=argv[0], package=f"the package that has {argv[0]}")
        with (
            _memory() as out,
            _memory() as err,
            _start(argv, service, env=env, cwd=cwd, stdin=subprocess.PIPE, stdout=out, stderr=err) as process,
            orphans.waited_for(process.pid),
        ):
            try:
                process.communicate(stdin, timeout * self.patience)
                killed = ""
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                killed = f"\nkilled after {timeout * self.patience:.0f} s"
            exert.settle()
            return Done(process.returncode, _text(out), _text(err) + killed)

    def check(self, name: str, argv: Sequence[str], timeout: float = 300.0) -> Done:
        """`run`, and raise CommandFailed (for resource `name`) unless it ends with 0."""
        done = self.run(argv, timeout)
        if done.status != 0:
            raise CommandFailed(name=name, command=" ".join(argv), status=done.status, output=done.last_words)
        return done

    @staticmethod
    def now() -> float:
        """Seconds since the epoch, UTC."""
        return time.time()


def _start(argv: Sequence[str], service: bool, **how: Any) -> subprocess.Popen[bytes]:
    with exert.aside(service) as before:
        return subprocess.Popen(  # pylint: disable=ansible-bad-function  # no Ansible here, so no run_command
            [*before, *argv], start_new_session=True, **how
        )


def _memory() -> FileIO:
    return FileIO(os.memfd_create("output"), "w+")


def _text(file: FileIO) -> str:
    """All of it; whoever may still write to it is not disturbed."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode("utf-8", "replace")
