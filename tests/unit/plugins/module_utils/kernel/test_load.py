# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is loaded is what was checked, whoever writes the file in between."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import load
from ansible_collections.umbra.rollback.tests.unit.support import kernels

IMPORTS = """
import os, sys
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import arrival, cache, load, selected
"""


def test_the_built_kernel_is_loaded_from_memory() -> None:
    module = load.load(kernels.content())
    assert module.VERSION == load.RELEASE
    assert str(module.__file__).startswith("/proc/self/fd/")


def test_nothing_is_loaded_by_importing_the_engine() -> None:
    done = kernels.python(f"{IMPORTS}\nassert 'umbra_kernel' not in open('/proc/self/maps').read()")
    assert done.returncode == 0, done.stderr


GIVEN_BACK = """
import pathlib
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096
load.load(pathlib.Path(sys.argv[1]).read_bytes())
bytes(30 << 20)  # by itself, glibc would keep what is smaller than the largest one that was given back
before = resident()
large, above = bytearray(b"x" * (20 << 20)), bytearray(b"x" * 100_000)
assert resident() - before > 20 << 20
del large
print(resident() - before)
"""


def test_large_memory_goes_back_to_the_system() -> None:
    done = kernels.python(IMPORTS + GIVEN_BACK, str(kernels.FILE))
    assert done.returncode == 0 and int(done.stdout) < 2 << 20, done.stderr + done.stdout


def test_the_memory_stays_open_and_can_not_be_changed() -> None:
    module = load.load(kernels.content())
    path = str(module.__file__)
    assert Path(path).read_bytes() == kernels.content()
    for flags in (os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
        with pytest.raises(PermissionError):
            os.close(os.open(path, flags))
            os.truncate(path, 0)
    fd = load.sealed(b"as it was checked")
    try:
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
        with pytest.raises(PermissionError):
            os.truncate(fd, 1)
        with pytest.raises(PermissionError):
            mmap.mmap(fd, 4, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        assert os.pread(fd, 100, 0) == b"as it was checked"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_the_attackers_kernel_is_one(tmp_path: Path) -> None:
    """What the tests below say is worth something: its code runs when it is loaded."""
    evil = tmp_path / "evil.so"
    evil.write_bytes(kernels.attackers(kernels.content()))
    done = kernels.python(f"{IMPORTS}\nload.load(open(sys.argv[1], 'rb').read())", str(evil))
    assert done.returncode == kernels.OWNED, done.stderr


# What a task does, with the file rewritten in place after its SHA-256 was found to be right and before it is loaded.
TASK = f"""{IMPORTS}
place, evil, sha256, way = sys.argv[1:]
found = cache.look(place, "kernel.so", sha256)
with open(os.path.join(place, "kernel.so"), "r+b") as kept:
    kept.write(open(evil, "rb").read())
if way == "ours":
    selected.choose_content("native", found, kept=os.path.join(place, "kernel.so"))
else:  # the file that was checked is the file that is loaded: its descriptor was open all the time
    load._from_file(os.path.join(place, "kernel.so"))
print(selected.NAME)
"""


@pytest.mark.parametrize(("way", "status"), [("by the file", kernels.OWNED), ("ours", 0)])
def test_a_file_rewritten_between_check_and_load(tmp_path: Path, way: str, status: int) -> None:
    evil = tmp_path / "evil.so"
    evil.write_bytes(kernels.attackers(kernels.content()))
    with kernels.safe_directory() as place:
        kept = place / "kernel.so"
        kept.write_bytes(kernels.content())
        kept.chmod(0o600)
        done = kernels.python(TASK, str(place), str(evil), kernels.digest(kernels.content()), way)
        assert done.returncode == status, done.stderr
        assert kept.read_bytes() == evil.read_bytes()
    assert done.stdout == ("native\n" if way == "ours" else "")


REWRITE = """
import sys, time
path, good, evil = sys.argv[1], *(open(name, "rb").read() for name in sys.argv[2:])
print("begun", flush=True)
while True:
    for content in (evil, good):
        with open(path, "r+b") as kept:
            kept.write(content)
        time.sleep(0.0005)
"""
MANY = f"""{IMPORTS}
place, sha256 = sys.argv[1:]
loaded = 0
for number in range(120):
    found = cache.look(place, "kernel.so", sha256)
    if found is not None:
        selected.choose_content("native", found)
        loaded += 1
print(loaded)
"""


def test_a_file_that_is_rewritten_all_the_time(tmp_path: Path) -> None:
    """Either the check fails, or what it saw is loaded; a third is not possible."""
    good, evil = tmp_path / "good.so", tmp_path / "evil.so"
    good.write_bytes(kernels.content())
    evil.write_bytes(kernels.attackers(kernels.content()))
    with kernels.safe_directory() as place:
        kept = place / "kernel.so"
        kept.write_bytes(kernels.content())
        kept.chmod(0o600)
        with subprocess.Popen(
            [sys.executable, "-c", REWRITE, str(kept), str(good), str(evil)], stdout=subprocess.PIPE
        ) as attacker:
            try:
                assert attacker.stdout and attacker.stdout.readline() == b"begun\n"
                done = kernels.python(MANY, str(place), kernels.digest(kernels.content()))
            finally:
                attacker.kill()
    assert done.returncode == 0, f"{done.returncode} {done.stderr}"
    assert 0 < int(done.stdout) < 120, "the attack was none"


def test_without_proc_the_kept_file_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path stands in for a missing /proc, to unmount which takes a namespace; the integration target kernel does."""
    monkeypatch.setattr(load, "DESCRIPTORS", str(tmp_path))
    with pytest.raises(load.NotLoaded, match="/proc is not mounted"):
        load.load(kernels.content())
    kept = tmp_path / "kept.so"
    kept.write_bytes(kernels.content())
    assert load.load(kernels.content(), str(kept)).__file__ == str(kept)


def test_a_proc_that_is_not_ours_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = kernels.attackers(kernels.content())
    for number in range(200):
        (tmp_path / str(number)).write_bytes(evil)
    monkeypatch.setattr(load, "DESCRIPTORS", str(tmp_path))
    with pytest.raises(load.NotLoaded, match="not that of this process"):
        load.load(kernels.content())


def test_a_linux_that_does_not_know_the_newest_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for a Linux before 6.3."""
    real = os.memfd_create

    def older(name: str, flags: int) -> int:
        if flags & load.MFD_NOEXEC_SEAL:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(name, flags)

    monkeypatch.setattr(os, "memfd_create", older)
    assert load.load(kernels.content()).VERSION == load.RELEASE


NOT_LOADED = [
    (b"", "file too short"),
    (b"#!/bin/sh\n" * 10, "invalid ELF header"),
    (b"\x7fELF" + bytes(5000), "ELF"),
]


@pytest.mark.parametrize(("data", "why"), NOT_LOADED)
def test_what_is_no_library_is_one_sentence(data: bytes, why: str) -> None:
    with pytest.raises(load.NotLoaded, match=why) as caught:
        load.load(data)
    assert "\n" not in str(caught.value) and not str(caught.value).endswith(".")


def test_the_kernel_of_another_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    this = load.RELEASE
    monkeypatch.setattr(load, "RELEASE", "9.9.9")
    with pytest.raises(load.NotLoaded, match=f"it is that of release {this}, and this is 9.9.9"):
        load.load(kernels.content())


PYTHONS = [("implementation", "pypy", "needs CPython"), ("abiflags", "t", "global interpreter lock")]


@pytest.mark.parametrize(("name", "value", "why"), PYTHONS)
def test_a_python_that_could_not_run_it(monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str) -> None:
    """Stands in for Pythons that this machine has not got."""
    if name == "implementation":
        monkeypatch.setattr(sys.implementation, "name", value)
    else:
        monkeypatch.setattr(sys, name, value)
    with pytest.raises(load.NotLoaded, match=why):
        load.load(kernels.content())
