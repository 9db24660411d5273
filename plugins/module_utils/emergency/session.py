# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of the emergency tool: what was typed, where it prints, and how it ends."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn, TextIO

from ..errors import InputError, StoreLocked, UmbraError
from ..human import clean
from ..resource import check_update_id
from ..store.seal import read_key
from ..store.store import Store
from ..store.update import HostUpdate
from ..verbs.run import Target
from . import facts, show, work
from .screen import BOLD, RED, Screen

DONE, INCOMPLETE, REFUSED, BUSY = 0, 1, 2, 3
LOCK_SECONDS = 5.0  # for whoever holds it for a moment; whoever works longer is shown
CHANGING = ("restore", "undo", "commit")
AGAIN = ("store", "host", "store_key_file")  # options that are to be typed again

# What to type, where the message of an error speaks of playbooks.
HINTS = {
    "state-refused": "{tool} status {update_id}  says what can be done.",
    "resource-unknown": "{tool} plan {update_id}  lists them.",
    "manifest-missing": "{tool} list  shows the updates that are there.",
    "store": "Here: --store DIR names another store, and sudo reads what is root's.",
    "store-missing": "Here: --store DIR names another store.",
    "store-key-missing": "Here: --store-key-file FILE names a file that has it.",
    "manifest-forged": "Here: --store-key-file FILE names a file that has the key.",
    "store-corrupt": "{tool} verify  says what is damaged; --resource NAME restores what is not.",
    "content-missing": "{tool} verify  says what is damaged; --resource NAME restores what is not.",
}


@dataclass
class Session:
    """`archive` is the tool's own file, or None; `store` the path of the store; `begun`: a verb that changes something
    was called."""

    options: Mapping[str, Any]
    screen: Screen
    errors: Screen
    stdin: TextIO | None
    archive: str | None
    store: str
    begun: bool = False

    @property
    def command(self) -> str:
        """What was typed."""
        return "version" if self.options.get("version") else self.options.get("command") or "status"

    @cached_property
    def tool(self) -> str:
        """How to call this tool again for the same store and host, in messages."""
        extra = "".join(
            f" --{key.replace('_', '-')} {shlex.quote(self.options[key])}" for key in AGAIN if key in self.options
        )
        return show.tool_name(self.archive) + extra

    @cached_property
    def host(self) -> str:
        """The name below which this host's shadows lie. Raises InputError, StoreError."""
        chosen = facts.choose_host(self.store, self.options.get("host"))
        if self.command not in CHANGING:  # those say it where they ask
            self.screen.lines(self._strange(chosen))
        return chosen

    def _strange(self, host: str) -> list[str]:
        """What to know where this host calls itself otherwise, and nobody typed which host it is."""
        if "host" in self.options or not facts.stranger(self.store, host):
            return []
        return [f"This host calls itself {os.uname().nodename}; these are the shadows of {host}."]

    def _refuse_stranger(self) -> None:
        """Raise InputError where nobody is asked, and what would be changed may be another host's."""
        machine = "" if "host" in self.options else facts.stranger(self.store, self.host)
        if machine:
            made = "" if machine == "?" else f", made where the host called itself {machine}"
            problem = f"is missing. This host calls itself {os.uname().nodename}; these are the shadows of {self.host}"
            remedy = f"Where they are of this very host, type --host {self.host} to say so."
            raise InputError(where="--host", problem=problem + made, remedy=remedy)

    @property
    def update_id(self) -> str:
        """The update that was named; "" when none was. Raises UpdateIdInvalid."""
        given = self.options.get("update_id")
        return check_update_id(given) if given else ""

    @cached_property
    def store_key(self) -> str | None:
        """What the file of --store-key-file has. Raises InputError."""
        path = self.options.get("store_key_file")
        return read_key(path) if path else None

    def target(self, update_id: str) -> Target:
        """Where the verbs work. Raises InputError."""
        return Target(update_id, self.host, self.store, LOCK_SECONDS, store_key=self.store_key)

    def open(self) -> Store:
        """The store. Raises StoreError."""
        return self.target("").open()

    def update(self, purpose: str) -> HostUpdate:
        """The update that was named, which has a manifest. Raises InputError, ManifestMissing, StoreError."""
        store = self.open()
        if not self.update_id:
            known = [update.update_id for update in store.updates()]
            listed = f"This host has: {', '.join(known)}" if known else "This host has none"
            example = f"Type: {self.tool} {purpose} {known[-1] if known else 'ID'}"
            raise InputError(where=f"{purpose}: the update is missing", problem=listed, remedy=example)
        update = store.update(self.update_id)
        if not update.exists():
            update.manifest()  # raises ManifestMissing, which names the updates that are there
        return update

    # --- what is asked, and said

    def agreed(self, lines: Iterable[str]) -> bool:
        """Whether to go on: asked where a person sits at a terminal, unless --yes was typed. Raises InputError where
        nobody is asked whether these shadows are this host's, and somebody has to be."""
        if self.options.get("yes") or self.stdin is None or not self.stdin.isatty():
            self._refuse_stranger()
            return True
        screen = self.screen if self.screen.seen else self.errors
        screen.lines([*self._strange(self.host), *lines])
        screen.raw("Go on? [y/N] ")
        if self.stdin.readline().strip().lower() in ("y", "yes"):
            return True
        screen.line("Nothing was changed.")
        return False

    def interrupted(self, number: int, text: str = "") -> NoReturn:
        """End after the signal `number`, and say `text`; else, if a verb was called, how to go on: it is journaled."""
        command = f"{self.tool} {self.command} {self.options.get('update_id')}"
        if not text and self.begun:
            text = f"What was done is in the journal, and nothing is lost. To go on: {command}"
        text = text or "Nothing was changed."
        self.screen.keep()
        self.errors.line()
        self.errors.line(f"Interrupted. {text}", BOLD)
        status = 128 + number
        self.document(status, error={"code": "interrupted", "message": text, "hint": ""})
        work.leave(status)

    def document(self, status: int, **facts_: Any) -> int:
        """Print the JSON document, if one was asked for; the exit status."""
        if self.options.get("json"):
            told = {"command": self.command, "exit": status, **facts_}
            self.screen.raw(json.dumps(told, indent=1, sort_keys=True) + "\n")
        return status

    def refuse(self, error: UmbraError) -> int:
        """Say what is wrong, and what to type; the exit status."""
        return self.fail(error.code, str(error), BUSY if isinstance(error, StoreLocked) else REFUSED)

    def fail(self, code: str, message: str, status: int = REFUSED) -> int:
        """As `refuse`, of an error's code and message."""
        hint = HINTS.get(code, "").format(tool=self.tool, update_id=self.options.get("update_id") or "")
        if code == "state-refused" and self.command == "restore":
            hint = f"Here: {self.tool} restore {self.options['update_id']} --force"
        if self.options.get("json"):
            return self.document(status, error={"code": code, "message": message, "hint": hint})
        self.errors.line(clean(message), RED)
        if hint:
            self.errors.line(hint, BOLD)
        return status
