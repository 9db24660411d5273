# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which twin of the kernel runs in this process, and why, as results say it."""

from __future__ import annotations

import hashlib
import os
from types import ModuleType

from ..errors import KernelUnavailable
from .load import NotLoaded, load

AUTO, NATIVE, PURE = "auto", "native", "pure"
LOADED = "It is the one that came with this release."
NOT_OFFERED = "no file of it was offered to this host"

NAME = PURE
WHY = "Nothing else was asked for."
native: ModuleType | None = None
_threads = 0
_loaded: dict[bytes, ModuleType] = {}  # each once: the types of two loads would not know each other


def kernel() -> ModuleType | None:
    """The native kernel, or None where the pure twin is to do the work. Ask at each use."""
    return native


def content() -> bytes | None:
    """The file of the native kernel that runs in this process, as it was checked; None where the pure twin does."""
    return next((each for each, module in _loaded.items() if module is native), None)


def threads() -> int:
    """How many threads the native kernel may use: as the option says, else all cores this process may run on."""
    return _threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def reading_threads() -> int:
    """As `threads`, where each waits for the disk now and then: one more, unless the option says how many."""
    return _threads or threads() + 1


def limit(count: int) -> None:
    """Let `threads` be `count` from now on; 0 for all cores."""
    global _threads  # one process, one kernel
    _threads = max(0, count)


def choose(wanted: str, path: str | None, sha256: str | None, why_not: str = "") -> None:
    """Load the kernel in the file `path` unless `wanted` is "pure"; `sha256` (hexadecimal) is checked if given.

    Without a `path`, `why_not` says why there is none. Raises KernelUnavailable if `wanted` is "native" and it can't
    be loaded.
    """
    if wanted == PURE or path is None:
        return choose_content(wanted, None, why_not)
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        return choose_content(wanted, None, f"{path}: {error.strerror or error}")
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        return choose_content(wanted, None, f"{path} does not have the SHA-256 {sha256}")
    return choose_content(wanted, content, why_not)


def choose_content(
    wanted: str, content: bytes | None, why_not: str = "", kept: str | None = None, why: str = LOADED
) -> None:
    """As `choose`, with the file's bytes, which the caller has checked; `kept` as `load` has it.

    `why` is the sentence for results if it is loaded.
    """
    if wanted == PURE:
        return _set(None, "It was asked for (kernel: pure).")
    if content is not None:
        try:
            if content not in _loaded:
                _loaded[content] = load(content, kept)
            return _set(_loaded[content], why)
        except NotLoaded as error:
            why_not = str(error)
    why_not = why_not or NOT_OFFERED
    if wanted == NATIVE:
        _set(None, f"The native kernel is not used: {why_not}.")
        raise KernelUnavailable(problem=why_not)
    return _set(None, f"The native kernel is not used: {why_not}.")


def _set(module: ModuleType | None, why: str) -> None:
    global NAME, WHY, native  # one process, one kernel
    NAME, WHY, native = (NATIVE if module else PURE), why, module
