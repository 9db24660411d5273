# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest with a shop (shop.py runs there), and what its own switch has made of a guarded update of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.umbra.rollback.tests.testbed.guests import Guest

TESTS = Path(__file__).resolve().parents[1]
PROGRAMS = {
    "/root/debs.py": (TESTS / "unit/support/debs.py").read_text(),
    "/root/shop.py": (TESTS / "guests/shop.py").read_text(),
}
UPDATE_ID = "shop-2"
STORE = "/var/lib/umbra"
RESOURCES: tuple[dict[str, Any], ...] = (
    {"name": "package", "type": "package", "packages": ["shop"]},
    {"name": "config", "type": "file", "path": "/etc/shop.d"},
    {"name": "db", "type": "sqlite", "path": "/var/lib/shop/shop.db"},
    {
        "name": "service",
        "type": "systemd_unit",
        "unit": "shop.service",
        "depends_on": ["package", "config", "db"],
    },
)
SETTLES = 1200.0  # seconds, beside its deadline, that a guest on a busy machine may take
Picture = dict[str, Any]


def task(name: str, *argv: str) -> dict[str, Any]:
    """A task that runs a program."""
    return {"name": name, "ansible.builtin.command": {"argv": list(argv)}, "changed_when": True}


def part(*verbs: str) -> dict[str, Any]:
    """A task that runs verbs of shop.py one after another."""
    return task(
        " and ".join(verbs).capitalize(), "sh", "-ec", "\n".join(f"python3 /root/shop.py {verb}" for verb in verbs)
    )


RELEASE = [part("package", "settings"), part("database", "units")]  # each task takes a guest seconds
CHECKS = [{**part("check"), "changed_when": False}]


def guarded(resources: Sequence[Mapping[str, Any]] = RESOURCES, **settings: object) -> list[dict[str, Any]]:
    """The tasks of a play with a guard around upgrade.yml."""
    variables = {
        "guard_update_id": UPDATE_ID,
        "guard_resources": resources,
        "guard_update_tasks": "upgrade.yml",
        "guard_prestage": False,  # seconds of a slow processor for what no test here is about
        **settings,
    }
    return [{"name": "Update", "ansible.builtin.include_role": {"name": "umbra.rollback.guard"}, "vars": variables}]


def open_shop(guest: Guest) -> None:
    """Install version 1 of a shop."""
    for path, text in PROGRAMS.items():
        guest.put(path, text)
    shop = Shop(guest)
    shop.do("install")
    assert shop.do("check") == "1 tea\n"


class Shop:
    """What can be seen of the shop of a guest, and of the update there."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.name = guest.name
        self._update = f"{STORE}/updates/{UPDATE_ID}/{guest.name}"
        self.journal = f"{self._update}/journal.jsonl"

    def do(self, verb: str) -> str:
        """Run a verb of shop.py."""
        return self.guest.ssh(["python3", "/root/shop.py", verb], timeout=600)

    def picture(self) -> Picture:
        """All of it."""
        taken: Picture = json.loads(self.do("picture"))
        return taken

    def shell(self, script: str) -> str:
        """What a script prints that ends with 0. Raises GuestError."""
        return self.guest.ssh(["sh", "-c", script])

    def await_shell(self, script: str, seconds: float = SETTLES) -> None:
        """Wait until a script ends with 0. Raises AssertionError with what the switch says."""
        end = time.monotonic() + seconds
        while self.shell(f"if {script}; then echo yes; fi") != "yes\n":
            assert time.monotonic() < end, f"{self.name} after {seconds:.0f} s: {script}: {self.log()}"
            time.sleep(1.0)

    def await_console(self, text: str, seconds: float = SETTLES) -> None:
        """Wait until it has said this on its console, for which no network is needed. Raises AssertionError."""
        end = time.monotonic() + seconds
        while text not in self.guest.console.read_text(errors="replace"):
            assert time.monotonic() < end, f"{self.name} did not say {text!r} within {seconds:.0f} s"
            time.sleep(0.2)

    def settle(self, seconds: float = SETTLES) -> None:
        """Wait until its switch is not armed (any more). Raises AssertionError."""
        self.await_shell(f"test ! -e {self._update}/watchdog.json", seconds)

    def state(self) -> str:
        """How its own emergency tool says that the update stands; 'none' when it was never shadowed."""
        if self.shell(f"test -e {self._update}/manifest.json || echo none"):
            return "none"
        argv = [f"{STORE}/umbra", "status", UPDATE_ID, "--json", "--host", self.name]
        return str(json.loads(self.guest.ssh(argv))["update"]["state"])

    def events(self) -> list[dict[str, Any]]:
        """The journal of the update, whole lines."""
        text = self.shell(f"cat {self.journal} 2> /dev/null || true")
        return [json.loads(line) for line in text.splitlines()]

    def moment(self, event: str, which: int = -1) -> float:
        """When, by the guest's clock, an event was noted last (or with 0, first). Raises IndexError."""
        return float([one for one in self.events() if one["event"] == event][which]["time"])

    def status(self) -> dict[str, Any]:
        """What its switch reported last."""
        told: dict[str, Any] = json.loads(self.shell(f"cat {self._update}/status.json"))
        return told

    def log(self) -> str:
        """What the switch said to the system's log."""
        return self.guest.ssh(["journalctl", "--quiet", "--no-pager", "--output=short", "-t", "umbra-watchdog"])


def contents(picture: Picture) -> Picture:
    """A picture without the times at which files were written."""
    files = {path: [facts[0], facts[1], facts[3]] for path, facts in picture["files"].items()}
    return {**picture, "files": files}
