# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's half of the kernel's delivery: find it here, ask the action for it, or say why the pure twin runs."""

from __future__ import annotations

import base64
import glob
import hashlib
import os
import platform
import sys
import zlib
from collections.abc import Mapping
from typing import Any, Optional

from . import cache, selected

MACHINES = ("x86_64", "aarch64", "ppc64le", "s390x")
CHECK_MODE = "it is not on this host yet, and check mode brings nothing there"

Wanted = Optional[dict[str, str]]


def arrive(wanted: str, offer: Mapping[str, Any], check_mode: bool, remote_tmp: str | None) -> Wanted:
    """Load the kernel that `offer` names, for `selected`, or return what the action is to send: {"platform": name}.

    `offer` is what the action filled in: `sha256` by platform, `content` of the file that was asked for (base64 of
    zlib), and `why` nothing can be sent. Nothing on the host is changed unless there is `content`, and then nothing
    but the cache. Raises KernelUnavailable.
    """
    if wanted == selected.PURE or not offer:
        selected.choose_content(wanted, None)
        return None
    here, why = platform_here()
    sha256 = (offer.get("sha256") or {}).get(here)
    if here is None or not sha256:
        why = offer.get("why") or why or f"this release has none for {here}"
        selected.choose_content(wanted, None, why)
        return None
    return _Host(wanted, here, sha256, remote_tmp).arrive(offer.get("content"), offer.get("why"), check_mode)


class _Host:
    """One kernel file, and the places on this host where it may be kept."""

    def __init__(self, wanted: str, here: str, sha256: str, remote_tmp: str | None) -> None:
        self._wanted = wanted
        self._platform = here
        self._sha256 = sha256
        self._file = cache.name(here, sha256)
        self._places = cache.places(remote_tmp)

    def arrive(self, sent: str | None, why: str | None, check_mode: bool) -> Wanted:
        """As the function `arrive`."""
        problems: list[str] = []
        for place in self._places:
            try:
                content = cache.look(place, self._file, self._sha256)
            except cache.Refused as error:
                return self._pure(f"{error}, so that nothing is loaded from there")
            except (cache.Unusable, OSError) as error:
                problems.append(str(error))
                continue
            if content is not None:
                return self._native(content, os.path.join(place, self._file))
            if sent is not None:
                return self._take(sent, place)
            if check_mode or why:
                return self._pure(CHECK_MODE if check_mode else str(why))
            return {"platform": self._platform}
        return self._pure(f"this user has no place to keep it: {'; '.join(problems) or 'no home'}")

    def _take(self, sent: str, place: str) -> Wanted:
        try:
            content = zlib.decompress(base64.b64decode(sent, validate=True))
        except (ValueError, zlib.error):
            return self._pure("what arrived of it can't be unpacked")
        if hashlib.sha256(content).hexdigest() != self._sha256:
            return self._pure("what arrived of it has another SHA-256")
        try:
            cache.keep(place, self._file, content)
        except cache.Refused as error:
            return self._pure(f"{error}, so that nothing is written there")
        except (cache.Unusable, OSError) as error:
            return self._native(content, None, f"It was sent for this task alone: {error}.")
        return self._native(content, os.path.join(place, self._file))

    def _native(self, content: bytes, kept: str | None, why: str = "") -> Wanted:
        why = why or f"{kept} has the SHA-256 that this release says."
        selected.choose_content(self._wanted, content, kept=kept, why=why)
        return None

    def _pure(self, why_not: str) -> Wanted:
        selected.choose_content(self._wanted, None, why_not)
        return None


def platform_here() -> tuple[str | None, str]:
    """This process's platform as the built files name it, or None, and why there can be none for it."""
    libc = "gnu" if _is_glibc() else "musl" if glob.glob("/lib/ld-musl-*.so.1") else None
    return platform_of(sys.platform, platform.machine(), sys.maxsize > 1 << 32, libc)


def platform_of(system: str, machine: str, wide: bool, libc: str | None) -> tuple[str | None, str]:
    """As `platform_here`, of this system, machine, C library, and word size (`wide`: 64 bits)."""
    if system != "linux":
        return None, f"there is none for {system}"
    if machine not in MACHINES:
        return None, f"there is none for the architecture {machine or 'of this host'}"
    if not wide:
        return None, "this Python is one of 32 bits"
    if libc is None:
        return None, "the C library of this host is neither glibc nor musl"
    return f"{machine}-linux-{libc}", ""


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, OSError, ValueError):  # another C library
        return False
