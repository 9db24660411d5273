# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Debian packages that the tests need: installed as root, asked for otherwise."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def wanted(listing: Path) -> list[str]:
    """The names in a file of one package a line, with comments."""
    return [name for line in listing.read_text().splitlines() if (name := line.partition("#")[0].strip())]


def missing(names: list[str]) -> list[str]:
    """Those of `names` that dpkg does not call installed."""
    argv = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *names]
    # Its status is 1 when it doesn't know some of them, which is the answer.
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    installed = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in names if name not in installed]


def ensure(listing: Path) -> None:
    """Install what is missing when we are root; end with its names when we are not."""
    names = wanted(listing)
    if not shutil.which("dpkg-query"):
        print(f"This is no Debian: the tests need the like of its packages {' '.join(names)}")
        return
    lacking = missing(names)
    if not lacking:
        return
    if os.geteuid() != 0:
        raise SystemExit(f"Debian packages are missing. As root: apt-get install {' '.join(lacking)}")
    print(f"installing Debian packages: {' '.join(lacking)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for argv in (["update"], ["install", "--yes", "--no-install-recommends", *lacking]):
        done = subprocess.run(
            ["apt-get", "-q", *argv],
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{done.stdout}{done.stderr}\napt-get {' '.join(argv)} failed ({done.returncode})")
