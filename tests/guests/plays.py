# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-playbook, as a person runs it, against guests and hosts of the test bed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.umbra.rollback.tests.integration.support.lab import Run
from ansible_collections.umbra.rollback.tests.testbed.guests import Guest
from ansible_collections.umbra.rollback.tests.testbed.hosts import Hosts

PLAY_SECONDS = 1200
Playing = subprocess.Popen[bytes]


class Controller:
    """A directory of plays and their inventory. With `hosts`, what it runs is in their network."""

    def __init__(self, directory: Path, inventory: Mapping[str, object], hosts: Hosts | None = None) -> None:
        self.directory, self._hosts = directory, hosts
        self._home = directory / "ansible"
        self.write("inventory.yml", inventory)

    @classmethod
    def of_guests(cls, directory: Path, *guests: Guest) -> Controller:
        """One that knows these guests."""
        return cls(directory, {"all": {"hosts": {guest.name: guest.inventory for guest in guests}}})

    @classmethod
    def of_hosts(cls, directory: Path, hosts: Hosts) -> Controller:
        """One that knows these hosts, and is in their network."""
        return cls(directory, hosts.inventory(), hosts)

    def write(self, name: str, content: object) -> Path:
        """A file beside the plays: text as it is, anything else as YAML (of which JSON is a part)."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
        return path

    def play(self, tasks: Sequence[Mapping[str, Any]], hosts: str = "all", **keywords: object) -> Run:
        """Run one play to its end."""
        return self.finish(self.start_play(tasks, hosts, **keywords))

    def run(self, *arguments: str) -> Run:
        """Run an ansible-playbook, that of this Python's environment, to its end."""
        return self.finish(self.start(*arguments))

    def start_play(self, tasks: Sequence[Mapping[str, Any]], hosts: str = "all", **keywords: object) -> Playing:
        """Begin one play."""
        play = {"name": "Play", "hosts": hosts, "gather_facts": False, "tasks": tasks, **keywords}
        path = self.write("play.yml", [play])
        return self.start(str(path))

    def start(self, *arguments: str) -> Playing:
        """Begin an ansible-playbook."""
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        argv = [program, "-i", str(self.directory / "inventory.yml"), "--forks=20", *arguments]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(self._home)}
        with (self.directory / "output").open("wb") as output:
            return subprocess.Popen(
                self._hosts.command(argv) if self._hosts else argv,
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def finish(self, playing: Playing) -> Run:
        """Wait until it ends, however it does. Raises TimeoutExpired."""
        try:
            status = playing.wait(PLAY_SECONDS)
        except subprocess.TimeoutExpired:
            self.end()
            raise
        return Run(status, (self.directory / "output").read_text())

    def kill(self, playing: Playing) -> None:
        """SIGKILL to ansible-playbook alone. Its workers go on with what they do; `end` ends them."""
        playing.kill()
        playing.wait()

    def end(self) -> None:
        """SIGKILL to all that was started here and still is: as if this were a machine that loses its power."""
        mark = b"ANSIBLE_HOME=" + os.fsencode(self._home)
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (path / "environ").read_bytes().split(b"\0"):
                    os.kill(int(path.name), signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError, PermissionError):  # it ended meanwhile, or is none of ours
                continue
