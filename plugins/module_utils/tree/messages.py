# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the tree room words what the system refused: the error, with the path and what to do."""

from __future__ import annotations

import errno
import os

from ..errors import RestoreFailed, SourceUnreadable

# Something else took the name away, or put another kind of thing there, between two looks.
GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
_AGAIN = "run again: it goes on where it stopped."
_REMEDIES = {
    errno.ENOSPC: f"Free some space and {_AGAIN}",
    errno.EDQUOT: f"Raise the quota and {_AGAIN}",
    errno.EROFS: f"Mount it writable and {_AGAIN}",
    errno.EBUSY: f"Unmount it, or stop what uses it, and {_AGAIN}",
    errno.ENOTEMPTY: f"Stop what still writes there and {_AGAIN}",
    errno.EXDEV: f"Unmount what was mounted there and {_AGAIN}",
    errno.ENOTSUP: f"Its file system can't keep this attribute: restore onto the kind it came from, and {_AGAIN}",
}


def printable(path: bytes) -> str:
    """`path` for people: on one line, whatever its bytes are."""
    text = path.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def join(root: bytes, path: bytes) -> bytes:
    """The absolute path of `path` below `root`."""
    return root.rstrip(b"/") + b"/" + path if path else root


def reason(error: OSError) -> str:
    """What the system said, without the class and the path."""
    return (error.strerror or str(error)).lower()


def unreadable(name: str, path: bytes, error: OSError) -> SourceUnreadable:
    """The error for `path`, which belongs to resource `name` and can't be read."""
    return SourceUnreadable(name=name, path=printable(path), problem=reason(error))


def not_restored(name: str, path: bytes, error: OSError) -> RestoreFailed:
    """The error for `path`, which belongs to resource `name` and can't be made as it was."""
    remedy = _REMEDIES.get(error.errno or 0, f"Look at it and {_AGAIN}")
    if error.errno in (errno.EPERM, errno.EACCES):
        root = os.geteuid() == 0
        remedy = f"Look for an immutable attribute with lsattr, and {_AGAIN}" if root else "Run with `become: true`."
    return RestoreFailed(name=name, problem=f"{printable(path)}: {reason(error)}", remedy=remedy)
