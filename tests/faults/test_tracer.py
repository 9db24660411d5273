# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tracer strikes where it should: what is done carelessly is found."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from threading import Thread

from ansible_collections.umbra.rollback.tests.faults.tracer import BROKEN, REFUSED, Tracer


class Refused(Exception):
    """A sentence."""


def careless(path: Path) -> None:
    """Four calls that change something: open, write, write, rename."""
    fd = os.open(path.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(fd, b"one")
    os.write(fd, b"two")
    os.close(fd)
    os.rename(path.with_suffix(".new"), path)


def test_it_kills_just_before_each_call(tracer: Tracer, calls: dict[int, str], tmp_path: Path) -> None:
    path = tmp_path / "file"
    seen = []
    for at in range(1, 5):
        ended = tracer.run(lambda: careless(path), Refused, at)
        assert ended.killed and ended.calls == at
        new = path.with_suffix(".new")
        seen.append((calls[ended.struck or 0], new.read_text() if new.exists() else None, path.exists()))
        new.unlink(missing_ok=True)
    assert [name for name, _text, _there in seen] == ["openat", "write", "write", "rename"]
    assert [text for _name, text, _there in seen] == [None, "", "one", "onetwo"]
    whole = tracer.run(lambda: careless(path), Refused, 99)
    assert (whole.status, whole.struck, path.read_text()) == (0, None, "onetwo")


def test_a_call_that_is_refused_is_not_made(tracer: Tracer, tmp_path: Path) -> None:
    path = tmp_path / "file"
    ended = tracer.run(lambda: careless(path), Refused, 3, errno.ENOSPC)
    assert (ended.status, ended.is_broken, "No space left" in ended.text) == (BROKEN, True, True)
    assert path.with_suffix(".new").read_text() == "one"

    def polite() -> None:
        try:
            careless(path)
        except OSError as error:
            raise Refused("no room") from error

    ended = tracer.run(polite, Refused, 2, errno.ENOSPC)
    assert (ended.status, ended.is_broken, ended.text) == (REFUSED, False, "no room")


def test_threads_and_children_are_counted_and_killed_with_it(tracer: Tracer, tmp_path: Path) -> None:
    def busy() -> None:
        thread = Thread(target=(tmp_path / "thread").mkdir)
        thread.start()
        thread.join()
        subprocess.run(["mkdir", str(tmp_path / "child"), str(tmp_path / "late")], check=True)

    whole = tracer.run(busy, Refused)
    assert whole.status == 0 and (tmp_path / "late").exists()
    for name in ("thread", "child", "late"):
        (tmp_path / name).rmdir()
    left = []
    for at in range(1, whole.calls + 1):
        assert tracer.run(busy, Refused, at).killed
        left.append(sorted(path.name for path in tmp_path.iterdir()))
        for path in tmp_path.iterdir():
            path.rmdir()
    assert [] in left and ["thread"] in left and ["child", "thread"] in left


def test_what_reads_is_counted_by_itself(tracer: Tracer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")

    def read() -> None:
        assert (tmp_path / "file").read_text() == "here"

    assert tracer.run(read, Refused).calls == 1  # it tells how it ended
    ended = tracer.run(read, Refused, 1, errno.EIO, reading=True)
    assert ended.is_broken and "Input/output error" in ended.text
