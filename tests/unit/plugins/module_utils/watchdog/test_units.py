# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The switch as a service and a timer: what is written, and what a real systemd makes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import errors, processes
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import arm, commit
from ansible_collections.umbra.rollback.plugins.module_utils.watchdog import daemon, units
from ansible_collections.umbra.rollback.plugins.module_utils.watchdog.armed import Check
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.verbs.conftest import Shop

FAR = 1e6
IN_TIME = 90.0  # seconds


def until(condition: Callable[[], object]) -> None:
    """Wait for it."""
    end = time.monotonic() + IN_TIME
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_same_update_in_two_stores_and_of_two_hosts_has_units_of_its_own() -> None:
    places = [("web1", "/a"), ("web2", "/a"), ("web1", "/b")]
    assert len({units.name("u1", host, store) for host, store in places}) == len(places)


def test_words_of_the_command_reach_it_as_they_are() -> None:
    text = units.texts("unit", "u1", ["/bin/sh", '/a b/50%/$HOME/"x"/\\'])["unit.service"]
    assert 'ExecStart="/bin/sh" "/a b/50%%/$$HOME/\\"x\\"/\\\\"\n' in text


@pytest.mark.machine
@pytest.mark.root
def test_systemd_finds_nothing_wrong_with_them(tmp_path: Path) -> None:
    for name, text in units.texts("umbra-watchdog-u1-0", "u1", ["/bin/sh", "/var/lib/umbra/umbra", "watch"]).items():
        (tmp_path / name).write_text(text)
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    done = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.machine
@pytest.mark.root
def test_it_watches_as_a_service_that_nothing_ends_but_a_commit(shop: Shop) -> None:
    shop.shadow()
    done = arm.arm(shop.target(), arm.Settings(FAR))
    told = done.to_dict()
    assert (told["mode"], told["survives_reboot"]) == ("systemd", True)
    service, timer = f"{told['unit']}.service", f"{told['unit']}.timer"
    assert _is("is-active", service) and _is("is-active", timer)
    for file in (service, timer):
        assert os.readlink(f"{units.WANTS}/{file}") == f"{units.DIRECTORY}/{file}"
    first = done.pid
    assert first
    asked = subprocess.run(["systemctl", "show", "-P", "OOMScoreAdjust", service], stdout=subprocess.PIPE, check=True)
    assert asked.stdout == b"-900\n"
    os.kill(first, signal.SIGKILL)  # systemd starts it again
    directory = str(shop.store / "updates/u1/web1")
    until(lambda: daemon.watcher(directory) not in (None, 0, first))
    subprocess.run(["systemctl", "isolate", "rescue.target"], check=True)
    assert _is("is-active", service) and _is("is-active", timer)
    subprocess.run(["systemctl", "isolate", "multi-user.target"], check=True)
    subprocess.run(["systemctl", "stop", service], check=True)  # and when somebody stops it, the timer does
    until(lambda: daemon.watcher(directory))
    commit.commit(shop.target(), None, None)
    assert not _is("is-active", service) and not _is("is-active", timer)
    _gone(told["unit"])


@pytest.mark.machine
@pytest.mark.root
def test_a_unit_that_fails_brings_the_host_back_and_the_units_go(shop: Shop) -> None:
    shop.shadow()
    before = shop.state()
    check = Check("shop", "unit", ("never-heard-of.service",), interval=0.2, n=2, m=2)
    told = arm.arm(shop.target(), arm.Settings(FAR, (check,))).to_dict()
    assert "shop fails already now: is inactive (dead)" in told["warnings"]
    shop.update()
    until(lambda: shop.state() == before)
    until(lambda: not os.path.exists(f"{units.DIRECTORY}/{told['unit']}.service"))
    until(lambda: not _is("is-active", f"{told['unit']}.service"))
    _gone(told["unit"])
    log = subprocess.run(
        ["journalctl", "-o", "cat", "-t", "umbra-watchdog"], stdout=subprocess.PIPE, text=True, check=True
    )
    assert "fired: shop failed 2 of the last 2 times: is inactive (dead); update u1 goes back" in log.stdout
    with pytest.raises(errors.WatchdogFired):
        commit.commit(shop.target(), None, None)


def _is(what: str, unit: str) -> bool:
    return subprocess.run(["systemctl", "--quiet", what, unit], check=False).returncode == 0


def _gone(unit: str) -> None:
    assert not [path for path in Path(units.DIRECTORY).rglob("*") if path.name.startswith(unit)]
    assert not [one for one in processes.all_now().values() if "watch" in one.argv[2:4]]
