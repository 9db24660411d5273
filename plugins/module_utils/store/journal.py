# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that grow by one JSON object a line, each on disk before anything goes on: journals, and the history."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from ..errors import StoreCorrupt
from ..present import is_there
from . import files

_LOCK = threading.Lock()  # of all files: an append is short, and two objects may stand for one file


class Lines:
    """The file `path` in the store `store`. One process appends at a time (it holds the host's lock)."""

    def __init__(self, path: str, store: str) -> None:
        self.path = path
        self._store = store

    def append(self, record: Mapping[str, Any]) -> None:
        """Add `record`; it is on disk when this returns. Raises NoSpace, StoreError."""
        line = json.dumps(record, separators=(",", ":")).encode("ascii") + b"\n"
        with _LOCK, files.explained(self._store, "a line of a journal", len(line)):
            self._append(line)

    def read(self) -> tuple[list[dict[str, Any]], int]:
        """All records, and how many lines are damaged: those are left out, and so is what a crash left of the last one.

        Raises StoreError.
        """
        with files.explained(self._store):
            try:
                whole, _newline, _torn = files.read(self.path).rpartition(b"\n")
            except FileNotFoundError:
                return [], 0
        records = [_record(line) for line in whole.split(b"\n")] if whole else []
        return [record for record in records if record is not None], records.count(None)

    def _append(self, line: bytes) -> None:
        new = not is_there(self.path)
        if new:
            files.make_directory(os.path.dirname(self.path))
        fd = files.retrying(lambda: files.open_new(self.path, 0))
        try:
            end = _end_of_last_line(fd)
            os.ftruncate(fd, end)
            files.write_all(fd, line, end)
            os.fsync(fd)
        finally:
            os.close(fd)
        if new:
            files.sync_directory(os.path.dirname(self.path))


class History:
    """What each create and restore of one host took, and how it ended: what predictions are made of."""

    def __init__(self, path: str, store: str) -> None:
        self._lines = Lines(path, store)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one outcome; it is on disk when this returns. Raises NoSpace, StoreError."""
        self._lines.append(record)

    def read(self) -> list[dict[str, Any]]:
        """All outcomes that can be read, oldest first. Raises StoreError."""
        return self._lines.read()[0]


class Journal:
    """What the verbs did with one update on one host, so that a killed restore can be finished."""

    def __init__(self, path: str, store: str) -> None:
        self._lines = Lines(path, store)

    def append(self, event: str, **facts: Any) -> None:
        """Note `event`, with the time; it is on disk when this returns. Raises NoSpace, StoreError."""
        self._lines.append({"time": time.time(), "event": event, **facts})

    def events(self) -> list[dict[str, Any]]:
        """All events that can be read, oldest first; each has `event` and `time`. Raises StoreError."""
        return [event for event in self._lines.read()[0] if isinstance(event.get("event"), str)]

    def check(self) -> None:
        """Raise StoreCorrupt when a line can't be read; what a crash left of the last one does not count."""
        records, bad = self._lines.read()
        bad += sum(not isinstance(record.get("event"), str) for record in records)
        if bad:
            raise StoreCorrupt(path=self._lines.path, problem=f"{bad} of its lines can't be read")


def _end_of_last_line(fd: int) -> int:
    """Where the last whole line of `fd` ends: what a crash left after it was never noted."""
    end = os.fstat(fd).st_size
    while end:
        start = max(0, end - 4096)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
