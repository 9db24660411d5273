# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user would pick instead: for each program and job, the commands that do it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import workloads
from measure import Command

FIRST, UNCHANGED, CHANGED, DRIFT, FULL, VERIFY, SCAN = (
    "first",
    "unchanged",
    "changed",
    "drift",
    "full",
    "verify",
    "scan",
)
# In this order: what only reads comes before what changes the tree.
JOBS: Mapping[str, str] = {
    FIRST: "first shadow",
    VERIFY: "verify",
    SCAN: "scan",
    UNCHANGED: "unchanged shadow",
    CHANGED: "1 % changed shadow",
    DRIFT: "restore of 1 % drift",
    FULL: "full restore",
}
CREATING = (FIRST, UNCHANGED, CHANGED)
RESTORING = (DRIFT, FULL)
GENERATION: Mapping[str, int] = {FIRST: 1, UNCHANGED: 2, CHANGED: 3}
Commands = tuple[Command, ...]


@dataclass(frozen=True)
class Place:
    """Where a tool works in one round: the tree, the directory `live` that it is in, and the tool's own `store`.

    For a full restore `live` is an empty file system. `generation` is that of the last shadow made.
    """

    live: Path
    store: Path
    generation: int = 0

    @property
    def tree(self) -> Path:
        """The tree that is shadowed and restored."""
        return self.live / "tree"

    @property
    def copy(self) -> Path:
        """The copy of those that keep one."""
        return self.store / "copy"


class Tool:
    """One competitor. A job that has no method of its name, or no commands, is none of its jobs.

    The methods are called with the generation that is to be made or, for other jobs, that was made last.
    """

    name = ""
    blocks = 0  # that a file takes in its store beside its size

    def commands(self, job: str, place: Place) -> Commands:
        """What is measured. Empty: it doesn't do this job."""
        make: Callable[[Place], Commands] | None = getattr(self, job, None)
        return make(place) if make else ()

    def does(self, job: str) -> bool:
        """Whether it does this job."""
        return hasattr(self, job)

    def environment(self, place: Place) -> dict[str, str]:
        """The environment of its commands."""
        return {**os.environ, "HOME": str(place.store), "LC_ALL": "C.UTF-8"}

    def prepare(self, job: str, place: Place) -> None:
        """What comes before a job, and isn't measured."""

    def restored(self, place: Place) -> Path:
        """Where a full restore puts the tree."""
        return place.tree

    def _quietly(self, argv: list[str], place: Place) -> None:
        subprocess.run(argv, env=self.environment(place), stdout=subprocess.DEVNULL, check=True)


def _one(*argv: str | Path, cwd: Path | None = None) -> Commands:
    return (Command(tuple(str(word) for word in argv), str(cwd or "/")),)


class Cp(Tool):
    """A copy beside it; `cp -au` afterwards. It can't tell what to remove, so it isn't asked to roll back."""

    name = "cp"

    def first(self, place: Place) -> Commands:
        return _one("cp", "-a", place.tree, place.copy)

    def unchanged(self, place: Place) -> Commands:
        return _one("cp", "-au", f"{place.tree}/.", place.copy)

    changed = unchanged

    def full(self, place: Place) -> Commands:
        return _one("cp", "-a", place.copy, place.tree)


# Without it a file that changed within the second, and kept its size, counts as unchanged.
RSYNC = ("rsync", "-a", "--modify-window=-1")


class Rsync(Tool):
    """One copy that is kept up to date."""

    name = "rsync"

    def first(self, place: Place) -> Commands:
        return _one(*RSYNC, "--delete", f"{place.tree}/", f"{place.copy}/")

    unchanged = changed = first

    def drift(self, place: Place) -> Commands:
        return _one(*RSYNC, "--delete", f"{place.copy}/", f"{place.tree}/")

    full = drift

    def verify(self, place: Place) -> Commands:
        return _one(*RSYNC, "--checksum", "--dry-run", f"{place.tree}/", f"{place.copy}/")


class RsyncLink(Tool):
    """A directory for each generation; what did not change is a hard link."""

    name = "rsync-link"

    def first(self, place: Place) -> Commands:
        before = (f"--link-dest={place.store}/{place.generation - 1}",) if place.generation > 1 else ()
        return _one(*RSYNC, *before, f"{place.tree}/", f"{place.store}/{place.generation}/")

    unchanged = changed = first


class Restic(Tool):
    """Always encrypted: it can't do without. Not compressed, so that it is as fast as it can be."""

    name = "restic"
    PASSWORD = "no secret"  # restic demands one

    def environment(self, place: Place) -> dict[str, str]:
        own = {"RESTIC_REPOSITORY": f"{place.store}/repository", "RESTIC_CACHE_DIR": f"{place.store}/cache"}
        return {**super().environment(place), **own, "RESTIC_PASSWORD": self.PASSWORD, "RESTIC_COMPRESSION": "off"}

    def prepare(self, job: str, place: Place) -> None:
        if job == FIRST:
            self._quietly(["restic", "init"], place)

    def first(self, place: Place) -> Commands:
        return _one("restic", "--compression", "off", "backup", "--quiet", place.tree)

    unchanged = changed = first

    def full(self, place: Place) -> Commands:
        return _one("restic", "restore", "latest", "--quiet", "--target", place.live)

    def verify(self, place: Place) -> Commands:
        return _one("restic", "check", "--quiet", "--read-data")

    def restored(self, place: Place) -> Path:
        return place.live / place.tree.relative_to("/")


class Borg(Tool):
    """Neither encrypted nor compressed, so that it is as fast as it can be."""

    name = "borg"

    def environment(self, place: Place) -> dict[str, str]:
        own = {"BORG_REPO": f"{place.store}/repository", "BORG_BASE_DIR": str(place.store)}
        return {**super().environment(place), **own, "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}

    def prepare(self, job: str, place: Place) -> None:
        if job == FIRST:
            self._quietly(["borg", "init", "--encryption", "none"], place)

    def first(self, place: Place) -> Commands:
        return _one("borg", "create", "--compression", "none", f"::{place.generation}", "tree", cwd=place.live)

    unchanged = changed = first

    def full(self, place: Place) -> Commands:
        return _one("borg", "extract", f"::{place.generation}", cwd=place.live)

    def verify(self, place: Place) -> Commands:
        return _one("borg", "check", "--verify-data")


class Git(Tool):
    """A repository outside of the tree. It keeps neither owners nor times nor empty directories."""

    name = "git"
    blocks = 1

    def environment(self, place: Place) -> dict[str, str]:
        who = {f"GIT_{role}_{what}": "bench" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        where = {"GIT_DIR": f"{place.store}/repository", "GIT_WORK_TREE": str(place.tree)}
        return {**super().environment(place), **who, **where, "GIT_CONFIG_NOSYSTEM": "1"}

    def prepare(self, job: str, place: Place) -> None:
        if job == FIRST:
            self._quietly(["git", "init", "--quiet"], place)
            # It would go on in the background, into the next measurement.
            self._quietly(["git", "config", "gc.auto", "0"], place)
            (place.store / "repository" / "info" / "attributes").write_text("* -text -filter -ident\n")
        if job == FULL:
            place.tree.mkdir()

    def first(self, place: Place) -> Commands:
        add = _one("git", "add", "--all", "--force", cwd=place.tree)
        return add + _one("git", "commit", "--quiet", "--allow-empty", "--message=shadow", cwd=place.tree)

    unchanged = changed = first

    def drift(self, place: Place) -> Commands:
        return _one("git", "reset", "--quiet", "--hard", cwd=place.tree)

    full = drift

    def verify(self, place: Place) -> Commands:
        return _one("git", "fsck", "--full", "--no-progress")


class Tar(Tool):
    """One file for each generation: the least that a copy takes."""

    name = "tar"

    def first(self, place: Place) -> Commands:
        return _one("tar", "-cf", place.store / "tree.tar", "-C", place.live, "tree")

    def full(self, place: Place) -> Commands:
        return _one("tar", "-xpf", place.store / "tree.tar", "-C", place.live)


class Find(Tool):
    """Looks at everything that stat knows of a tree."""

    name = "find"
    FORMAT = r"%p %y %m %U %G %s %n %i %D %b %A@ %T@ %C@ %l\n"

    def scan(self, place: Place) -> Commands:
        return _one("find", place.tree, "-printf", self.FORMAT)


class _Checking(Tool):
    """Checks the files of the tree itself against lists of their digests."""

    def prepare(self, job: str, place: Place) -> None:
        workloads.checksums(place.tree, place.store / "lists")
        names = sorted(str(path) for path in (place.store / "lists").iterdir())
        (place.store / "names").write_text("".join(f"{name}\0" for name in names))


class Sha256sum(_Checking):
    """Debian's program, two at a time."""

    name = "sha256sum"

    def verify(self, place: Place) -> Commands:
        argv = ("xargs", "-0", "-a", place.store / "names", "-P2", "-n1", "sha256sum", "--check", "--quiet")
        return _one(*argv, cwd=place.tree)


class Hashlib(_Checking):
    """What someone writes in Python: a pool of threads, as many as there are cores."""

    name = "hashlib"

    def verify(self, place: Place) -> Commands:
        script = Path(__file__).with_name("hash_pool.py")
        return _one(sys.executable, script, place.store / "names", cwd=place.tree)


PEERS: Mapping[str, type[Tool]] = {
    tool.name: tool for tool in (Cp, Rsync, RsyncLink, Git, Restic, Borg, Tar, Find, Sha256sum, Hashlib)
}
