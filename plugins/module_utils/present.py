# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether something is there. Where os.path could not look it says no, and then what is there would be forgotten."""

from __future__ import annotations

import os
import stat


def is_there(path: str) -> bool:
    """Whether there is anything of this name, be it a symlink that leads nowhere. Raises OSError when nobody knows."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_directory(path: str) -> bool:
    """Whether it is a directory, or leads to one. Raises OSError when nobody knows."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
