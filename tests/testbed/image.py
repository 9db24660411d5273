# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk, the kernel and the initial RAM disk of the guests (guests.py): the Debian of machine.py, with a kernel."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from ansible_collections.umbra.rollback.tests.testbed import machine

PACKAGES = ("busybox-static", "iproute2", "linux-image-cloud-amd64", "udev")
RECIPE = 1  # raise when what is done with these changes
DISK = "2G"  # sparse
HARD_DISK = ("virtio_pci", "virtio_blk")  # modules without which the kernel finds no disk
KEY = "opt/umbra.testbed/key"  # where QEMU puts the public key of a run
# What the processor's and the board's features would load, and no test needs: a third of the time of a boot.
BLACKLIST = (
    *("aesni_intel", "ata_piix", "button", "crc32_pclmul", "crct10dif_pclmul", "evdev", "floppy"),
    *("ghash_clmulni_intel", "i2c_piix4", "joydev", "kvm", "kvm_amd", "parport_pc", "pcspkr", "powernow_k8"),
    *("psmouse", "serio_raw", "sha512_ssse3"),
)
INIT = """#!/busybox sh
/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do /busybox insmod $module; done
until test -b /dev/vda; do /busybox usleep 10000; done
/busybox mount -t ext4 /dev/vda /root
exec /busybox switch_root /root /lib/systemd/systemd
"""
NETWORK = """[Match]
Name=eth0
[Network]
Address=10.0.2.15/24
LinkLocalAddressing=no
"""
# Read anew for each login: a guest that goes on from a saved state has the key of the run that goes on with it.
SSHD = f"""AuthorizedKeysCommand /bin/cat /sys/firmware/qemu_fw_cfg/by_name/{KEY}/raw
AuthorizedKeysCommandUser root
PermitRootLogin prohibit-password
UseDNS no
"""
FILES = {
    "etc/hostname": "guest\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/initramfs-tools/update-initramfs.conf": "update_initramfs=no\n",  # it would take longer than all the rest
    "etc/modprobe.d/testbed.conf": "".join(f"blacklist {name}\n" for name in BLACKLIST),
    "etc/modules-load.d/testbed.conf": "qemu_fw_cfg\n",
    "etc/ssh/sshd_config.d/testbed.conf": SSHD,
    "etc/sysctl.d/testbed.conf": "kernel.sysrq=1\n",
    "etc/systemd/network/eth0.network": NETWORK,
}


def digest(*more: str) -> str:
    """Changes with all that an image is made of, and with `more`."""
    files = (f"{name}={text}" for name, text in FILES.items())
    parts = (str(RECIPE), machine.rootfs().name, *PACKAGES, DISK, *HARD_DISK, INIT, *files, *more)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def build(target: Path) -> None:
    """Make `disk.raw`, `kernel` and `initrd` in a directory. The machine's root file system is built on the way."""
    lower = machine.build()
    print(f"building a Debian guest in {target}: takes half a minute", file=sys.stderr, flush=True)
    root = target / "root"
    _run("cp", "--archive", str(lower), str(root))
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    _install(root)
    _prepare(root)
    _boot_files(root, target)
    _run("truncate", f"--size={DISK}", str(target / "disk.raw"))
    # What is left for later, the guest does in the middle of a test.
    whole = "lazy_itable_init=0,lazy_journal_init=0"
    _run("mkfs.ext4", "-q", "-E", whole, "-d", str(root), str(target / "disk.raw"))
    shutil.rmtree(root)


def _install(root: Path) -> None:
    """Download with the host's apt, its proxies and certificates; install with the guest's own."""
    mirror = machine.mirror()
    if not mirror:
        raise SystemExit("which Debian mirror? This host's apt names none: set UMBRA_TESTBED_MIRROR")
    (root / "etc/apt/sources.list").write_text(f"deb {mirror} {machine.SUITE} main\n")
    here = ["-q", "-y", "-o", f"Dir={root}", "-o", f"Dir::State::status={root}/var/lib/dpkg/status"]
    here += ["-o", "APT::Sandbox::User=root", "--no-install-recommends"]
    (root / "var/lib/apt/lists/partial").mkdir(parents=True)
    _run("apt-get", *here, "update")
    _run("apt-get", *here, "--download-only", "install", *PACKAGES)
    machine.mount("-t", "proc", "proc", str(root / "proc"))
    try:
        argv = ["apt-get", "-q", "-y", "-o", "Dpkg::Options::=--force-confold", "--no-download"]
        argv += ["--no-install-recommends", "install", *PACKAGES]
        environment = {**machine.ENVIRONMENT, "DEBIAN_FRONTEND": "noninteractive"}
        _run("chroot", str(root), *argv, environment=environment)
    finally:
        _run("umount", str(root / "proc"))
    shutil.rmtree(root / "var/lib/apt/lists")
    (root / "etc/apt/sources.list").write_text("")
    for path in root.glob("var/cache/apt/**/*.*"):
        path.unlink()


def _prepare(root: Path) -> None:
    """What the machine did without, and a host has. What starts by itself at a time of its own stays masked."""
    machine.run_in(root, "systemctl", "--quiet", "unmask", "ssh.service", "getty@tty1.service")
    machine.run_in(root, "systemctl", "--quiet", "enable", "ssh.service", "systemd-networkd.service")
    machine.run_in(root, "systemctl", "--quiet", "disable", "systemd-networkd-wait-online.service")
    (root / "etc/systemd/system-generators/systemd-fstab-generator").unlink()
    shutil.rmtree(root / "root/.ssh")


def _boot_files(root: Path, target: Path) -> None:
    """The kernel, and an initial RAM disk that does nothing but mount the disk."""
    (kernel,) = root.glob("boot/vmlinuz-*")
    kernel.rename(target / "kernel")
    tree = root / "initrd"
    for name in ("modules", "dev", "root"):
        (tree / name).mkdir(parents=True)
    shutil.copy(root / "bin/busybox", tree / "busybox")
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    version = kernel.name.partition("-")[2]
    argv = ["chroot", str(root), "modprobe", "--set-version", version, "--show-depends", "--all", *HARD_DISK]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True, env=machine.ENVIRONMENT).stdout
    modules = dict.fromkeys(line.split()[1] for line in shown.splitlines() if line.startswith("insmod "))
    for number, module in enumerate(modules):
        shutil.copy(root / module.lstrip("/"), tree / "modules" / f"{number:02}.ko")
    names = "\0".join([".", *sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))])
    argv = ["cpio", "--quiet", "--create", "--null", "--format=newc", "--directory=/initrd", "--file=/initrd.cpio"]
    subprocess.run(
        ["chroot", str(root), *argv], input=names.encode(), check=True, env=machine.ENVIRONMENT, stdout=sys.stderr
    )
    shutil.move(root / "initrd.cpio", target / "initrd")
    shutil.rmtree(tree)


def _run(*argv: str, environment: dict[str, str] | None = None) -> None:
    """Run a step, and say what it printed only when it fails."""
    done = subprocess.run(
        argv,
        env=environment or {**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout}\n{' '.join(argv)} failed ({done.returncode})")
