# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts and stops the demo's shop, and tells how it is. It returns when that is so, not some seconds later.

Usage: shopctl.py HOME start | stop | restart | status
       shopctl.py HOME keep | drift | restore      (a state that is kept in the directory UMBRA_SHADOW)
"""

from __future__ import annotations

import configparser
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

DEADLINE = 20.0  # seconds, for starting and for stopping
# Loopback has to be asked directly, whatever proxy is set.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Trouble(Exception):
    """What a person is told, in one sentence."""


def running(home: Path) -> int | None:
    """The process that serves this home, or None. It holds a lock on the file, so a stale number misleads nobody."""
    try:
        pid_file = os.open(home / "run" / "shop.pid", os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(pid_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.pread(pid_file, 32, 0) or 0)
    else:
        return None
    finally:
        os.close(pid_file)


def start(home: Path) -> None:
    """Start the shop and wait until it listens; nothing to do when it runs. Raises Trouble with its last words."""
    if running(home) is not None:
        return
    log = home / "run" / "shop.log"
    read, write = os.pipe()
    with log.open("ab") as output, open(read, "rb") as ready:
        try:
            process = subprocess.Popen(
                # -B: no __pycache__ appears in a tree that is to be compared byte by byte.
                [sys.executable, "-B", str(home / "app" / "shop.py"), "serve", str(home), str(write)],
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(write,),
                start_new_session=True,
            )
        finally:
            os.close(write)
        answered = select.select([ready], [], [], DEADLINE)[0]
        if answered and ready.read() == b"ready":
            return
    process.kill()
    process.wait()
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"]
    raise Trouble(f"the shop in {home} does not start: {lines[-1]} (see {log})")


def stop(home: Path) -> bool:
    """Stop the shop, and wait until it has ended; whether it ran. Raises Trouble when it does not end."""
    pid = running(home)
    if not pid:
        return False
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + DEADLINE
    while running(home) is not None:
        if time.monotonic() > end:
            raise Trouble(f"the shop in {home} (process {pid}) does not end within {DEADLINE:.0f} s")
        time.sleep(0.02)
    return True


def state(home: Path) -> dict[str, Any]:
    """Whether the shop runs, and then which release answers and whether it is well. Raises Trouble."""
    if running(home) is None:
        return {"runs": False}
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(home / "etc" / "shop.ini")
    try:
        with DIRECT.open(f"http://127.0.0.1:{settings['shop']['port']}/healthz", timeout=DEADLINE) as answer:
            health = json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            health = json.load(error)
    except (OSError, KeyError) as error:
        raise Trouble(f"the shop in {home} runs and does not answer: {error}") from error
    return {"runs": True, "version": health["version"], "well": health["ok"]}


def keep(home: Path, shadow: Path) -> None:
    """Write the state down."""
    (shadow / "state.json").write_text(json.dumps(state(home)), encoding="utf-8")


def drift(home: Path, shadow: Path) -> bool:
    """Print what differs from the state that was kept; whether anything does."""
    before, now = json.loads((shadow / "state.json").read_text(encoding="utf-8")), state(home)
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            print(f"{key}: {before.get(key)} when it was kept, {now.get(key)} now")
    return bool(before != now)


def restore(home: Path, shadow: Path) -> None:
    """Run when it ran, and not otherwise; what it runs is whatever is in its home by now."""
    stop(home)
    if json.loads((shadow / "state.json").read_text(encoding="utf-8"))["runs"]:
        start(home)


def main(arguments: list[str]) -> int:
    """See the usage in this file's first lines. `status` ends with 3 when the shop does not run, `drift` with 1."""
    verbs = ("start", "stop", "restart", "status", "keep", "drift", "restore")
    if len(arguments) != 2 or arguments[1] not in verbs:
        sys.exit(__doc__)
    home, verb = Path(arguments[0]), arguments[1]
    shadow = Path(os.environ.get("UMBRA_SHADOW", ""))
    try:
        if verb in ("stop", "restart"):
            stop(home)
        if verb in ("start", "restart"):
            start(home)
        if verb == "keep":
            keep(home, shadow)
        if verb == "drift":
            return 1 if drift(home, shadow) else 0
        if verb == "restore":
            restore(home, shadow)
    except Trouble as trouble:
        print(trouble, file=sys.stderr)
        return 2
    pid = running(home)
    print(f"running, process {pid}" if pid else "stopped")
    return 3 if verb == "status" and not pid else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
