# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether somebody else could put another store in the place of root's: who may rename a directory above it may."""

from __future__ import annotations

import os
import stat
from collections import deque

from ..errors import StoreUnsafe

ACL = "system.posix_acl_access"
MAX_LINKS = 40


def refuse(path: str) -> None:
    """Raise StoreUnsafe where a store at `path`, which need not be there yet, would be in somebody else's hands."""
    problem = look(path)
    if problem:
        raise StoreUnsafe(path=path, problem=problem)


def look(path: str) -> str:
    """Who else could exchange the store at `path` (absolute), in words; '' when nobody could, or we are not root.

    As sshd has it for keys: each directory on the way is root's, and only root may write to it; or it is sticky. What
    is missing is made by us. Raises OSError.
    """
    if os.geteuid() != 0:
        return ""
    todo, at, links = deque(path.split("/")), "/", 0
    trusted = {0, os.stat("/").st_uid}  # in a namespace of users, the root of the host has no number
    while True:
        if problem := _look_at(at, trusted, last=not any(todo)):
            return problem
        while todo and todo[0] in ("", "."):
            todo.popleft()
        if not todo:
            return ""
        name = todo.popleft()
        step = os.path.dirname(at) if name == ".." else os.path.join(at, name)
        try:
            found = os.lstat(step)
        except FileNotFoundError:
            return ""
        if not stat.S_ISLNK(found.st_mode):
            at = step
            continue
        links += 1
        if found.st_uid not in trusted or links > MAX_LINKS:
            return f"{step} is a symlink of user {found.st_uid}"
        target = os.readlink(step)
        at = "/" if target.startswith("/") else at
        todo.extendleft(reversed(target.split("/")))


def _look_at(path: str, trusted: set[int], last: bool) -> str:
    found = os.stat(path)
    if found.st_uid not in trusted:
        return f"{path} belongs to user {found.st_uid}"
    if last or found.st_mode & stat.S_ISVTX:  # the store itself is closed to others; in the other, all keep their own
        return ""
    if found.st_mode & stat.S_IWOTH:
        return f"everybody may write to {path}"
    if found.st_mode & stat.S_IWGRP and (found.st_gid or _has_acl(path)):
        return f"not only root may write to {path} (group {found.st_gid}, or an ACL)"
    return ""


def _has_acl(path: str) -> bool:
    try:
        return ACL in os.listxattr(path)
    except OSError:
        return False  # this file system has none
