# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many small hosts on one network, each with its own sshd, files and name, in namespaces (see README.md)."""

from __future__ import annotations

import os
import select
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from ansible_collections.umbra.rollback.tests.testbed import machine
from ansible_collections.umbra.rollback.tests.testbed.keys import Keys, inventory

NETWORK = "192.0.2"  # for documentation only, so nobody's; and nothing leads out of the namespace it is in
CONTROLLER = f"{NETWORK}.254"
MOST = 250
START_SECONDS = 120.0


class Hosts:
    """Hosts h01, h02 ... and a network that only they and `command` are in; a context manager, after which nothing is
    left. All of it is in namespaces of one process, which ends with this one."""

    def __init__(self, count: int) -> None:
        if not 0 < count <= MOST:
            raise ValueError(f"{count} hosts: there can be {MOST}")
        self.names = [f"h{number:02}" for number in range(1, count + 1)]
        self._stack = ExitStack()

    def __enter__(self) -> Hosts:
        """Start them, and wait for their sshds."""
        lower = machine.build()
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="umbra-hosts-")))
        keys = Keys(self.directory)
        self.ssh_config = self.directory / "ssh_config"
        addresses = "".join(f"Host {name}\n  HostName {_address(at)}\n" for at, name in enumerate(self.names, 1))
        self.ssh_config.write_text(f"{addresses}Host *\n{keys.settings(self.directory, patience=12)}")
        try:
            self._world = self._start([str(self.directory), str(lower), keys.public.read_text(), *self.names])
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        own = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--uts", "--ipc", "--net"]
        readable, writable = os.pipe()
        argv = [*own, "--fork", "--kill-child", "--mount-proc", *_this("world", str(writable), *words)]
        with (self.directory / "log").open("wb") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[writable], env=_environment()
            )
        os.close(writable)
        self._stack.callback(_end, process, readable)
        if not select.select([readable], [], [], START_SECONDS)[0] or os.read(readable, 1) != b"+":
            raise OSError(f"the hosts did not start: {(self.directory / 'log').read_text(errors='replace')}")
        return process

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End them all."""
        self._stack.close()

    def inventory(self) -> dict[str, object]:
        """An inventory for ansible-playbook, with all of them in the group `hosts`."""
        return {"hosts": {"hosts": {name: {} for name in self.names}, "vars": inventory(self.ssh_config)}}

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` on the controller: on this machine, and in the network of the hosts."""
        return ["nsenter", f"--net=/proc/{self._world.pid}/ns/net", "--", *argv]

    def ssh(self, name: str, argv: Sequence[str]) -> str:
        """What a program prints on a host. Raises CalledProcessError."""
        command = self.command(["ssh", "-F", str(self.ssh_config), name, shlex.join(argv)])
        return subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout

    def network(self) -> str:
        """What the kernel calls the namespace of their network."""
        return os.readlink(f"/proc/{self._world.pid}/ns/net")

    def cut(self, name: str) -> None:
        """Pull the cable of a host."""
        self._set_link(name, "down")

    def mend(self, name: str) -> None:
        """Put it in again."""
        self._set_link(name, "up")

    def _set_link(self, name: str, state: str) -> None:
        subprocess.run(self.command(["ip", "link", "set", f"to-{name}", state]), check=True)


def _end(process: subprocess.Popen[bytes], readable: int) -> None:
    """Kill the process that all hosts are in, and wait until all of them are gone: then the pipe closes."""
    process.kill()
    process.wait()
    while os.read(readable, 1):
        pass
    os.close(readable)


def _this(*words: str) -> list[str]:
    return [sys.executable, "-m", __spec__.name, *words]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _address(number: int) -> str:
    return f"{NETWORK}.{number}"


def world(ready: int, directory: Path, lower: Path, key: str, names: Sequence[str]) -> None:
    """The first process in the namespaces of all hosts: makes the network, starts the hosts, and stays."""
    for path in ("/run", str(directory)):  # what is written from here on nobody else sees, and it goes away with us
        machine.mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", path)
    _ip("link set lo up")
    _ip("link add bridge type bridge")
    _ip(f"addr add {CONTROLLER}/24 dev bridge")
    _ip("link set bridge up")
    for number, name in enumerate(names, 1):
        _ip(f"netns add {name}")
        _ip(f"link add to-{name} type veth peer name eth0 netns {name}")
        _ip(f"link set to-{name} master bridge up")
        inside = [
            "nsenter",
            f"--net=/run/netns/{name}",
            "unshare",
            "--mount",
            "--pid",
            "--uts",
            "--fork",
            "--kill-child",
        ]
        subprocess.Popen([*inside, *_this("host", str(directory / name), str(lower), key, name, _address(number))])
    until = time.monotonic() + START_SECONDS
    for number in range(1, len(names) + 1):
        _wait_for_sshd(_address(number), until)
    os.write(ready, b"+")
    while True:
        os.wait()  # for what loses its parent


def _wait_for_sshd(address: str, until: float) -> None:
    while True:
        try:
            with socket.create_connection((address, 22), timeout=1.0) as connection:
                if connection.recv(4) == b"SSH-":
                    return
        except OSError:
            if time.monotonic() > until:
                raise
        time.sleep(0.05)


def host(disk: Path, lower: Path, key: str, name: str, address: str) -> None:
    """The first process of a host, which becomes its sshd."""
    root = machine.lay_over(lower, disk)
    machine.mount("-t", "proc", "proc", str(root / "proc"))
    machine.mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(root / "run"))
    machine.devices(root)
    (root / "run/sshd").mkdir()
    (root / "root/.ssh/authorized_keys").write_text(key)
    (root / "etc/hostname").write_text(f"{name}\n")
    socket.sethostname(name)
    for words in ("link set lo up", f"addr add {address}/24 dev eth0", "link set eth0 up"):
        _ip(words)
    machine.move_into(root)
    # No PAM: it would look for a logind. -e: what it says goes to the log of all hosts.
    options = [f"-oListenAddress={address}", "-oUsePAM=no", "-oUseDNS=no", "-oMaxStartups=100", "-oPidFile=none"]
    os.execve("/usr/sbin/sshd", ["/usr/sbin/sshd", "-D", "-e", *options], machine.ENVIRONMENT)


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "world":
        world(int(rest[0]), Path(rest[1]), Path(rest[2]), rest[3], rest[4:])
    else:
        host(Path(rest[0]), Path(rest[1]), *rest[2:])
