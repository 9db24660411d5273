# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What proves that a record in the store is whole, and with a key that it is ours: a checksum, and a keyed one."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from .. import canonical
from ..errors import InputError, ManifestForged, StoreCorrupt, StoreKeyMissing

CHECKSUM = "checksum"
MAC = "mac"
LEAST_KEY = 16  # characters


class Seal:
    """Closes and opens records (JSON objects). `place` says whose a record is and which: one that was moved is refused.

    Without `key` there is a checksum, which shows damage; with one also a MAC, which shows who wrote it. A seal that is
    not `strict` looks at checksums only: it is for what reads the records of all hosts.
    """

    def __init__(self, key: str | None = None, strict: bool = True) -> None:
        self._key = key.encode("utf-8", "surrogateescape") if key else None
        self._strict = strict

    @property
    def has_key(self) -> bool:
        """Whether records are proven by a key."""
        return self._key is not None

    def lenient(self) -> Seal:
        """A seal that tells damage, and does not ask who wrote a record."""
        return Seal(strict=False)

    def close(self, body: Mapping[str, Any], place: str) -> dict[str, Any]:
        """`body`, which has neither `checksum` nor `mac`, as it will be read back, with what proves it."""
        body = json.loads(canonical.dumps(body))  # keys that are numbers are sorted as such, and come back as text
        text = _text(body, place)
        closed = {**body, CHECKSUM: _checksum(text)}
        return {**closed, MAC: _mac(self._key, text)} if self._key else closed

    def open(self, raw: Any, place: str, path: str) -> dict[str, Any]:
        """The body of what `close` made. Raises StoreCorrupt, ManifestForged, StoreKeyMissing, which name `path`."""
        if not isinstance(raw, dict):
            raise StoreCorrupt(path=path, problem="it is not a JSON object")
        body = {key: value for key, value in raw.items() if key not in (CHECKSUM, MAC)}
        try:
            text = _text(body, place)
        except RecursionError as error:
            raise StoreCorrupt(path=path, problem=f"it is nested too deeply: {error}") from error
        if raw.get(CHECKSUM) != _checksum(text):
            raise StoreCorrupt(path=path, problem="its checksum does not match what it says")
        if self._strict:
            self._authentic(raw, text, path)
        return body

    def read(self, data: bytes, place: str, path: str) -> dict[str, Any]:
        """As `open`, of JSON text, which has to be as `close` and `canonical.dumps` make it, byte for byte."""
        try:
            raw = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise StoreCorrupt(path=path, problem=f"it is not JSON: {error}") from error
        body = self.open(raw, place, path)
        if canonical.dumps(raw) != data.rstrip(b"\n"):  # a flipped bit may leave the value: in 0.1000000000000000055
            raise StoreCorrupt(path=path, problem="it is not as it was written, though it says the same")
        return body

    def _authentic(self, raw: Mapping[str, Any], text: bytes, path: str) -> None:
        if self._key is None:
            if MAC in raw:
                raise StoreKeyMissing(path=path)
        elif MAC not in raw:
            raise ManifestForged(path=path, problem="it carries no MAC")
        elif not hmac.compare_digest(str(raw[MAC]).encode(), _mac(self._key, text).encode()):
            raise ManifestForged(path=path, problem="its MAC is another one")


def read_key(path: str) -> str:
    """The key that a file has, without white space around it. Raises InputError."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except OSError as error:
        where, problem = f"The file {path} of the store's key", f"it can't be read: {error.strerror}"
        raise InputError(where=where, problem=problem, remedy="Name another.") from error


def check_key(key: str | None) -> str | None:
    """The key; None for an empty one. Raises InputError for one that can be guessed."""
    if key and len(key) < LEAST_KEY:
        raise InputError(
            where="store_key", problem=f"it has only {len(key)} characters", remedy=f"Give {LEAST_KEY} or more."
        )
    return key or None


def _text(body: Mapping[str, Any], place: str) -> bytes:
    return place.encode("utf-8", "surrogateescape") + b"\n" + canonical.dumps(body)


def _checksum(text: bytes) -> str:
    return "sha256:" + hashlib.sha256(text).hexdigest()


def _mac(key: bytes, text: bytes) -> str:
    return "hmac-sha256:" + hmac.new(key, text, hashlib.sha256).hexdigest()
