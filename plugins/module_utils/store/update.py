# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host's part of one update: the manifest, and what the verbs keep beside it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from .. import canonical
from ..errors import ManifestExists, ManifestMissing, StoreCorrupt
from ..plan import Plan
from ..present import is_there
from ..shadow import Manifest
from . import files
from .journal import Journal
from .objects import ObjectContents
from .seal import Seal

MANIFEST = "manifest.json"
SECRETS = "secrets.json"
PLAN = "plan.json"
LEASES = "leases.json"
WATCHDOG = "watchdog.json"
WATCHDOG_COPY = "watchdog-copy.json"
STATUS = "status.json"
JOURNAL = "journal.jsonl"
DROPPED = "~dropped"
_DISPLACED = re.compile(r"displaced-(\d+)\.json")
_ATTEMPT = re.compile(r"(?P<host>[^~]+)(~(?P<attempt>[1-9]\d*))?")


class HostUpdate:
    """The directory `path`: what `host` keeps of the update `update_id`.

    `attempt` is None, or the number of an ended attempt that made room for a newer one with the same update_id.
    """

    def __init__(
        self, contents: ObjectContents, path: str, update_id: str, host: str, attempt: int | None, seal: Seal
    ) -> None:
        self.update_id = update_id
        self.host = host
        self.attempt = attempt
        self.path = path
        self.manifest_path = os.path.join(path, MANIFEST)
        self.journal = Journal(os.path.join(path, JOURNAL), contents.path, seal, f"{update_id}/{host}/{JOURNAL}")
        self.store = contents.path
        self._contents = contents
        self._seal = seal

    # --- the manifest

    def exists(self) -> bool:
        """Whether a manifest is published. Raises StoreError."""
        with files.explained(self._contents.path):
            return is_there(self.manifest_path)

    def manifest(self) -> Manifest:
        """The manifest, checked. Raises ManifestMissing, StoreCorrupt, StoreFormatUnknown, StoreError."""
        raw = self._load(MANIFEST)
        if raw is None:
            known = ", ".join(self._known()) or "none"
            raise ManifestMissing(update_id=self.update_id, host=self.host, path=self.path, known=known)
        return self._manifest(raw, self.manifest_path)

    def check_unpublished(self) -> None:
        """Raise StoreCorrupt when there is no manifest, but something that is only written after one."""
        with files.explained(self._contents.path):
            after = [name for name in files.names(self.path) if name != SECRETS and not name.endswith(".tmp")]
        if after and not self.exists():
            problem = f"it is missing, but {', '.join(after[:3])} beside it shows that it was there"
            raise StoreCorrupt(path=self.manifest_path, problem=problem)

    def publish(self, manifest: Manifest, secrets: Mapping[str, Mapping[str, Any]]) -> None:
        """Make `manifest` that of this update, after everything it names is on disk.

        Raises ManifestExists when another is published already, NoSpace, StoreError.
        """
        if self.exists():
            when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.manifest().created))
            raise ManifestExists(update_id=self.update_id, host=self.host, created=when)
        self._contents.flush()
        if secrets:
            self._save(SECRETS, {name: dict(options) for name, options in secrets.items()})
        else:
            self.forget_secrets()  # those of an attempt that was killed before its manifest was published
        self._save(MANIFEST, manifest.to_dict())

    def archive(self) -> None:
        """Make room for a new attempt: this one goes on under the next free number. Raises StoreError."""
        with files.explained(self._contents.path):
            parent = os.path.dirname(self.path)
            number = 1
            while is_there(f"{self.path}~{number}") or is_there(f"{self.path}~{number}{DROPPED}"):
                number += 1
            os.rename(self.path, f"{self.path}~{number}")
            files.sync_directory(parent)

    # --- what the verbs keep

    @property
    def state(self) -> str:
        """missing, open, restoring, failed, rolled_back, undone or committed, as manifest and journal tell.

        A restore of some of the resources that went well leaves the state as it was before. So does one that finds all
        as it should be after a rollback (its own switch's, say), as soon as it begins. Raises StoreError.
        """
        if not self.exists():
            return "missing"
        state = before = "open"
        source: Any = None
        for event in self.journal.events():
            if event["event"] == "commit":
                state = "committed"
            elif event["event"] == "restore-begin":
                before = before if state in ("restoring", "failed") else state
                source = event.get("source")
                idle = source == "shadow" and not event.get("drifted", True) and not event.get("stopped", True)
                state = state if idle and state == "rolled_back" else "restoring"
            elif event["event"] == "restore-end" and not event.get("ok"):
                state = "failed"
            elif event["event"] == "restore-end" and event.get("partial"):
                state = before
            elif event["event"] == "restore-end":
                state = "undone" if source == "displaced" else "rolled_back"
        return state

    def secrets(self) -> dict[str, dict[str, Any]]:
        """The secret options by name of the resource; {} when there are none. Raises StoreError."""
        return self._load(SECRETS) or {}

    def forget_secrets(self) -> None:
        """Remove the secret options. May be repeated. Raises StoreError."""
        self._remove(SECRETS)

    def save_plan(self, plan: Plan) -> None:
        """Keep this host's part of the plan. Raises NoSpace, StoreError."""
        self._save(PLAN, plan.to_dict())

    def plan(self) -> Plan | None:
        """What `save_plan` kept, or None. Raises StoreCorrupt, StoreFormatUnknown, StoreError."""
        raw = self._load(PLAN)
        return None if raw is None else Plan.from_dict(raw, os.path.join(self.path, PLAN))

    def save_leases(self, raw: Mapping[str, Any]) -> None:
        """Keep what prestaging holds (JSON-ready). Raises NoSpace, StoreError."""
        self._save(LEASES, raw)

    def leases(self) -> dict[str, Any]:
        """What `save_leases` kept; {} when nothing was. Raises StoreCorrupt, StoreError."""
        return self._load(LEASES) or {}

    def save_watchdog(self, raw: Mapping[str, Any]) -> None:
        """Keep what the dead-man switch is armed with (JSON-ready), twice. Raises NoSpace, StoreError."""
        for name in (WATCHDOG_COPY, WATCHDOG):
            self._save(name, raw)

    def watchdog(self, name: str = WATCHDOG) -> dict[str, Any] | None:
        """What `save_watchdog` kept, or its copy `name`; None when there is none. Raises StoreCorrupt, StoreError."""
        raw: dict[str, Any] | None = self._load(name)
        return raw

    def forget_watchdog(self) -> None:
        """No switch is armed any more. May be repeated. Raises StoreError."""
        for name in (WATCHDOG, WATCHDOG_COPY):
            self._remove(name)

    def save_status(self, raw: Mapping[str, Any]) -> None:
        """Keep what the dead-man switch did last, for whoever looks (JSON-ready). Raises NoSpace, StoreError."""
        self._save(STATUS, raw)

    def status(self) -> dict[str, Any]:
        """What `save_status` kept; {} when nothing was. Raises StoreCorrupt, StoreError."""
        return self._load(STATUS) or {}

    # --- what restores displaced

    def displaced_path(self, round_: int) -> str:
        """Where the manifest of what restore `round_` displaced is, or would be."""
        return os.path.join(self.path, f"displaced-{round_}.json")

    def save_displaced(self, round_: int, manifest: Manifest) -> None:
        """Keep what a restore is about to displace, once all it names is on disk. Raises NoSpace, StoreError."""
        self._contents.flush()
        self._save(os.path.basename(self.displaced_path(round_)), manifest.to_dict())

    def displaced(self, round_: int) -> Manifest | None:
        """What restore `round_` displaced, or None. Raises StoreCorrupt, StoreFormatUnknown, StoreError."""
        path = self.displaced_path(round_)
        raw = self._load(os.path.basename(path))
        return None if raw is None else self._manifest(raw, path)

    def displaced_rounds(self) -> list[int]:
        """The restores whose displaced state is kept, in order. Raises StoreError."""
        with files.explained(self._contents.path):
            found = [_DISPLACED.fullmatch(name) for name in files.names(self.path)]
        return sorted(int(match[1]) for match in found if match)

    def forget_displaced(self) -> None:
        """Let go of everything that restores displaced. May be repeated. Raises StoreError."""
        for round_ in self.displaced_rounds():
            self._remove(os.path.basename(self.displaced_path(round_)))

    # --- for replicas

    def records(self) -> list[str]:
        """The names of the records that are here: the manifest, and what the verbs keep. Raises StoreError."""
        known = (MANIFEST, SECRETS, PLAN, LEASES, JOURNAL)
        with files.explained(self._contents.path):
            found = files.names(self.path)
        return [name for name in (*known, *filter(_DISPLACED.fullmatch, found)) if name in found]

    def record(self, name: str) -> bytes | None:
        """The bytes of one of the files here, which are whole; None when it isn't there. Raises StoreError."""
        data = self._bytes(name)
        if data is None:
            return None
        if name == JOURNAL:
            self.journal.check()
            return data[: data.rfind(b"\n") + 1]
        self._seal.read(data, self._place(name), os.path.join(self.path, name))
        return data

    def take_record(self, name: str, data: bytes) -> None:
        """Have such bytes as the file `name`. Raises NoSpace, StoreError."""
        path = os.path.join(self.path, name)
        with files.explained(self._contents.path, name, len(data)):
            if not is_there(path) or files.read(path) != data:
                files.publish(path, data)

    # --- inside

    def _manifest(self, raw: Any, path: str) -> Manifest:
        manifest = Manifest.from_dict(raw, path)
        if (manifest.update_id, manifest.host) != (self.update_id, self.host):
            raise StoreCorrupt(path=path, problem=f"it is that of update {manifest.update_id} on {manifest.host}")
        return manifest

    def _known(self) -> list[str]:
        """Updates of this host that have a manifest."""
        parent, name = os.path.split(self.path)
        updates = os.path.dirname(parent)
        with files.explained(self._contents.path):
            return [i for i in files.names(updates) if is_there(os.path.join(updates, i, name, MANIFEST))]

    def _save(self, name: str, value: Mapping[str, Any]) -> None:
        data = canonical.dumps(self._seal.close(value, self._place(name))) + b"\n"
        with files.explained(self._contents.path, name, len(data)):
            files.publish(os.path.join(self.path, name), data)

    def _load(self, name: str) -> Any:
        """The value in the file `name`; None when there is no such file. Raises StoreCorrupt, StoreError."""
        data = self._bytes(name)
        return None if data is None else self._seal.read(data, self._place(name), os.path.join(self.path, name))

    def _bytes(self, name: str) -> bytes | None:
        with files.explained(self._contents.path):
            try:
                return files.read(os.path.join(self.path, name))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def _place(self, name: str) -> str:
        """Whose the file `name` is: an ended attempt keeps what it was written as."""
        return f"{self.update_id}/{self.host}/{name}"

    def _remove(self, name: str) -> None:
        with files.explained(self._contents.path):
            if files.unlink(os.path.join(self.path, name)):
                files.sync_directory(self.path)


def parse_name(name: str) -> tuple[str, int | None] | None:
    """Host and attempt of a directory's name; None when it is not that of a host's part of an update."""
    match = _ATTEMPT.fullmatch(name)
    if not match:
        return None
    return files.decode_name(match["host"]), int(match["attempt"]) if match["attempt"] else None
