# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which names are left out."""

from __future__ import annotations

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.tree.exclude import Excludes

CASES = [
    # pattern, left out, not left out
    ("*.log", [b"a.log", b"var/x.log", b".log"], [b"a.logs", b"log", b"a.log/b"]),
    ("cache", [b"cache", b"var/cache"], [b"caches", b"cache/a"]),  # what is below is never asked for
    ("cache/", [b"cache", b"var/cache"], [b"cache/a"]),
    ("cache/*", [b"cache/a", b"cache/a/b"], [b"cache", b"var/cache/a"]),
    ("cache/**", [b"cache/a", b"cache/a/b"], [b"cache", b"var/cache/a"]),
    ("/var/tmp", [b"var/tmp"], [b"tmp", b"srv/var/tmp", b"var/tmp/a"]),
    ("/*.pid", [b"a.pid", b"run/a.pid"], [b"a.pids"]),
    ("var/tmp", [b"var/tmp"], [b"srv/var/tmp"]),
    ("?.so", [b"a.so", b"lib/a.so"], [b"aa.so", b"\xc3\xa4.so"]),
    ("[ab]*", [b"a", b"b1", b"x/a1"], [b"c"]),
    ("\u00e4*", [b"\xc3\xa4rger"], [b"\xe4rger"]),
    ("*", [b"a", b"a/b", b"\xff\n"], []),
    ("/", [], [b"", b"a"]),
    ("", [], [b"", b"a"]),
]


@pytest.mark.parametrize(("pattern", "out", "kept"), CASES, ids=[case[0] or "empty" for case in CASES])
def test_a_pattern(pattern: str, out: list[bytes], kept: list[bytes]) -> None:
    excludes = Excludes([pattern])
    assert [path for path in out + kept if excludes.matches(path, path.rpartition(b"/")[2])] == out


def test_any_of_several_patterns_leaves_out() -> None:
    excludes = Excludes(["*.log", "/run"])
    assert excludes.matches(b"a.log", b"a.log") and excludes.matches(b"run", b"run")
    assert not excludes.matches(b"srv/run", b"run")


def test_no_patterns_are_false() -> None:
    assert not Excludes([])
    assert not Excludes(["", "/"])
    assert Excludes(["a"])
