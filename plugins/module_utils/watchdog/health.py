# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The conditions of health that a switch watches: samples taken in time, and the verdict over the last of them."""

from __future__ import annotations

import socket
import ssl
import threading
import urllib.request
from collections import deque
from http.client import HTTPException
from typing import Callable
from urllib.error import HTTPError

from ..context import Context
from ..errors import UmbraError
from ..systemd.manager import Manager
from . import clock
from .armed import Check

BAD_STATUS = 400  # of a web server, and all above
LAST_WORDS = 200

Sample = Callable[[Check, Context], str]


def sample(check: Check, context: Context) -> str:
    """What is wrong now, in a few words; '' when nothing is."""
    try:
        return _SAMPLES[check.kind](check, context)
    except (UmbraError, OSError, HTTPException, ValueError) as error:
        return _short(error)


def _command(check: Check, context: Context) -> str:
    done = context.run(check.target, check.timeout)
    return "" if done.status == 0 else f"ended with {done.status}: {done.last_words[-LAST_WORDS:]}"


def _tcp(check: Check, _context: Context) -> str:
    host, dummy, port = check.target[0].rpartition(":")
    socket.create_connection((host.strip("[]") or "localhost", int(port)), check.timeout).close()
    return ""


def _http(check: Check, _context: Context) -> str:
    try:
        with opener().open(check.target[0], timeout=check.timeout) as answer:
            status = answer.status
            answer.read(1)
    except HTTPError as error:
        status = error.code
        error.close()
    good = status in check.status if check.status else status < BAD_STATUS
    return "" if good else f"answered with status {status}"


def opener() -> urllib.request.OpenerDirector:
    """Opens URLs without any proxy: what a switch looks at is near, and a proxy would answer for the dead."""
    web = urllib.request.HTTPSHandler(context=ssl.create_default_context())
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), web)


def _unit(check: Check, context: Context) -> str:
    found = Manager(context, check.name, "system").look(check.target[0])
    return "" if found.active == "active" else f"is {found.active} ({found.sub})"


_SAMPLES: dict[str, Sample] = {"command": _command, "tcp": _tcp, "http": _http, "unit": _unit}


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:LAST_WORDS] or type(error).__name__


class Watched:
    """One check, watched: each sample in a thread of its own, so that one that hangs delays nothing else."""

    def __init__(self, check: Check, context: Context, begun: float) -> None:
        """`begun` is when the switch was armed, in seconds of clock.now."""
        self.check = check
        self._context = context
        self._next = begun + check.start_delay
        self._last: deque[str] = deque(maxlen=check.m)
        self._asked: tuple[float, list[str]] | None = None  # since when a sample is taken, and its answer

    def look(self) -> str:
        """Take a sample if it is time to; what is wrong when the condition has failed, else ''. Does not wait."""
        now = clock.now()
        if self._asked:
            since, answer = self._asked
            if answer:
                self._take(answer[0])
            elif now - since > self.check.timeout + self.check.interval:  # its own timeout did not end it
                self._take(f"has no answer after {now - since:.0f} s")
        if self._asked is None and now >= self._next:
            self._ask(now)
        bad = [one for one in self._last if one]
        if len(bad) < self.check.n:
            return ""
        return f"{self.check.name} failed {len(bad)} of the last {len(self._last)} times: {bad[-1]}"

    def _take(self, answer: str) -> None:
        self._last.append(answer)
        self._asked = None

    def _ask(self, now: float) -> None:
        answer: list[str] = []
        self._asked = now, answer
        self._next = max(self._next + self.check.interval, now)
        threading.Thread(target=lambda: answer.append(sample(self.check, self._context)), daemon=True).start()
