# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dnf and rpm behind the face of package managers: dnf foresees and fetches, rpm changes."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import ClassVar

from ..context import Context, Done
from ..errors import CommandFailed, RestoreFailed
from . import locks
from .face import INSTALLED, Manager, Package, Preview
from .host import CONFIGURATION
from .rounds import Rounds

SEVERAL = "installed in several versions"
MAX_COMPANIONS = 50
# Where dnf 4 and dnf 5 write down why packages are there. Elsewhere, each question is asked each time.
REASONS = ("/var/lib/dnf/history.sqlite", "/var/lib/dnf/history.sqlite-wal", "/usr/lib/sysimage/libdnf5/packages.toml")
SAVED = ".rpmsave"
CACHES = ("/var/cache/dnf/*/packages", "/var/cache/libdnf5/*/packages")
_IDENTITY = "%{NAME}\t%{ARCH}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\n"
_LISTED = "%{NAME}.%{ARCH} %{EPOCHNUM}:%{VERSION}-%{RELEASE} %{INSTALLTID}\n"
# Of dnf's table of what it would do. It goes on in a new line after what is too long for its column.
_ROW = re.compile(r"^ (\S+)\s+(\S+)\s+\S+\s+\S+\s+\S", re.MULTILINE)
_REPLACED = re.compile(r"^ +replacing +(?:(\S+)\.(\S+)|(\S+) +(\S+)) +\S+(?: |$)", re.MULTILINE)  # dnf 4's, dnf 5's
_VERIFIED = re.compile(r"(\S{9}|missing) +(?:([A-Za-z]) )?(/.*?)(?: \([^)]*\))?")
_NEEDS = re.compile(r"\(installed\) (\S+)")
# Version locks: of the plugin of dnf 4, a NEVR a line (a "!" before it excludes that version); and of dnf 5.
LOCKS_OF_4 = "/etc/dnf/plugins/versionlock.list"
LOCKS_OF_5 = "/etc/dnf/versionlock.toml"
_LOCK_OF_4 = re.compile(r"^([A-Za-z0-9]\S*?)(?:-\d+:\S+)?\s*$", re.MULTILINE)
_LOCK_OF_5 = re.compile(r'^\[\[packages\]\]\s+name = "([^"]+)"((?:(?!^\[\[packages\]\]).)*)', re.MULTILINE | re.DOTALL)
_VALUE = re.compile(r'^value = "([^"]+)"', re.MULTILINE)


class Dnf(Manager, Rounds):
    """Fedora, Red Hat Enterprise Linux and their children."""

    kind = "dnf"
    suffix = ".rpm"
    leavings = (".rpmnew", SAVED, ".rpmorig")
    _answers: ClassVar[tuple[object, dict[tuple[str, ...], Done]]] = (None, {})  # of `_dnf`, and for which state

    def __init__(self, context: Context, name: str, timeout: float) -> None:
        super().__init__(context, name, timeout)
        self._new: bool | None = None

    def installed(self) -> dict[str, Package]:
        """rpm's list, with dnf's reasons and locks."""
        found: dict[str, Package] = {}
        for line in self._check("rpm", "--query", "--all", f"--queryformat={_IDENTITY}").stdout.splitlines():
            package = _package(line)
            if package.key in found:
                package = replace(package, status=SEVERAL)
            if package.name != "gpg-pubkey":
                found[package.key] = package
        locks_of = _locks()
        for key, reason in self._reasons().items():
            if key in found:
                lock = " ".join(lock.text for lock in locks_of.get(found[key].name, ()))
                found[key] = replace(found[key], auto=_is_auto(reason), held=bool(lock), lock=lock)
        return found

    def _reasons(self) -> dict[str, str]:
        """Why each package is there: user, dependency, weak-dependency, group, unknown."""
        shown = self._dnf("repoquery", "--installed", "--queryformat=%{name}:%{arch}\t%{reason}\n").stdout
        lines = [line.split("\t") for line in shown.splitlines() if line]
        return {key: reason.lower() for key, reason in lines}

    def find(self, pattern: str) -> list[str]:
        """By name, without architecture."""
        names = self._check("rpm", "--query", "--all", "--queryformat=%{NAME}\n").stdout.split()
        return sorted(fnmatch.filter({*names} - {"gpg-pubkey"}, pattern))

    def size(self, key: str) -> int:
        """What its files take."""
        return sum(map(int, self._check("rpm", "--query", "--queryformat=%{SIZE}\n", _dotted(key)).stdout.split()))

    def companions(self, names: Collection[str], state: Mapping[str, Package]) -> set[str]:
        """Packages of the same sources; what dnf would change now, by what it knows; and what only these need."""
        ours = {key for name in names for key in self.keys(name, state)}
        if not ours:
            return set()
        words = [_dotted(key) for key in ours]
        # Who updates a package that is locked takes the lock away first.
        options = ("--disableplugin=versionlock", "--cacheonly", "--assumeno")
        upgraded = self._table(self._run("dnf", *options, "upgrade", *words), state)
        found = (self._siblings(ours, state) | upgraded | self._needed_only_by(words, state)) - ours
        return found if len(found) <= MAX_COMPANIONS else set()

    def leftovers(self, names: Collection[str], state: Mapping[str, Package]) -> set[str]:
        """By dnf's own reckoning."""
        words = [_dotted(key) for name in names for key in self.keys(name, state)]
        return self._table(self._dnf("autoremove"), state) | self._needed_only_by(words, state)

    def _siblings(self, ours: Collection[str], state: Mapping[str, Package]) -> set[str]:
        form = "--queryformat=%{NAME}:%{ARCH}\t%{SOURCERPM}\n"
        source = dict(line.split("\t") for line in self._check("rpm", "--query", "--all", form).stdout.splitlines())
        known = {source[key] for key in ours} - {"(none)"}
        return {key for key in source if source[key] in known and key in state}

    def _needed_only_by(self, words: Collection[str], state: Mapping[str, Package]) -> set[str]:
        if not words:
            return set()
        options = ("--setopt=clean_requirements_on_remove=True", "--setopt=protected_packages=")
        return {key for key in self._table(self._dnf(*options, "remove", *words), state) if state[key].auto}

    @staticmethod
    def _table(done: Done, state: Mapping[str, Package]) -> set[str]:
        """Keys of installed packages in what dnf says that it would do."""
        replaced = [filter(None, groups) for groups in _REPLACED.findall(done.stdout)]
        return {":".join(words) for words in (*_ROW.findall(done.stdout), *replaced)} & set(state)

    def config_paths(self, keys: Collection[str]) -> dict[str, set[str]]:
        """rpm's %config files."""
        return {key: {path for path in self._files("--configfiles", key) if path.startswith("/")} for key in keys}

    def damage(self, keys: Collection[str]) -> dict[str, dict[str, str]]:
        """By rpm's digests, modes and owners; ghosts left out."""
        return {key: dict(self._damage_of(key)) for key in keys}

    def _damage_of(self, key: str) -> Iterable[tuple[str, str]]:
        lines = self._run("rpm", "--verify", "--nodeps", "--noscripts", _dotted(key)).stdout.splitlines()
        for match in filter(None, map(_VERIFIED.fullmatch, lines)):
            if match[2] not in ("c", "g"):
                yield match[3], match[1]

    def _files(self, option: str, key: str) -> list[str]:
        return self._run("rpm", "--query", option, _dotted(key)).stdout.splitlines()

    def fetch(self, package: Package, directory: str, network: bool) -> str | None:
        """Out of dnf's cache, when its digests are right, else by `dnf download` (of dnf-plugins-core)."""
        patterns = [f"{cache}/{glob.escape(package.name)}-*.rpm" for cache in CACHES]
        cached = (path for pattern in patterns for path in glob.glob(pattern) if self._is(path, package))
        found = next(cached, None)
        if found or not network:
            return found
        word = f"{package.name}-{package.version}.{package.arch}"
        self._run("dnf", "--quiet", "--assumeyes", "download", f"--destdir={directory}", word)
        paths = [os.path.join(directory, name) for name in os.listdir(directory) if name.endswith(self.suffix)]
        return next((path for path in paths if self._is(path, package)), None)

    def _is(self, path: str, package: Package) -> bool:
        shown = self._run("rpm", "--query", "--nosignature", f"--queryformat={_IDENTITY}", "--package", path).stdout
        same = [_package(line).key for line in shown.splitlines()] == [package.key]
        same = same and _package(shown.rstrip("\n")).version == package.version
        return same and self._run("rpm", "--checksig", "--nosignature", path).status == 0

    def lock(self) -> AbstractContextManager[None]:
        """rpm's; rpm itself takes it then."""
        database = self._check("rpm", "--eval", "%{_dbpath}").stdout.strip()
        return locks.waited(self.name, f"{database}/.rpm.lock", self.timeout * self.context.patience)

    def preview(self, archives: Collection[str], remove: Collection[Package]) -> Preview:
        """What rpm's own test says of packages that are installed, and not among these."""
        tests = []
        if archives:
            tests.append(self._run("rpm", "--upgrade", "--test", *_ALLOWED, *archives))
        if remove:
            tests.append(self._run("rpm", "--erase", "--test", *(_dotted(package.key) for package in remove)))
        said = {word for done in tests for word in _NEEDS.findall(done.stderr)}
        ours = {package.name for package in remove} | {self._name_of(path) for path in archives}
        hurts = {word for word in said if self._name_of(word, installed=True) not in ours}
        if any(done.status != 0 for done in tests) and not said:
            return Preview(unknown=next(done.last_words for done in tests if done.status != 0))
        return Preview(hurts=tuple(sorted(hurts)))

    def _name_of(self, word: str, installed: bool = False) -> str:
        package = [] if installed else ["--package"]
        return self._run("rpm", "--query", "--nosignature", "--queryformat=%{NAME}", *package, word).stdout

    def change(self, archives: Mapping[str, str], remove: Collection[Package], forced: bool) -> None:
        """By rpm, which works when dnf does not; then for dnf nobody wished for it, and the user did."""
        locked = _locks()
        pins = [lock.word for one in remove for lock in locked.get(one.name, ()) if lock.pins(one)]
        if pins:  # else nobody could install another version later
            self._change("versionlock", "delete", *dict.fromkeys(pins))
        names = {key.partition(":")[0] for key in archives}
        stays = self._protect(names | {package.name for package in remove if not package.auto})
        self.run(self.name, archives, remove, forced)
        for path in stays:
            if os.path.lexists(path):
                os.unlink(f"{path}{SAVED}")
            else:
                os.rename(f"{path}{SAVED}", path)
        unknown = [_dotted(key) for key, reason in self._reasons().items() if reason == "unknown" and key in archives]
        if unknown:
            self._change("mark", self._verbs()[False], *unknown)

    def _protect(self, names: Collection[str]) -> list[str]:
        """Paths of configuration files that are to stay, whatever rpm thinks of them: those that are still there.

        What the new version brought is gone by now, so these were there before it came. Some belong to no old version;
        rpm would rename them when the new one goes, and between two names of one file that does nothing.
        """
        shown = self._run("rpm", "--query", "--configfiles", *sorted(names)).stdout.splitlines() if names else []
        stays = [path for path in dict.fromkeys(shown) if path.startswith(f"{CONFIGURATION}/")]
        stays = [path for path in stays if os.path.isfile(path) and not os.path.lexists(f"{path}{SAVED}")]
        for path in stays:
            os.link(path, f"{path}{SAVED}", follow_symlinks=False)
        return stays

    def remove(self, packages: Collection[Package], force: bool) -> dict[str, str]:
        """Erase, all or none."""
        words = [_dotted(package.key) for package in packages]
        done = self._run("rpm", "--erase", "--allmatches", *(["--nodeps"] * force), *words) if words else None
        return {package.key: done.last_words for package in packages} if done and done.status != 0 else {}

    def install(self, archives: Mapping[str, str], force: bool) -> dict[str, str]:
        """In one transaction, all or none."""
        done = self._run("rpm", "--upgrade", *_ALLOWED, *archives.values()) if archives else None
        return dict.fromkeys(archives, done.last_words) if done and done.status != 0 else {}

    def mark(self, packages: Iterable[Package]) -> None:
        """By dnf's reasons and version locks, where they differ."""
        packages = list(packages)
        reasons = self._reasons() if packages else {}
        for auto in (False, True):
            differ = [one for one in packages if one.auto == auto != _is_auto(reasons[one.key])]
            if differ:
                self._change("mark", self._verbs()[auto], *(_dotted(one.key) for one in differ))
        now, wanted = _locks(), {one.name: one.lock.split() for one in packages}
        wrong = {name for name in wanted if wanted[name] != [lock.text for lock in now.get(name, ())]}
        gone = [lock.word for name in sorted(wrong) for lock in now.get(name, ()) if lock.text not in wanted[name]]
        if gone:
            self._change("versionlock", "delete", *dict.fromkeys(gone))
        for name in sorted(wrong):
            there = {lock.text for lock in _locks().get(name, ())}
            self._add_locks(name, [text for text in wanted[name] if text not in there])

    def _add_locks(self, name: str, texts: list[str]) -> None:
        if texts and self._is_new():
            self._change("versionlock", "add", name)  # at its present version; dnf 5 takes no other words
        elif texts:
            self._change("versionlock", "add", "--raw", *texts)

    def problem(self, keys: Collection[str]) -> str:
        """Whether all that they need is there."""
        done = self._run("rpm", "--verify", "--nofiles", *map(_dotted, keys)) if keys else None
        return done.last_words if done and done.status != 0 else ""

    def _verbs(self) -> tuple[str, str]:
        """What dnf calls it to mark a package as the user's, and as there for others."""
        return ("user", "dependency") if self._is_new() else ("install", "remove")

    def _is_new(self) -> bool:
        if self._new is None:
            self._new = self._run("dnf", "--version").stdout.startswith("dnf5")
        return self._new

    def _change(self, *words: str) -> None:
        done = self._run("dnf", "--quiet", "--assumeyes", "--disablerepo=*", *words)
        if done.status != 0:
            problem = f"`dnf {' '.join(words)}` ended with {done.status}: {done.last_words}"
            raise RestoreFailed(name=self.name, problem=problem, remedy="Correct what it names, then run again.")

    def _dnf(self, *words: str) -> Done:
        """dnf, which is not to change anything, nor to ask a repository.

        It takes its time, so it is asked again only when rpm's list or the file with the reasons is another one.
        """
        listed = self._check("rpm", "--query", "--all", f"--queryformat={_LISTED}").stdout
        stamps = [_stamp(path) for path in REASONS]
        state = (listed, stamps) if any(stamps) else object()
        if Dnf._answers[0] != state:
            Dnf._answers = state, {}
        answers = Dnf._answers[1]
        if words not in answers:
            done = self._run("dnf", "--disablerepo=*", "--assumeno", *words)
            if done.status not in (0, 1):  # 1 is its word for "no" and for nonsense
                return done
            answers[words] = done
        return answers[words]

    def _run(self, *argv: str) -> Done:
        return self.context.run(argv, self.timeout)

    def _check(self, *argv: str) -> Done:
        done = self._run(*argv)
        if done.status != 0:
            command = " ".join(argv[:2])
            raise CommandFailed(name=self.name, command=command, status=done.status, output=done.last_words)
        return done


_ALLOWED = ("--oldpackage", "--replacepkgs", "--replacefiles")


def _package(line: str) -> Package:
    """A package from _IDENTITY; an epoch of 0 is left out, as everybody does."""
    name, arch, version = line.split("\t")
    return Package(name, arch, version[2:] if version.startswith("0:") else version, INSTALLED)


@dataclass(frozen=True)
class _Lock:
    """That dnf must not install another version of a package. `word` names it to `dnf versionlock delete`."""

    name: str
    text: str
    word: str

    def pins(self, package: Package) -> bool:
        """Whether the version of this package is the one."""
        versions = (package.version, f"0:{package.version}")
        return any(f"{self.text}.".startswith(f"{self.name}-{version}.") for version in versions)


def _locks() -> dict[str, list[_Lock]]:
    """All there are, by name; none where there is no such list: another dnf, or one without the plugin."""
    found = [_Lock(match[1], match[0].strip(), match[0].strip()) for match in _LOCK_OF_4.finditer(_read(LOCKS_OF_4))]
    for name, conditions in _LOCK_OF_5.findall(_read(LOCKS_OF_5)):
        found.append(_Lock(name, "-".join((name, *_VALUE.findall(conditions))), name))
    return {lock.name: [other for other in found if other.name == lock.name] for lock in found}


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _stamp(path: str) -> str:
    """Equal for equal contents: dnf touches the file when it only reads."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except FileNotFoundError:
        return ""


def _is_auto(reason: str) -> bool:
    return "dependency" in reason


def _dotted(key: str) -> str:
    """A key as rpm and dnf write it."""
    return key.replace(":", ".")
