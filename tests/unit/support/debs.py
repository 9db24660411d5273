# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository of tiny Debian packages, and the apt of this machine told to use nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

ENVIRONMENT = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "DEBCONF_NOWARNINGS": "yes", "LC_ALL": "C"}
SOURCES = Path("/etc/apt/sources.list")


def run(*argv: str, check: bool = True) -> str:
    """What a program prints; with `check`, it has to succeed."""
    done = subprocess.run(argv, env=ENVIRONMENT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0 or not check, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


class Debs:
    """Packages in a directory. Call `publish` when all are added."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        name: str,
        version: str,
        fields: Mapping[str, str] | None = None,
        config: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        scripts: Mapping[str, str] | None = None,
        arch: str = "all",
    ) -> Path:
        """Build one package, with a file of its own that has its version, and return the archive's path."""
        root = self.directory / "build"
        shutil.rmtree(root, ignore_errors=True)
        (root / "DEBIAN").mkdir(parents=True)
        control = {"Package": name, "Version": version, "Architecture": arch, "Maintainer": "T <t@example.org>"}
        control.update({**(fields or {}), "Description": "a test"})
        (root / "DEBIAN/control").write_text("".join(f"{key}: {value}\n" for key, value in control.items()))
        if config:
            (root / "DEBIAN/conffiles").write_text("".join(f"{path}\n" for path in config))
        contents = {f"/usr/share/{name}/version": f"{version}\n", **(config or {}), **(files or {})}
        for path, text in contents.items():
            (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            (root / path.lstrip("/")).write_text(text)
        for script, text in (scripts or {}).items():
            (root / "DEBIAN" / script).write_text(f"#!/bin/sh\nset -e\n{text}\n")
            (root / "DEBIAN" / script).chmod(0o755)
        archive = self.directory / f"{name}_{version}_{arch}.deb"
        run("dpkg-deb", "--build", "-Znone", "--root-owner-group", str(root), str(archive))
        return archive

    def publish(self) -> None:
        """Make the index, and have apt read it."""
        shutil.rmtree(self.directory / "build", ignore_errors=True)
        index = subprocess.run(["apt-ftparchive", "packages", "."], cwd=self.directory, capture_output=True, check=True)
        (self.directory / "Packages").write_bytes(index.stdout)
        SOURCES.write_text(f"deb [trusted=yes] file:{self.directory} ./\n")
        run("apt-get", "update")

    @staticmethod
    def vanish() -> None:
        """No repository any more, and nothing in apt's cache."""
        SOURCES.write_text("")
        run("apt-get", "update")
        run("apt-get", "clean")


def install(*words: str, check: bool = True) -> str:
    """As a person does it: questions about configuration keep the file that is there."""
    options = ("-y", "--allow-downgrades", "--allow-change-held-packages", "-o", "Dpkg::Options::=--force-confold")
    return run("apt-get", *options, "install", *words, check=check)


def state(prefix: str) -> dict[str, object]:
    """Everything that apt and dpkg have of the packages whose names begin with `prefix`, and what verifies badly."""
    form = "${Package} ${Version} ${db:Status-Abbrev}|${Conffiles}\n"
    shown = run("dpkg-query", "--show", f"--showformat={form}", f"{prefix}*", check=False)
    packages = [line for line in shown.splitlines() if "|" not in line or " un " not in line]
    marks = {verb: [name for name in run("apt-mark", verb).split() if name.startswith(prefix)] for verb in MARKS}
    names = {line.split()[0] for line in packages if line.startswith(prefix) and " ii" in line}
    return {
        "packages": packages,
        **marks,
        "verify": run("dpkg", "--verify", *sorted(names), check=False) if names else "",
    }


MARKS = ("showhold", "showauto", "showmanual")


def purge(prefix: str) -> None:
    """Remove all packages whose names begin with `prefix`, whatever state they are in."""
    shown = run("dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", f"{prefix}*", check=False)
    names = [line.split()[0] for line in shown.splitlines() if not line.endswith("not-installed")]
    if names:
        for script in ("prerm", "postrm"):
            for name in names:
                Path(f"/var/lib/dpkg/info/{name}.{script}").unlink(missing_ok=True)
        run("dpkg", "--purge", "--force-all", *names, check=False)
    left = run("dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", f"{prefix}*", check=False)
    assert all(line.endswith("not-installed") for line in left.splitlines()), left
