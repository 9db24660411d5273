# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three roles that know nothing of the guard, shaped as well-known public ones are, each wrapped in three ways.

`roles/os_update` upgrades packages and reboots, `roles/db_upgrade` brings a database to its next major version,
`roles/app_release` deploys a release and switches a link. Each has a host on which it goes well, and one on which it
fails at its end, when all is changed and what was there before is pruned.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from lab import OLD, RESOURCES, UPDATE_ID, Host, Lab, expect, guard, try_all

HERE = Path(__file__).resolve().parent
COMMON = ("-e", f"umbra_update_id={UPDATE_ID}", "-e", "umbra_store={{ root }}/store")
WHAT = ("-e", json.dumps({"umbra_resources": RESOURCES}))
# What the team that deploys gives to the role: its own tasks, in the midst of it.
MIGRATE = """
- name: Migrate
  ansible.builtin.command:
    argv: ["{{ ansible_playbook_python }}", "{{ support }}/upgrade.py", "{{ root }}"]
  changed_when: true
"""
WHY = (
    "task See that no package is broken failed: ",
    "task Give up failed: the database could not be upgraded: ",
    "task Smoke test failed: ",
)


def make(root: Path) -> Lab:
    """Two hosts for each role, and what the roles are to find there."""
    lab = Lab(root, [f"{role}-{end}" for role in ROLES for end in ("good", "bad")])
    lab.write("migrate.yml", MIGRATE)
    for name, host in lab.hosts.items():
        role, dummy, end = name.partition("-")
        given: dict[str, Any] = {"role": ROLES[role], "app_release_before_symlink": str(lab.plays / "migrate.yml")}
        if end == "bad":
            (host.root / "broken").touch()
            given["app_release_page"] = "index.htm"
        lab.write(f"host_vars/{name}.yml", given)
        furnish(host)
    os.environ["ANSIBLE_ROLES_PATH"] = str(HERE / "roles")
    return lab


def furnish(host: Host) -> None:
    """A package manager, a database, and two releases of an application."""
    tools = host.etc / "bin"
    tools.mkdir()
    text = f"#!{sys.executable} -IB\n{(HERE / 'machine.py').read_text()}"
    for name in ("pkg", "dbctl"):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    subprocess.run([tools / "pkg"], check=True)
    app = host.etc / "app"
    (app / "shared/uploads").mkdir(parents=True)
    (app / "shared/uploads/photo").write_bytes(b"\0" * 5000)
    for release in ("20260101", "20260201"):
        (app / "releases" / release).mkdir(parents=True)
        (app / "releases" / release / "index.html").write_text(release)
    (app / "current").symlink_to("releases/20260201")
    host.settle()


def os_is_updated(host: Host) -> bool:
    """New packages, restarted, rebooted."""
    run = {path.name for path in (host.etc / "run").iterdir()}
    versions = json.loads((host.etc / "lib/status.json").read_text())
    return run == {"lock", "restarted", "booted"} and versions == {"libc": 2, "app": 2}


def db_is_updated(host: Host) -> bool:
    """Version 2 with all rows, and nothing of version 1."""
    with closing(sqlite3.connect(host.etc / "db/data/orders.db")) as orders:
        rows = orders.execute("select what, price from orders order by id").fetchall()
    return sorted(os.listdir(host.etc / "db")) == ["data", "data-2"] and rows == [("tea", None), ("bread", None)]


def app_is_updated(host: Host) -> bool:
    """The new release is current, has what is shared, and the oldest one is gone."""
    app = host.etc / "app"
    return (
        (app / "current/index.html").read_text() == "release 2"
        and (app / "current/uploads/photo").stat().st_size == 5000
        and sorted(os.listdir(app / "releases")) == ["20260201", "20261123"]
        and (app / "web.log").read_text() == "reloaded\n"
        and (host.etc / "shop.conf").read_text() == "version = 2\n"
    )


ROLES = {"os": "os_update", "db": "db_upgrade", "app": "app_release"}
UPDATED: dict[str, Callable[[Host], bool]] = {"os": os_is_updated, "db": db_is_updated, "app": app_is_updated}


def judge(lab: Lab) -> None:
    """Where a role went well, all of it is there and committed; where it failed, all is as before."""
    for name, host in lab.hosts.items():
        role, dummy, end = name.partition("-")
        if end == "bad":
            assert (host.is_now(), host.state()) == (OLD, "rolled_back"), (name, host.is_now(), host.state())
        else:
            assert UPDATED[role](host) and host.state() == "committed", (name, host.state())


def by_the_guard(root: Path) -> None:
    """guard_update_role."""
    lab = make(root)
    settings = {
        "guard_update_tasks": None,
        "guard_update_role": "{{ role }}",
        "guard_validate_tasks": None,
        "guard_scope": "host",
    }
    lab.write("play.yml", [{"hosts": "all", "gather_facts": False, "tasks": [guard(settings)]}])
    expect(lab.play("play.yml"), 2, *WHY, *(f"{role}-bad is back in the state before it" for role in ROLES))
    judge(lab)


def by_guarded_update(root: Path) -> None:
    """umbra_update_role, in batches."""
    lab = make(root)
    arguments = ("-e", "umbra_update_role={{ role }}", "-e", "umbra_scope=host", "-e", "umbra_serial=3")
    run = lab.play("umbra.rollback.guarded_update", *COMMON, *WHAT, *arguments, "-e", "umbra_deadline=0")
    expect(run, 2, *(f"{role}-bad is back in the state before it" for role in ROLES))
    judge(lab)


def by_begin_and_commit(root: Path) -> None:
    """A playbook of several plays, untouched between begin and commit; what failed goes back with rollback."""
    lab = make(root)
    plays: list[dict[str, Any]] = [
        {
            "name": f"Update with {role}",
            "hosts": f"{name}-*",
            "gather_facts": False,
            "pre_tasks": [{"name": "Say what comes", "ansible.builtin.debug": {"msg": f"{role} begins"}}],
            "roles": [role],
        }
        for name, role in ROLES.items()
    ]
    lab.write("upgrade.yml", plays)
    names = ("umbra.rollback.begin", "upgrade.yml", "umbra.rollback.commit")
    lab.write("site.yml", [{"name": name, "ansible.builtin.import_playbook": name} for name in names])
    expect(lab.play("site.yml", *COMMON, *WHAT), 2)
    assert {host.state() for name, host in lab.hosts.items() if name.endswith("bad")} == {"open"}, lab.states()
    back = lab.play("umbra.rollback.rollback", *COMMON)
    expect(back, 0, "os-good is left as it is, since its update is committed")
    judge(lab)


if __name__ == "__main__":
    try_all([by_the_guard, by_guarded_update, by_begin_and_commit])
