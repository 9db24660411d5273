# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Twenty hosts, one fails at random, scope play: all are back, and the run says who failed and why."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible_collections.umbra.rollback.tests.guests.plays import Controller
from ansible_collections.umbra.rollback.tests.integration.support.lab import expect
from ansible_collections.umbra.rollback.tests.testbed.hosts import Hosts

# Run on each host: version 1 of a shop, version 2, and a picture of what is there.
SHOP = """
import hashlib, json, os, sqlite3, sys
CONFIG, DATABASE = "/etc/shop/shop.conf", "/var/lib/shop/shop.db"
def install():
    os.makedirs("/etc/shop/conf.d")
    os.makedirs("/var/lib/shop")
    open(CONFIG, "w").write("version = 1\\n")
    os.chmod(CONFIG, 0o640)
    open("/etc/shop/conf.d/a.conf", "w").write("a = 1\\n")
    with sqlite3.connect(DATABASE) as connection:
        connection.execute("create table orders (id integer primary key, what text)")
        connection.execute("insert into orders (what) values ('tea')")
def upgrade():
    open(CONFIG, "w").write("version = 2\\n")
    os.remove("/etc/shop/conf.d/a.conf")
    with sqlite3.connect(DATABASE) as connection:
        connection.execute("create table prices (id integer)")
        connection.execute("delete from orders")
def picture():
    seen = []
    for directory, names, files in os.walk("/etc/shop"):
        for path in [directory, *(os.path.join(directory, name) for name in files)]:
            status = os.stat(path)
            text = open(path).read() if os.path.isfile(path) else ""
            seen.append([path, status.st_mode, status.st_mtime_ns, text])
    with sqlite3.connect(DATABASE) as connection:
        print(json.dumps([sorted(seen), list(connection.iterdump())]))
globals()[sys.argv[1]]()
"""
RESOURCES = [
    {"name": "config", "type": "file", "path": "/etc/shop", "depends_on": ["db"]},
    {"name": "db", "type": "sqlite", "path": "/var/lib/shop/shop.db"},
]


def script(verb: str) -> dict[str, Any]:
    """A task that runs one of SHOP's functions."""
    return {
        "name": verb.capitalize(),
        "ansible.builtin.command": {"argv": ["python3", "-c", SHOP, verb]},
        "changed_when": True,
    }


def pictures(hosts: Hosts) -> dict[str, str]:
    """What is there, of each host."""
    with ThreadPoolExecutor(4) as pool:
        argv = ["python3", "-c", SHOP, "picture"]
        return dict(zip(hosts.names, pool.map(lambda name: hosts.ssh(name, argv), hosts.names)))


def test_one_of_twenty_fails_and_all_go_back(twenty: Hosts, tmp_path: Path, chance: random.Random) -> None:
    """In two batches: when it is one of the second, the first goes back as well."""
    controller = Controller.of_hosts(tmp_path, twenty)
    expect(controller.play([script("install")]), 0)
    before = pictures(twenty)
    victim = chance.choice(twenty.names)
    fail = {"msg": "the disk of this host is full"}
    task = {"name": "Migrate", "ansible.builtin.fail": fail, "when": f"inventory_hostname == '{victim}'"}
    controller.write("upgrade.yml", [script("upgrade"), task])
    guard = {
        "guard_update_id": "shop-2",
        "guard_resources": RESOURCES,
        "guard_update_tasks": "upgrade.yml",
        "guard_scope": "play",
    }
    role = {"name": "umbra.rollback.guard"}
    run = controller.play([{"name": "Update", "ansible.builtin.include_role": role, "vars": guard}], serial=10)
    expect(run, 2, f"Update shop-2 failed: {victim}: task Migrate failed: the disk of this host is full")
    after = pictures(twenty)
    assert [name for name in twenty.names if after[name] != before[name]] == []
    assert all("version = 1" in picture for picture in after.values())
    updated = twenty.names[: 10 if victim in twenty.names[:10] else 20]
    missing = [name for name in updated if f"{name} is back in the state before it" not in run.text]
    assert missing == [], run.output
