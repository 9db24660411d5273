# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Debian with systemd as its PID 1, in namespaces of this host: build, start, exec, stop (see README.md)."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

SUITE = "bookworm"
PACKAGES = (
    "apt-utils",
    "createrepo-c",
    "dbus",
    "dbus-user-session",
    "dnf",
    "dnf-plugins-core",
    "libpam-systemd",
    "openssh-server",
    "python3",
    "rpm",
    "systemd-sysv",
)
# Nothing in it may reach for the network, write where a test looks, or touch the kernel that it shares.
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dev-hugepages.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "modprobe@.service",
    "ssh.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
)
RECIPE = 1  # raise when `_prepare` changes
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "umbra-testbed"
RUNNING = Path("/run/umbra-testbed")
BOOT_SECONDS = 60
ENVIRONMENT = {"HOME": "/root", "LANG": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TERM": "dumb"}


def rootfs() -> Path:
    """Where the machine's root file system is kept, or is to be built; nothing ever writes into it again."""
    recipe = f"{RECIPE} {SUITE} {' '.join(PACKAGES)} {' '.join(MASKED)}"
    return CACHE / f"machine-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def build() -> Path:
    """The root file system, built where it is missing (about a minute); what older recipes built is removed."""
    _need_root()
    target = rootfs()
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "machine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            for old in CACHE.glob("machine-*"):  # an unfinished one, too
                shutil.rmtree(old)
            fresh = CACHE / "machine-unfinished"
            _debootstrap(fresh)
            _prepare(fresh)
            fresh.rename(target)
    return target


def _debootstrap(target: Path) -> None:
    print(f"building a Debian {SUITE} in {CACHE}: takes a minute", file=sys.stderr, flush=True)
    log = CACHE / "debootstrap.log"
    argv = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(target)]
    found = mirror()
    argv += [found] * bool(found)
    with log.open("wb") as output:
        done = subprocess.run(argv, stdout=output, stderr=output, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv)} failed ({done.returncode}): see {log}")


def mirror() -> str:
    """The Debian mirror of this host's own package sources, or UMBRA_TESTBED_MIRROR; empty leaves it to debootstrap."""
    chosen = os.environ.get("UMBRA_TESTBED_MIRROR")
    if chosen is not None or not shutil.which("apt-get"):
        return chosen or ""
    argv = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Identifier: Packages"]
    shown = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False).stdout
    lines = [line.split() for line in shown.splitlines()]
    return next((words[2] for words in lines if words[:2] == ["Debian", "Debian"] and words[2].startswith("http")), "")


def _prepare(root: Path) -> None:
    """Make the machine quiet, without package sources, and reachable with a key of its own."""
    shutil.rmtree(root / "var/lib/apt/lists")
    for pattern in ("var/cache/apt/archives/*.deb", "var/cache/apt/*.bin", "etc/apt/sources.list"):
        for path in root.glob(pattern):
            path.unlink()
    (root / "etc/systemd/system-generators").mkdir()
    for path in root.glob("usr/lib/systemd/system-generators/*"):  # they are most of what a daemon-reload takes
        (root / "etc/systemd/system-generators" / path.name).symlink_to("/dev/null")
    (root / "etc/machine-id").write_text("")
    (root / "etc/hostname").write_text("testbed\n")
    (root / "etc/resolv.conf").write_text("")
    run_in(root, "systemctl", "--quiet", "mask", *MASKED)
    run_in(root, "systemctl", "--quiet", "set-default", "multi-user.target")
    # Debian's rpm keeps its database in the caller's home; everywhere else it is here.
    (root / "etc/rpm").mkdir(exist_ok=True)
    (root / "etc/rpm/macros.testbed").write_text("%_dbpath /var/lib/rpm\n")
    (root / "etc/tmpfiles.d/sshd.conf").write_text("d /run/sshd 0755\n")  # sshd -i wants it
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    run_in(root, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "umbra-testbed", "-f", "/root/.ssh/id_ed25519")
    shutil.copy(root / "root/.ssh/id_ed25519.pub", root / "root/.ssh/authorized_keys")


def run_in(root: Path, *argv: str) -> None:
    """Run a program in a root file system that is being built."""
    subprocess.run(["chroot", str(root), *argv], check=True, stdin=subprocess.DEVNULL, env=ENVIRONMENT)


def start(name: str, binds: Sequence[str] = (), owner: int = 0) -> None:
    """Start the machine `name` on a fresh disk and wait until systemd has booted.

    `binds` are HOST:INSIDE directories, read-only inside. With an `owner`, a process, the machine ends when that does,
    killed or not.
    """
    _need_root()
    lower = build()
    stop(name)  # what a crash of the host may have left
    state = RUNNING / name
    state.mkdir(parents=True)
    group = _cgroup(name)
    group.mkdir()
    argv = [sys.executable, __file__, "_boot", str(state), str(lower), *binds]
    with (state / "boot.log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--fork", *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: (group / "cgroup.procs").write_text("0") and None,  # before unshare, for --cgroup
        )
    if not _booted(name, process):
        said = (state / "boot.log").read_text(errors="replace")
        stop(name)
        raise SystemExit(f"the machine {name} did not start: {said}")
    if owner:
        argv = [sys.executable, __file__, "_watch", name, str(owner)]
        nothing = subprocess.DEVNULL
        subprocess.Popen(argv, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)


def _booted(name: str, process: subprocess.Popen[bytes]) -> bool:
    until = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < until and process.poll() is None:
        pid = _pid(name)
        if pid:
            argv = [*_enter(pid), "systemctl", "is-system-running"]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.stdout.strip() in ("running", "degraded"):
                return True
        time.sleep(0.05)
    return False


def watch(name: str, owner: int) -> None:
    """Stop the machine when its owner ends; return when either has."""
    machine = os.pidfd_open(_pid(name))
    try:
        living = os.pidfd_open(owner)
    except ProcessLookupError:
        stop(name)
        return
    if living in select.select([living, machine], [], [])[0]:
        stop(name)


def boot(state: Path, lower: Path, binds: Sequence[str]) -> None:
    """Become PID 1 of the machine; runs in its new namespaces. Everything mounted here goes away with them."""
    disk = state / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(disk))
    root = lay_over(lower, disk)
    _kernel_file_systems(root)
    for bind in binds:
        source, dummy, inside = bind.partition(":")
        target = root / inside.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        mount("--bind", source, str(target))
        mount("-o", "remount,bind,ro", str(target))
    pid = os.readlink("/proc/self")  # this is still the host's /proc, so it is the host's number
    (state / "pid.new").write_text(f"{pid} {_started(int(pid))}")
    (state / "pid.new").rename(state / "pid")
    move_into(root)
    environment = {"container": "umbra-testbed", "PATH": ENVIRONMENT["PATH"]}
    os.execve("/lib/systemd/systemd", ["/lib/systemd/systemd"], environment)


def lay_over(lower: Path, disk: Path) -> Path:
    """A directory that shows `lower`, and keeps in `disk`, a directory, all that is written to it."""
    root = disk / "root"
    for path in (root, disk / "upper", disk / "work"):
        path.mkdir(parents=True)
    layers = f"lowerdir={lower},upperdir={disk / 'upper'},workdir={disk / 'work'}"
    mount("-t", "overlay", "-o", layers, "overlay", str(root))
    return root


def move_into(root: Path) -> None:
    """Make `root`, a mount, the root of this mount namespace, with nothing left of the old one."""
    os.chdir(root)
    subprocess.run(["pivot_root", ".", "."], check=True)
    subprocess.run(["umount", "-l", "."], check=True)
    os.chroot(".")


def _kernel_file_systems(root: Path) -> None:
    """/proc, /sys and /dev, through which nothing of the host can be changed."""
    mount("-t", "proc", "proc", str(root / "proc"))
    for path in (root / "proc/sys", root / "proc/sysrq-trigger"):
        if path.exists():
            mount("--bind", str(path), str(path))
            mount("-o", "remount,bind,ro", str(path))
    mount("-t", "sysfs", "-o", "ro", "sysfs", str(root / "sys"))
    mount("-t", "cgroup2", "cgroup2", str(root / "sys/fs/cgroup"))
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(root / "run"))
    devices(root)


def devices(root: Path) -> None:
    """The harmless part of the host's /dev, and terminals of its own."""
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(root / "dev"))
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        (root / "dev" / name).touch()
        mount("--bind", f"/dev/{name}", str(root / "dev" / name))
    (root / "dev/pts").mkdir()
    (root / "dev/shm").mkdir()
    mount("-t", "devpts", "-o", "newinstance,ptmxmode=0666", "devpts", str(root / "dev/pts"))
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "dev/shm"))
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
    for name, text in links.items():
        (root / "dev" / name).symlink_to(text)


def mount(*argv: str) -> None:
    """Call mount."""
    subprocess.run(["mount", *argv], check=True)


def command(name: str, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` as root inside the machine, with an environment of its own."""
    pid = _pid(name)
    if not pid:
        raise SystemExit(f"no machine {name!r} runs")
    return [*_enter(pid), "env", "-i", *(f"{key}={value}" for key, value in ENVIRONMENT.items()), *argv]


def _enter(pid: int) -> list[str]:
    namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
    return ["nsenter", f"--target={pid}", *namespaces, "--root", "--wd", "--"]


def ssh_config(name: str) -> str:
    """An ssh_config that reaches the machine by its name, through sshd on standard input and output: no network."""
    return f"""Host {name}
  ProxyCommand {sys.executable} {Path(__file__).resolve()} exec {name} /usr/sbin/sshd -i
  User root
  IdentityFile {rootfs() / "root/.ssh/id_ed25519"}
  IdentitiesOnly yes
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
"""


def stop(name: str) -> None:
    """Kill the machine's PID 1, and with it all that runs inside; nothing of it is left. May be repeated."""
    pid = _pid(name)
    if pid:
        os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while _pid(name) and time.monotonic() < until:
        time.sleep(0.02)
    group = _cgroup(name)
    for path, *dummy in os.walk(group, topdown=False):
        _remove_cgroup(Path(path), until)
    shutil.rmtree(RUNNING / name, ignore_errors=True)


def _remove_cgroup(path: Path, until: float) -> None:
    """A group can be removed when the last of its killed processes is reaped, which may take a moment."""
    while True:
        try:
            path.rmdir()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def _pid(name: str) -> int:
    """The host's number of the machine's PID 1; 0 when it does not run."""
    try:
        pid, dummy, started = (RUNNING / name / "pid").read_text().partition(" ")
    except FileNotFoundError:
        return 0
    return int(pid) if _started(int(pid)) == started else 0


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks: tells it from a later one of its number. Empty when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _cgroup(name: str) -> Path:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        where, kind = line.split()[1:3]
        if kind == "cgroup2":
            return Path(where) / f"umbra-testbed-{name}"
    raise SystemExit("the machine needs cgroup v2: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")


def _need_root() -> None:
    if os.geteuid() != 0:
        raise SystemExit("the machine of the tests needs root: it is a Debian with systemd in namespaces of its own")


def main() -> int:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("build")
    for verb in ("start", "stop", "exec", "ssh-config"):
        verbs.add_parser(verb).add_argument("name")
    verbs.choices["start"].add_argument("--bind", action="append", default=[], metavar="HOST:INSIDE")
    verbs.choices["start"].add_argument("--owner", type=int, default=0, metavar="PID")
    verbs.choices["exec"].add_argument("argv", nargs=argparse.REMAINDER)
    if sys.argv[1:2] == ["_boot"]:
        boot(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
    if sys.argv[1:2] == ["_watch"]:
        watch(sys.argv[2], int(sys.argv[3]))
        return 0
    options = parser.parse_args()
    if options.verb == "build":
        print(build())
    elif options.verb == "start":
        start(options.name, options.bind, options.owner)
    elif options.verb == "stop":
        stop(options.name)
    elif options.verb == "ssh-config":
        print(ssh_config(options.name), end="")
    else:
        argv = command(options.name, options.argv)
        os.execvp(argv[0], argv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
