# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands for a package manager (`pkg`) and a database server (`dbctl`) on a host of the lab.

It lies in HOST/etc/bin and works on HOST/etc. Where there is a file HOST/broken, the new version does not work.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

ETC = Path(__file__).resolve().parents[1]
STATUS, RUN, DB = ETC / "lib/status.json", ETC / "run", ETC / "db"
BROKEN = (ETC.parent / "broken").exists()


def prepare() -> None:
    """The host as it is before the update: three packages, and a database of version 1."""
    for directory in ("lib", "run", "db/data-1"):
        (ETC / directory).mkdir(parents=True)
    STATUS.write_text(json.dumps({"libc": 1, "app": 1, "old": 1}))
    for name in ("libc", "app", "old"):
        (ETC / "lib" / f"{name}.so").write_text(f"{name} 1\n" * 50)
    (DB / "data-1/VERSION").write_text("1")
    (DB / "data").symlink_to("data-1")
    with closing(sqlite3.connect(DB / "data-1/orders.db")) as opened, opened as orders:
        orders.execute("create table orders (id integer primary key, what text)")
        orders.executemany("insert into orders (what) values (?)", [("tea",), ("bread",)])


def pkg_upgrade() -> None:
    """The first time somebody else holds the lock."""
    if not (RUN / "lock").exists():
        (RUN / "lock").touch()
        sys.exit("could not get the lock: another process holds it")
    STATUS.write_text(json.dumps({"libc": 2, "app": 2}))
    for name in ("libc", "app"):
        (ETC / "lib" / f"{name}.so").write_text(f"{name} 2\n" * 50)
    (ETC / "lib/old.so").unlink()
    (RUN / "reboot-required").touch()
    print("2 upgraded, 1 removed")


def pkg_restart() -> None:
    (RUN / "restarted").touch()


def pkg_reboot() -> None:
    (RUN / "reboot-required").unlink()
    (RUN / "booted").touch()


def pkg_verify() -> None:
    if BROKEN:
        sys.exit("package app is not configured")


def dbctl_version() -> None:
    version = (DB / "data/VERSION").read_text()
    if BROKEN and version == "2":
        sys.exit("could not connect: nobody listens")
    print(version)


def dbctl_dump() -> None:
    with closing(sqlite3.connect(DB / "data/orders.db")) as orders:
        (DB / "dump.sql").write_text("\n".join(orders.iterdump()))


def dbctl_stop() -> None:
    (RUN / "db").unlink(missing_ok=True)


def dbctl_init() -> None:
    shutil.rmtree(DB / "data-2", ignore_errors=True)
    (DB / "data-2").mkdir()
    (DB / "data-2/VERSION").write_text("2")


def dbctl_load() -> None:
    with closing(sqlite3.connect(DB / "data-2/orders.db")) as opened, opened as orders:
        orders.executescript((DB / "dump.sql").read_text())
        orders.execute("alter table orders add column price integer")


def dbctl_start() -> None:
    (RUN / "db").touch()


if __name__ == "__main__":
    globals()[f"{Path(sys.argv[0]).name}_{sys.argv[1]}" if len(sys.argv) > 1 else "prepare"]()
