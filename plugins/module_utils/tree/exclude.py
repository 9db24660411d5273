# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which names are left out: patterns as of the shell, against the relative path and the base name.

`*` stands for any bytes, "/" among them, `?` for one byte, `[abc]` for one of these. `*.log` leaves out every name that
ends so, in any directory; `cache` every name `cache`; `cache/*` and `cache/**` all below the directory `cache` at the
top, but not that directory; `/var/tmp`, with a slash first, only what has this path from the root of the tree. What is
below a name that is left out is left out too. A slash at the end changes nothing. The root itself is never left out.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable


class Excludes:
    """A list of patterns, compiled; false when there are none."""

    def __init__(self, patterns: Iterable[str]) -> None:
        cleaned = [os.fsencode(pattern).rstrip(b"/") for pattern in patterns]
        self._path = _compile(pattern.lstrip(b"/") for pattern in cleaned)
        self._name = _compile(pattern for pattern in cleaned if not pattern.startswith(b"/"))

    def __bool__(self) -> bool:
        return self._path is not None

    def matches(self, path: bytes, name: bytes) -> bool:
        """Whether the entry with this relative path and base name is left out; its parents are not looked at."""
        return bool((self._name and self._name.match(name)) or (self._path and self._path.match(path)))


def _compile(patterns: Iterable[bytes]) -> re.Pattern[bytes] | None:
    # fnmatch translates text only; Latin-1 maps each byte to one character and back, as fnmatch itself does for bytes.
    parts = [fnmatch.translate(pattern.decode("latin-1")).encode("latin-1") for pattern in patterns if pattern]
    return re.compile(b"|".join(parts)) if parts else None
