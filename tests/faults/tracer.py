# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a call in a process of its own, and strikes at one of its system calls.

strace's own injection counts for each thread and each kind of call by itself; here all calls of all threads and
children are one row of numbers, so that "kill it at call 117" means the same moment each time.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import subprocess
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("tracer.c")
ERRORS = ("ENOSPC", "EIO", "ESTALE", "EDQUOT", "EROFS", "EMFILE", "EINTR")  # with which calls are refused
REFUSED = 3  # the call ended with a sentence
BROKEN = 4  # with a traceback
PATIENCE = 40.0  # seconds
MOMENT = 1.0
CHANGING, READING, NAMING = range(3)  # which calls are counted; NAMING: those that take a name


class _Told(ctypes.Structure):
    _fields_ = (("count", ctypes.c_long), ("number", ctypes.c_long), ("status", ctypes.c_int))


_MEDDLE = ctypes.CFUNCTYPE(None)


@dataclass(frozen=True)
class Ended:
    """How a traced call ended: `calls` were counted, `struck` is the number (from the kernel's table) of the one that
    was struck, or None; `text` is what it said."""

    calls: int
    struck: int | None
    killed: bool
    status: int
    text: str

    @property
    def is_broken(self) -> bool:
        """Whether it ended in a way that a user must never see."""
        return not self.killed and self.status not in (0, REFUSED)


class Tracer:
    """The tracer, built into `directory`."""

    def __init__(self, directory: Path) -> None:
        library = directory / "tracer.so"
        command = ["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", str(SOURCE), "-o", str(library)]
        subprocess.run(command, check=True)
        self._library = ctypes.CDLL(str(library), use_errno=True)

    def run(
        self,
        call: Callable[[], object],
        refusals: type[BaseException],
        at: int = 0,
        error: int = 0,
        reading: bool = False,
        meddle: Callable[[], object] | None = None,
    ) -> Ended:
        """Run `call`, whose sentences are `refusals`; strike at the counted call number `at` (0: never).

        All of it is killed then, or, with `error`, that call fails so; or `meddle` is called just before that call is
        made. Counted is what changes something, or with `reading` what reads, or with `meddle` what takes a name.
        """
        readable, writable = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # another thread is pytest's watchdog, it holds no lock
            child = os.fork()
        if child == 0:
            os.close(readable)
            self._be_traced(call, refusals, writable, NAMING if meddle else READING if reading else CHANGING)
        os.close(writable)
        told = _Told()
        hangs = threading.Event()

        def end() -> None:
            hangs.set()
            os.kill(child, signal.SIGUSR1)  # it says where it stands
            time.sleep(MOMENT)
            os.kill(child, signal.SIGKILL)

        watchdog = threading.Timer(PATIENCE, end)
        watchdog.start()
        meddling = _MEDDLE(meddle) if meddle else _MEDDLE()
        result = self._library.tracer_follow(child, ctypes.c_long(at), error, meddling, ctypes.byref(told))
        watchdog.cancel()
        with os.fdopen(readable, errors="replace") as pipe:
            text = pipe.read()
        if result:
            raise OSError(-result, f"the tracer: {os.strerror(-result)}")
        if hangs.is_set():
            return Ended(told.count, told.number, False, BROKEN, f"hangs: {text}")
        killed = os.WIFSIGNALED(told.status)
        if killed and os.WTERMSIG(told.status) != signal.SIGKILL:
            raise RuntimeError(f"ended by signal {os.WTERMSIG(told.status)}: {text}")
        status = -1 if killed else os.WEXITSTATUS(told.status)
        return Ended(told.count, None if told.number < 0 else told.number, killed, status, text)

    def _be_traced(
        self, call: Callable[[], object], refusals: type[BaseException], writable: int, counted: int
    ) -> None:
        status = BROKEN
        faulthandler.register(signal.SIGUSR1, file=writable)
        try:
            for fd in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
            if self._library.tracer_enter(counted):
                raise OSError(ctypes.get_errno(), "can't be traced")
            text = ""
            try:
                call()
                status = 0
            except refusals as refusal:
                status, text = REFUSED, str(refusal)
        except BaseException:  # noqa: BLE001  # that is what is looked for
            text = traceback.format_exc()
        finally:
            try:
                os.write(writable, text.encode())
            except OSError:  # that was the strike
                os.write(writable, text.encode())
            finally:
                os._exit(status)


def names() -> dict[int, str]:
    """Names of the system calls by their numbers."""
    done = subprocess.run(
        ["gcc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", os.devnull],
        check=True,
        capture_output=True,
        text=True,
    )
    defined = (line.split() for line in done.stdout.splitlines())
    return {
        int(words[2]): words[1][len("__NR_") :]
        for words in defined
        if len(words) == 3 and words[1].startswith("__NR_") and words[2].isdigit()
    }
