# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Pythons this machine has, and which ansible-core each line of requirements/controller-*.txt gets."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ENGINE_NEEDS = (3, 9)
# What a venv and the collection need of a Python; a shim of pyenv for a version that isn't active fails here.
PROBE = "import ensurepip, sqlite3, ssl, sys, venv; print(*sys.version_info[:3], sys._base_executable)"


@dataclass(frozen=True)
class Python:
    """A Python that works: its version and the path of its executable, outside any virtual environment."""

    version: tuple[int, int, int]
    path: str

    @property
    def minor(self) -> str:
        """The version as '3.13'."""
        return f"{self.version[0]}.{self.version[1]}"

    def __str__(self) -> str:
        """The version as '3.13.0'."""
        return ".".join(map(str, self.version))


@dataclass(frozen=True)
class Controller:
    """A line of ansible-core ('2.21'), its requirements file, and the Pythons it supports, ascending."""

    line: str
    requirements: Path
    supports: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """A Python for a line of ansible-core."""

    controller: Controller
    python: Python


def _candidates() -> Iterator[str]:
    """Everything named like a Python 3 on PATH, then what pyenv holds."""
    for folder in os.get_exec_path():
        directory = Path(folder)
        if directory.is_dir():
            yield from sorted(str(path) for path in directory.iterdir() if re.fullmatch(r"python3(\.\d+)?", path.name))
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    yield from sorted(map(str, pyenv.glob("versions/*/bin/python3")))


def _probe(path: str) -> Python | None:
    try:
        done = subprocess.run([path, "-I", "-c", PROBE], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    major, minor, micro, executable = done.stdout.strip().split(" ", 3)
    return Python((int(major), int(minor), int(micro)), executable)


def find_pythons() -> list[Python]:
    """Every Python from 3.9 on that works, one of each minor version (the newest patch), newest first."""
    best: dict[str, Python] = {}
    for python in filter(None, map(_probe, dict.fromkeys(_candidates()))):
        known = best.get(python.minor)
        if python.version >= ENGINE_NEEDS and (known is None or python.version > known.version):
            best[python.minor] = python
    return sorted(best.values(), key=lambda python: python.version, reverse=True)


def find_controllers(requirements: Path) -> list[Controller]:
    """The lines of ansible-core that controller-*.txt pin, newest first."""
    found = []
    for path in requirements.glob("controller-*.txt"):
        supports = re.search(r"^# Pythons: (.+)$", path.read_text(), re.MULTILINE)
        if supports is None:
            raise SystemExit(f"{path}: a comment line '# Pythons: 3.N ...' has to say which Pythons it is for.")
        found.append(Controller(path.stem.removeprefix("controller-"), path, tuple(supports[1].split())))
    return sorted(found, key=lambda controller: [int(part) for part in controller.line.split(".")], reverse=True)


def choose(controllers: list[Controller], pythons: list[Python]) -> list[Choice]:
    """A Python for each line that can have one: the newest for the newest line, the oldest supported for older ones."""
    by_minor = {python.minor: python for python in pythons}
    choices: list[Choice] = []
    for controller in controllers:
        usable = [by_minor[minor] for minor in controller.supports if minor in by_minor]
        if usable:
            choices.append(Choice(controller, usable[0] if choices else usable[-1]))
    return choices


def explain(controllers: list[Controller], pythons: list[Python], choices: list[Choice]) -> str:
    """What was found and chosen, and why, for a person."""
    lines = ["Pythons found: " + (", ".join(map(str, pythons)) or "none of 3.9 or newer that can make a venv")]
    chosen = {choice.controller.line: choice.python for choice in choices}
    for controller in controllers:
        supports, python = ", ".join(controller.supports), chosen.get(controller.line)
        if python is None:
            what = f"not used, it needs one of Python {supports}, and none was found"
        elif controller.line == choices[0].controller.line:
            what = f"in .venv with Python {python}, the newest here of those it supports ({supports})"
        else:
            what = f"for tests with Python {python}, the oldest here of those it supports ({supports})"
        lines.append(f"ansible-core {controller.line}: {what}")
    return "\n".join(lines)
