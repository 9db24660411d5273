# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emergency tool at a terminal: it asks before it changes anything, and draws bars while it works."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from .conftest import PATIENCE, Tool, heed_interrupts, let_go, wait_for

ESCAPE = "\033["


class Terminal:
    """What a person sees and types."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self._master, self.process = master, process
        self.seen = ""

    def read(self, *patterns: str) -> str:
        """Read until each of `patterns` was seen, or to the end if none is given; all that was seen."""
        end = time.monotonic() + PATIENCE
        while not patterns or not all(re.search(pattern, self.seen) for pattern in patterns):
            assert time.monotonic() < end, self.seen
            if not select.select([self._master], [], [], 1)[0]:
                continue
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the other end is closed
                data = b""
            if not data:
                assert not patterns, self.seen
                break
            self.seen += data.decode().replace("\r\n", "\n")
        return self.seen

    def type(self, text: str) -> None:
        """Type `text`; ^C is "\\x03"."""
        os.write(self._master, text.encode())

    def ended(self) -> int:
        """Its exit status, once it has ended."""
        self.read()
        return self.process.wait(PATIENCE)


@contextmanager
def terminal(tool: Tool, *arguments: str, out: IO[str] | None = None, **environment: str) -> Iterator[Terminal]:
    """The tool, running at a terminal of its own; what it prints goes there, or to `out`."""
    master, slave = pty.openpty()
    options: dict[str, Any] = {"stdin": slave, "stdout": out or slave, "stderr": slave, "cwd": "/"}

    def own() -> None:
        heed_interrupts()
        os.setsid()
        os.close(os.open(os.ttyname(slave), os.O_RDWR))  # the first terminal that is opened controls the session

    env = {"TERM": "xterm", "COLUMNS": "100", "LINES": "30", **environment}
    process = subprocess.Popen([tool.path, *arguments], env=env, preexec_fn=own, **options)
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_it_says_in_numbers_what_will_happen_and_asks(tool: Tool) -> None:
    before = tool.shop.state()
    for answer in ("n\n", "\x04"):
        with terminal(tool, "restore", "u1") as screen:
            said = screen.read(r"Go on\? \[y/N\] ")
            assert "This brings 3 resources of this host (8.2 KiB) back to the state before update u1, of 20" in said
            assert "  wave 1  config (file, " in said and "  wave 2  service (command, " in said
            screen.type(answer)
            assert screen.ended() == 2
            assert "Nothing was changed." in screen.seen
    assert tool.shop.state() == before


def test_yes_is_not_asked_for_and_neither_is_what_will_be_refused(tool: Tool) -> None:
    for arguments, status in (
        (("restore", "u1", "--yes"), 0),
        (("commit", "u1"), 2),
        (("restore", "u1", "--resource", "no"), 2),
    ):
        with terminal(tool, *arguments) as screen:
            assert screen.ended() == status
            assert "Go on?" not in screen.seen


def test_the_question_is_seen_where_the_output_goes_into_a_file(tool: Tool, tmp_path: Path) -> None:
    with (tmp_path / "said").open("w") as out, terminal(tool, "restore", "u1", out=out) as screen:
        screen.read(r"This brings 3 resources", r"Go on\? \[y/N\] ")
        screen.type("y\n")
        assert screen.ended() == 0
    said = (tmp_path / "said").read_text()
    assert "service: back, verified\n" in said and "Update u1 is rolled back" in said and ESCAPE not in said


def test_bars_show_how_far_each_resource_is(slow_tool: Tool) -> None:
    with terminal(slow_tool, "restore", "u1") as screen:
        screen.read(r"Go on\?")
        screen.type("y\n")
        screen.read(
            r"config +\[#{24}\] 100 %  back, verified",
            r"service +\[#{12}-{12}\]  50 %  restoring, wave 2 of 2",
            r"2 of 3 resources done, .* s \(predicted: ",
        )
        let_go(slow_tool.shop)
        assert screen.ended() == 0
        assert ESCAPE + "4F" in screen.seen and ESCAPE + "32m" in screen.seen
        last = screen.seen.rpartition(ESCAPE + "J")[2]
        assert last.count("[" + "#" * 24 + "] 100 %  back, verified") == 3
        assert "Update u1 is rolled back" in last


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_where_none_is_wanted(slow_tool: Tool, environment: dict[str, Any]) -> None:
    let_go(slow_tool.shop)
    with terminal(slow_tool, "restore", "u1", "--yes", **environment) as screen:
        assert screen.ended() == 0
        assert ESCAPE + "32m" not in screen.seen
        assert ESCAPE not in screen.seen or "TERM" not in environment  # where it is quick, it draws once
        assert ("restoring config, wave 1 of 2\n" in screen.seen) == ("TERM" in environment)


def test_ctrl_c_ends_it_and_the_same_again_goes_on(slow_tool: Tool) -> None:
    shop = slow_tool.shop
    with terminal(slow_tool, "restore", "u1") as screen:
        screen.read(r"Go on\?")
        screen.type("\x03")
        assert screen.ended() == 130
        assert "Interrupted. Nothing was changed." in screen.seen
    with terminal(slow_tool, "restore", "u1", "--yes") as screen:
        wait_for((shop.root / "waiting").exists)
        screen.type("\x03")
        assert screen.ended() == 130
        assert (
            f"Interrupted. What was done is in the journal, and nothing is lost. To go on: {slow_tool.path}"
            in screen.seen
        )
    let_go(shop)
    with terminal(slow_tool, "restore", "u1", "--yes") as screen:
        assert screen.ended() == 0
        assert "Update u1 is rolled back" in screen.seen


def test_what_others_named_moves_no_cursor(tool: Tool) -> None:
    (tool.shop.config / "\033[2J\nnew").write_text("\033[31mred\n")
    with terminal(tool, "diff", "u1") as screen:
        assert screen.ended() == 0
        assert ESCAPE not in screen.seen and "+++ config: " in screen.seen
