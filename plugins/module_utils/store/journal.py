# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that grow by one JSON object a line, each on disk before anything goes on: journals, and the history."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from .. import canonical
from ..errors import JournalDamaged, ManifestForged, StoreCorrupt, StoreError, StoreKeyMissing
from ..present import is_there
from . import files
from .seal import Seal

_LOCK = threading.Lock()  # of all files: an append is short, and two objects may stand for one file
_PLAIN = Seal()


class Lines:
    """The file `path` in the store `store`, whose lines are sealed for `place`. One process appends at a time (it holds
    the host's lock)."""

    def __init__(self, path: str, store: str, seal: Seal, place: str) -> None:
        self.path = path
        self.place = place
        self.seal = seal
        self.store = store

    def append(self, record: Mapping[str, Any]) -> None:
        """Add `record`; it is on disk when this returns. Raises NoSpace, StoreError."""
        line = canonical.dumps(self.seal.close(record, self.place)) + b"\n"
        with files.explained(self.store, "a line of a journal", len(line)):
            self._append(line)

    def lines(self) -> tuple[list[bytes], bytes]:
        """The lines as they are, and what a crash left after the last of them. Raises StoreError."""
        with files.explained(self.store):
            try:
                whole, _newline, torn = files.read(self.path).rpartition(b"\n")
            except FileNotFoundError:
                return [], b""
        return whole.split(b"\n") if whole else [], torn

    def opened(self, line: bytes, number: int) -> dict[str, Any] | StoreError:
        """What a line says, or what is wrong with it."""
        path = f"{self.path}, line {number}"
        try:
            return self.seal.read(line, self.place, path)
        except StoreError as error:
            return error

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
    """What each create and restore of one host took, and how it ended: what predictions are made of.

    It decides about no state, so a line that is damaged is left out, and no key is needed.
    """

    def __init__(self, path: str, store: str, place: str = "history") -> None:
        self._lines = Lines(path, store, _PLAIN, place)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one outcome; it is on disk when this returns. Raises NoSpace, StoreError."""
        with _LOCK:
            self._lines.append(record)

    def read(self) -> list[dict[str, Any]]:
        """All outcomes that can be read, oldest first. Raises StoreError."""
        return [one for one in self._read() if isinstance(one, dict)]

    def check(self) -> None:
        """Raise StoreCorrupt for the first line that is damaged."""
        for one in self._read():
            if isinstance(one, StoreError):
                raise one

    def _read(self) -> list[dict[str, Any] | StoreError]:
        lines, _torn = self._lines.lines()
        return [self._lines.opened(line, number) for number, line in enumerate(lines, 1)]


class Journal:
    """What the verbs did with one update on one host, so that a killed restore can be finished.

    Its lines are numbered (`n`, from 1). What a crash left of the last one was never acted upon, and counts as never
    written. Any other damage is refused: who guesses what was done loses what it had set aside.
    """

    def __init__(self, path: str, store: str, seal: Seal = _PLAIN, place: str = "journal") -> None:
        self.path = path
        self._lines = Lines(path, store, seal, place)
        self._counted = (0, 0)  # how many bytes and lines there were after the last append

    def append(self, event: str, **facts: Any) -> None:
        """Note `event`, with the time; it is on disk when this returns. Raises NoSpace, JournalDamaged, StoreError."""
        with _LOCK:
            if self._size() != self._counted[0]:
                self._counted = -1, len(self.events())
            number = self._counted[1] + 1
            self._counted = -1, number - 1
            self._lines.append({"n": number, "time": time.time(), "event": event, **facts})
            self._counted = self._size(), number

    def events(self) -> list[dict[str, Any]]:
        """All events, oldest first; each has `event` and `time`. Raises JournalDamaged, StoreKeyMissing, StoreError."""
        found, problem = self.sound()
        if isinstance(problem, (ManifestForged, StoreKeyMissing)):
            raise problem  # pylint: disable=raising-bad-type  # it was looked at
        if problem is not None:
            raise JournalDamaged(path=problem.facts["path"], problem=problem.facts["problem"])
        return list(found.values())

    def check(self) -> None:
        """Raise what `events` does."""
        self.events()

    def sound(self) -> tuple[dict[int, dict[str, Any]], StoreError | None]:
        """The events that can be read, by their number, and the first thing that is wrong. Raises StoreError."""
        lines, torn = self._lines.lines()
        found: dict[int, dict[str, Any]] = {}
        problems: list[StoreError] = []
        for number, line in enumerate(lines, 1):
            record = self._lines.opened(line, number)
            if isinstance(record, StoreError):
                problems.append(record)
            elif problem := _impossible(record):
                problems.append(StoreCorrupt(path=f"{self.path}, line {number}", problem=problem))
            else:
                if record["n"] != number:
                    problem = f"it says that it is line {record['n']}: lines are missing, or were moved"
                    problems.append(StoreCorrupt(path=f"{self.path}, line {number}", problem=problem))
                found[record.pop("n")] = record
        if torn and isinstance(self._lines.opened(torn[:-1], len(lines) + 1), dict):
            path = f"{self.path}, line {len(lines) + 1}"  # it is whole, so it was on disk: no crash did that
            problems.append(StoreCorrupt(path=path, problem="its end is another character than the end of a line"))
        return found, problems[0] if problems else None

    def agrees(self, other: Journal) -> bool:
        """Whether all lines that are good in both are the same. Raises StoreError."""
        ours, theirs = self._good(), other._good()
        return all(ours[number] == theirs[number] for number in set(ours) & set(theirs))

    def mended_by(self, other: Journal) -> bytes | None:
        """What this journal said before it was damaged, its lost lines taken from a copy; None when that one does not
        have them all. Raises StoreError."""
        if not self.agrees(other):
            return None  # it is that of another attempt
        lines = {**other._good(), **self._good()}
        text = b"".join(lines[number] + b"\n" for number in sorted(lines))
        with files.explained(self._lines.store):
            damaged = files.read(self.path)
        torn = damaged.rpartition(b"\n")[2]
        whole = isinstance(self._lines.opened(torn[:-1], 0), dict)
        if set(lines) != set(range(1, len(lines) + 1)) or len(text) < len(damaged) - (0 if whole else len(torn)):
            return None
        return text

    def _good(self) -> dict[int, bytes]:
        """The lines that are whole, by the number that they have. Raises StoreError."""
        found = {}
        lines, torn = self._lines.lines()
        for line in (*lines, torn[:-1]):
            record = self._lines.opened(line, 0)
            if isinstance(record, dict) and not _impossible(record):
                found[record["n"]] = line
        return found

    def _size(self) -> int:
        with files.explained(self._lines.store):
            try:
                return os.stat(self.path).st_size
            except FileNotFoundError:
                return 0


def _impossible(record: Mapping[str, Any]) -> str:
    """What is wrong with an event that is whole: a number in it may become the name of a file."""
    if not isinstance(record.get("event"), str):
        return "it is no event"
    if any(isinstance(record.get(key, 1), bool) or not isinstance(record.get(key, 1), int) for key in ("n", "round")):
        return "a number in it is none"
    return "" if "n" in record else "it has no number"


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
