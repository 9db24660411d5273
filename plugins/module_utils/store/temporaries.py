# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is being written: files and directories in <store>/tmp, each locked by its maker for as long as that lives."""

from __future__ import annotations

import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from ..context import Room
from ..errors import NoScratch
from . import files
from .locks import hold

SCRATCH = "umbra-scratch"
_TOKEN = re.compile("-[0-9a-f]{16}")


class Temporary:
    """A new file, open for reading and writing as `fd`."""

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path
        self._named = False
        self._lost: OSError | None = None

    def name(self, target: str) -> None:
        """Put its bytes on disk, then make it `target`, a name on disk once its directory is. Raises OSError."""
        if self._lost:  # the system forgets what it could not write: that a second fsync succeeds proves nothing
            raise self._lost
        try:
            os.fsync(self.fd)
        except OSError as error:
            self._lost = error
            raise
        os.rename(self.path, target)
        self.path = target
        self._named = True

    def close(self) -> None:
        """Close it, and remove it unless it was named. Raises OSError."""
        os.close(self.fd)
        if not self._named:
            files.unlink(self.path)


class Temporaries:
    """The directory <store>/tmp, as `host` uses it. `shared`: others may make names there, too."""

    def __init__(self, path: str, host: str, shared: bool = False) -> None:
        self._directory = path
        self._host = files.encode_name(host)
        self._shared = shared

    def file(self) -> Temporary:
        """A new file. Raises OSError."""
        files.make_directory(self._directory)
        while True:
            path = self._new_path()
            fd = files.open_new(path)
            if hold(fd, path):
                return Temporary(fd, path)
            os.close(fd)  # a sweep took it between the two calls

    @contextmanager
    def directory(self) -> Iterator[str]:
        """A new directory, 0700, removed at the end. Raises OSError."""
        fd = -1
        while fd < 0:
            path = self._new_path()
            files.make_directory(path)
            fd = _held(path)
        try:
            yield path
        finally:
            with suppress(OSError):  # what can't be removed now, the next sweep tries again
                files.remove(path)
            os.close(fd)

    def sweep(self, all_hosts: bool = False, before: float | None = None) -> int:
        """Remove what dead processes of this host (or of all) left, if older than `before`; how many."""
        names = [name for name in files.names(self._directory) if all_hosts or self._is_mine(name)]
        return sum(self._swept(name, before) for name in names)

    def _new_path(self) -> str:
        return os.path.join(self._directory, f"{self._host}-{secrets.token_hex(8)}")

    def _is_mine(self, name: str) -> bool:
        return name.startswith(self._host) and _TOKEN.fullmatch(name[len(self._host) :]) is not None

    def _swept(self, name: str, before: float | None) -> bool:
        path = os.path.join(self._directory, name)
        with suppress(OSError):  # a temporary that can't be removed harms nobody; the next sweep tries again
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                st = os.fstat(fd)
                made = (os.geteuid(), stat.S_IFDIR | files.DIRECTORY_MODE)
                foreign = self._shared and (st.st_uid, st.st_mode) != made
                if not foreign and (before is None or st.st_mtime < before) and hold(fd, path):
                    files.remove(path)
                    return True
            finally:
                os.close(fd)
        return False


@contextmanager
def scratch() -> Iterator[str]:
    """A private directory (0700) outside of any store, removed at the end, as are those that the dead left. Raises
    NoScratch."""
    with ExitStack() as stack:
        try:
            temporaries = Temporaries(tempfile.gettempdir(), SCRATCH, shared=True)
            with suppress(OSError):  # what the dead left is in nobody's way
                temporaries.sweep()
            path = stack.enter_context(temporaries.directory())
        except OSError as error:
            raise NoScratch(path=tempfile.tempdir or "any of the usual places", problem=error.strerror) from error
        yield path


@contextmanager
def later() -> Iterator[Room]:
    """As `scratch`, made when it is first asked for: NoScratch is raised then."""
    with ExitStack() as stack:
        yield Room(tempfile.tempdir or "", lambda: stack.enter_context(scratch()))


def _held(path: str) -> int:
    """A descriptor of the new directory `path`, locked; -1 when a sweep took it just now."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return -1
    if hold(fd, path):
        return fd
    os.close(fd)
    return -1
