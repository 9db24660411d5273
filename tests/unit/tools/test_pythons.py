# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which ansible-core gets which Python."""

from __future__ import annotations

from pathlib import Path

import pytest
from pythons import Controller, Python, choose, explain, find_controllers, find_pythons

NEW = Controller("2.21", Path("controller-2.21.txt"), ("3.12", "3.13", "3.14"))
OLD = Controller("2.19", Path("controller-2.19.txt"), ("3.11", "3.12", "3.13"))


def pythons(*minors: int) -> list[Python]:
    return [Python((3, minor, 1), f"/opt/python3.{minor}") for minor in minors]


@pytest.mark.parametrize(
    ("minors", "chosen"),
    [
        ((15, 13, 12, 11, 9), [("2.21", "3.13"), ("2.19", "3.11")]),
        ((12,), [("2.21", "3.12"), ("2.19", "3.12")]),
        ((11, 10), [("2.19", "3.11")]),
        ((14,), [("2.21", "3.14")]),
        ((10, 9), []),
    ],
)
def test_the_newest_line_gets_the_newest_python_and_older_lines_the_oldest(
    minors: tuple[int, ...], chosen: list[tuple[str, str]]
) -> None:
    choices = choose([NEW, OLD], pythons(*minors))
    assert [(choice.controller.line, choice.python.minor) for choice in choices] == chosen
    said = explain([NEW, OLD], pythons(*minors), choices)
    for line, minor in chosen:
        assert f"ansible-core {line}: " in said
        assert f"Python {minor}.1, the " in said
    assert said.count("not used") == 2 - len(chosen)


def test_the_running_python_is_found_once() -> None:
    found = find_pythons()
    assert len({python.minor for python in found}) == len(found)
    assert all(Path(python.path).exists() for python in found)
    assert found


def test_a_requirements_file_that_names_no_python_is_refused(tmp_path: Path) -> None:
    (tmp_path / "controller-2.20.txt").write_text("# Pythons: 3.12 3.13\nansible-core==2.20.1\n")
    (tmp_path / "controller-2.9.txt").write_text("# Pythons: 3.8\n")
    assert [(one.line, one.supports) for one in find_controllers(tmp_path)] == [
        ("2.20", ("3.12", "3.13")),
        ("2.9", ("3.8",)),
    ]
    (tmp_path / "controller-2.8.txt").write_text("ansible-core==2.8\n")
    with pytest.raises(SystemExit, match=r"controller-2\.8\.txt: a comment line"):
        find_controllers(tmp_path)
