# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's guide has a line for every error that the collection can end with, and for no other."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from ansible_collections.umbra.rollback.plugins.module_utils.errors import UmbraError

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "operators_guide.md"
# A class's code, one that is given to fail_json, or one in an action's result.
CODE = re.compile(r"""\bcode["']?(?:: ClassVar\[str\])? ?[=:] ?["']([a-z-]+)["']""")


def codes_in_the_code() -> set[str]:
    return {code for path in ROOT.glob("plugins/**/*.py") for code in CODE.findall(path.read_text(encoding="utf-8"))}


def rows() -> list[list[str]]:
    """The cells of each line of the table whose first cell is a code."""
    table = GUIDE.read_text(encoding="utf-8").partition("| code |")[2]
    found = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()]
    return [cells for cells in found if re.fullmatch(r"`[a-z-]+`", cells[0])]


def test_the_search_finds_what_the_classes_say() -> None:
    def below(one: type[UmbraError]) -> set[str]:
        return {one.code}.union(*(below(other) for other in one.__subclasses__()))

    assert below(UmbraError) <= codes_in_the_code()


def test_every_code_has_one_line_and_no_line_has_a_code_that_is_gone() -> None:
    counted = Counter(cells[0].strip("`") for cells in rows())
    assert set(counted) == codes_in_the_code()
    assert set(counted.values()) == {1}


def test_every_line_says_what_happened_what_is_safe_and_what_to_do_next() -> None:
    for cells in rows():
        assert len(cells) == 4, cells[0]
        assert all(cell.endswith(".") for cell in cells[1:]), cells[0]
