# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bed does what tests rely on: each ability of guests and hosts, shown once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.tests.guests.plays import Controller
from ansible_collections.umbra.rollback.tests.integration.support.lab import expect
from ansible_collections.umbra.rollback.tests.testbed.guests import Bed, Guest
from ansible_collections.umbra.rollback.tests.testbed.hosts import Hosts

PING = [{"name": "Ping", "ansible.builtin.ping": {}}]
Make = Callable[[str], Guest]


def test_a_resumed_guest_is_a_whole_debian_of_its_own(resumed: Make) -> None:
    """With systemd, the time of day, a name and a disk that no other guest sees."""
    one, two = resumed("one"), resumed("two")
    assert one.ssh(["systemctl", "is-system-running"]) == "running\n"
    assert abs(float(one.ssh(["date", "+%s.%N"])) - time.time()) < 60
    assert [guest.ssh(["hostname"]) for guest in (one, two)] == ["one\n", "two\n"]
    assert one.ssh(["stat", "--file-system", "--format=%T", "/sys/fs/cgroup"]) == "cgroup2fs\n"
    one.put("/root/mine", "one")
    assert two.ssh(["sh", "-c", "ls /root"]) == ""


@pytest.mark.whole
def test_a_pulled_cable_is_a_host_that_ansible_cannot_reach(resumed: Make, tmp_path: Path) -> None:
    """And an inserted one brings it back, in the same boot."""
    guest = resumed("one")
    controller = Controller.of_guests(tmp_path, guest)
    expect(controller.play(PING), 0)
    boot = guest.boot_id()
    guest.link_down()
    guest.forget_connection()
    expect(controller.play(PING), 4, "UNREACHABLE!")
    guest.link_up()
    guest.wait_ssh()
    expect(controller.play(PING), 0)
    assert guest.boot_id() == boot


@pytest.mark.whole
def test_power_cut_panic_and_reboot(resumed: Make) -> None:
    """After each it boots with what was synced, and the journal of the boot before."""
    guest = resumed("one")
    boots = [guest.boot_id()]
    guest.put("/root/synced", "kept\n")
    guest.ssh(["sync"])
    guest.power_cut()
    guest.boot_again()
    boots.append(guest.boot_id())
    with guest.comes_back():
        guest.panic()
    boots.append(guest.boot_id())
    guest.reboot()
    boots.append(guest.boot_id())
    assert len(set(boots)) == 4
    assert guest.ssh(["cat", "/root/synced", "/etc/hostname"]) == "kept\none\n"
    assert "Kernel panic - not syncing: sysrq triggered crash" in guest.console.read_text(errors="replace")
    listed = guest.ssh(["journalctl", "--list-boots", "--quiet", "--no-pager"])
    assert boots[2].replace("-", "") in listed


def test_nothing_is_left_of_a_guest(bed: Bed) -> None:
    """Neither its process nor a connection."""
    with bed.guest("gone") as guest:
        guest.resume()
        pid = guest.pid
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()
    assert sorted(path.name for path in guest.directory.iterdir() if path.is_socket()) in ([], ["monitor"])


def test_twenty_hosts_answer_and_one_that_is_cut_off_does_not(twenty: Hosts, tmp_path: Path) -> None:
    """Each has its own name, and the others don't care."""
    controller = Controller.of_hosts(tmp_path, twenty)
    run = controller.play(
        [
            {"name": "Ask", "ansible.builtin.command": "hostname", "changed_when": False, "register": "named"},
            {"name": "Compare", "ansible.builtin.assert": {"that": "named.stdout == inventory_hostname"}},
        ]
    )
    expect(run, 0)
    assert run.output.count("unreachable=0    failed=0") == 20
    twenty.cut("h07")
    run = controller.play(PING)
    expect(run, 4, "[h07]: UNREACHABLE!")
    assert run.output.count("unreachable=0    failed=0") == 19
    twenty.mend("h07")
    expect(controller.play(PING, "h07"), 0)


def test_nothing_is_left_of_hosts() -> None:
    """Neither a process in their namespaces nor a directory."""
    with Hosts(2) as hosts:
        expected = {"h01": "h01\n", "h02": "h02\n"}
        assert {name: hosts.ssh(name, ["hostname"]) for name in hosts.names} == expected
        network = hosts.network()
        assert network in _networks()
    until = time.monotonic() + 20.0
    while network in _networks() and time.monotonic() < until:  # who ends closes its files first
        time.sleep(0.05)
    assert network not in _networks()
    assert not hosts.directory.exists()


def _networks() -> set[str]:
    """The network namespaces that any process is in."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found.add(str(path.readlink()))
        except OSError:  # it ended meanwhile
            continue
    return found
