# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that another process changes all the time: told with their path, or taken as they are where that is allowed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import Unstable
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents

from .trees import build_small, write
from .verbs import differing, entries, shadow

# What a process does to its file, just before that is read.
WRITERS = {
    "grows": "os.write(fd, b'x' * 100_000)",
    "shrinks": "os.ftruncate(fd, os.fstat(fd).st_size // 2 + 1)",
    "is written over": "os.pwrite(fd, os.urandom(64), 0)",
    "is replaced": "open(path + '.new', 'wb').write(b'new' * 100_000); os.rename(path + '.new', path)",
    "is appended to": "os.write(fd, b'a line of a log\\n')",
}


class Writing(MemoryContents):
    """Contents that have another process do `what` to `path` before each file is read."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__()
        code = (
            "import os, sys\npath = sys.argv[1]\nfd = os.open(path, os.O_RDWR | os.O_APPEND)\n"
            f"for line in sys.stdin:\n    {what}\n    print(flush=True)\n"
        )
        arguments = [sys.executable, "-c", code, str(path)]
        self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._turn = threading.Lock()

    def put_fd(self, fd: int) -> tuple[str, int]:
        assert self._process.stdin and self._process.stdout
        with self._turn:
            self._process.stdin.write(b"\n")
            assert self._process.stdout.readline() == b"\n"
        return super().put_fd(fd)

    def __enter__(self) -> Writing:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = build_small(tmp_path / "root")
    write(root / "etc" / "busy.log", os.urandom(300_000))
    return root


@pytest.mark.parametrize("what", WRITERS)
def test_it_is_told_or_taken_and_named(root: Path, what: str) -> None:
    log = root / "etc" / "busy.log"
    with Writing(log, WRITERS[what]) as contents:
        with pytest.raises(Unstable) as refused:
            shadow(root, contents)
        assert str(refused.value).startswith(f"tree: {log} changed while it was read, 3 times.")
        taken = shadow(root, contents, allow_unstable=True)
    assert taken.unstable == (str(log),)
    entry = entries(taken, contents)[b"etc/busy.log"]
    assert contents.size(entry.digest) == entry.size
    calm = MemoryContents()
    assert shadow(root, calm).unstable == ()


def test_one_that_vanishes_is_whole_or_gone(root: Path) -> None:
    log = root / "etc" / "busy.log"
    body = log.read_bytes()
    with Writing(log, "os.path.exists(path) and os.rename(path, path + '.away')") as contents:
        found = entries(shadow(root, contents), contents)
    assert b"etc/busy.log" not in found or contents.get(found[b"etc/busy.log"].digest) == body


@pytest.mark.pure
def test_one_that_never_ends_is_read_to_where_it_ended(
    root: Path, contents: MemoryContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It grows as fast as it is read: a comparison must come to its end all the same."""
    good, conf = shadow(root, contents), root / "etc" / "app.conf"
    os.utime(conf)
    pread = os.pread
    reads: list[int] = []

    def grow(fd: int, size: int, offset: int) -> bytes:
        reads.append(fd)
        assert len(reads) < 100
        with conf.open("ab") as file:
            file.write(bytes(size))
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", grow)
    assert differing(root, good, contents) == [("replace", b"etc/app.conf")]
