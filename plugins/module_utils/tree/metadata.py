# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Owner, mode, times and extended attributes (ACLs, capabilities and labels among them): read, compared, put back."""

from __future__ import annotations

import errno
import os
import stat
from typing import Union

from .entry import Entry

KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFIFO: "p",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
    stat.S_IFSOCK: "s",
}
ACL = "system.posix_acl_access"
KEPT = ("user.", "trusted.", "security.", ACL, "system.posix_acl_default")
# Made by the kernel out of the inode's number and its key: it can't be put back, and is made anew.
NOT_KEPT = frozenset({"security.evm"})
# Labels that the system gives by itself: where the shadow has none, there was no such system, and they stay.
SYSTEM_LABELS = frozenset({"security.selinux", "security.SMACK64"})

Xattrs = tuple[tuple[str, bytes], ...]  # (name, value), sorted by the bytes of the names
Target = Union[int, bytes]


def kind_of(st: os.stat_result) -> str:
    """The kind of Entry that `st` is of."""
    return KINDS[stat.S_IFMT(st.st_mode)]


def entry_of(path: bytes, st: os.stat_result, xattrs: Xattrs) -> Entry:
    """The entry of what `st` says, without what has to be read: a file's content, a symlink's text."""
    kind = kind_of(st)
    rdev = st.st_rdev if kind in "cb" else 0
    mode = stat.S_IMODE(st.st_mode)
    return Entry(path, kind, mode, st.st_uid, st.st_gid, st.st_mtime_ns, rdev=rdev, xattrs=xattrs)


def read_xattrs(target: Target) -> Xattrs:
    """The extended attributes that are kept, of a descriptor or of the path of one. Raises OSError."""
    try:
        names = os.listxattr(target)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return ()
        raise
    found = []
    for name in names:
        if name.startswith(KEPT) and name not in NOT_KEPT:
            value = _read_xattr(target, name)
            if value is not None:
                found.append((name, value))
    return tuple(sorted(found, key=lambda pair: os.fsencode(pair[0])))


def _read_xattr(target: Target, name: str) -> bytes | None:
    try:
        return os.getxattr(target, name)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None  # it was removed just now
        if error.errno in (errno.EPERM, errno.EACCES) and name.startswith("security.") and os.geteuid() != 0:
            return None  # only root may see it, and only root could put it back
        raise


def differences(entry: Entry, st: os.stat_result, xattrs: Xattrs) -> tuple[str, ...]:
    """In what metadata differs from the entry (of the same kind), in words for people; empty if in nothing."""
    found = []
    if (st.st_uid, st.st_gid) != (entry.uid, entry.gid):
        found.append("owner")
    if entry.kind != "l" and stat.S_IMODE(st.st_mode) != entry.mode:
        found.append("mode")
    if st.st_mtime_ns != entry.mtime_ns:
        found.append("mtime")
    if without_labels(xattrs, entry) != entry.xattrs:
        found.append("extended attributes")
    return tuple(found)


def without_labels(xattrs: Xattrs, entry: Entry) -> Xattrs:
    """`xattrs` but for labels of the system that the entry has none of."""
    if not any(name in SYSTEM_LABELS for name, dummy in xattrs):
        return xattrs
    wanted = {name for name, dummy in entry.xattrs}
    return tuple((name, value) for name, value in xattrs if name not in SYSTEM_LABELS or name in wanted)


def put_back(target: Target, entry: Entry, st: os.stat_result) -> None:
    """Give what `target` holds (now `st`) the entry's metadata; only what differs is written. Raises OSError.

    The order matters: a new owner clears setuid bits and capabilities; and where there is an ACL, the group's bits of
    the mode are its mask, which would be the group's rights until the ACL is there.
    """
    chown = (st.st_uid, st.st_gid) != (entry.uid, entry.gid)
    if chown:
        os.chown(target, entry.uid, entry.gid)
    chmod = entry.kind != "l" and (chown or stat.S_IMODE(st.st_mode) != entry.mode)
    acl = any(name == ACL for name, dummy in entry.xattrs)
    if chmod:
        os.chmod(target, entry.mode & 0o700 if acl else entry.mode)
    _put_back_xattrs(target, entry)
    if chmod and acl:
        os.chmod(target, entry.mode)
    if st.st_mtime_ns != entry.mtime_ns:
        os.utime(target, ns=(st.st_atime_ns, entry.mtime_ns))


def _put_back_xattrs(target: Target, entry: Entry) -> None:
    present = dict(without_labels(read_xattrs(target), entry))
    wanted = dict(entry.xattrs)
    for name in present.keys() - wanted.keys():
        os.removexattr(target, name)
    for name, value in entry.xattrs:
        if present.get(name) != value:
            os.setxattr(target, name, value)


def describe(entry: Entry) -> str:
    """The entry's metadata on one line, for people."""
    seconds, fraction = divmod(entry.mtime_ns, 1_000_000_000)
    parts = [f"owner {entry.uid}:{entry.gid}", f"mode {entry.mode:04o}", f"mtime {seconds}.{fraction:09d}"]
    parts += [f"{name}={value.hex()}" for name, value in entry.xattrs]
    return ", ".join(parts)
