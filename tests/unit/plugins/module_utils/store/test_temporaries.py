# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left in <store>/tmp: the work of the living stays, that of the dead goes."""

from __future__ import annotations

import os
import signal
import stat
import tempfile
import time
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import NoScratch
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store
from ansible_collections.umbra.rollback.plugins.module_utils.store.temporaries import Temporaries, scratch

from .helpers import HOST, fork, make_old, modes_below, open_store


def new_temporaries(path: Path, host: str = HOST) -> Temporaries:
    return Temporaries(str(path), host)


def leave(path: Path, host: str = HOST) -> None:
    """What a process that was killed leaves: a file, and a directory with a closed one in it."""
    child = fork()
    if not child:
        temporaries = new_temporaries(path, host)
        file = temporaries.file()
        os.write(file.fd, b"half")
        with temporaries.directory() as directory:
            os.makedirs(f"{directory}/closed/deep")
            os.chmod(f"{directory}/closed", 0o500)
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len([name for name in os.listdir(path) if name.startswith(f"{host}-")]) >= 2


def test_the_dead_are_swept_and_the_living_are_not(tmp_path: Path) -> None:
    living = new_temporaries(tmp_path)
    file = living.file()
    with living.directory() as directory:
        leave(tmp_path)
        assert new_temporaries(tmp_path).sweep() == 2
        assert os.path.exists(file.path) and os.path.exists(directory)
    file.close()
    assert not list(tmp_path.iterdir())


def test_a_host_sweeps_its_own(tmp_path: Path) -> None:
    for host in (HOST, f"{HOST}-2", "web2"):
        leave(tmp_path, host)
    assert new_temporaries(tmp_path).sweep() == 2
    assert new_temporaries(tmp_path).sweep(all_hosts=True) == 4
    assert not list(tmp_path.iterdir())


def test_only_what_is_old_is_swept(tmp_path: Path) -> None:
    leave(tmp_path)
    assert new_temporaries(tmp_path).sweep(before=time.time() - 60) == 0
    make_old(tmp_path)
    assert new_temporaries(tmp_path).sweep(before=time.time() - 60) == 2


def test_taking_the_lock_sweeps(store: Store) -> None:
    tmp = Path(store.path) / "tmp"
    leave(tmp)
    with store.lock("create", "u1"):
        assert not list(tmp.iterdir())


def test_a_workdir_is_private_and_goes(store: Store) -> None:
    before = os.umask(0)
    try:
        with store.workdir() as workdir:
            assert os.path.dirname(workdir) == f"{store.path}/tmp"
            assert [mode for _path, _directory, mode in modes_below(Path(workdir))] == [0o700]
            (Path(workdir) / "some").write_text("thing")
            with store.workdir() as another:
                assert another != workdir
    finally:
        os.umask(before)
    assert not list((Path(store.path) / "tmp").iterdir())


def test_a_workdir_that_was_removed_is_no_error(store: Store) -> None:
    with store.workdir() as workdir:
        os.rmdir(workdir)


def test_a_named_file_stays_and_another_goes(tmp_path: Path) -> None:
    temporaries = new_temporaries(tmp_path / "tmp")
    named, other = temporaries.file(), temporaries.file()
    os.write(named.fd, b"content")
    named.name(str(tmp_path / "target"))
    named.close()
    other.close()
    assert (tmp_path / "target").read_bytes() == b"content"
    assert not list((tmp_path / "tmp").iterdir())


def test_a_sweep_between_making_and_locking_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment is too short to be hit: a sweep is put into it."""
    temporaries = new_temporaries(tmp_path)
    fchmod, chmod, swept = os.fchmod, os.chmod, []

    def sweep_once(kind: str) -> None:
        if kind not in swept:
            swept.append(kind)
            assert new_temporaries(tmp_path).sweep() == 1

    def after_fchmod(fd: int, mode: int) -> None:
        fchmod(fd, mode)
        sweep_once("file")

    def around_chmod(path: str, mode: int) -> None:
        if path != str(tmp_path):
            sweep_once("directory without its mode")
        chmod(path, mode)
        if path != str(tmp_path):
            sweep_once("directory")

    monkeypatch.setattr(os, "fchmod", after_fchmod)
    monkeypatch.setattr(os, "chmod", around_chmod)
    file = temporaries.file()
    assert os.path.exists(file.path)
    with temporaries.directory() as directory:
        assert os.path.exists(directory)
    file.close()
    assert swept == ["file", "directory without its mode", "directory"]


def test_hosts_with_odd_names_keep_to_themselves(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", "a/b-c")
    with store.workdir() as workdir:
        assert os.path.basename(workdir).startswith("a%2Fb-c-")


def test_scratch_takes_away_what_the_dead_left_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("umbra-backup", "umbra-scratch-mine", "umbra-scratch", "umbra-scratch-0123456789abcdef0"):
        (tmp_path / name).mkdir(mode=0o700)
        (tmp_path / name / "precious").touch()
    (tmp_path / "umbra-scratch-00000000000000aa").write_text("a file of somebody")
    (tmp_path / "umbra-scratch-00000000000000bb").mkdir(mode=0o755)
    if os.geteuid() == 0:
        (tmp_path / "umbra-scratch-00000000000000cc").mkdir(mode=0o700)
        os.chown(tmp_path / "umbra-scratch-00000000000000cc", 65534, 65534)
    left = sorted(path.name for path in tmp_path.iterdir())
    (tmp_path / "umbra-scratch-00000000000000dd").mkdir(mode=0o700)
    (tmp_path / "umbra-scratch-00000000000000dd" / "old").touch()
    with scratch() as ours, scratch() as other:
        assert stat.S_IMODE(os.stat(ours).st_mode) == 0o700 and os.path.isdir(other)
        shown = sorted(path.name for path in tmp_path.iterdir())
        assert shown == sorted([*left, os.path.basename(ours), os.path.basename(other)])
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    assert (tmp_path / "umbra-backup" / "precious").exists()


def test_without_a_place_for_it_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    with pytest.raises(NoScratch, match="TMPDIR"), scratch():
        pass
