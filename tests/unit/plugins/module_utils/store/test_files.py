# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of the store: names, modes, and errors in one sentence."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import StoreError
from ansible_collections.umbra.rollback.plugins.module_utils.store import files

NAMES = [
    ("web1", "web1"),
    ("web1.example.org", "web1.example.org"),
    ("a/../b", "a%2F..%2Fb"),
    ("..", "%2E."),
    (".hidden", "%2Ehidden"),
    ("web1~1", "web1%7E1"),
    ("größe", "gr%C3%B6%C3%9Fe"),
    ("50%", "50%25"),
    ("a b\n", "a%20b%0A"),
]


@pytest.mark.parametrize("name, encoded", NAMES)
def test_a_name_becomes_one_file_name_and_comes_back(name: str, encoded: str) -> None:
    assert files.encode_name(name) == encoded
    assert files.decode_name(encoded) == name


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        files.make_directory(str(tmp_path / "a/b/c"))
        files.publish(str(tmp_path / "a/b/c/file"), b"x")
    finally:
        os.umask(before)
    for name in ("a", "a/b", "a/b/c"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a/b/c/file").stat().st_mode) == 0o600


def test_publish_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (tmp_path / "file.tmp").write_bytes(b"left by one that was killed, and longer")
    files.publish(str(path), b"one")
    files.publish(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_symlink_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "file.tmp").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        files.publish(str(tmp_path / "file"), b"x")
    assert not (tmp_path / "elsewhere").exists()


def test_remove_takes_closed_directories_and_follows_no_symlink(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("x")
    top = tmp_path / "top"
    (top / "closed/deep").mkdir(parents=True)
    (top / "closed/link").symlink_to(tmp_path / "kept")
    (top / "closed/deep").chmod(0)
    (top / "closed").chmod(0o500)
    files.remove(str(top))
    files.remove(str(top))
    assert not top.exists()
    assert (tmp_path / "kept/file").exists()


def test_a_stale_handle_is_tried_again() -> None:
    seen = []

    def call() -> str:
        seen.append(1)
        if len(seen) < 3:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return "found"

    assert files.retrying(call) == "found"
    assert len(seen) == 3


def test_a_handle_that_stays_stale_is_an_error() -> None:
    def call() -> str:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with pytest.raises(OSError):
        files.retrying(call)


def test_a_file_system_that_does_not_answer_has_a_deadline(tmp_path: Path) -> None:
    """A call that sleeps stands in for a mount that blocks: no such mount can be made here."""
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"did not answer within 0 s\. Check the mount"):
        files.answered(str(tmp_path), lambda: time.sleep(5), seconds=0.05)
    assert time.monotonic() - started < 2


def test_what_answered_raises_is_raised(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.answered(str(tmp_path), lambda: os.stat(tmp_path / "none"))


ERRORS = [
    (errno.EACCES, "become: true"),
    (errno.EROFS, "mounted read-only"),
    (errno.ENOTCONN, "check the mount"),
    (errno.EIO, "kernel's log"),
    (errno.ENOSPC, "bytes free, and the manifest needs 7"),
    (errno.EDQUOT, "bytes free, and the manifest needs 7"),
    (errno.EMLINK, "Check this path"),
]


@pytest.mark.parametrize("number, words", ERRORS)
def test_an_error_is_one_sentence_with_what_to_do(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(StoreError, match=words) as caught, files.explained(str(tmp_path), "the manifest", 7):
        raise OSError(number, os.strerror(number), str(tmp_path / "some/file"))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
