# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs stages side by side: one line for each, the whole output in a log, the end of it when the stage failed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from environments import Environment

PATIENCE = 10.0  # seconds that a command has to end when it is asked to
TAIL = 60  # lines of the log that are shown when a stage fails
# '12 passed, 1 failed', as pytest and tests/integration/run close, with pytest's rules and time around it or not.
CLOSING = re.compile(r"=* ?(\w+: )?\d+ (passed|failed|errors?|skipped)(, \d+ \w+)*( in [\d.]+s.*)?=*")


@dataclass(frozen=True)
class Stage:
    """Some commands, all of which are run, and have to end with 0 within `limit` seconds each.

    They need a virtual environment, and some need the collection installed in it.
    Stages with the same `turn` never run at the same time. `telling` matches the beginning of the lines that tell what
    is wrong; without it the end of the log does.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    cwd: Path
    needs: Environment
    with_collection: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    turn: str = ""
    telling: str = ""
    limit: int = 900


@dataclass(frozen=True)
class Outcome:
    """How a stage ended. A stage that counts no tests of its own counts as one."""

    stage: Stage
    ok: bool
    seconds: float
    passed: int
    failed: int
    skipped: int


class Runner:
    """Runs stages, a few at the same time, and goes on whatever fails."""

    def __init__(self, stages: Sequence[Stage], logs: Path) -> None:
        """Take the stages in the order in which to begin them; keep their logs in a directory."""
        self._logs = logs
        self._pending = list(stages)
        self._turns: set[str] = set()
        self._changed = threading.Condition()
        self._outcomes: list[Outcome] = []
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._interrupted = False

    def run(self, at_once: int) -> list[Outcome]:
        """Run all stages. An interrupt ends what runs, and is raised again."""
        self._logs.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(at_once) as pool:
            try:
                for worker in [pool.submit(self._work) for _number in range(at_once)]:
                    worker.result()
            except BaseException:
                self._interrupted = True
                self._pending.clear()
                for process in tuple(self._processes):
                    _end(process)
                raise
        return self._outcomes

    def _work(self) -> None:
        while stage := self._take():
            outcome = self._stage(stage)
            with self._changed:
                self._turns.discard(stage.turn)
                self._outcomes.append(outcome)
                self._changed.notify_all()
                print(_line(outcome, self._log(stage)), flush=True)

    def _take(self) -> Stage | None:
        with self._changed:
            while self._pending:
                for stage in self._pending:
                    if stage.turn not in self._turns:
                        self._pending.remove(stage)
                        self._turns.update(filter(None, [stage.turn]))
                        return stage
                self._changed.wait(1)
        return None

    def _log(self, stage: Stage) -> Path:
        return self._logs / f"{stage.name}.log"

    def _stage(self, stage: Stage) -> Outcome:
        begin = time.monotonic()
        log = self._log(stage)
        with log.open("wb") as output:
            statuses = [self._command(stage, command, output.fileno()) for command in stage.commands]
        ok = not any(statuses)
        return Outcome(stage, ok, time.monotonic() - begin, *_counts(log.read_text(errors="replace"), ok))

    def _command(self, stage: Stage, command: Sequence[str], output: int) -> int:
        if self._interrupted:
            return -signal.SIGINT
        os.write(output, f"$ {' '.join(command)}\n".encode())
        environment = {**os.environ, **stage.environment}
        try:
            process = subprocess.Popen(
                command,
                cwd=stage.cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            os.write(output, f"can't be run: {error}\n".encode())
            return 127
        self._processes.add(process)
        try:
            status = process.wait(stage.limit)
        except subprocess.TimeoutExpired:
            status = _end(process)
            os.write(output, f"ended after {stage.limit} s, which is its limit\n".encode())
        self._processes.discard(process)
        os.write(output, f"(exit status {status})\n".encode())
        return status


def _end(process: subprocess.Popen[bytes]) -> int:
    """End a command and all that it started in its session's group: asked at first, made to after a while."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):  # it ended by itself in the meantime
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(PATIENCE)
    return process.wait()


def _counts(log: str, ok: bool) -> tuple[int, int, int]:
    """Tests passed, failed and skipped, from the last closing line in a log; without one the stage counts as one."""
    closing = [line for line in log.splitlines() if CLOSING.fullmatch(line)]
    found = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", closing[-1])} if closing else {}
    passed, skipped = found.get("passed", 0), found.get("skipped", 0)
    failed = sum(found.get(word, 0) for word in ("failed", "error", "errors"))
    return (passed or 1, failed, skipped) if ok else (passed, failed or 1, skipped)


def _line(outcome: Outcome, log: Path) -> str:
    word = "ok" if outcome.ok else "FAILED"
    counted = f"{outcome.passed} passed" + (f", {outcome.failed} failed" if outcome.failed else "")
    counted += f", {outcome.skipped} skipped" if outcome.skipped else ""
    line = f"{outcome.stage.name:20} {word:6} {outcome.seconds:5.0f} s  {counted}"
    if outcome.ok:
        return line
    lines = log.read_text(errors="replace").splitlines()
    if outcome.stage.telling:
        lines = [text for text in lines if re.match(outcome.stage.telling, text)] or lines
    return "\n".join([line, *(f"    {text}" for text in lines[-TAIL:]), f"    the whole log: {log}"])
