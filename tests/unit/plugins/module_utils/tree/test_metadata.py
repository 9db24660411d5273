# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metadata that no file system here has: labels of the system, attributes that can't be put back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.tree import messages, metadata
from ansible_collections.umbra.rollback.plugins.module_utils.tree.entry import Entry

LABEL = ("security.selinux", b"system_u:object_r:etc_t:s0\0")
OTHER = ("security.selinux", b"system_u:object_r:tmp_t:s0\0")
USER = ("user.a", b"1")

LABELS = [
    # in the shadow, there now, differ
    ((LABEL,), (LABEL,), False),
    ((LABEL,), (OTHER,), True),
    ((LABEL,), (), True),
    ((), (LABEL,), False),  # the shadow is of a time without such a system
    ((USER,), (LABEL, USER), False),
    ((USER,), (LABEL,), True),
]


@pytest.mark.parametrize(("wanted", "present", "differ"), LABELS)
def test_labels(tmp_path: Path, wanted: metadata.Xattrs, present: metadata.Xattrs, differ: bool) -> None:
    st = os.stat(tmp_path)
    entry = metadata.entry_of(b"", st, wanted)
    assert metadata.differences(entry, st, present) == (("extended attributes",) if differ else ())


def test_what_cannot_be_put_back_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-in for attributes that only some kernels and file systems have."""
    values = {name: name.encode() for name in ("user.b", "security.evm", "system.nfs4_acl", "security.ima", "user.a")}
    monkeypatch.setattr(os, "listxattr", lambda target: list(values))
    monkeypatch.setattr(os, "getxattr", lambda target, name: values[name])
    kept = metadata.read_xattrs(os.fsencode(tmp_path))
    assert [name for name, dummy in kept] == ["security.ima", "user.a", "user.b"]


def test_each_difference_has_a_word(tmp_path: Path) -> None:
    st = os.stat(tmp_path)
    same = metadata.entry_of(b"", st, ())
    assert metadata.differences(same, st, ()) == ()
    other = Entry(b"", "d", same.mode ^ 1, same.uid + 1, same.gid, same.mtime_ns + 1, xattrs=(USER,))
    assert metadata.differences(other, st, ()) == ("owner", "mode", "mtime", "extended attributes")
    assert metadata.differences(same._replace(gid=same.gid + 1), st, ()) == ("owner",)


PATHS = [
    (b"/etc/shop", "/etc/shop"),
    (b"/a b\tc\nd", "/a b\\tc\\nd"),
    (b"/\xff\xc3\xa4", "/\\xff\u00e4"),
    (b"/\xe2\x80\xae", "/\\u202e"),  # turns the direction of a terminal
]


@pytest.mark.parametrize(("path", "shown"), PATHS)
def test_paths_for_people(path: bytes, shown: str) -> None:
    assert messages.printable(path) == shown


def test_join() -> None:
    assert messages.join(b"/srv/a", b"b/c") == b"/srv/a/b/c"
    assert messages.join(b"/srv/a", b"") == b"/srv/a"
    assert messages.join(b"/", b"b") == b"/b"
