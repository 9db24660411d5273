# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small shop on disk: a tree, a database and a service, a store of its own, and the calls that tests make."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import create, restore
from ansible_collections.umbra.rollback.plugins.module_utils.verbs.run import Target
from ansible_collections.umbra.rollback.tests.unit.support.twins import pytest_generate_tests, twin

__all__ = ["pytest_generate_tests", "twin"]


class Shop:
    """Resources below one directory; the service is a file that says whether it runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = root / "store"
        self.config = root / "config"
        self.database = root / "shop.db"
        self.service = root / "service"
        self.log = root / "log"
        (self.config / "sites").mkdir(parents=True)
        for number in range(20):
            (self.config / "sites" / f"{number}.conf").write_text(f"site {number}\n")
        (self.config / "main.conf").write_text("version = 1\n")
        (self.config / "current").symlink_to("main.conf")
        with sqlite3.connect(self.database) as connection:
            connection.execute("create table orders (id integer primary key, item text)")
            connection.executemany("insert into orders (item) values (?)", [(f"item {n}",) for n in range(200)])
        connection.close()
        self.service.write_text("running\n")

    def target(self, update_id: str = "u1", host: str = "web1", **facts: Any) -> Target:
        """Where it is shadowed."""
        return Target(update_id, host, str(self.store), **{"lock_timeout": 1.0, **facts})

    def resources(self, **changes: Any) -> list[dict[str, Any]]:
        """The three of them; `changes` are merged into the resource of that name (service, config or database)."""
        service = {
            "name": "service",
            "type": "command",
            "create": self._sh('cp "$1" "$UMBRA_SHADOW/state"; echo create >> "$2"'),
            "restore": self._sh('cp "$UMBRA_SHADOW/state" "$1"; echo restore >> "$2"'),
            "stop": self._sh('echo stopped > "$1"; echo stop >> "$2"'),
            "start": self._sh('cp "$1" "$1"; echo start >> "$2"', check=False),
            "drift": self._sh('grep -qx running "$1"'),
            "depends_on": ["config", "database"],
        }
        config = {"name": "config", "type": "file", "path": str(self.config)}
        database = {"name": "database", "type": "sqlite", "path": str(self.database)}
        found = {"service": service, "config": config, "database": database}
        return [{**resource, **changes.get(name, {})} for name, resource in found.items()]

    def _sh(self, script: str, check: bool = True) -> list[str]:
        return ["/bin/sh", "-ec" if check else "-c", script, "sh", str(self.service), str(self.log)]

    def shadow(self, update_id: str = "u1", **changes: Any) -> create.Created:
        """Shadow all of it."""
        return create.create(self.target(update_id), self.resources(**changes))

    def update(self) -> None:
        """What an update does that goes wrong."""
        (self.config / "main.conf").write_text("version = 2\n")
        (self.config / "new.conf").write_text("new\n")
        (self.config / "sites" / "3.conf").unlink()
        with sqlite3.connect(self.database) as connection:
            connection.execute("alter table orders add column price integer")
            connection.execute("delete from orders where id > 100")
        connection.close()
        self.service.write_text("failed\n")

    def update_again(self) -> None:
        """What it does when the database went back already, and may have the new column."""
        (self.config / "main.conf").write_text("version = 3\n")
        self.service.write_text("failed\n")

    def restore(self, update_id: str = "u1", **request: Any) -> restore.Restored:
        """Bring it back."""
        return restore.restore(self.target(update_id), restore.Request(**request))

    def state(self) -> dict[str, Any]:
        """Everything that a rollback has to bring back, comparable."""
        with sqlite3.connect(self.database) as connection:
            rows = list(connection.iterdump())
        connection.close()
        return {"tree": tree(self.config), "rows": rows, "service": self.service.read_text()}


def tree(root: Path) -> dict[str, Any]:
    """Path, type, mode, time and content of everything below `root`."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in [".", *names, *files]:
            path = Path(directory) / name
            info = path.lstat()
            content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
            found[str(path)] = (stat.S_IFMT(info.st_mode), info.st_mode, info.st_mtime_ns, content)
    return found


def touched(root: Path) -> dict[str, Any]:
    """Everything that tells whether something below `root` was touched: inode, type, mode, owner, size and times."""
    found = {}
    for path in root.rglob("*"):
        info = path.lstat()
        found[str(path)] = (info.st_ino, info.st_mode, info.st_uid, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    return found


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A shop in a directory of its own."""
    return Shop(tmp_path)
