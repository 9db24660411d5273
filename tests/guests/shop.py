# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a guest: installs version 1 of a shop, upgrades it, in one go or part by part, takes a picture of it.

The shop is a package from a repository made here, a service with a drop-in, a timer, an old service that is masked, a
directory of settings and a database. Version 2 does not start; version 3 does.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import debs  # type: ignore[import-not-found] # tests/unit/support/debs.py, which is beside this file there

DATABASE, SETTINGS, UNITS = Path("/var/lib/shop/shop.db"), Path("/etc/shop.d"), Path("/etc/systemd/system")
SERVER = """
import os, socket, sqlite3, sys
VERSION = {version}
if VERSION == 2:
    sys.exit("version 2 can't read its settings")
with socket.create_server(("127.0.0.1", 8080)) as server, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
    systemd.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    while True:
        customer, address = server.accept()
        with customer, sqlite3.connect("file:/var/lib/shop/shop.db?mode=ro", uri=True) as connection:
            what = connection.execute("select what from orders").fetchone()[0]
            customer.sendall(f"{{VERSION}} {{what}}".encode())
"""
SERVICE = """[Unit]
Description=version {version}
[Service]
Type=notify
ExecStart=/usr/bin/python3 /usr/lib/shop.py
[Install]
WantedBy=multi-user.target
"""
TIMER = "[Timer]\nOnCalendar=yearly\n[Install]\nWantedBy=timers.target\n"
JOB = "[Service]\nType=oneshot\nExecStart=/bin/true\n"
LEGACY = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
# As debhelper writes them: a service that can't start fails no installation.
POSTINST = """deb-systemd-helper unmask shop.service > /dev/null || true
if deb-systemd-helper --quiet was-enabled shop.service; then
  deb-systemd-helper enable shop.service > /dev/null || true
else
  deb-systemd-helper update-state shop.service > /dev/null || true
fi
systemctl --system daemon-reload > /dev/null || true
if [ -n "$2" ]; then action=restart; else action=start; fi
deb-systemd-invoke $action shop.service > /dev/null || true
"""
POSTRM = """systemctl --system daemon-reload > /dev/null || true
if [ "$1" = purge ]; then deb-systemd-helper purge shop.service > /dev/null || true; fi
"""
UNIT_NAMES = ("shop.service", "shop-report.timer", "shop-report.service", "shop-legacy.service")


def publish() -> None:
    """Both versions in a repository, which apt knows."""
    repository = debs.Debs(Path("/srv/debs"))
    for version in ("1", "2", "3"):
        files = {"/usr/lib/shop.py": SERVER.format(version=version)}
        files["/lib/systemd/system/shop.service"] = SERVICE.format(version=version)
        depends = {"Depends": f"python3, shop-lib (= {version})"}
        config = {"/etc/shop/shop.conf": f"version = {version}\n"}
        scripts = {"postinst": POSTINST, "postrm": POSTRM}
        repository.add("shop", version, depends, config, files, scripts)
        repository.add("shop-lib", version)
    repository.publish()


def put(path: Path, text: str) -> None:
    """A file and its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def systemctl(*words: str) -> None:
    """Raises AssertionError when it fails."""
    debs.run("systemctl", *words)


def install() -> None:
    """Version 1, as it has been running for a while."""
    publish()
    put(SETTINGS / "shop.ini", "colour = green\n")
    put(SETTINGS / "old" / "prices.ini", "tea = 3\n")
    DATABASE.parent.mkdir()
    with sqlite3.connect(DATABASE) as connection:
        connection.execute("create table orders (id integer primary key, what text)")
        connection.execute("insert into orders (what) values ('tea')")
    put(UNITS / "shop.service.d" / "limits.conf", "[Service]\nLimitNOFILE=4096\n")
    put(UNITS / "shop-report.timer", TIMER)
    put(UNITS / "shop-report.service", JOB)
    put(Path("/usr/local/lib/systemd/system/shop-legacy.service"), LEGACY)
    debs.install("shop=1", "shop-lib=1")
    put(Path("/etc/shop/shop.conf"), "version = 1\nby = hand\n")
    systemctl("enable", "--now", "shop-report.timer")
    systemctl("mask", "shop-legacy.service")


def upgrade() -> None:
    """All of it to version 2, which does not start."""
    package("2")
    settings()
    database()
    units()
    systemctl("disable", "shop.service")
    systemctl("disable", "--now", "shop-report.timer")
    systemctl("unmask", "shop-legacy.service")
    systemctl("enable", "--now", "shop-legacy.service")


def package(version: str = "3") -> None:
    """Upgrade the package, which restarts the service."""
    debs.install(f"shop={version}", f"shop-lib={version}")


def settings() -> None:
    """Those of the next version."""
    put(SETTINGS / "shop.ini", "colour = red\n")
    (SETTINGS / "old" / "prices.ini").unlink()


def database() -> None:
    """Migrate it."""
    with sqlite3.connect(DATABASE) as connection:
        connection.execute("create table prices (id integer)")
        connection.execute("update orders set what = 'coffee'")


def units() -> None:
    """Other drop-ins, and the service started with them."""
    put(UNITS / "shop.service.d" / "limits.conf", "[Service]\nLimitNOFILE=2048\n")
    put(UNITS / "shop.service.d" / "more.conf", "[Service]\nNice=5\n")
    systemctl("daemon-reload")
    debs.run("systemctl", "restart", "shop.service", check=False)  # version 2 can't


def check() -> None:
    """Say what the shop sells. Raises OSError when it does not serve."""
    with socket.create_connection(("127.0.0.1", 8080), timeout=120) as connection:
        print(connection.recv(100).decode())


def picture() -> None:
    """All of it, as JSON."""
    seen = {}
    for root in (SETTINGS, Path("/etc/shop"), UNITS / "shop.service.d", UNITS / "multi-user.target.wants"):
        for path in sorted([root, *root.rglob("*")]):
            status = path.lstat()
            text = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
            seen[str(path)] = [status.st_mode, status.st_uid, status.st_mtime_ns if path.is_file() else 0, text]
    states = {word: _systemctl(word, *UNIT_NAMES).split() for word in ("is-enabled", "is-active")}
    shown = _systemctl("show", "--property=Description,LimitNOFILE,Nice,DropInPaths,FragmentPath", "shop.service")
    with sqlite3.connect(DATABASE) as connection:
        dumped = list(connection.iterdump())
    links = {unit: os.path.realpath(UNITS / unit) for unit in UNIT_NAMES}
    told = {"files": seen, **states, "shown": sorted(shown.splitlines()), "database": dumped, "links": links}
    print(json.dumps({**told, "packages": debs.state("shop")}))


def _systemctl(*words: str) -> str:
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    verbs = (install, upgrade, package, settings, database, units, check, picture)
    {verb.__name__: verb for verb in verbs}[sys.argv[1]]()
