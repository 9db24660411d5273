# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of this machine, also where /proc shows a user nobody's but his own."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import processes
from ansible_collections.umbra.rollback.plugins.module_utils.sqlite import owner
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.tree.trees import NOBODY

pytestmark = pytest.mark.pure


def test_what_is_hidden_from_us_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that stands in for /proc with hidepid=1, which only who may mount can have."""
    for path in (tmp_path, *list(tmp_path.parents)[:3]):
        if path.stat().st_uid == os.geteuid():
            path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o111)
    hidden = tmp_path / "proc" / "1"
    hidden.mkdir(parents=True)
    hidden.parent.chmod(0o755)
    for name in ("stat", "cmdline"):
        (hidden / name).touch(0)
    monkeypatch.setattr(processes, "PROC", str(hidden.parent))
    with owner.acting_as(owner.identity(NOBODY)):
        with pytest.raises(PermissionError):
            open(hidden / "stat").close()
        assert processes.look(1) is None and processes.all_now() == {}
