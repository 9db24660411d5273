# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom a switch tells what it does: the system's log, commands, webhooks. Nothing here can stop or delay it."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError

from ..context import Context
from ..errors import UmbraError
from . import health
from .armed import Hook

LOG = "/dev/log"
TAG = "umbra-watchdog"
DAEMON, CRITICAL, NOTICE = 3 << 3, 2, 5  # facility and severities of RFC 5424
PATIENCE = 300.0  # seconds that hooks are waited for at the end
BACKOFF_MOST = 60.0  # seconds


def log(text: str, severity: int = NOTICE, path: str = LOG) -> None:
    """A line in the system's log. Not by syslog(3), which waits for a logger that hangs."""
    line = f"<{DAEMON | severity}>{TAG}[{os.getpid()}]: {text}"
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as log_:
        log_.setblocking(False)  # no logger, or a full one: the status file and the journal have it, too
        log_.sendto(line.encode("utf-8", "replace"), path)


class Hooks:
    """Tells the hooks, each in a thread of its own."""

    def __init__(self, hooks: Iterable[Hook], context: Context) -> None:
        self._hooks = tuple(hooks)
        self._context = context
        self._threads: list[threading.Thread] = []
        self._patience = 0.0

    def tell(self, event: str, report: Mapping[str, Any]) -> None:
        """Tell those that want to know of `event`; returns at once."""
        for hook in self._hooks:
            if event in hook.events:
                data = json.dumps({**report, "event": event}).encode()
                thread = threading.Thread(target=self._tell, args=(hook, data), daemon=True)
                thread.start()
                self._threads.append(thread)
                self._patience = time.monotonic() + PATIENCE

    def busy(self) -> bool:
        """Whether some are still being told, and may be waited for."""
        return time.monotonic() < self._patience and any(thread.is_alive() for thread in self._threads)

    def _tell(self, hook: Hook, data: bytes) -> None:
        pause, problem = hook.backoff, ""
        for attempt in range(hook.retries + 1):
            if attempt:
                time.sleep(pause)
                pause = min(2 * pause, BACKOFF_MOST)
            problem = self._once(hook, data)
            if not problem:
                return
        log(f"{hook.name} could not be told, {hook.retries + 1} times: {problem}")

    def _once(self, hook: Hook, data: bytes) -> str:
        try:
            if hook.command:
                done = self._context.run(hook.command, hook.timeout, stdin=data)
                return f"ended with {done.status}: {done.last_words}" if done.status else ""
            request = urllib.request.Request(hook.url, data, {"Content-Type": "application/json"})
            health.opener().open(request, timeout=hook.timeout).close()
            return ""
        except HTTPError as error:
            error.close()
            return f"status {error.code}"
        except (UmbraError, OSError, HTTPException, ValueError) as error:
            return " ".join(str(error).split())
