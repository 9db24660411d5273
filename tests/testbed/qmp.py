# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As much of the QEMU Machine Protocol as the guests need."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

ANSWER_SECONDS = 120.0


class QmpError(Exception):
    """QEMU refused a command, or did not answer."""


class Qmp:
    """A connection to the monitor of one QEMU."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.connect(str(path))
        self._lines: BinaryIO = self._socket.makefile("rb")
        self._lines.readline()  # it greets
        self.ask("qmp_capabilities")

    def __enter__(self) -> Qmp:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the connection."""
        self._lines.close()
        self._socket.close()

    def ask(self, command: str, arguments: Mapping[str, object] | None = None, file: int | None = None) -> Any:
        """Have a command done, with a file descriptor beside it for `getfd`. Raises QmpError."""
        request = json.dumps({"execute": command, "arguments": dict(arguments or {})}).encode()
        socket.send_fds(self._socket, [request], [] if file is None else [file])
        while line := self._lines.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise QmpError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:  # else it is an event
                return answer["return"]
        raise QmpError(f"{command}: QEMU ended")

    def save(self, file: int) -> None:
        """Stop the guest, and write all its memory and devices to an open file. Raises QmpError."""
        self.ask("stop")
        self.ask("migrate-set-parameters", {"max-bandwidth": 1 << 40})
        self.ask("getfd", {"fdname": "state"}, file)
        self.ask("migrate", {"uri": "fd:state"})
        self._migrated()

    def go_on(self) -> None:
        """Wait until what `save` wrote is all there, and let the guest go on. Raises QmpError."""
        self._migrated()
        self.ask("cont")

    def _migrated(self) -> None:
        until = time.monotonic() + ANSWER_SECONDS
        while (status := self.ask("query-migrate").get("status")) != "completed":
            if status in ("failed", "cancelled") or time.monotonic() > until:
                raise QmpError(f"the state of the guest: {status}")
            time.sleep(0.02)
