# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A few "hosts" on this machine, each a directory with real files, a real SQLite database and a store of its own.

A case is a small play around the guard, and what has to be true when it has ended: the exit status, what the run says,
which hosts are as before and which are updated, and how each store says the update stands.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).resolve().parent
UPDATE_ID = "shop-2"
SHOWN = 60  # lines of a run that are shown when a case is not as it should be
OLD, NEW, HALF = "old", "new", "half"
Test = Callable[[Path], None]
# The tasks of an update that goes well on every host, and of its checks.
UPGRADE = (SUPPORT / "upgrade.yml").read_text()
CHECKS = (SUPPORT / "checks.yml").read_text()
# A failure that an update rescues itself.
RESCUED = """
- name: Fail, and recover without help
  block:
    - name: Fail
      ansible.builtin.fail:
  rescue:
    - name: Recover
      ansible.builtin.set_fact:
        recovered: true
"""


@dataclass(frozen=True)
class Run:
    """How an ansible-playbook ended, and all it printed, with every run of white space as one blank."""

    status: int
    output: str

    @property
    def text(self) -> str:
        """What it printed, for looking things up in."""
        return " ".join(self.output.split())


class Host:
    """One host: a configuration tree and a database that the update changes, and a store."""

    def __init__(self, root: Path, name: str) -> None:
        """Make the host as it is before the update."""
        self.name, self.root = name, root / name
        self.etc, self.database, self.store = self.root / "etc", self.root / "shop.db", self.root / "store"
        (self.etc / "conf.d").mkdir(parents=True)
        (self.etc / "shop.conf").write_text("version = 1\n")
        (self.etc / "shop.conf").chmod(0o640)
        (self.etc / "current").symlink_to("conf.d")
        for number in range(5):
            (self.etc / "conf.d" / f"{number}.conf").write_text(f"number = {number}\n")
        with sqlite3.connect(self.database) as connection:
            connection.execute("create table orders (id integer primary key, what text)")
            connection.executemany("insert into orders (what) values (?)", [("tea",), ("bread",)])
        connection.close()
        self.settle()

    def settle(self) -> None:
        """Take what is there now for how it is before the update."""
        self._before = self.look()

    def look(self) -> str:
        """All of it, as a digest: names, kinds, modes, times, contents and targets of files; the database, dumped."""
        seen: list[Any] = []
        for path in sorted([self.etc, *self.etc.rglob("*")]):
            status = path.lstat()
            link = os.readlink(path) if path.is_symlink() else ""
            content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) else ""
            seen.append([str(path), status.st_mode, status.st_mtime_ns, link, content])
        with sqlite3.connect(self.database) as connection:
            seen.append(list(connection.iterdump()))
        connection.close()
        return hashlib.sha256(json.dumps(seen).encode()).hexdigest()

    def is_now(self) -> str:
        """OLD: exactly as before; NEW: the whole upgrade is in; HALF: anything else."""
        if self.look() == self._before:
            return OLD
        with sqlite3.connect(self.database) as connection:
            tables = {name for (name,) in connection.execute("select name from sqlite_master")}
        connection.close()
        configured = (self.etc / "shop.conf").read_text() == "version = 2\n"
        added = (self.etc / "conf.d" / "new.conf").exists()
        return NEW if configured and added and "prices" in tables else HALF

    def directory(self, update_id: str = UPDATE_ID) -> Path:
        """What the store has of the update."""
        return self.store / "updates" / update_id / self.name

    def status(self) -> dict[str, Any]:
        """What the host's own switch says that it did."""
        told: dict[str, Any] = json.loads((self.directory() / "status.json").read_text())
        return told

    def state(self, update_id: str = UPDATE_ID) -> str:
        """How the journal of the store says the update stands; 'none' when it was never shadowed."""
        directory = self.directory(update_id)
        if not (directory / "manifest.json").exists():
            return "none"
        journal = directory / "journal.jsonl"
        events = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
        told = [event for event in events if event["event"] in ("restore-begin", "restore-end", "commit")]
        if not told:
            return "open"
        if told[-1]["event"] == "restore-end":
            return "rolled_back" if told[-1]["ok"] else "failed"
        return {"restore-begin": "restoring", "commit": "committed"}[told[-1]["event"]]


class Lab:
    """Some hosts and a directory for plays."""

    def __init__(self, root: Path, hosts: Sequence[str]) -> None:
        """Make the hosts below `root`, their inventory, and for each a file vars/NAME.yml of its resources."""
        self.root = root
        self.plays = root / "plays"
        self.plays.mkdir(parents=True)
        self.hosts = {name: Host(root / "hosts", name) for name in hosts}
        self.write("inventory.yml", {"all": {"hosts": {name: {} for name in hosts}, "vars": self._vars()}})
        for name, host in self.hosts.items():
            paths = json.dumps(RESOURCES).replace("{{ root }}", str(host.root))
            self.write(f"vars/{name}.yml", json.loads(paths))

    def _vars(self) -> dict[str, Any]:
        return {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "lab": str(self.root / "hosts"),
            "root": "{{ lab }}/{{ inventory_hostname }}",
            "support": str(SUPPORT),
        }

    def write(self, name: str, content: object) -> Path:
        """A file beside the plays: text as it is, anything else as YAML (of which JSON is a part)."""
        path = self.plays / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content) if isinstance(content, str) else json.dumps(content, indent=1))
        return path

    def states(self) -> dict[str, tuple[str, str]]:
        """Of each host, how it is, and how its store says the update stands."""
        return {name: (host.is_now(), host.state()) for name, host in self.hosts.items()}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin an ansible-playbook, in the directory of the plays."""
        command = ["ansible-playbook", "-i", str(self.plays / "inventory.yml"), *arguments]
        return subprocess.Popen(
            command,
            cwd=self.plays,
            env={**os.environ, "PWD": str(self.plays), "ANSIBLE_PIPELINING": "1", "ANSIBLE_FORKS": "12"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def play(self, *arguments: str) -> Run:
        """Run an ansible-playbook to its end."""
        process = self.start(*arguments)
        output, dummy = process.communicate(timeout=300)
        return Run(process.returncode, output)


RESOURCES: list[dict[str, Any]] = [
    {"name": "config", "type": "file", "path": "{{ root }}/etc", "depends_on": ["db"]},
    {"name": "db", "type": "sqlite", "path": "{{ root }}/shop.db"},
]


# What an upgrade notifies; where nobody asks whether it fired, it costs nothing.
SILENT = {"name": "Restart", "ansible.builtin.set_fact": {"restarted": True}}
HANDLER = {
    "name": "Restart",
    "ansible.builtin.copy": {"dest": "{{ lab }}/fired-{{ inventory_hostname }}", "content": "", "mode": "0600"},
}


@dataclass(frozen=True)
class Case:
    """A play around the guard. `after` says of each host how it is when the run has ended, and how its update stands.

    `upgrade` and `checks` are files of tasks, `files` others beside the play. `play` adds keywords to the play, `guard`
    variables to the role, and `tasks` stand in its place. `says` has to be in the output, `never` not. `fired` names
    the hosts on which the handler Restart ran. `shows` names the cells of the table in docs/guard.md that the case is,
    by line and column. With `again` it is played once more, with an upgrade that goes well everywhere.
    """

    name: str
    after: Mapping[str, tuple[str, str]]
    status: int
    upgrade: str = UPGRADE
    checks: str = CHECKS
    guard: Mapping[str, Any] = field(default_factory=dict)
    play: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    host_vars: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tasks: Sequence[Mapping[str, Any]] | None = None
    arguments: Sequence[str] = ()
    says: Sequence[str] = ()
    never: Sequence[str] = ()
    fired: Sequence[str] | None = None
    shows: Sequence[tuple[str, str]] = ()
    again: bool = False


def guard(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The task that calls the guard, as a user writes it."""
    settings = {
        "guard_update_id": UPDATE_ID,
        "guard_resources": RESOURCES,
        "guard_store": "{{ root }}/store",
        "guard_update_tasks": "upgrade.yml",
        "guard_validate_tasks": "checks.yml",
        "guard_prestage": False,  # a case that is about it says so; half a second for each host of the others
        "guard_deadline": 0,  # likewise
        "guard_reconnect": 0,  # likewise
        **variables,
    }
    chosen = {key: value for key, value in settings.items() if value is not None}
    role = {"name": "umbra.rollback.guard"}
    return {"name": "Update under guard", "ansible.builtin.include_role": role, "vars": chosen}


def try_case(case: Case, root: Path) -> list[str]:
    """Play a case in a fresh lab; what is not as it should be."""
    lab = Lab(root, list(case.after))
    lab.write("upgrade.yml", case.upgrade)
    lab.write("checks.yml", case.checks)
    for name, text in case.files.items():
        lab.write(name, text)
    for host, variables in case.host_vars.items():
        lab.write(f"host_vars/{host}.yml", dict(variables))
    play = {
        "name": case.name,
        "hosts": ",".join(case.after),
        "gather_facts": False,
        "tasks": case.tasks or [guard(case.guard)],
        "handlers": [SILENT if case.fired is None else HANDLER],
        **case.play,
    }
    lab.write("play.yml", [play])
    wrong = judge(case, lab, lab.play("play.yml", *case.arguments))
    if case.again and not wrong:
        lab.write("upgrade.yml", UPGRADE)
        well = Case("once more", dict.fromkeys(case.after, (NEW, "committed")), 0)
        wrong = judge(well, lab, lab.play("play.yml"))
    return wrong


def judge(case: Case, lab: Lab, run: Run) -> list[str]:
    """What is not as the case says."""
    wrong = [] if run.status == case.status else [f"exit status {run.status}, not {case.status}"]
    for name, (content, state) in lab.states().items():
        if content != case.after[name][0]:
            wrong.append(f"{name} is {content}, not {case.after[name][0]}")
        if state != case.after[name][1]:
            wrong.append(f"the update on {name} is {state}, not {case.after[name][1]}")
    wrong += [f"it does not say: {text}" for text in case.says if text not in run.text]
    never = [*case.never, "Traceback", "Encountered 1 template error"]
    wrong += [f"it says: {text}" for text in never if text in run.text]
    if case.fired is not None:
        fired = sorted(path.name.partition("-")[2] for path in (lab.root / "hosts").glob("fired-*"))
        if fired != sorted(case.fired):
            wrong.append(f"handlers fired on {fired}, not {sorted(case.fired)}")
    if wrong:
        shown = "\n".join(run.output.splitlines()[-SHOWN:])
        wrong.insert(0, textwrap.indent(shown, "  | "))  # the reasons stand below it, for the end of a log is shown
    return wrong


def main(cases: Sequence[Case]) -> None:
    """Play all cases (or those named as arguments), one line for each; end with 1 when one is not as it should be."""
    _report((case.name, partial(try_case, case)) for case in cases)


def expect(run: Run, status: int, *says: str) -> None:
    """Say how a run has to have ended. Raises AssertionError, with what it printed."""
    missing = [text for text in says if text not in run.text]
    shown = "\n".join(run.output.splitlines()[-SHOWN:])
    assert run.status == status and not missing, f"{shown}\nexit status {run.status}; it does not say {missing}"


def shows(*cells: tuple[str, str]) -> Callable[[Test], Test]:
    """As `Case.shows`, of a function for `try_all`."""

    def noted(test: Test) -> Test:
        test.shows = cells  # type: ignore[attr-defined]
        return test

    return noted


def try_all(tests: Sequence[Test]) -> None:
    """As `main`, for functions that are given a fresh directory and raise AssertionError."""

    def asserting(test: Test, root: Path) -> list[str]:
        try:
            test(root)
        except AssertionError as error:
            return [str(error)]
        return []

    _report((test.__name__, partial(asserting, test)) for test in tests)


def _report(tests: Iterable[tuple[str, Callable[[Path], list[str]]]]) -> None:
    failed = played = 0
    for name, test in tests:
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(dir=os.environ.get("OUTPUT_DIR")) as directory:
            wrong = test(Path(directory))
        played, failed = played + 1, failed + bool(wrong)
        print(f"{'FAILED' if wrong else 'ok':6} {time.monotonic() - begin:5.1f} s  {name}", flush=True)
        for line in wrong:
            print(textwrap.indent(line, "       "), flush=True)
    sys.exit(1 if failed or not played else 0)
