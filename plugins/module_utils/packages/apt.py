# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""apt and dpkg behind the face of package managers: apt foresees and fetches, dpkg changes."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

from ..context import Context, Done
from .dpkg import Dpkg, environment, in_room
from .face import INSTALLED, Manager, Package, Preview

# An update that takes more than this along is a release upgrade: to keep all that is a backup's job.
MAX_COMPANIONS = 50
_SIMULATED = re.compile(r"(Inst|Remv) (\S+)")
_DOWNLOAD = ("APT::Sandbox::User=root", "Acquire::Retries=1", "Acquire::http::Timeout=30", "Acquire::https::Timeout=30")


class Apt(Manager):
    """Debian and its children."""

    kind = "apt"
    suffix = ".deb"
    leavings = (".dpkg-new", ".dpkg-dist", ".dpkg-old", ".dpkg-tmp")

    def __init__(self, context: Context, name: str, timeout: float) -> None:
        super().__init__(context, name, timeout)
        self._dpkg = Dpkg(context, name, timeout)
        self._native: str | None = None

    def installed(self) -> dict[str, Package]:
        """dpkg's list, with apt's marks."""
        state = self._dpkg.packages()
        for word in self._check("apt-mark", "showauto").stdout.split():
            for key in self.keys(word, state):
                state[key] = replace(state[key], auto=True)
        return state

    def find(self, pattern: str) -> list[str]:
        """By name, without architecture."""
        names = {package.name for package in self._dpkg.packages().values() if package.status == INSTALLED}
        return sorted(fnmatch.filter(names, pattern))

    def size(self, key: str) -> int:
        """What its maintainer computed."""
        return int(self._dpkg.query("${Installed-Size}", key) or 0) * 1024

    def companions(self, names: Collection[str], state: Mapping[str, Package]) -> set[str]:
        """Packages of the same sources, which depend on each other's exact versions; what apt would change now; and
        what only these need, which `autoremove` takes when the update does not need it any more."""
        there = [name for name in names if self.keys(name, state)]
        found = self._siblings(there) | self._simulate(["install", *there], state)
        needed = self._needed_only_by(there, state) - self._simulate(["autoremove"], state)
        if len(found | needed) <= MAX_COMPANIONS:
            found |= needed
        ours = {key for name in there for key in self.keys(name, state)}
        found = {key for key in found - ours if state[key].status == INSTALLED}
        return found if len(found) <= MAX_COMPANIONS else set()

    def leftovers(self, names: Collection[str], state: Mapping[str, Package]) -> set[str]:
        """By apt's own reckoning; removing names, it says what nothing needs anyhow, too."""
        there = [name for name in names if self.keys(name, state)]
        return self._needed_only_by(there, state) if there else self._simulate(["autoremove"], state)

    def _siblings(self, names: Collection[str]) -> set[str]:
        shown = self._dpkg.query("${Package}:${Architecture}\t${source:Package}\n")
        source = dict(line.split("\t") for line in shown.splitlines())
        ours = {source[key] for key in source if key.partition(":")[0] in names or key in names}
        return {key for key in source if source[key] in ours}

    def _needed_only_by(self, names: Collection[str], state: Mapping[str, Package]) -> set[str]:
        if not names:
            return set()
        gone = self._simulate(["--auto-remove", "remove", *names], state)
        return {key for key in gone if state[key].auto}

    def _simulate(self, words: list[str], state: Mapping[str, Package]) -> set[str]:
        """Keys of installed packages that apt would change or remove; none when it can't say."""
        done = self._run("apt-get", "--simulate", "--allow-change-held-packages", *words)
        return {key for dummy, word in _SIMULATED.findall(done.stdout) for key in self.keys(word, state)}

    def config_paths(self, keys: Collection[str]) -> dict[str, set[str]]:
        """dpkg's conffiles."""
        return self._dpkg.config_paths(keys)

    def damage(self, keys: Collection[str]) -> dict[str, dict[str, str]]:
        """By dpkg's MD5 sums."""
        return {key: self._dpkg.damage(key) for key in keys}

    def fetch(self, package: Package, directory: str, network: bool) -> str | None:
        """Out of apt's cache when it is the file that the repository lists, else by `apt-get download`."""
        return self._cached(package) or (self._download(package, directory) if network else None)

    def _cached(self, package: Package) -> str | None:
        archives = re.search("D='(.*)'", self._run("apt-config", "shell", "D", "Dir::Cache::archives/d").stdout)
        for path in glob.glob(f"{glob.escape(archives[1])}{glob.escape(package.name)}_*.deb") if archives else ():
            if self._is(path, package) and self._is_listed(path, package):
                return path
        return None

    def _is(self, path: str, package: Package) -> bool:
        return self._dpkg.describe(path) == (package.name, package.version, package.arch)

    def _is_listed(self, path: str, package: Package) -> bool:
        """Whether the archive is one that apt's index knows; what the index does not list any more is believed."""
        shown = self._run("apt-cache", "show", f"{package.name}={package.version}").stdout
        listed = re.findall(r"^SHA256: (\S+)", shown, re.MULTILINE)
        with open(path, "rb") as file:
            return not listed or hashlib.sha256(file.read()).hexdigest() in listed

    def _download(self, package: Package, directory: str) -> str | None:
        qualified = package.name if package.arch == "all" else package.key
        options = [word for option in _DOWNLOAD for word in ("-o", option)]
        argv = ["apt-get", "--quiet", *options, "download", f"{qualified}={package.version}"]
        self.context.run(argv, self.timeout, {**environment(), **in_room(self.context)}, cwd=directory)
        names = [name for name in os.listdir(directory) if name.endswith(".deb")]
        return next((path for name in names if self._is(path := os.path.join(directory, name), package)), None)

    def lock(self) -> AbstractContextManager[None]:
        """dpkg's."""
        return self._dpkg.lock()

    def preview(self, archives: Collection[str], remove: Collection[Package]) -> Preview:
        """What apt's solver makes of it, with nothing to choose from but what is installed and these archives."""
        if not archives and not remove:
            return Preview()
        lists = os.path.join(self.context.workdir, "no-lists")
        os.makedirs(os.path.join(lists, "partial"), exist_ok=True)
        nothing = ("Dir::Etc::sourcelist=/dev/null", "Dir::Etc::sourceparts=/dev/null", f"Dir::State::lists={lists}")
        options = [word for option in nothing for word in ("-o", option)]
        allowed = (
            "--allow-downgrades",
            "--allow-change-held-packages",
            "--allow-remove-essential",
            "--no-install-recommends",
        )
        words = [*archives, *(f"{package.key}-" for package in remove)]
        done = self._run("apt-get", "--simulate", "--reinstall", *options, *allowed, "install", *words)
        if done.status != 0:
            return Preview(unknown=done.last_words)
        ours = {self._dpkg.describe(path)[0] for path in archives} | {package.name for package in remove}
        touched = {word for dummy, word in _SIMULATED.findall(done.stdout)}
        return Preview(hurts=tuple(sorted(word for word in touched if word.partition(":")[0] not in ours)))

    def change(self, archives: Mapping[str, str], remove: Collection[Package], forced: bool) -> None:
        """By dpkg, which works when apt does not."""
        self._dpkg.change(archives, remove, forced)

    def mark(self, packages: Iterable[Package]) -> None:
        """By apt-mark."""
        wanted: dict[str, list[str]] = {}
        for package in packages:
            wanted.setdefault("hold" if package.held else "unhold", []).append(package.key)
            wanted.setdefault("auto" if package.auto else "manual", []).append(package.key)
        for verb, keys in wanted.items():
            self._dpkg.mark(["apt-mark", verb, *keys])

    def problem(self, keys: Collection[str]) -> str:
        """By dpkg's audit."""
        return self._dpkg.audit(keys)

    def _run(self, *argv: str) -> Done:
        return self.context.run(argv, self.timeout, {**environment(), **in_room(self.context)})

    def _check(self, *argv: str) -> Done:
        return self.context.check(self.name, argv, self.timeout)

    def keys(self, word: str, state: Mapping[str, Package]) -> list[str]:
        """The keys of a name as apt writes it: without an architecture where it is the host's own, or none."""
        if self._native is None:
            self._native = self._check("dpkg", "--print-architecture").stdout.strip()
        words = [word] if ":" in word else [f"{word}:{self._native}", f"{word}:all"]
        return [key for key in words if key in state]
