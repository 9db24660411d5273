# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes <store>/umbra: one file with the engine, the native kernel and a command line, for the person at the console.

The file is a shell script, which looks for a Python that works, with a zip archive behind it, which that Python runs.
What is in it comes from where this very engine was loaded from, so that it is exactly what ran.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..errors import StoreError
from ..kernel import arrival, selected
from ..store import files
from ..store.temporaries import Temporaries
from ..version import ENGINE

if TYPE_CHECKING:  # nothing is loaded here; but Ansible packs for a host what is imported anywhere
    from . import cli  # noqa: F401

NAME = "umbra"
MODE = 0o700
PACKAGE = "umbra_rollback"  # what the engine is called in the archive
ENTRY = "emergency.cli"
KERNELS = "kernel"  # the directory of native kernels in the archive: <platform>.<sha256>.so
PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3", "/usr/libexec/platform-python", "python3")  # the last resort
PYTHONS_MOST = 8
NEEDED = "argparse, concurrent.futures, ctypes, fcntl, hashlib, json, subprocess, sys, zipfile"  # by any Python
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip archive knows

HEADER = """\
#!/bin/sh
# {engine}, the emergency tool: the way back of this host by hand, without Ansible and without a network.
# Type: {name} -h    A Python 3.9 or newer can run this very file, too: python3 {name} -h
for python in \\
{pythons}
do
    "$python" -I -S -c 'import {needed}; sys.exit(sys.version_info < (3, 9))' 2>/dev/null || continue
    exec "$python" -I -S -B "$0" "$@"
done
echo "$0: none of the Pythons that it knows works here. Find one, 3.9 or newer, and type: python3 $0 $*" >&2
exit 2
"""
MAIN = """\
import sys

if sys.version_info < (3, 9):
    sys.exit("umbra needs Python 3.9 or newer, and this is %d.%d: run it with another python3." % sys.version_info[:2])
try:
    from {package}.{entry} import main
except KeyboardInterrupt:
    sys.exit(130)
main()
"""
_IMPORT = re.compile(r"^[ ]*from (\.+)([\w.]*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)
_WORD = re.compile(r"\w+")
_PYTHON = re.compile(r"^    '(/.*)' \\$", re.MULTILINE)


@dataclass(frozen=True)
class Parts:
    """What a file is made of: Pythons to try, the first one first, and kernels by `<platform>.<sha256>`."""

    pythons: tuple[str, ...] = ()
    kernels: Mapping[str, bytes] = field(default_factory=dict)


def write(store: str, kernel: bytes | None, interpreters: Sequence[str]) -> str:
    """Make the tool in the store at `store` what this engine is, and return its path.

    `kernel` is the native kernel for this platform (None: none), `interpreters` are Pythons that were checked, by
    absolute path. What a file of the same engine has of both beside that is kept: others may have written it, on
    hosts that share the store. A file that is as it should be is not touched. Raises NoSpace, StoreError.
    """
    path = os.path.join(store, NAME)
    with files.explained(store):
        before = _read(path)
        parts = _joined(_parts(before), _parts_given(kernel, interpreters))
        data = build(parts)
        if data == before and os.stat(path).st_mode & 0o777 == MODE:
            return path
    with files.explained(store, f"the emergency tool {path}", len(data)):
        _publish(store, path, data)
    return path


def leave(store: str) -> tuple[str | None, tuple[str, ...]]:
    """`write`, with the kernel and the Python of this process: the tool's path, or None and a sentence to warn with."""
    try:
        return write(store, selected.content(), [sys.executable]), ()
    except StoreError as error:
        return None, (f"The emergency tool could not be left in the store: {error}",)


def build(parts: Parts) -> bytes:
    """The file, the same for the same engine and parts."""
    archive = io.BytesIO()
    archive.write(_header(parts.pythons))
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as target:  # a Python without zlib can read it, too
        target.writestr(_member("__main__.py"), MAIN.format(package=PACKAGE, entry=ENTRY))
        for name, source in sorted(sources().items()):
            target.writestr(_member(f"{PACKAGE}/{name}"), source)
        for name, content in sorted(parts.kernels.items()):
            target.writestr(_member(f"{KERNELS}/{name}.so"), content)
    return archive.getvalue()


def kernel_here(archive: str) -> tuple[bytes | None, str]:
    """The native kernel for this platform in the file `archive`, checked; or None, and why not."""
    platform, why = arrival.platform_here()
    with zipfile.ZipFile(archive) as source:
        for name in source.namelist():
            directory, dummy, file = name.partition("/")
            if directory == KERNELS and platform and file.startswith(f"{platform}."):
                content = source.read(name)
                if hashlib.sha256(content).hexdigest() == file[len(platform) + 1 : -len(".so")]:
                    return content, ""
                why = f"{name} in {archive} does not have the SHA-256 that its name says"
    return None, why or f"{archive} has none for {platform}"


# --- the engine's source


def sources() -> dict[str, bytes]:
    """Every file of the engine that the command line needs, by its path below the package."""
    files_of: dict[str, _File | None] = {}
    pending = [ENTRY]
    while pending:
        for name in _chain(pending.pop()):
            if name not in files_of:
                file = files_of[name] = _file(name)
                pending.extend(_imported(name, file) if file else ())
            file = files_of[name]
            if file is None or not file.is_package:
                break  # there is nothing below it, and to look there would load it
    return {file.path: file.source for file in files_of.values() if file}


@dataclass(frozen=True)
class _File:
    """A file of the engine, by its path below the package."""

    path: str
    source: bytes

    @property
    def is_package(self) -> bool:
        return os.path.basename(self.path) == "__init__.py"


def _chain(name: str) -> Iterator[str]:
    """The whole package, the packages that `name` is in, from the outermost, and `name`."""
    yield ""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])


def _file(name: str) -> _File | None:
    """The module `name` of this engine, whose package is loaded; None when there is no such module."""
    root = __name__.rsplit(".", 2)[0]
    spec = find_spec(f"{root}.{name}" if name else root)
    if spec is None or spec.origin is None or spec.loader is None:
        return None
    base = name.replace(".", "/")
    path = f"{base}.py" if spec.submodule_search_locations is None else f"{base}/__init__.py".lstrip("/")
    return _File(path, spec.loader.get_data(spec.origin))  # type: ignore[attr-defined]  # all that load source have it


def _imported(name: str, file: _File) -> Iterator[str]:
    """What may be modules of the engine among the relative imports of the module `name`."""
    parts = name.split(".") if name else []
    for dots, module, words in _IMPORT.findall(file.source.decode("utf-8")):
        above = len(dots) - file.is_package
        base = parts[: len(parts) - above] + ([module] if module else [])
        for word in _WORD.findall(words):
            yield ".".join([*base, word])


# --- what is there, what is to be there


def _parts_given(kernel: bytes | None, interpreters: Sequence[str]) -> Parts:
    platform = arrival.platform_here()[0]
    pythons = tuple(path for path in interpreters if path.startswith("/") and path.isprintable() and "'" not in path)
    kernels = {f"{platform}.{hashlib.sha256(kernel).hexdigest()}": kernel} if kernel and platform else {}
    return Parts(pythons, kernels)


def _parts(data: bytes) -> Parts:
    """What a file that was made by this release has; nothing of one that can't be read."""
    header = data.partition(b"\nPK")[0].decode("utf-8", "replace")
    if f"# {ENGINE}," not in header:
        return Parts()
    kernels = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                if name.startswith(f"{KERNELS}/"):
                    content, key = archive.read(name), name[len(KERNELS) + 1 : -len(".so")]
                    if key.endswith(f".{hashlib.sha256(content).hexdigest()}"):
                        kernels[key] = content
    except (zipfile.BadZipFile, EOFError, ValueError):
        return Parts()
    return Parts(tuple(_PYTHON.findall(header)), kernels)


def _joined(before: Parts, given: Parts) -> Parts:
    """One kernel for each platform, the newer one; the Pythons as they were, if what is given is among them."""
    platforms = {key.partition(".")[0] for key in given.kernels}
    kernels = {key: value for key, value in before.kernels.items() if key.partition(".")[0] not in platforms}
    pythons = before.pythons
    if not set(given.pythons) <= set(pythons):
        pythons = tuple(dict.fromkeys([*given.pythons, *before.pythons]))[:PYTHONS_MOST]
    return Parts(pythons, {**kernels, **given.kernels})


def _header(pythons: Sequence[str]) -> bytes:
    tried = [f"    '{path}' \\" for path in pythons]
    last = [f"    {path}" for path in (" ".join(PYTHONS),)]
    return HEADER.format(engine=ENGINE, name=NAME, pythons="\n".join([*tried, *last]), needed=NEEDED).encode()


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, EPOCH)
    member.create_system, member.external_attr = 3, 0o600 << 16  # Unix, whatever this is
    return member


def _read(path: str) -> bytes:
    try:
        return files.read(path)
    except FileNotFoundError:
        return b""


def _publish(store: str, path: str, data: bytes) -> None:
    temporary = Temporaries(os.path.join(store, "tmp"), os.uname().nodename).file()
    try:
        os.fchmod(temporary.fd, MODE)
        files.write_all(temporary.fd, data, 0)
        temporary.name(path)
    finally:
        temporary.close()
    files.sync_directory(store)
