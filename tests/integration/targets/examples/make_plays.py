# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a playbook of the EXAMPLES of all modules: what each needs to be there first is below, by module."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SHADOW = """
- umbra.rollback.shadow_create:
    update_id: shop-2.4.0
    resources:
      - {name: shop-config, type: file, path: /etc/shop}
      - {name: shop-db, type: sqlite, path: /srv/shop/shop.db}
"""
BREAK = """
- ansible.builtin.copy: {content: "version = 2\\n", dest: /etc/shop/shop.conf, mode: "0600"}
"""
BACK = """
- umbra.rollback.shadow_restore: {update_id: shop-2.4.0}
"""
NEEDS = {
    "shadow_create": "",
    "rollback_analyze": SHADOW,
    "prestage": SHADOW,
    "rollback_watchdog": SHADOW,
    "shadow_restore": SHADOW + BREAK,
    "shadow_commit": SHADOW,
    "shadow_info": SHADOW,
    "shadow_prune": SHADOW + BREAK + BACK,
    "rollback_report": SHADOW,
}
PLAY = """
- name: {module}
  hosts: localhost
  connection: local
  gather_facts: false
  module_defaults:
    group/umbra.rollback.store:
      store: {work}/{module}/store
  vars:
    ansible_python_interpreter: "{{{{ ansible_playbook_python }}}}"
  tasks:
{tasks}
"""


def documented() -> dict[str, Any]:
    """Every module of the collection with its documentation."""
    listed = subprocess.run(
        ["ansible-doc", "-t", "module", "-l", "-j", "umbra.rollback"], check=True, stdout=subprocess.PIPE, text=True
    )
    names = sorted(json.loads(listed.stdout))
    told = subprocess.run(["ansible-doc", "-t", "module", "-j", *names], check=True, stdout=subprocess.PIPE, text=True)
    return {name.rsplit(".", 1)[1]: doc for name, doc in json.loads(told.stdout).items()}


def prepare(root: Path) -> None:
    """What the examples speak of: a configuration, drop-ins, and a database."""
    import sqlite3

    for directory in ("etc/shop", "etc/shop.d", "srv/shop", "tmp"):
        (root / directory).mkdir(parents=True)
    (root / "etc/shop/shop.conf").write_text("version = 1\n")
    (root / "etc/shop.d/a.conf").write_text("a\n")
    with sqlite3.connect(root / "srv/shop/shop.db") as database:
        database.execute("create table orders (id integer)")
    database.close()


def main() -> None:
    """Write plays.yml, and below a directory for each module what it speaks of."""
    work = Path(sys.argv[1])
    docs = documented()
    missing = set(docs) ^ set(NEEDS)
    assert not missing, f"add to NEEDS, or take away: {missing}"
    (work / "vars").mkdir()
    plays = []
    for module, doc in docs.items():
        root = work / module
        prepare(root)
        text = (NEEDS[module] + doc["examples"]).replace("/etc/", f"{root}/etc/").replace("/srv/", f"{root}/srv/")
        text = text.replace("/tmp/shop", f"{root}/tmp/shop")
        tasks = "\n".join(f"    {line}" for line in text.splitlines())
        plays.append(PLAY.format(module=module, work=work, tasks=tasks))
    resources = f"- {{name: shop-config, type: file, path: {work}/shadow_create/etc/shop}}\n"
    (work / "vars" / "shop-resources.yml").write_text(resources)
    (work / "plays.yml").write_text("---\n" + "\n".join(plays))


if __name__ == "__main__":
    main()
