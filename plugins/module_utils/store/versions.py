# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Git history of versioned shadows: `git log -p` in <store>/versions.git. It is for people; no restore reads it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from ..errors import CommandFailed, StoreError, ToolMissing
from ..shadow import Manifest, Shadow
from ..tree.entry import Entry, decode
from . import files
from .objects import ObjectContents
from .store import Store

BRANCH = "refs/heads/main"
IMPORTED = "refs/umbra/imported"  # a commit, until it is known to change anything
LARGEST = 1 << 20  # files with more bytes are only counted, in the commit's message
SECONDS = 600.0
LOCK_WAIT = 30.0
_NAME = "the Git history of the store"
_SETTINGS = {
    "core.fsync": "all",
    "core.fsyncObjectFiles": "true",  # the same, before Git 2.36
    "core.protectNTFS": "false",  # names are those of this host
    "core.protectHFS": "false",
    "fastimport.unpackLimit": "1",  # one pack for a commit, not a file for each object
}
_RESERVED = (b".git", b".gitmodules")  # Git takes no such names in a tree
_QUOTED = re.compile(rb"[^ !#-\[\]-~]")


def record(store: Store, manifest: Manifest) -> str:
    """Commit the versioned shadows of `manifest`; the commit, or '' when nothing differs from what is there.

    Called with the host's lock held. Raises ToolMissing, CommandFailed, StoreLocked, StoreError.
    """
    trees = {shadow.name: _tree(shadow, store.contents) for shadow in manifest.shadows if shadow.resource.versioned}
    if not trees:
        return ""
    git = _Git(os.path.join(store.path, "versions.git"))
    with store.locks.versioning(manifest.update_id, LOCK_WAIT), files.explained(store.path, "the Git history"):
        git.make(store)
        git.load(_commit(manifest, trees, store.contents, git.resolve(BRANCH)))
        new, old = git.resolve(IMPORTED), git.resolve(BRANCH)
        if old and git.resolve(f"{new}^{{tree}}") == git.resolve(f"{old}^{{tree}}"):
            new = ""
        else:
            git.run("update-ref", BRANCH, new, old or "0" * len(new))
        git.run("update-ref", "-d", IMPORTED)
        files.publish(_last(store), _identity(manifest))
        return new


def behind(store: Store) -> Manifest | None:
    """The newest manifest of this host with versioned shadows, when it was never recorded: who published it was killed
    just then. Never more than one, as whoever shadows next asks first. Raises StoreError."""
    for update in reversed(store.updates()):
        try:
            manifest = update.manifest()
        except StoreError:
            continue  # a damaged one is not what a history can be made of
        if any(shadow.resource.versioned for shadow in manifest.shadows):
            with files.explained(store.path):
                try:
                    return None if files.read(_last(store)) == _identity(manifest) else manifest
                except FileNotFoundError:
                    return manifest
    return None


def _last(store: Store) -> str:
    """The file that says which manifest of this host was recorded last."""
    return os.path.join(store.path, "versions.git", "umbra", files.encode_name(store.host))


def _identity(manifest: Manifest) -> bytes:
    return f"{manifest.update_id} {manifest.created!r}\n".encode()


class _Git:
    """The git program, for one bare repository, whatever the user's and the system's configuration."""

    def __init__(self, path: str) -> None:
        program = shutil.which("git")
        if program is None:
            raise ToolMissing(name=_NAME, tool="git", package="git")
        self._path = path
        self._command = [program, *(part for key, value in _SETTINGS.items() for part in ("-c", f"{key}={value}"))]

    def make(self, store: Store) -> None:
        """Make the repository if there is none; remove the locks that a killed git left in it."""
        if os.path.isdir(self._path):
            for top, _directories, names in os.walk(os.path.join(self._path, "refs")):
                self._unlock(top, names)
            self._unlock(self._path, os.listdir(self._path))
            return
        with store.workdir() as directory:
            new = os.path.join(directory, "versions.git")
            self.run("init", "--quiet", "--bare", "--template=", new, path=new)
            self.run("symbolic-ref", "HEAD", BRANCH, path=new)
            os.rename(new, self._path)
        files.sync_directory(store.path)

    def resolve(self, name: str) -> str:
        """The object that `name` is; '' when there is none."""
        return self.run("rev-parse", "--verify", "--quiet", name, missing=1)

    def run(self, *arguments: str, path: str = "", missing: int = 0) -> str:
        """What git prints; exit status `missing` is no error. Raises CommandFailed."""
        try:
            done = subprocess.run(  # pylint: disable=ansible-bad-function  # no Ansible here, so no run_command
                [*self._command, *arguments],
                env=self._environment(path or self._path),
                umask=0o077,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _failed(arguments[0], -9, f"killed after {SECONDS:.0f} s") from error
        if done.returncode not in (0, missing):
            raise _failed(arguments[0], done.returncode, done.stderr.decode("utf-8", "replace"))
        return done.stdout.decode("ascii", "replace").strip()

    def load(self, stream: Iterable[bytes]) -> None:
        """Give `stream` to git fast-import. Raises CommandFailed, and what `stream` raises."""
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function  # no Ansible here, so no run_command
                [*self._command, "fast-import", "--quiet", "--force", "--done", "--date-format=raw"],
                env=self._environment(self._path),
                umask=0o077,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            timer = threading.Timer(SECONDS, process.kill)
            stdin = process.stdin
            if stdin is None:
                raise RuntimeError("a pipe was asked for")
            timer.start()
            try:
                with suppress(BrokenPipeError):  # git ended too early: its status and its words say why
                    for piece in stream:
                        stdin.write(piece)
                    stdin.close()
                process.wait()
            finally:
                timer.cancel()
                process.kill()  # no harm to one that has ended; the other has not got all, and never will
                with suppress(BrokenPipeError):
                    stdin.close()
                process.wait()
            if process.returncode:
                errors.seek(0)
                raise _failed("fast-import", process.returncode, errors.read().decode("utf-8", "replace"))

    def _unlock(self, directory: str, names: Iterable[str]) -> None:
        for name in names:
            if name.endswith(".lock"):
                files.unlink(os.path.join(directory, name))

    def _environment(self, path: str) -> Mapping[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C",
            "HOME": path,
            "XDG_CONFIG_HOME": path,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_DIR": path,
        }


def _failed(command: str, status: int, output: str) -> CommandFailed:
    return CommandFailed(name=_NAME, command=f"git {command}", status=status, output=" ".join(output.split())[-400:])


def _tree(shadow: Shadow, contents: ObjectContents) -> list[Entry]:
    """Everything in the shadow's listings."""
    return [entry for root in shadow.roots if root.kind == "tree" for entry in decode(contents.get(root.digest))]


def _commit(
    manifest: Manifest, trees: Mapping[str, list[Entry]], contents: ObjectContents, parent: str
) -> Iterator[bytes]:
    """The commands for git fast-import that make `trees` what the branch has of these resources."""
    message = _message(manifest, trees)
    yield f"commit {IMPORTED}\ncommitter umbra.rollback <umbra@localhost> {int(manifest.created)} +0000\n".encode()
    yield b"data %d\n%s\n" % (len(message), message)
    if parent:
        yield f"from {parent}\n".encode()
    for shadow in manifest.shadows:
        if shadow.name in trees:
            top = b"/".join(files.encode_name(name).encode() for name in (manifest.host, shadow.name))
            yield b"D %s\n" % _quoted(top)
            yield from _modifications(top, shadow, trees[shadow.name], contents)
    yield b"done\n"


def _message(manifest: Manifest, trees: Mapping[str, list[Entry]]) -> bytes:
    lines = [f"Update {manifest.update_id} on {manifest.host}: {', '.join(trees)}"]
    for name, entries in trees.items():
        large = sum(entry.kind == "f" and entry.size > LARGEST for entry in entries)
        if large:
            lines += ["", f"{name}: without {large} files that have more than {LARGEST} bytes"]
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _modifications(top: bytes, shadow: Shadow, entries: list[Entry], contents: ObjectContents) -> Iterator[bytes]:
    """A command for every symlink and every file that is not too large."""
    by_path = {entry.path: entry for entry in entries}
    alone = os.path.basename(os.fsencode(str(shadow.resource.options.get("path", ""))).rstrip(b"/"))
    for entry in entries:
        path = b"/".join([top, *map(_safe, (entry.path or alone).split(b"/"))])
        file = by_path[entry.target] if entry.kind == "h" else entry
        if file.kind == "l":
            yield b"M 120000 inline %s\ndata %d\n%s\n" % (_quoted(path), len(file.target), file.target)
        elif file.kind == "f" and file.size <= LARGEST:
            mode = 0o100755 if file.mode & 0o100 else 0o100644
            yield b"M %o inline %s\ndata %d\n" % (mode, _quoted(path), file.size)
            yield contents.get(file.digest)
            yield b"\n"


def _safe(name: bytes) -> bytes:
    return b"%" + name if name.lower() in _RESERVED else name


def _quoted(path: bytes) -> bytes:
    return b'"%s"' % _QUOTED.sub(lambda match: b"\\%03o" % match[0][0], path)
