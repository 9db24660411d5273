# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nobody is there any more: the controller is killed, the network or the power goes. Each host goes back by itself."""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.tests.guests.plays import Controller
from ansible_collections.umbra.rollback.tests.guests.shops import (
    CHECKS,
    RELEASE,
    RESOURCES,
    SETTLES,
    UPDATE_ID,
    Picture,
    Shop,
    contents,
    guarded,
    part,
    task,
)
from ansible_collections.umbra.rollback.tests.integration.support.lab import expect
from ansible_collections.umbra.rollback.tests.testbed import image

Make = Callable[..., list[Shop]]
Say = Callable[[str], None]
LONG = 3600  # seconds: a deadline that plays no part
REACHABLE = 60.0  # seconds after the deadline
MIDDLE = task("Say that the update is in its midst", "sh", "-c", "echo SHOP middle > /dev/ttyS0")
HANG = task("Hang", "sleep", "3600")
CONFIG = RESOURCES[1]
# The host is not well as soon as a test says so.
HEALTH = [{"command": ["/usr/bin/test", "!", "-e", "/run/unwell"], "interval": 1, "n": 1, "m": 1}]


def back_by_itself(shop: Shop, before: Picture) -> None:
    """Raise AssertionError when it is not wholly as before, by its own switch."""
    shop.settle()
    assert shop.picture() == before, f"{shop.name}: {shop.log()}"
    assert (shop.state(), shop.status()["event"]) == ("rolled_back", "rolled_back"), shop.log()


def controller_of(tmp_path: Path, shops: list[Shop], *update: object) -> Controller:
    """A controller of these, with the tasks of an update and its checks."""
    controller = Controller.of_guests(tmp_path, *(shop.guest for shop in shops))
    controller.write("upgrade.yml", update)
    controller.write("checks.yml", CHECKS)
    return controller


def enough(shop: Shop) -> tuple[Picture, int]:
    """A picture of the shop, and a deadline that is long enough for a short update, at the pace of this machine."""
    begun = time.monotonic()
    before = shop.picture()
    return before, 60 + round(6 * (time.monotonic() - begun))


# --- the controller is killed at a random moment


def test_controller_is_killed_at_any_moment(
    shops: Make, tmp_path: Path, chance: random.Random, say: Say, few: bool, pytestconfig: pytest.Config
) -> None:
    """Each of three guests (of one in CI) ends committed, with the whole new version, or wholly as before, with no
    help."""
    made = shops(*["shop1", "shop2", "shop3"][: 1 if few else 3])
    before = made[0].picture()
    controller = controller_of(tmp_path, made, *RELEASE)
    begun = time.monotonic()
    expect(controller.play(guarded(guard_validate_tasks="checks.yml", guard_deadline=LONG)), 0)
    length = time.monotonic() - begun
    after = contents(made[0].picture())
    updated = made[0].moment("commit") - made[0].moment("watchdog-armed", 0)
    deadline = round(1.5 * updated) + 10
    say(f"undisturbed: {length:.0f} s, {updated:.0f} s of them with the switch armed; deadline {deadline} s")
    assert [ended(shop, before, after) for shop in made] == ["committed"] * len(made)
    for number in range(pytestconfig.getoption("--runs")):
        moment, alone = chance.uniform(0, length), chance.random() < 0.5
        for shop in made:
            shop.guest.power_cut()
            shop.guest.resume()
        playing = controller.start_play(guarded(guard_validate_tasks="checks.yml", guard_deadline=deadline))
        pause(playing, moment)
        controller.kill(playing)
        if not alone:
            controller.end()
        at = in_flight(controller)
        for shop in made:
            shop.settle(deadline + SETTLES)
        controller.end()
        found = [ended(shop, before, after) for shop in made]
        what = "ansible-playbook" if alone else "the controller"
        say(f"run {number + 1}: {what} killed after {moment:.1f} s, at {at!r}: {', '.join(found)}")
        assert not {how for how in found if how.startswith("between")}, [shop.log() for shop in made]


def pause(playing: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait, or until it ends before."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        playing.wait(seconds)


def in_flight(controller: Controller) -> str:
    """The last task that it says it began."""
    text = (controller.directory / "output").read_text()
    names = re.findall(r"^(?:TASK|RUNNING HANDLER) \[(.*)\]", text, re.MULTILINE)
    return names[-1] if names else "the beginning"


def ended(shop: Shop, before: Picture, after: Picture) -> str:
    """How the update of a guest ended, of which its files and its own word have to agree; 'between ...' if not."""
    seen, state = shop.picture(), shop.state()
    if contents(seen) == after and state == "committed":
        return "committed"
    if seen == before and state in ("rolled_back", "open", "none"):
        return "rolled_back" if state == "rolled_back" else "not begun"
    return f"between: {state}, {seen}"


# --- the network is cut

NETWORK = [
    CONFIG,
    {"name": "network", "type": "file", "path": "/etc/systemd/network"},
    {"name": "networkd", "type": "systemd_unit", "unit": "systemd-networkd.service", "depends_on": ["network"]},
]
CUT = """
echo SHOP middle > /dev/ttyS0
case $(hostname) in
address) sed -i s/10.0.2.15/10.9.9.9/ /etc/systemd/network/eth0.network; networkctl reload;;
admin) printf '[Link]\\nActivationPolicy=always-down\\n' >> /etc/systemd/network/eth0.network; networkctl reload
  ip link set eth0 down;;
esac
exec sleep 3600
"""
SHOUT = [{"command": ["/bin/sh", "-c", "echo SHOP is back > /dev/ttyS0"], "events": ["rolled_back"]}]


@pytest.mark.whole
def test_network_is_cut(shops: Make, tmp_path: Path, say: Say) -> None:
    """By the update (a wrong address, a link that is down), or by somebody who pulls the cable."""
    address, admin, cable = made = shops("address", "admin", "cable")
    before, deadline = enough(cable)
    controller = controller_of(tmp_path, made, part("settings"), task("Cut", "sh", "-c", CUT))
    playing = controller.start_play(guarded(NETWORK, guard_deadline=deadline, guard_hooks=SHOUT))
    for shop in made:
        shop.await_console("SHOP middle")
    cable.guest.link_down()
    waited = {shop.name: shop.guest.waited() for shop in made}
    time.sleep(5)
    for shop in made:
        assert not shop.guest.answers()
        shop.guest.forget_connection()  # else it would take a minute
    expect(controller.finish(playing), 4, *(f"[{shop.name}]: UNREACHABLE!" for shop in made))
    for shop in (address, admin):
        shop.guest.wait_ssh()
        now, armed = float(shop.shell("date +%s.%N")), shop.moment("watchdog-armed")
        idle = shop.guest.waited() - waited[shop.name]
        fired, reached = shop.moment("watchdog-fired") - armed - deadline, now - armed - deadline
        say(
            f"{shop.name}: fired {fired:.1f} s after its deadline, reached after {reached:.1f} s, {idle:.1f} s unserved"
        )
        assert reached < REACHABLE + idle
    cable.await_console("SHOP is back")
    cable.guest.link_up()
    cable.guest.wait_ssh()
    for shop in made:
        back_by_itself(shop, before)
        assert shop.shell("cat /etc/systemd/network/eth0.network") == image.NETWORK
    again = controller.run("umbra.rollback.rollback", "--extra-vars", f"umbra_update_id={UPDATE_ID}")
    expect(again, 0, *(f"{shop.name} is left as it is, since its update is rolled_back" for shop in made))


# --- the host boots

SERVICE = {"name": "service", "type": "systemd_unit", "unit": "shop.service", "depends_on": ["config"]}
BREAK = """
printf '[Service]\\nExecStart=\\nExecStart=/nonexistent\\n' > /etc/systemd/system/shop.service.d/broken.conf
systemctl reboot
exec sleep 3600
"""


def test_update_reboots_into_a_service_that_cannot_start(shops: Make, tmp_path: Path, say: Say, few: bool) -> None:
    """It goes back as soon as it has booted, or (not in CI) when the rest of its deadline has passed; the service runs
    again."""
    made = shops(*["soon", "later"][: 1 if few else 2])
    before, deadline = enough(made[0])
    boots = {shop.name: shop.guest.boot_id() for shop in made}
    controller = controller_of(tmp_path, made, part("settings"), task("Break", "sh", "-c", BREAK))
    on_reboot = "{{ 'rollback' if inventory_hostname == 'soon' else 'wait' }}"
    settings = {"guard_scope": "host", "guard_deadline": deadline, "guard_on_reboot": on_reboot}
    run = controller.play(guarded([CONFIG, SERVICE], **settings))
    expect(run, 4, *(f"[{shop.name}]: UNREACHABLE!" for shop in made))
    for shop in made:
        shop.guest.wait_boot(boots[shop.name])
        back_by_itself(shop, before)
        assert shop.do("check") == "1 tea\n"
        say(f"{shop.name}: {shop.status()['why']}")
        if shop.name == "soon":
            assert shop.status()["why"] == "the host was rebooted during the update"
        else:
            assert shop.status()["why"] == f"the update was not committed within {deadline} s"
            assert "Failed" in shop.shell("journalctl --quiet --boot --unit shop.service")


# A way back in whose midst one can pull the plug: what it brings back takes ten seconds.
SLOW = {
    "name": "slow",
    "type": "command",
    "create": ["sh", "-c", "touch $UMBRA_SHADOW/copy"],
    "restore": ["sh", "-c", "echo SHOP restores > /dev/ttyS0; sleep 10"],
    "drift": ["false"],
}
PACKAGE = {**RESOURCES[0], "depends_on": ["slow"]}


@pytest.mark.whole
def test_power_goes_in_the_midst(shops: Make, tmp_path: Path, chance: random.Random, say: Say) -> None:
    """Of the update, or of the way back; or the kernel panics: after the boot, all is as before the update."""
    cut, again, panics = made = shops("cut", "again", "panics")
    before, boots = cut.picture(), {shop.name: shop.guest.boot_id() for shop in made}
    controller = controller_of(tmp_path, made, MIDDLE, *RELEASE, HANG)
    settings = {"guard_deadline": LONG, "guard_on_reboot": "rollback", "guard_health": HEALTH}
    tasks = guarded([SLOW, PACKAGE, *RESOURCES[1:]], **settings)
    playing = controller.start_play(tasks)
    for shop in made:
        shop.await_console("SHOP middle")
    pause(playing, chance.uniform(0, 20))
    say(f"power cut and kernel panic at task {in_flight(controller)!r}")
    controller.kill(playing)
    controller.end()
    cut.guest.power_cut()
    panics.guest.panic()
    cut.guest.power_on()
    again.shell("touch /run/unwell")
    again.await_console("SHOP restores")
    moment = chance.uniform(0, 12)
    time.sleep(moment)
    again.guest.power_cut()
    at = time.time()
    again.guest.power_on()
    say(f"power cut in the midst of the way back, {moment:.1f} s after it began")
    for shop in made:
        shop.guest.wait_boot(boots[shop.name])
        back_by_itself(shop, before)
    assert again.moment("restore-end") > at
