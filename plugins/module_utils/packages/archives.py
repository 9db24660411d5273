# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of packages: into the store, and out of it."""

from __future__ import annotations

import os
from urllib.parse import quote

from ..context import Context
from ..errors import NoSpace, RestoreFailed, ShadowFailed
from ..providers.base import Contents
from .face import Manager, Package


class Archives:
    """The archives of one resource: those in `contents`, and those that the manager can get."""

    def __init__(self, context: Context, manager: Manager, contents: Contents) -> None:
        self._manager = manager
        self._contents = contents
        self._directory = os.path.join(context.workdir, f"archives-{quote(manager.name, safe='')}")

    def keep(self, package: Package, network: bool) -> str:
        """The digest of the archive of an installed package; empty when it is nowhere. Raises ShadowFailed."""
        try:
            path = self._fetch(package, network)
            if path is None:
                return ""
            with open(path, "rb") as file:
                digest = self._contents.put_fd(file.fileno())[0]
            if path.startswith(self._directory):
                os.unlink(path)
        except OSError as error:
            problem = f"the archive of {package.key}: {(error.strerror or str(error)).lower()}"
            raise ShadowFailed(
                name=self._manager.name, problem=problem, remedy="Look at it, then run again."
            ) from error
        return digest

    def bring(self, package: Package, digest: str) -> str | None:
        """The path of a package's archive, out of the store or from where the manager has it; None when it is nowhere.

        Raises RestoreFailed, NoSpace.
        """
        try:
            return self._extract(package, digest) if digest else self._fetch(package, True)
        except OSError as error:
            problem = f"the archive of {package.key}: {(error.strerror or str(error)).lower()}"
            raise RestoreFailed(
                name=self._manager.name, problem=problem, remedy="Look at it, then run again."
            ) from error

    def _fetch(self, package: Package, network: bool) -> str | None:
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        return self._manager.fetch(package, self._directory, network)

    def _extract(self, package: Package, digest: str) -> str:
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        disk, needed = os.statvfs(self._directory), self._contents.size(digest)
        if needed > disk.f_bavail * disk.f_frsize:
            free = disk.f_bavail * disk.f_frsize
            raise NoSpace(where=self._directory, free=free, what=f"restoring {self._manager.name}", needed=needed)
        name = quote(f"{package.name}_{package.version}_{package.arch}", safe="") + self._manager.suffix
        path = os.path.join(self._directory, name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            self._contents.copy_to(digest, fd)
        finally:
            os.close(fd)
        return path
