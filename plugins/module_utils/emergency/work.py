# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A verb at work while its progress is shown, here or in another process; and its end when somebody interrupts it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Generic, NoReturn, TypeVar

from ..human import count, duration
from ..store.locks import Holder
from ..store.store import Store
from .screen import Screen
from .watch import Watch, parse

T = TypeVar("T")
TICK = 0.1  # seconds between two looks
LOOKS = 5  # ticks between two readings of the journal
PART_SECONDS = 15.0  # between two lines about the same part of the work, where there is no terminal
GRACE = 0.4  # seconds that a program of ours has to end
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Ctrl-C, or a signal that ends the process."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def heed_signals() -> None:
    """Let Ctrl-C and SIGTERM raise Stopped; one that whoever started this process lets it ignore, it ignores."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Stopped(number)

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


class Display:
    """What is seen of a way back: bars on a terminal, else a line for each thing that happens."""

    def __init__(self, screen: Screen, watch: Watch, expected: str) -> None:
        self._screen, self._watch, self._expected = screen, watch, expected
        self._begun = time.monotonic()
        self._ticks = 0
        self._said, self._said_at = "", 0.0
        self._lock = threading.Lock()

    def tell(self, told: str) -> None:
        """The verb says what it does now. Safe to call from any thread."""
        self._watch.tell(told)
        if self._screen.live:
            return
        with self._lock:
            now, words = time.monotonic(), parse(told).words
            if words != self._said or now - self._said_at >= PART_SECONDS:
                self._said, self._said_at = words, now
                self._screen.line(told)

    def tick(self) -> None:
        """Show how far it is."""
        if self._ticks % LOOKS == 0:
            self._look()
        self._ticks += 1
        if self._screen.live:
            seconds = time.monotonic() - self._begun
            done = f"{self._watch.ended} of {count(len(self._watch.bars), 'resource')} done"
            told = f"  {self._watch.now}" if not parse(self._watch.now).name and self._watch.now else ""
            self._screen.draw(self._watch.bars, f"{done}, {duration(seconds)}{self._expected}{told}")

    def end(self) -> None:
        """Show the last of it, for good."""
        self._look()
        self._ticks = 1
        self.tick()
        self._screen.keep()

    def _look(self) -> None:
        for name in self._watch.look():
            if not self._screen.live:
                self._screen.line(f"{name}: {self._watch.text(name)}")


class _Call(Generic[T]):
    """A call in a thread of its own: the main thread has to be free to hear signals at once."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._result: list[T] = []
        self._error: BaseException | None = None
        self.ended = threading.Event()
        threading.Thread(target=self._run, name="verb", daemon=True).start()

    def _run(self) -> None:
        try:
            self._result.append(self._call())
        except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits
            self._error = error
        self.ended.set()

    def result(self) -> T:
        """What it returned; or what it raised is raised."""
        if self._error is not None:
            raise self._error
        return self._result[0]


def run(call: Callable[[], T], display: Display | None = None) -> T:
    """What `call` returns, or raises, while `display` shows how far it is; that does not end with its terminal.

    Raises Stopped at once; the call is still at work then, and the process has to be left by `leave`.
    """
    if display:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    work = _Call(call)
    while not work.ended.wait(TICK):
        if display:
            display.tick()
    if display:
        display.end()
    return work.result()


def follow(store: Store, display: Display) -> None:
    """Show how far another process of this host is, until it ends. Raises Stopped."""
    while True:
        holder = store.locks.current()
        if holder is None:
            break
        if holder.doing:
            display.tell(holder.doing)
        display.tick()
        time.sleep(TICK)
    display.end()


def is_way_back(holder: Holder) -> bool:
    """Whether it works on a way back, whose resources have bars."""
    return holder.verb in ("restore", "undo")


def leave(status: int) -> NoReturn:
    """End this process now, and the programs that it started: what they did is journaled, or will be done again."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end = time.monotonic() + GRACE
    _end_children(signal.SIGTERM)
    while _children() and time.monotonic() < end:
        time.sleep(GRACE / 20)
    _end_children(signal.SIGKILL)
    os._exit(status)


def _end_children(number: int) -> None:
    for pid in _children():
        with suppress(ProcessLookupError, PermissionError):  # it has ended, or became another user's
            if os.getpgid(pid) == pid:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)


def _children() -> list[int]:
    """The processes that this one started, and that have not ended."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):  # it has ended
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
                if int(parent) == os.getpid() and state != b"Z":
                    found.append(int(name))
    return found
