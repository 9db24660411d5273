# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table in docs/guard.md says of each case what its test says, and has a word for every case that is played."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
INTEGRATION = ROOT / "tests" / "integration"
TABLE = (ROOT / "docs" / "guard.md").read_text(encoding="utf-8").partition("| case |")[2]
COLUMNS = ("host", "batch", "play", "free", "host_pinned")
NOT_PLAYED = "–"
BACK, DONE = ("old", "rolled_back"), ("new", "committed")


def lines() -> dict[str, tuple[dict[str, str], set[int]]]:
    """Of each line its words by column, and its exit statuses."""
    found = {}
    for line in TABLE.partition("\n\n")[0].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if re.fullmatch(r"`[a-z-]+`", cells[0]):
            words = {column: word for column, word in zip(COLUMNS, cells[2:7]) if word != NOT_PLAYED}
            found[cells[0].strip("`")] = (words, set(map(int, re.findall(r"\d", cells[7]))))
    return found


@pytest.fixture(scope="module")
def played() -> Iterator[list[tuple[str, str, Any]]]:
    """Line, column and case of all that the integration targets play."""
    sys.path.insert(0, str(INTEGRATION / "support"))
    found = []
    for path in sorted(INTEGRATION.glob("targets/*/cases.py")):
        names = runpy.run_path(str(path))
        for case in [*names.get("CASES", ()), *(value for value in names.values() if callable(value))]:
            found += [(line, column, case) for line, column in getattr(case, "shows", ())]
    yield found
    sys.path.pop(0)
    sys.modules.pop("lab", None)


def agrees(word: str, states: set[tuple[str, str]]) -> bool:
    """Whether `word` says how hosts are after the run, each by its contents and how its update stands."""
    back, done = BACK in states, DONE in states
    as_updated = any(content != "old" and state in ("open", "failed", "restoring") for content, state in states)
    never = {state for state in states if state[0] == "old"} - {BACK}
    return {
        "alone": back and done and not as_updated,
        "itself": back and done,
        "all": states - never == {BACK},
        "batch": back and bool(never),
        "none": done,
        "others": back and as_updated and not done,
        "left": done and as_updated,
        "refused": bool(never) and not back,
    }[word]


def test_every_word_is_played_and_all_that_is_played_has_a_word(played: list[tuple[str, str, Any]]) -> None:
    said = {(line, column) for line, (words, dummy) in lines().items() for column in words}
    assert len(said) > 50
    assert {(line, column) for line, column, dummy in played} == said


def test_every_word_says_what_its_case_says(played: list[tuple[str, str, Any]]) -> None:
    table, checked = lines(), 0
    for line, column, case in played:
        words, statuses = table[line]
        if hasattr(case, "after"):
            assert agrees(words[column], set(case.after.values())), (line, column)
            assert case.status in statuses or words[column] == "none" and case.status == 2, (line, column)
            checked += 1
    assert checked > 40
