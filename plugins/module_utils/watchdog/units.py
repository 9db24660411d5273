# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The switch under systemd: a service that watches, and a timer that starts it again should anything stop it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from ..context import Context, Done
from ..errors import CommandFailed
from ..store import files
from ..systemd.manager import BOOTED

DIRECTORY = "/etc/systemd/system"
WANTS = f"{DIRECTORY}/sysinit.target.wants"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ASK = 60.0  # seconds for systemctl
MODE = 0o644

# It is started however far a boot comes, once what can be mounted is mounted; going to another target does not stop it.
_UNIT = """\
# Written by umbra.rollback; gone when the update is committed or rolled back.
[Unit]
Description=umbra.rollback: goes back to the state before update {update_id}, unless that is committed
DefaultDependencies=no
After=local-fs.target remote-fs.target
Conflicts=shutdown.target
Before=shutdown.target
IgnoreOnIsolate=yes
StartLimitIntervalSec=0

[Service]
Type=simple
ExecStart={command}
Restart=on-failure
RestartSec=5
KillMode=process
OOMScoreAdjust=-900
UMask=0077
WorkingDirectory=/
Environment=PATH={path}

[Install]
WantedBy=sysinit.target
"""
_TIMER = """\
# Written by umbra.rollback; gone when the update is committed or rolled back.
[Unit]
Description=umbra.rollback: looks that the switch of update {update_id} is watched
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
IgnoreOnIsolate=yes

[Timer]
OnActiveSec=10
OnUnitInactiveSec=10
AccuracySec=1
Unit={service}

[Install]
WantedBy=sysinit.target
"""


def here() -> bool:
    """Whether units can be used: systemd runs as process 1, and this is root."""
    return os.path.isdir(BOOTED) and os.geteuid() == 0


def name(update_id: str, host: str, store: str) -> str:
    """The units' name without a suffix."""
    digest = hashlib.sha256(os.fsencode(f"{store}\0{host}")).hexdigest()[:8]
    return f"umbra-watchdog-{update_id}-{digest}"


def texts(unit: str, update_id: str, argv: Sequence[str]) -> dict[str, str]:
    """The files of both units by name."""
    command = " ".join(_quoted(word) for word in argv)
    service = f"{unit}.service"
    return {
        service: _UNIT.format(update_id=update_id, command=command, path=PATH),
        f"{unit}.timer": _TIMER.format(update_id=update_id, service=service),
    }


def installed(unit: str, update_id: str, argv: Sequence[str]) -> bool:
    """Whether both are written and enabled, and would be written the same now. Raises OSError."""
    for file, text in texts(unit, update_id, argv).items():
        try:
            written = files.read(os.path.join(DIRECTORY, file))
        except FileNotFoundError:
            return False
        if written != text.encode() or not os.path.islink(os.path.join(WANTS, file)):
            return False
    return True


def install(context: Context, unit: str, update_id: str, argv: Sequence[str]) -> None:
    """Write and enable both, and start them. Raises CommandFailed, OSError."""
    for file, text in texts(unit, update_id, argv).items():
        path, link = os.path.join(DIRECTORY, file), os.path.join(WANTS, file)
        files.publish(path, text.encode())
        os.chmod(path, MODE)
        if not os.path.isdir(WANTS):
            os.makedirs(WANTS, 0o755)
        if not os.path.islink(link):
            os.symlink(path, link)
    files.sync_directory(WANTS)
    _check(context, "daemon-reload")
    _check(context, "start", f"{unit}.service", f"{unit}.timer")


def stop(context: Context, unit: str) -> None:
    """Stop both, as far as they run. Called by the service itself, it would end the caller."""
    _run(context, "stop", f"{unit}.timer", f"{unit}.service")


def remove(context: Context, unit: str) -> None:
    """Take both away, for this boot and for the next; whoever runs, runs to its end. Raises OSError."""
    gone = False
    for file in (f"{unit}.timer", f"{unit}.service"):
        for path in (os.path.join(WANTS, file), os.path.join(DIRECTORY, file)):
            gone = files.unlink(path) or gone
    if gone:
        files.sync_directory(DIRECTORY)
        _run(context, "stop", "--no-block", f"{unit}.timer")
        _run(context, "daemon-reload")


def _run(context: Context, *words: str) -> Done:
    argv = ["systemctl", "--no-pager", "--no-ask-password", *words]
    return context.run(argv, ASK, {"SYSTEMD_COLORS": "0", "PATH": PATH})


def _check(context: Context, *words: str) -> None:
    done = _run(context, *words)
    if done.status != 0:
        command = f"systemctl {' '.join(words)}"
        raise CommandFailed(name="the switch", command=command, status=done.status, output=done.last_words)


def _quoted(word: str) -> str:
    """One word of a command line, as systemd.service(5) reads it back."""
    for char, written in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(char, written)
    return f'"{word}"'
