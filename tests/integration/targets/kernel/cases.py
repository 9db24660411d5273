# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The native kernel's way to a host, with the real action, module and file systems; as root also with other users."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.release import __version__
from lab import Run, expect, try_all

PLAY = Path(__file__).resolve().parent / "play.yml"
ROOT = os.geteuid() == 0
PYTHON_OF_ALL = "/usr/bin/python3"  # that of a virtual environment may be below a home
CHECKED = "has the SHA-256 that this release says"


@dataclass
class Target:
    """A place for the cache, the store and Ansible's temporary files whose parents are nobody else's to write."""

    root: Path

    def __post_init__(self) -> None:
        for name in ("cache", "work", "work/tree", "tmp"):
            (self.root / name).mkdir()
        (self.root / "work" / "tree" / "file").write_text("content\n")

    @property
    def kept(self) -> list[Path]:
        """The kernels in the cache."""
        return sorted((self.root / "cache" / "umbra").glob("*"))

    def play(
        self,
        twin: str = "native",
        reason: str = CHECKED,
        calls: int | None = None,
        asked: str = "auto",
        status: int = 0,
        says: tuple[str, ...] = (),
        before: str = "true",
        arguments: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        **variables: Any,
    ) -> Run:
        """Work with the kernel once, and see that it is `twin` for `reason`, and that the host was called so often.

        `before` is a shell command that prepares what only this run sees, in a mount namespace of its own.
        """
        given: dict[str, Any] = {
            "cache": f"{self.root}/cache",
            "work": f"{self.root}/work",
            "twin": twin,
            "reason": reason,
        }
        given = {**given, "asked": asked, "background": 0, "create": False, **variables}
        given["ansible_remote_tmp"] = given.get("ansible_remote_tmp", f"{self.root}/tmp")
        command = ["ansible-playbook", "-i", "localhost,", "-vvv", "-e", json.dumps(given), *arguments, str(PLAY)]
        if before != "true":
            command = ["unshare", "-m", "sh", "-ec", f"{before}; exec {shlex.join(command)}"]
        done = subprocess.run(
            command,
            env={**os.environ, "ANSIBLE_PIPELINING": "1", **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        run = Run(done.returncode, done.stdout)
        expect(run, status, *says)
        called = sum(line.endswith("/modules/shadow_info.py") for line in run.output.splitlines())
        assert calls in (None, called), f"{called} calls, not {calls}\n{run.output}"
        return run


@contextmanager
def target() -> Iterator[Target]:
    """A target of its own, which other users can reach, too."""
    with tempfile.TemporaryDirectory(prefix=".umbra-test-", dir="/var/lib" if ROOT else Path.home()) as root:
        os.chmod(root, 0o755)
        yield Target(Path(root))


def a_cold_host_is_called_twice_and_a_warm_one_once(root: Path) -> None:
    """With pipelining and without."""
    for pipelining in ("1", "0"):
        with target() as host:
            environment = {"ANSIBLE_PIPELINING": pipelining}
            host.play(calls=2, environment=environment, create=True)
            assert len(host.kept) == 1, host.kept
            host.play(calls=1, environment=environment, asked="native")
            assert len(host.kept) == 1, host.kept


def pure_is_pure(root: Path) -> None:
    """Nothing is sent, nothing is loaded."""
    with target() as host:
        host.play("pure", "It was asked for", calls=1, asked="pure", create=False)
        assert not host.kept


def check_mode_brings_nothing(root: Path) -> None:
    """It uses what is there."""
    with target() as host:
        host.play("pure", "check mode brings nothing there", calls=1, arguments=("--check",))
        assert not any((host.root / "cache").iterdir())
        unavailable = "can't be used on this host: it is not on this host yet, and check mode brings nothing there."
        host.play(calls=1, asked="native", arguments=("--check",), status=2, says=(unavailable, "kernel-unavailable"))
        host.play(calls=2)
        host.play(calls=1, arguments=("--check",))


def the_background_has_it_too(root: Path) -> None:
    """A module in the background can't ask for it, so it is sent before."""
    with target() as host:
        host.play(calls=3, background=60)
        host.play(calls=2, background=60)


def a_damaged_file_is_sent_again(root: Path) -> None:
    """And replaced."""
    with target() as host:
        host.play(calls=2)
        (kept,) = host.kept
        good = kept.read_bytes()
        for damaged in (good[:1000], good[:-1] + b"X"):
            kept.write_bytes(damaged)
            host.play(calls=2)
            assert kept.read_bytes() == good and host.kept == [kept]


def what_is_hostile_is_refused(root: Path) -> None:
    """A link in the way, and a parent that others can write: pure and why, or an error where native is demanded."""
    with target() as host:
        (host.root / "elsewhere").mkdir(mode=0o700)
        (host.root / "cache" / "umbra").symlink_to(host.root / "elsewhere")
        said = f"{host.root}/cache/umbra is a symbolic link, so that nothing is loaded from there"
        host.play("pure", said, calls=1)
        host.play(calls=1, asked="native", status=2, says=(said, "kernel-unavailable"))
        assert not any((host.root / "elsewhere").iterdir())
        (host.root / "cache" / "umbra").unlink()
        (host.root / "cache").chmod(0o775)
        host.play("pure", f"{host.root}/cache can be written by other users (mode 0775)", calls=1)
        (host.root / "cache").chmod(0o1777)
        host.play("pure", f"{host.root}/cache can be written by other users (mode 1777)", calls=1)
        assert not host.kept


def an_installation_without_the_file(root: Path) -> None:
    """Everything works on the pure twin, and the result says why; that of another host is of no use either."""
    found = subprocess.run(
        ["ansible-galaxy", "collection", "list", "umbra.rollback", "--format", "json"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    (path, *dummy) = json.loads(found.stdout)
    ignored = shutil.ignore_patterns("*.x86_64-*.so", "*.aarch64-*.so", ".*", "tests", "build", "docs")
    copy = root / "ansible_collections" / "umbra" / "rollback"
    shutil.copytree(Path(path) / "umbra" / "rollback", copy, ignore=ignored)
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(root)}
    built = copy / "plugins" / "module_utils" / "kernel" / "built"
    with target() as host:
        (built / "umbra_kernel.vax-linux-gnu.so").write_bytes(b"of no use here")
        host.play("pure", "this release has none for", calls=1, create=True, environment=environment)
        shutil.rmtree(built)
        host.play("pure", "this installation of the collection has no built files", calls=1, environment=environment)
        host.play(calls=1, asked="native", environment=environment, status=2, says=("kernel-unavailable",))


def an_unknown_architecture(root: Path) -> None:
    """The module's Python is told that it runs on a machine of 32 bits."""
    with target() as host:
        python = host.root / "python"
        python.write_text(f'#!/bin/sh\nexec setarch linux32 {shlex.quote(sys.executable)} "$@"\n')
        python.chmod(0o755)
        said = "there is none for the architecture i"
        host.play("pure", said, calls=1, create=True, ansible_python_interpreter=str(python))
        demand: dict[str, Any] = {"asked": "native", "ansible_python_interpreter": str(python)}
        host.play(calls=1, status=2, says=(said, "kernel-unavailable"), **demand)
        assert not host.kept


def nobody(host: Target, **more: Any) -> dict[str, Any]:
    """Variables with which the module runs as a user without a home, whose $HOME stays that of root.

    A script stands in for sudo, which not every machine has; su does no pipelining.
    """
    sudo = host.root / "sudo"
    sudo.write_text('#!/bin/sh\nshift\nuser=$1\nshift\nexec setpriv --reuid "$user" --clear-groups "$@"\n')
    sudo.chmod(0o755)
    become = {"ansible_become": True, "ansible_become_user": "nobody", "ansible_become_method": "ansible.builtin.sudo"}
    how = {"ansible_become_exe": str(sudo), "ansible_become_flags": ""}
    return {**become, **how, "ansible_python_interpreter": PYTHON_OF_ALL, **more}


def another_user_keeps_it_in_a_place_of_its_own(root: Path) -> None:
    """become, with pipelining and without, and by su."""
    su = {
        "ansible_become_method": "ansible.builtin.su",
        "ansible_become_flags": "-s /bin/sh",
        "ansible_become_exe": "su",
    }
    for pipelining, more in (("1", {}), ("0", {}), ("0", su)):
        with target() as host:
            shutil.chown(host.root / "cache", "nobody")
            environment = {"ANSIBLE_PIPELINING": pipelining}
            host.play(calls=2, asked="native", environment=environment, **nobody(host, **more))
            assert [path.owner() for path in host.kept] == ["nobody"]
            host.play(calls=1, environment=environment, **nobody(host, **more))
            host.play("pure", "cache belongs to another user", calls=1)  # root trusts nobody


def a_user_without_a_place_is_told(root: Path) -> None:
    """Nothing is sent in vain."""
    with target() as host:
        said = "this user has no place to keep it: / can't be written"
        host.play("pure", said, calls=1, **nobody(host, cache=""))
        host.play(calls=1, asked="native", status=2, says=(said,), **nobody(host, cache=""))
        host.play("pure", "/root", calls=1, **nobody(host, cache="/root/.cache"))


def a_home_that_can_not_be_written(root: Path) -> None:
    """Then it is kept below ansible_remote_tmp."""
    with target() as host:
        read_only = f"mount -t tmpfs -o mode=0755,ro none {host.root}/cache"
        host.play(calls=2, before=read_only, reason=f"{host.root}/tmp/umbra/umbra_kernel.")
        host.play(calls=1, before=read_only, reason=f"{host.root}/tmp/umbra/umbra_kernel.")


def what_is_mounted_noexec_is_no_hindrance(root: Path) -> None:
    """Neither for Ansible's temporary files nor for the cache: it is loaded from memory."""
    with target() as host:
        places = f"{host.root}/cache {host.root}/tmp"
        noexec = f"for d in {places}; do mount -t tmpfs -o mode=0755,noexec none $d; done"
        for pipelining in ("1", "0"):
            host.play(calls=2, before=noexec, asked="native", environment={"ANSIBLE_PIPELINING": pipelining})


def python_in(host: Target, namespaces: str, before: str) -> str:
    """A Python for the module that runs in namespaces of its own, which a shell command has prepared."""
    python = host.root / "python"
    inner = shlex.quote(f'{before} && exec {shlex.quote(sys.executable)} "$@"')
    python.write_text(f'#!/bin/sh\nexec unshare {namespaces} sh -c {inner} sh "$@"\n')
    python.chmod(0o755)
    return str(python)


def without_proc_the_kept_file_is_loaded(root: Path) -> None:
    """The module's Python runs where /proc is an empty directory."""
    with target() as host:
        python = python_in(host, "-m", "mount -t tmpfs none /proc")
        host.play(calls=2, asked="native", ansible_python_interpreter=python)
        host.play(calls=1, asked="native", ansible_python_interpreter=python)
        noexec = f"mount -t tmpfs -o mode=0755,noexec none {host.root}/cache"
        host.play("pure", "failed to map segment", calls=2, before=noexec, ansible_python_interpreter=python)


def a_host_that_wants_no_executable_memory(root: Path) -> None:
    """vm.memfd_noexec=2, which Linux has since 6.3, for the processes of a namespace; before, this proves nothing."""
    with target() as host:
        setting = "/proc/sys/vm/memfd_noexec"
        before = f"if [ -e {setting} ]; then echo 2 >{setting}; fi"
        python = python_in(host, "-p -f --mount-proc", before)
        host.play(calls=2, asked="native", ansible_python_interpreter=python)


if __name__ == "__main__":
    tests = [
        a_cold_host_is_called_twice_and_a_warm_one_once,
        pure_is_pure,
        check_mode_brings_nothing,
        the_background_has_it_too,
        an_installation_without_the_file,
    ]
    if ROOT:  # other users and mounts
        tests += [another_user_keeps_it_in_a_place_of_its_own]
    if not __version__.startswith("2.19"):  # what only the host decides: once is enough
        tests += [a_damaged_file_is_sent_again, what_is_hostile_is_refused, an_unknown_architecture]
        if ROOT:
            tests += [
                a_user_without_a_place_is_told,
                a_home_that_can_not_be_written,
                what_is_mounted_noexec_is_no_hindrance,
                without_proc_the_kept_file_is_loaded,
                a_host_that_wants_no_executable_memory,
            ]
    try_all(tests)
