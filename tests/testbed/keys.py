# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How one gets into guests and hosts: a key for each run, and the settings of its connections."""

from __future__ import annotations

import subprocess
from pathlib import Path

SETTINGS = """  User root
  IdentityFile {key}
  IdentitiesOnly yes
  BatchMode yes
  ConnectTimeout 30
  ServerAliveInterval 5
  ServerAliveCountMax {patience}
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
  ControlMaster auto
  ControlPath {directory}/master-%n
  ControlPersist 60
"""


class Keys:
    """An SSH key, made in a directory."""

    def __init__(self, directory: Path) -> None:
        self.private = directory / "key"
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "umbra-testbed", "-f", str(self.private)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)

    @property
    def public(self) -> Path:
        """The file that a guest reads; all of them are of one size, which a saved state has to rely on."""
        return self.private.with_suffix(".pub")

    def settings(self, directory: Path, patience: int = 60) -> str:
        """What an ssh_config says below `Host`; the sockets of connections are in a directory. One that is silent for
        `patience` times 5 seconds is given up: a guest on a busy machine may be."""
        return SETTINGS.format(key=self.private, directory=directory, patience=patience)


def inventory(ssh_config: Path) -> dict[str, object]:
    """Variables for ansible-playbook of whoever is reached with an ssh_config."""
    return {
        "ansible_ssh_args": f"-F {ssh_config}",
        "ansible_pipelining": True,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
