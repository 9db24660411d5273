# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a verb is, in words, for whoever waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSE = 1.0  # seconds between two tellings of the same phase


class Progress:
    """What a verb does now, told to `tell` at each new phase, and about once a second while one lasts."""

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self._tell = tell
        self._phase = ""
        self._next = 0.0

    def phase(self, text: str) -> None:
        """Something new begins, such as "reading config"."""
        self._phase, self._next = text, time.monotonic() + PAUSE
        if self._tell:
            self._tell(text)

    def part(self, done: int, of: int) -> None:
        """So many of so many equal parts of it are begun. Safe to call from several threads, and often."""
        now = time.monotonic()
        if self._tell and self._phase and now >= self._next:
            self._next = now + PAUSE
            self._tell(f"{self._phase}, {100 * done // of} %")
