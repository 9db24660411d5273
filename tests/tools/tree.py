# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The staged copy of the working tree, the artifact built from it, and its installation into environments."""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from environments import Environment, quiet

NOT_IN_THE_ARTIFACT = ("tests/", "requirements/", ".ci/", "Makefile", "pyproject.toml")


def _listed(tree: Path, *options: str) -> list[str]:
    """The names that git lists in a tree, of files that are there."""
    done = subprocess.run(["git", "-C", str(tree), "ls-files", "-z", *options], capture_output=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"git can't list {tree}, which has to be a clone: {os.fsdecode(done.stderr).strip()}")
    return sorted(name for name in set(os.fsdecode(done.stdout).split("\0")) if name and os.path.lexists(tree / name))


def _same(source: Path, target: Path) -> bool:
    if source.is_symlink() or target.is_symlink():
        return source.is_symlink() and target.is_symlink() and os.readlink(source) == os.readlink(target)
    if not target.is_file() or source.stat().st_mode != target.stat().st_mode:
        return False
    return filecmp.cmp(source, target, shallow=False)


def _copy(source: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.copy2(source, target, follow_symlinks=False)


def stage(root: Path, target: Path) -> list[str]:
    """Make `target` a copy of what git would commit from `root`, new files included, and return the names.

    ansible-test, ansible-lint and Python's import all want the collection in a directory with its own name. The copy is
    a git repository of its own, since those tools ask git which files count, and the real one ignores this directory.
    """
    names = _listed(root, "--cached", "--others", "--exclude-standard")
    if not (target / ".git").is_dir():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        quiet(["git", "init", "--quiet", str(target)])
    for name in set(_listed(target)) - set(names):
        (target / name).unlink()
        for parent in (target / name).parents:
            if any(parent.iterdir()):
                break
            parent.rmdir()
    for name in names:
        if not _same(root / name, target / name):
            _copy(root / name, target / name)
    quiet(["git", "-C", str(target), "add", "--all"])
    return names


def content_key(tree: Path, names: list[str]) -> str:
    """Changes with any file that gets into the artifact."""
    total = hashlib.sha256()
    for name in names:
        if not name.startswith(NOT_IN_THE_ARTIFACT):
            path = tree / name
            content = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
            total.update(f"{name}\0{path.lstat().st_mode:o}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return total.hexdigest()


def build(staged: Path, folder: Path, key: str, environment: Environment) -> Path:
    """Build the artifact into `folder`, unless the one that is there has this key. Returns its path."""
    stamp = folder / "key"
    if not (stamp.is_file() and stamp.read_text() == key):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        print("building the collection", flush=True)
        galaxy = environment.program("ansible-galaxy")
        quiet([galaxy, "collection", "build", str(staged), "--output-path", str(folder)], cwd=folder)
        stamp.write_text(key)
    return next(folder.glob("*.tar.gz"))


def install(artifact: Path, key: str, environment: Environment) -> None:
    """Install the artifact into the environment's site-packages, where its ansible looks without being told."""
    stamp = environment.path / ".umbra-collection"
    if stamp.is_file() and stamp.read_text() == key:
        return
    print(f"installing {artifact.name} into {environment.path.name}", flush=True)
    options = ["--collections-path", str(environment.site_packages), "--offline", "--no-deps", "--force"]
    quiet(
        [environment.program("ansible-galaxy"), "collection", "install", str(artifact), *options], cwd=artifact.parent
    )
    stamp.write_text(key)
