# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of the native kernel's delivery: offer it to a host, and send it where it isn't yet."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..module_utils.kernel import arrival, selected

BUILT = Path(__file__).resolve().parent.parent / "module_utils" / "kernel" / "built"
PREFIX, SUFFIX = "umbra_kernel.", ".so"
NONE_BUILT = "this installation of the collection has no built files"
NOT_KEPT = "it was sent, and was gone again when the task began in the background"

Offer = dict[str, Any]
Call = Callable[[Offer, bool], dict[str, Any]]


def run(call: Call, wanted: str, background: bool, built: Path = BUILT) -> dict[str, Any]:
    """The result of a module on a host, which gets the native kernel first if it wants it and has not got it.

    `call` runs the module with what its option `kernel_offer` is to be, in the background or not. A host that has the
    kernel is called once. In the background a module can't ask, so that it is called before for the kernel alone.
    """
    offered = offer(built) if wanted != selected.PURE else {}
    if not offered.get("sha256"):
        return call(offered, background)
    alone = {"only": True} if background else {}
    done = call({**offered, **alone}, False)
    asked = done.pop("kernel_wanted", None)
    if asked:
        done = call({**offered, **alone, **supply(asked.get("platform", ""), built)}, False)
    if background and not done.get("failed"):
        return call({**offered, "why": NOT_KEPT}, True)
    return done


def offer(built: Path = BUILT) -> Offer:
    """The SHA-256 of each built file, by platform; and why there is none."""
    try:
        sha256 = {platform: hashlib.sha256(path.read_bytes()).hexdigest() for platform, path in _files(built)}
    except OSError as error:
        return {"sha256": {}, "why": _unreadable(error)}
    return {"sha256": sha256, "why": "" if sha256 else NONE_BUILT}


def supply(platform: str, built: Path = BUILT) -> Offer:
    """What to add to an offer for a host of this platform: the file, packed; or why not."""
    path = dict(_files(built)).get(platform)
    if path is None:
        return {"why": NONE_BUILT}
    try:
        return {"content": base64.b64encode(zlib.compress(path.read_bytes(), 9)).decode("ascii")}
    except OSError as error:
        return {"why": _unreadable(error)}


def choose_here(wanted: str, threads: int = 0, built: Path = BUILT) -> dict[str, str]:
    """Choose the kernel for work on the controller itself; what a result says of it. Raises KernelUnavailable.

    The file is trusted as the code beside it is, which is why no SHA-256 is asked for.
    """
    platform, why = arrival.platform_here()
    path = dict(_files(built)).get(platform or "")
    selected.choose(wanted, str(path) if path else None, None, why or NONE_BUILT)
    selected.limit(threads)
    return {"kernel": selected.NAME, "kernel_reason": selected.WHY}


def _files(built: Path) -> list[tuple[str, Path]]:
    paths = sorted(built.glob(f"{PREFIX}*{SUFFIX}"))
    return [(path.name[len(PREFIX) : -len(SUFFIX)], path) for path in paths]


def _unreadable(error: OSError) -> str:
    return f"on the controller {error.filename} can't be read: {error.strerror}"
