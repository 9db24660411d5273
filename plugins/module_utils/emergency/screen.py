# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the emergency tool prints: lines, and on a terminal a block of bars, drawn anew. Printing never fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from ..human import clean

RED, GREEN, YELLOW, BOLD = "31", "32", "33", "1"
BAR = 24  # characters
UP, CLEAR = "\033[{}F", "\033[J"  # to the beginning of the line so many above; erase what follows
LEAST_WIDTH = 40


@dataclass(frozen=True)
class Bar:
    """One line of the block: a name, how far it is (0 to 1), what is done now, and a colour ("": none)."""

    name: str
    share: float
    text: str
    colour: str = ""


class Screen:
    """Lines on `out`, which may be closed, full or gone (None): what can't be printed is lost, and nothing else."""

    def __init__(self, out: TextIO | None, environment: Mapping[str, str], quiet: bool = False) -> None:
        self._out = out
        self._quiet = quiet
        self.seen = out is not None and not quiet and _is_terminal(out)  # by a person, now
        smart = self.seen and environment.get("TERM", "dumb") != "dumb"
        self.live = smart
        self.colour = smart and not environment.get("NO_COLOR")
        self._drawn = 0

    def line(self, text: str = "", colour: str = "") -> None:
        """Print one line, above the block if there is one."""
        if not self._quiet:
            self._write(f"{self._erase()}{self._coloured(clean_line(text), colour)}\n")

    def lines(self, texts: Iterable[str]) -> None:
        """Print some lines."""
        for text in texts:
            self.line(text)

    def raw(self, text: str) -> None:
        """Print `text` as it is, quiet or not: a document for a program."""
        self._write(text)

    def draw(self, bars: Sequence[Bar], foot: str) -> None:
        """Draw the block anew: a line for each of `bars` that has room, and `foot` below them."""
        if not self.live:
            return
        size = shutil.get_terminal_size()
        width, room = max(LEAST_WIDTH, size.columns) - 1, max(2, size.lines - 2)
        shown = list(bars) if len(bars) <= room - 1 else _most_active(bars, room - 2)
        names = max((len(one.name) for one in shown), default=0)
        names = min(names, max(8, width - BAR - 30))
        lines = [self._bar(one, names, width) for one in shown]
        if len(shown) < len(bars):
            lines.append(f"... and {len(bars) - len(shown)} more")
        lines.append(clean_line(foot)[:width])
        self._write(self._erase() + "".join(f"{line}\n" for line in lines))
        self._drawn = len(lines)

    def keep(self) -> None:
        """Leave the block as it is; what is printed from now on comes below it."""
        self._drawn = 0

    def _bar(self, one: Bar, names: int, width: int) -> str:
        full = int(BAR * min(1.0, max(0.0, one.share)))
        name = one.name if len(one.name) <= names else one.name[: names - 3] + "..."
        line = f"{name:{names}}  [{'#' * full}{'-' * (BAR - full)}] {int(100 * one.share):3} %  {clean(one.text)}"
        return self._coloured(line[:width], one.colour)

    def _erase(self) -> str:
        drawn, self._drawn = self._drawn, 0
        return f"{UP.format(drawn)}{CLEAR}" if drawn else ""

    def _coloured(self, text: str, colour: str) -> str:
        return f"\033[{colour}m{text}\033[0m" if colour and self.colour else text

    def _write(self, text: str) -> None:
        if self._out is None:
            return
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError):  # nobody reads any more, the terminal is gone, or its disk is full
            _silence(self._out)
            self._out = None
            self.live = False


def clean_line(text: str) -> str:
    """`text` without what would move a terminal's cursor; its blanks stay."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _is_terminal(out: TextIO) -> bool:
    try:
        return out.isatty()
    except ValueError:  # it is closed
        return False


def _silence(out: TextIO) -> None:
    """What Python still holds for `out` goes nowhere, and its flush at the end of the process does not fail."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, out.fileno())
        os.close(null)
    except (OSError, ValueError):
        return  # then there is nothing to flush into


def _most_active(bars: Sequence[Bar], room: int) -> list[Bar]:
    """The bars that moved and are not full, then the others, in their order."""
    ranked = sorted(range(len(bars)), key=lambda n: (not 0 < bars[n].share < 1, bars[n].share >= 1, n))
    return [bars[n] for n in sorted(ranked[:room])]
