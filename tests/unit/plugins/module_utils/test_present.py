# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is there, what is not, and what nobody knows."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.present import is_directory, is_there


def test_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "link").symlink_to(tmp_path)
    names = ("file", "dangling", "link", "nothing", "file/below", "nothing/below", ".")
    assert [is_there(str(tmp_path / name)) for name in names] == [True, True, True, False, False, False, True]
    assert [is_directory(str(tmp_path / name)) for name in names] == [False, False, True, False, False, False, True]


def test_what_nobody_knows_is_no_no(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for ask in (is_there, is_directory):
        with pytest.raises(OSError, match="name too long"):
            ask(str(tmp_path / ("x" * 256)))
    with pytest.raises(OSError, match="symbolic links"):
        is_directory(str(tmp_path / "loop"))
