# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A shop that was shadowed and then updated badly, with the emergency tool in its store, run as a person runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.emergency import build
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.verbs.conftest import Shop
from ansible_collections.umbra.rollback.tests.unit.support.twins import BUILT

PATIENCE = 120  # seconds for what takes one


class Tool:
    """<store>/umbra of a shop."""

    def __init__(self, shop: Shop, kernel: bytes | None, *pythons: str) -> None:
        self.shop = shop
        self.path = build.write(str(shop.store), kernel, pythons or [PYTHON])

    def start(self, *arguments: str, prefix: Sequence[str] = (), **options: Any) -> subprocess.Popen[str]:
        """Begin it with no environment at all, in another directory, with nobody at the keyboard."""
        given: dict[str, Any] = {"env": {}, "cwd": "/", "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        given.update(text=True, preexec_fn=heed_interrupts)
        return subprocess.Popen([*prefix, self.path, *arguments], **{**given, "stderr": subprocess.PIPE, **options})

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """As `start`, to its end."""
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def say(self, *arguments: str, status: int = 0, **options: Any) -> str:
        """All that it prints, after it ended with `status`; never a traceback."""
        done = self.run(*arguments, **options)
        said = f"{done.stdout or ''}{done.stderr or ''}"
        assert done.returncode == status, said
        assert "Traceback" not in said and "Exception ignored" not in said
        return said

    @contextmanager
    def working(self, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """It, at work on the restore of the service, which waits for the file `go`; killed at the end if need be."""
        process = self.start(*arguments, **options)
        try:
            wait_for((self.shop.root / "waiting").exists, process)
            yield process
        finally:
            process.kill()
            process.communicate()


def heed_interrupts() -> None:
    """As at a terminal, though these very tests may run in the background, where interrupts are ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Wait until `condition` is true; `process` must not end before that."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


def slow(shop: Shop) -> Mapping[str, Any]:
    """A restore of the service that says that it waits, and waits for the file `go`."""
    script = 'touch "$1/waiting"; while [ ! -e "$1/go" ]; do sleep 0.05; done; cp "$UMBRA_SHADOW/state" "$2"'
    return {"restore": ["/bin/sh", "-ec", script, "sh", str(shop.root), str(shop.service)]}


def let_go(shop: Shop) -> None:
    """Let the restore of the service go on, and every later one."""
    (shop.root / "go").touch()


PYTHON = os.path.realpath(sys.executable)
KERNEL = BUILT.read_bytes()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A shop in a directory of its own."""
    return Shop(tmp_path)


@pytest.fixture
def tool(shop: Shop) -> Tool:
    """The tool of a shop whose update u1 went wrong."""
    shop.shadow()
    shop.update()
    return Tool(shop, KERNEL)


@pytest.fixture
def slow_tool(shop: Shop) -> Tool:
    """As `tool`; to restore the service takes until the file `go` is there."""
    shop.shadow(service=slow(shop))
    shop.update()
    return Tool(shop, KERNEL)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """What a test in this process lets signals do is undone."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
