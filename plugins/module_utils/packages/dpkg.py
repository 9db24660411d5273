# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dpkg: its database, and changing it without questions, whatever state an update left it in."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager

from ..context import Context, Done
from ..errors import CommandFailed, RestoreFailed
from . import locks
from .face import ABSENT, CONFIGURED, INSTALLED, Package
from .rounds import Rounds, not_changed

DATABASE = "/var/lib/dpkg"
_STATUS = "${Package}\t${Architecture}\t${Version}\t${db:Status-Want}\t${db:Status-Status}\t${db:Status-Eflag}\n"
_VERIFIED = re.compile(r"(\S{9}|missing) +(c )?(/.*)")
_SOUND = {
    "installed": INSTALLED,
    "triggers-pending": INSTALLED,
    "triggers-awaited": INSTALLED,
    "config-files": CONFIGURED,
}
# Never a question: the file that is there stays, and the provider puts back the contents that it shadowed.
_QUIET = ("--force-confold",)
# By these the scripts of packages start and stop services.
_STARTERS = ("deb-systemd-invoke", "invoke-rc.d")


def environment() -> dict[str, str]:
    """What dpkg and the scripts of packages need: no prompts, and the system's programs on the path."""
    return {
        "DEBIAN_FRONTEND": "noninteractive",
        "DEBCONF_NOWARNINGS": "yes",
        "UCF_FORCE_CONFFOLD": "1",
        "PATH": f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
    }


def in_room(context: Context) -> dict[str, str]:
    """Keep what a program that only looks makes for a while where it goes, should the program be killed.

    Not for what runs the scripts of packages: they may become users to whom the store is closed.
    """
    return {"TMPDIR": context.workdir}


class Dpkg(Rounds):
    """The database of packages of this host, for the resource `name`."""

    def __init__(self, context: Context, name: str, timeout: float) -> None:
        self._context = context
        self._name = name
        self._timeout = timeout

    def query(self, form: str, *names: str) -> str:
        """What dpkg-query shows of packages (all, when none is named), in a form of its own."""
        return self._run("dpkg-query", "--show", f"--showformat={form}", *names).stdout

    def packages(self) -> dict[str, Package]:
        """Every package but those that are ABSENT; nothing is known here of `auto`."""
        found = {}
        for line in self.query(_STATUS).splitlines():
            name, arch, version, want, status, flag = line.split("\t")
            if status != ABSENT:
                sound = _SOUND.get(status, status) if flag == "ok" else f"{status}, to be installed again"
                package = Package(name, arch, version, sound, held=want == "hold")
                found[package.key] = package
        return found

    def config_paths(self, keys: Collection[str]) -> dict[str, set[str]]:
        """As the face says it."""
        found: dict[str, set[str]] = {}
        key = ""
        for line in self.query("${Package}:${Architecture}\n${Conffiles}\n", *keys).splitlines() if keys else ():
            if line.startswith(" "):
                found[key].add(re.sub(r" [0-9a-f]{32}( obsolete| remove-on-upgrade)*$", "", line[1:]))
            elif line:
                key = line
                found[key] = set()
        return found

    def damage(self, key: str) -> dict[str, str]:
        """Files of a package that are not as they were packaged, without configuration: path to what is wrong."""
        matches = filter(None, map(_VERIFIED.fullmatch, self._run("dpkg", "--verify", key).stdout.splitlines()))
        return {match[3]: match[1] for match in matches if not match[2]}

    def audit(self, keys: Collection[str]) -> str:
        """What is wrong with packages, in one line."""
        return " ".join(self._run("dpkg", "--audit", *keys).stdout.split()) if keys else ""

    def describe(self, archive: str) -> tuple[str, str, str]:
        """Name, version and architecture of an archive; empty ones when it is none."""
        argv = ["dpkg-deb", "--field", archive, "Package", "Version", "Architecture"]
        done = self._context.run(argv, self._timeout, in_room(self._context))
        fields = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
        return fields.get("Package", ""), fields.get("Version", ""), fields.get("Architecture", "")

    def lock(self) -> AbstractContextManager[None]:
        """The lock of dpkg's frontends, once no dpkg works any more: one may have outlived whoever called it."""
        return locks.held(
            self._name, f"{DATABASE}/lock-frontend", (f"{DATABASE}/lock",), self._timeout * self._context.patience
        )

    def change(self, archives: Mapping[str, str], remove: Collection[Package], forced: bool) -> None:
        """As the face says it: unpack all, and only then configure.

        So the scripts of the failed version are not run once more. A script that fails may do so because its service
        can't start as long as other resources are not back: then once more without starting any; who restores the
        service starts it.
        """
        self.run(self._name, archives, remove, forced)
        done = self._configure(environment())
        failed = self._not_installed(archives)
        if failed and done.status > 0:
            done = self._configure(self._standing_still())
            failed = self._not_installed(archives)
        if failed:
            raise not_changed(self._name, dict.fromkeys(failed, done.last_words))

    def _configure(self, how: Mapping[str, str]) -> Done:
        """All that waits for it: one of ours may need one that is not."""
        return self._locked(["dpkg", *_QUIET, "--configure", "--pending"], how)

    def _not_installed(self, keys: Collection[str]) -> list[str]:
        state = self.packages()
        return [key for key in keys if key not in state or state[key].status != INSTALLED]

    def _standing_still(self) -> dict[str, str]:
        """An environment in which scripts start no service, as with a policy-rc.d, of which a crash leaves nothing."""
        place = os.path.join(self._context.workdir, "standing-still")
        os.makedirs(place, 0o755, exist_ok=True)
        for name in _STARTERS:
            with open(os.path.join(place, name), "w", encoding="ascii") as file:
                file.write("#!/bin/sh\n")
            os.chmod(file.name, 0o755)
        return {**environment(), "PATH": f"{place}:{environment()['PATH']}"}

    def remove(self, packages: Collection[Package], force: bool) -> dict[str, str]:
        """Purge what is to become ABSENT, and leave the configuration of what is to become CONFIGURED."""
        options = ["--force-remove-reinstreq", "--force-hold", *(["--force-depends"] * force)]
        failed = {}
        for verb, status in (("--purge", ABSENT), ("--remove", CONFIGURED)):
            keys = [package.key for package in packages if package.status == status]
            failed.update(self._each(["dpkg", *options, verb], dict(zip(keys, keys))))
        return failed

    def install(self, archives: Mapping[str, str], force: bool) -> dict[str, str]:
        """Unpack; with `force`, take over files that another package has now, and put those aside that break."""
        options = [*_QUIET, "--force-hold", *(["--auto-deconfigure", "--force-overwrite"] * force)]
        return self._each(["dpkg", *options, "--unpack"], archives)

    def _each(self, argv: list[str], words: Mapping[str, str]) -> dict[str, str]:
        """Do it to all words at once, and when that fails to each: what failed, with dpkg's last words."""
        if not words or self._locked([*argv, *words.values()]).status == 0:
            return {}
        results = {key: self._locked([*argv, word]) for key, word in words.items()}
        return {key: done.last_words for key, done in results.items() if done.status != 0}

    def _locked(self, argv: list[str], how: Mapping[str, str] | None = None) -> Done:
        """Run a program that works on the database while we hold its lock."""
        return self._context.run(argv, self._timeout, {**(how or environment()), "DPKG_FRONTEND_LOCKED": "1"})

    def mark(self, argv: list[str]) -> None:
        """Run a program that changes marks, under the lock. Raises RestoreFailed."""
        done = self._locked(argv)
        if done.status != 0:
            problem = f"`{' '.join(argv[:2])}` ended with {done.status}: {done.last_words}"
            raise RestoreFailed(name=self._name, problem=problem, remedy="Correct what it names, then run again.")

    def _run(self, *argv: str) -> Done:
        """A program that only reads; 1 says that a package is unknown, or, for --verify, that something was found."""
        done = self._context.run(argv, self._timeout, environment())
        if done.status not in (0, 1):
            command = " ".join(word for word in argv[:3] if not word.startswith("--showformat"))  # it has lines in it
            raise CommandFailed(name=self._name, command=command, status=done.status, output=done.last_words)
        return done
