# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real Debian guests under QEMU, which can lose their network, their power and their mind (see README.md)."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from ansible_collections.umbra.rollback.tests.testbed import image, machine
from ansible_collections.umbra.rollback.tests.testbed.keys import Keys, inventory
from ansible_collections.umbra.rollback.tests.testbed.qmp import Qmp

PROBE_SECONDS = 20.0
MEMORY = 512  # MiB
PROCESSOR = "max,la57=off"  # five levels of page tables cost a tenth of a boot
LOGIN_SECONDS = 600.0  # a cold boot takes 20 on a machine that does nothing else, and ten times that on a busy one
# On a busy machine a guest may get no processor for seconds: what the kernel would conclude from that is switched off.
KERNEL = "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off panic=1 systemd.show_status=0 quiet"
KERNEL += " tsc=reliable no_timer_check nowatchdog"


class GuestError(Exception):
    """A guest did not do what it was asked to."""


class Guest:
    """One guest, with a disk of its own; a context manager, after which nothing of it is left.

    `console` is the file with all that its kernel said.
    """

    def __init__(self, name: str, directory: Path, images: Path, keys: Keys) -> None:
        self.name, self.directory, self._images, self._keys = name, directory, images, keys
        self.console, self.ssh_config = directory / "console", directory / "ssh_config"
        self._disk, self._monitor = directory / "disk.qcow2", directory / "monitor"
        self._qemu: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> Guest:
        """Itself, not started yet."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End it at once."""
        self.power_cut()

    @property
    def inventory(self) -> dict[str, object]:
        """Its variables for ansible-playbook."""
        return inventory(self.ssh_config)

    @property
    def pid(self) -> int:
        """The process of QEMU. Raises GuestError when there is none."""
        if self._qemu is None:
            raise GuestError(f"{self.name} does not run")
        return self._qemu.pid

    def resume(self) -> None:
        """Begin with a disk of its own in the saved state, booted: takes a second or two. Raises GuestError."""
        self._lay_disk("booted.qcow2")
        with (self._images / "state").open("rb") as state:
            self._start(state.fileno())
            with Qmp(self._monitor) as monitor:
                monitor.go_on()
        # Its clock stood still meanwhile, and the state was another guest's.
        script = 'date --set="@$1" && echo "$2" > /etc/hostname && hostname "$2"'
        self.wait_ssh()
        self.ssh(["sh", "-c", script, "-", f"{time.time():.3f}", self.name])

    def boot(self) -> None:
        """Begin with a disk of its own, from nothing, and wait for its sshd. Raises GuestError."""
        self._lay_disk("disk.raw")
        self.boot_again()

    def boot_again(self) -> None:
        """Boot from its disk as it is, and wait for its sshd. Raises GuestError."""
        self.power_on()
        self.wait_ssh()

    def power_on(self) -> None:
        """Begin to boot from its disk as it is. Raises GuestError."""
        self._start()

    def power_cut(self) -> None:
        """Kill QEMU. What was not synced is lost; `boot_again` finds the rest. May be repeated."""
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu.wait()
            self._qemu = None
            self.forget_connection()

    def link_down(self) -> None:
        """Pull the cable of its network card."""
        self._set_link(False)

    def link_up(self) -> None:
        """Put it in again."""
        self._set_link(True)

    def panic(self) -> None:
        """Have the kernel panic. It boots again by itself; wait with `comes_back`."""
        self.ssh(["sh", "-c", "(sleep 0.5; echo c > /proc/sysrq-trigger) > /dev/null 2>&1 < /dev/null &"])

    def reboot(self) -> None:
        """Reboot, and wait until it is back. Raises GuestError."""
        with self.comes_back():
            self.ssh(["systemctl", "--no-block", "reboot"])

    @contextmanager
    def comes_back(self, seconds: float = LOGIN_SECONDS) -> Iterator[None]:
        """Wait at the end for another boot than that at the beginning. Raises GuestError."""
        before = self.boot_id()
        yield
        self.wait_boot(before, seconds)

    def wait_boot(self, before: str, seconds: float = LOGIN_SECONDS) -> None:
        """Wait for another boot than `before` (boot_id). Raises GuestError."""
        until = time.monotonic() + seconds
        self.forget_connection()
        self.wait_ssh(seconds)
        while self._boot_id_or_none() in (before, None):
            if time.monotonic() > until:
                raise GuestError(f"{self.name} did not boot again within {seconds:.0f} s: {self.last_words()}")
            time.sleep(0.5)
            self.forget_connection()
            self.wait_ssh(until - time.monotonic())

    def boot_id(self) -> str:
        """Another one for each boot. Raises GuestError."""
        return self.ssh(["cat", "/proc/sys/kernel/random/boot_id"]).strip()

    def _boot_id_or_none(self) -> str | None:
        """None while it goes down."""
        try:
            return self.boot_id()
        except GuestError:
            return None

    def ssh(self, argv: Sequence[str], stdin: str = "", timeout: float = 120.0) -> str:
        """What a program prints in the guest, run as root. Raises GuestError."""
        command = ["ssh", "-F", str(self.ssh_config), self.name, shlex.join(argv)]
        try:
            done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise GuestError(f"{shlex.join(argv)} on {self.name}: nothing within {timeout:.0f} s") from None
        if done.returncode != 0:
            raise GuestError(f"{shlex.join(argv)} on {self.name} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def put(self, path: str, text: str, mode: str = "0644") -> None:
        """Write a file in the guest. Raises GuestError."""
        script = 'mkdir -p "${1%/*}" && cat > "$1" && chmod "$2" "$1"'
        self.ssh(["sh", "-c", script, "-", path, mode], stdin=text)

    def wait_ssh(self, seconds: float = LOGIN_SECONDS) -> None:
        """Wait until one can log in. Raises GuestError."""
        until, problem = time.monotonic() + seconds, "no sshd answers"
        while time.monotonic() < until and self._qemu is not None and self._qemu.poll() is None:
            if self.answers():
                try:
                    self.ssh(["true"])
                    return
                except GuestError as error:  # it was on its way down
                    problem = str(error)
                    self.forget_connection()
            time.sleep(0.2)
        raise GuestError(f"nobody can log in to {self.name}: {problem}; {self.last_words()}")

    def answers(self) -> bool:
        """Whether its sshd says its name. QEMU takes every connection, and tries for a while to find somebody."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=PROBE_SECONDS) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def last_words(self) -> str:
        """The end of what QEMU and the kernel said."""
        files = (self.directory / "qemu.log", self.console)
        said = [path.read_text(errors="replace")[-2000:] for path in files if path.exists()]
        return "\n".join(said)

    def forget_connection(self) -> None:
        """End the SSH connection that all share: what it leads to is gone, or about to be."""
        argv = ["ssh", "-F", str(self.ssh_config), "-O", "exit", self.name]
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Its status says whether there was one, which is no matter.
            subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=10, check=False)
        (self.directory / f"master-{self.name}").unlink(missing_ok=True)

    def save(self, directory: Path) -> None:
        """Move its disk, its memory and its devices to a directory, and end it: `resume` goes on there.

        Raises GuestError.
        """
        self.ssh(["sync"])
        self.forget_connection()
        with (directory / "state").open("wb") as state, Qmp(self._monitor) as monitor:
            monitor.save(state.fileno())
        self.power_cut()
        shutil.move(self._disk, directory / "booted.qcow2")

    def waited(self) -> float:
        """Seconds for which its processors could have run and other processes did, since QEMU started.

        Raises GuestError when it does not run.
        """
        tasks = Path(f"/proc/{self.pid}/task")
        delays = [int((task / "schedstat").read_text().split()[1]) for task in tasks.iterdir()]
        return max(delays) / 1e9  # that of the processor, which hardly ever sleeps

    def _lay_disk(self, base: str) -> None:
        form = "raw" if base.endswith(".raw") else "qcow2"
        argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(self._images / base), "-F", form]
        self.directory.mkdir(parents=True, exist_ok=True)
        subprocess.run([*argv, str(self._disk)], check=True)

    def _start(self, state: int | None = None) -> None:
        """Start QEMU, which ends with this process, however that ends; wait for its monitor."""
        argv = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", *self._options()]
        argv += [] if state is None else ["-incoming", f"fd:{state}"]
        self._monitor.unlink(missing_ok=True)
        with (self.directory / "qemu.log").open("ab") as log:
            self._qemu = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[] if state is None else [state]
            )
        until = time.monotonic() + LOGIN_SECONDS
        while True:
            try:
                self._port = self._forwarded()
                break
            except (OSError, ValueError):
                if self._qemu.poll() is not None or time.monotonic() > until:
                    raise GuestError(f"QEMU of {self.name} did not start: {self.last_words()}") from None
                time.sleep(0.05)
        where = f"Host {self.name}\n  HostName 127.0.0.1\n  Port {self._port}\n"
        self.ssh_config.write_text(where + self._keys.settings(self.directory))

    def _options(self) -> list[str]:
        # Saved states rely on all of this staying as it is.
        return [
            *("-name", self.name, "-nodefaults", "-display", "none", "-machine", "pc", "-smp", "1"),
            *("-accel", "tcg,thread=multi", "-cpu", PROCESSOR, "-m", str(MEMORY)),
            *("-kernel", str(self._images / "kernel"), "-initrd", str(self._images / "initrd"), "-append", KERNEL),
            *("-drive", f"file={self._disk},format=qcow2,if=none,id=disk"),
            *("-device", "virtio-blk-pci,drive=disk"),
            *("-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"),
            *("-device", "virtio-net-pci,netdev=net,id=card,romfile="),
            *("-fw_cfg", f"name={image.KEY},file={self._keys.public}"),
            *("-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console"),
            *("-qmp", f"unix:{self._monitor},server=on,wait=off"),
        ]

    def _forwarded(self) -> int:
        """The port of the host that leads to its sshd; QEMU has chosen a free one."""
        with Qmp(self._monitor) as monitor:
            shown = monitor.ask("human-monitor-command", {"command-line": "info usernet"})
        found = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", shown)
        if found is None:
            raise ValueError(shown)
        return int(found[1])

    def _set_link(self, up: bool) -> None:
        with Qmp(self._monitor) as monitor:
            monitor.ask("set_link", {"name": "card", "up": up})


def images() -> tuple[Path, int]:
    """The directory with a disk, its kernel and a saved state of it, booted; made where it is missing.

    That takes a minute, and a minute more for the Debian that it is made of, where that is missing too. With it comes a
    descriptor: as long as it is open, the directory stays.
    """
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
    # A saved state counts time by the clock of the processor that it was saved on.
    processor = re.search(r"^model name.*$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    parts = (version, KERNEL, PROCESSOR, str(MEMORY), processor[0] if processor else "")
    return _made(f"guest-{image.digest(*parts)}", _make)


def _make(fresh: Path) -> None:
    image.build(fresh)
    _save_booted(fresh)


def _made(name: str, make: Callable[[Path], None]) -> tuple[Path, int]:
    """A directory of the cache, made where it is missing; it stays as long as the descriptor is open."""
    target = machine.CACHE / name
    machine.CACHE.mkdir(parents=True, exist_ok=True)
    with (machine.CACHE / "guest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _remove_unused()
            fresh = machine.CACHE / "guest-unfinished"
            fresh.mkdir()
            make(fresh)
            fresh.rename(target)
        use = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(use, fcntl.LOCK_SH)
    return target, use


def _remove_unused() -> None:
    """Remove what older recipes made, and what was never finished, unless somebody runs guests of it."""
    for old in machine.CACHE.glob("guest-*"):
        descriptor = os.open(old, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old)
        except BlockingIOError:
            pass  # it is in use; the next that comes this way removes it
        finally:
            os.close(descriptor)


def _save_booted(images_: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="umbra-guest-") as scratch:
        directory = Path(scratch)
        with Guest("guest", directory, images_, Keys(directory)) as guest:
            guest.boot()
            guest.ssh(["systemctl", "is-system-running", "--wait"], timeout=LOGIN_SECONDS)
            guest.save(images_)
        disk = images_ / "booted.qcow2"
        # What it lies on, by a name that stays when the directory gets its own.
        subprocess.run(["qemu-img", "rebase", "-u", "-b", "disk.raw", "-F", "raw", str(disk)], check=True)


class Bed:
    """Guests of one run, in a directory whose path is short; a context manager, after which nothing is left."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Bed:
        """Itself; makes the images where they are missing."""
        self._images, use = images()
        self._stack.callback(os.close, use)
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="umbra-bed-")))
        self._keys = Keys(self.directory)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End all guests."""
        self._stack.close()

    def guest(self, name: str, images_: Path | None = None) -> Guest:
        """A guest that is not started yet, and ends with the bed at the latest; `images_` are what `kept` made."""
        return self._stack.enter_context(Guest(name, self.directory / name, images_ or self._images, self._keys))

    def kept(self, name: str, recipe: str, prepare: Callable[[Guest], None]) -> Path:
        """Images of a guest that `prepare` has worked on, which others `resume` from; made where they are missing.

        They are kept like the bed's own, until `recipe`, which says what `prepare` does, is another one.
        """

        def make(fresh: Path) -> None:
            for file in ("kernel", "initrd"):
                (fresh / file).symlink_to(self._images / file)
            with self.guest(name) as guest:
                guest.resume()
                prepare(guest)
                guest.save(fresh)

        digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
        made, use = _made(f"{self._images.name}-{name}-{digest}", make)
        self._stack.callback(os.close, use)
        return made
