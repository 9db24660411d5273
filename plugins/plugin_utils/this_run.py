# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one run of ansible-playbook knows of its hosts: their manifests, their plans, and what happened.

It lies below Ansible's own temporary directory of the run, which every worker process shares and which goes with the
run: the controller keeps nothing between runs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote


class ThisRun:
    """The directory of this run for one update. Files are written whole and renamed; events are lines, appended."""

    def __init__(self, local_tmp: str, update_id: str) -> None:
        self._root = os.path.join(local_tmp, "umbra", quote(update_id, safe=""))

    def keep_host(
        self, host: str, manifest: Mapping[str, Any], history: list[dict[str, Any]], turn: float | None = None
    ) -> None:
        """Remember what `host` shadowed, what earlier shadows and restores took there, and how many seconds the call
        that told it took beside its own work."""
        self._write("hosts", host, {"manifest": dict(manifest), "history": history, "turn": turn})

    def hosts(self) -> dict[str, dict[str, Any]]:
        """What `keep_host` was given, by host."""
        try:
            names = sorted(os.listdir(os.path.join(self._root, "hosts")))
        except FileNotFoundError:
            return {}
        return {unquote(name): self._read("hosts", unquote(name)) or {} for name in names if not name.startswith(".")}

    def keep_plan(self, host: str, plan: Mapping[str, Any]) -> None:
        """Remember the part of the analysis that concerns `host`."""
        self._write("plans", host, plan)

    def plan(self, host: str) -> dict[str, Any] | None:
        """What `keep_plan` was given for `host`, or None."""
        return self._read("plans", host)

    def record(self, event: str, **facts: Any) -> None:
        """Note that something happened now."""
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        line = json.dumps({"event": event, "time": time.time(), **facts}) + "\n"
        fd = os.open(os.path.join(self._root, "events"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as events:
            events.write(line)

    def events(self) -> list[dict[str, Any]]:
        """What happened, in order."""
        try:
            with open(os.path.join(self._root, "events"), encoding="utf-8") as lines:
                return [json.loads(line) for line in lines]
        except FileNotFoundError:
            return []

    def unmet(self) -> list[str]:
        """Resources (host:name) whose last restore in this run failed, or that had to be left alone."""
        bad: dict[str, bool] = {}
        for event in self.events():
            if event["event"] == "restored":
                for result in event["resources"]:
                    bad[f"{event['host']}:{result['name']}"] = result["action"] in ("failed", "untouched")
        return sorted(key for key, is_bad in bad.items() if is_bad)

    def _write(self, kind: str, host: str, value: Mapping[str, Any]) -> None:
        directory = os.path.join(self._root, kind)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        name = quote(host, safe="").replace(".", "%2E")
        temporary = os.path.join(directory, f".{name}.{os.getpid()}")
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(value, file)
        os.replace(temporary, os.path.join(directory, name))

    def _read(self, kind: str, host: str) -> dict[str, Any] | None:
        name = quote(host, safe="").replace(".", "%2E")
        try:
            with open(os.path.join(self._root, kind, name), encoding="utf-8") as file:
                found: dict[str, Any] = json.load(file)
                return found
        except FileNotFoundError:
            return None
