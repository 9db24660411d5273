# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual environments: pinned, made once, made again when their pins or their Python change."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pythons import Python

KEY = ".umbra-key"


@dataclass(frozen=True)
class Environment:
    """A virtual environment: where it is, its Python, and the files that pin all it has."""

    path: Path
    python: Python
    requirements: tuple[Path, ...]

    @property
    def site_packages(self) -> Path:
        """Where its packages are."""
        return self.path / "lib" / f"python{self.python.minor}" / "site-packages"

    def program(self, name: str) -> str:
        """The path of one of its programs."""
        return str(self.path / "bin" / name)

    def key(self) -> str:
        """Changes with the Python, the pins, and the place (the programs name it in their first line)."""
        parts = [self.python.path, str(self.python), str(self.path), *(file.read_text() for file in self.requirements)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def quiet(argv: Iterable[str], cwd: Path | None = None) -> str:
    """Run a step of the set-up; say what it printed only when it fails, and end then."""
    done = subprocess.run(
        list(argv), cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    output = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        raise SystemExit(f"{output}\nThis step of the set-up failed ({done.returncode}): {' '.join(argv)}")
    return output


def ensure(environment: Environment) -> None:
    """Make the environment, unless it is there as its key says. A half-made one has no key and is made anew."""
    stamp = environment.path / KEY
    python = environment.program("python")
    if stamp.is_file() and stamp.read_text() == environment.key() and os.access(python, os.X_OK):
        return
    print(f"making {environment.path.name} (Python {environment.python})", flush=True)
    shutil.rmtree(environment.path, ignore_errors=True)
    quiet([environment.python.path, "-m", "venv", str(environment.path)])
    files = [argument for file in environment.requirements for argument in ("-r", str(file))]
    # Without --no-deps a dependency that nobody pinned would come in unnoticed; pip check then finds what is missing.
    quiet([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *files])
    quiet([python, "-m", "pip", "check"])
    # Where PYTHONDONTWRITEBYTECODE is set nothing compiles later, and ansible would start twice as slowly for ever.
    subprocess.run(
        [python, "-m", "compileall", "-q", "-j", "0", str(environment.site_packages)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,  # ansible-core ships files that are not meant for this Python
    )
    stamp.write_text(environment.key())
