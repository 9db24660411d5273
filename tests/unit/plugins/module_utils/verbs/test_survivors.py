# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What still runs of an update is ended before its way back; nothing else is. With processes that are real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import errors, processes
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import survivors
from ansible_collections.umbra.rollback.plugins.module_utils.verbs.run import working
from ansible_collections.umbra.rollback.plugins.module_utils.watchdog import clock
from ansible_collections.umbra.rollback.plugins.module_utils.watchdog.armed import Armed

from .conftest import Shop

pytestmark = pytest.mark.pure
IN_TIME = 60.0
# As a module of Ansible it starts a command and waits for that; the command would write when its time has come.
MODULE = """
import subprocess, sys
command = 'while [ ! -e "$1/go" ]; do sleep 0.05; done; echo late > "$1/written"'
subprocess.run(["/bin/sh", "-c", command, "sh", sys.argv[1]])
"""
HERE = os.getpid()  # these tests run beside themselves, with other Pythons
CLIENT = f"198.18.{HERE >> 8 & 255}.{HERE & 255}"
STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + MODULE


def lasting(those: list[processes.Process]) -> list[processes.Process]:
    """Without those that last for a moment: the command looks, and sleeps, over and over, and is itself before that."""
    argvs = {one.pid: one.argv for one in those}
    return [one for one in those if one.argv[:1] != ("sleep",) and one.argv != argvs.get(one.parent)]


class World:
    """A directory for what a test starts, as orphans: nothing that this process descends from or has started."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tmp = root / ".ansible/tmp/ansible-tmp-1795422911.9095993-16195-162280877044918"
        self.tmp.mkdir(parents=True)
        self._started: list[tuple[int, int]] = []

    def module(self, text: str = MODULE, name: str = "AnsiballZ_command.py", **environment: str) -> int:
        """Start a module as Ansible does without pipelining; its pid."""
        path = self.tmp / name
        path.write_text(text)
        return self.start([sys.executable, str(path), str(self.root)], subprocess.DEVNULL, **environment)

    def start(self, argv: list[str], stdin: int = subprocess.DEVNULL, **environment: str) -> int:
        """Start something whose parent is gone; its pid."""
        script = 'exec 3<&0; "$@" <&3 3<&- >/dev/null 2>&1 & echo $!'
        connection = f"{CLIENT} 50022 192.0.2.1 22"
        env = {"PATH": os.environ["PATH"], "SSH_CONNECTION": connection, **environment}
        done = subprocess.run(
            ["/bin/sh", "-c", script, "sh", *argv], env=env, stdin=stdin, stdout=subprocess.PIPE, check=True, text=True
        )
        pid = int(done.stdout)
        process = processes.look(pid)
        assert process
        self._started.append((pid, process.start))
        return pid

    def settle(self, pid: int) -> list[processes.Process]:
        """The module and its command, once that runs."""
        end = time.monotonic() + IN_TIME
        while True:
            among = processes.all_now()
            tree = lasting(processes.with_descendants([among[pid]], among))
            if any("sh" in one.argv for one in tree):
                return tree
            assert time.monotonic() < end
            time.sleep(0.02)

    def close(self) -> None:
        """End what is left."""
        (self.root / "go").touch()
        for pid, start in self._started:
            if processes.is_alive(pid, start):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Ended with the test."""
    found = World(tmp_path / "world")
    yield found
    found.close()


def armed(**facts: Any) -> Armed:
    """A switch that was armed just now by what has the origin of the orphans below."""
    now = clock.now()
    common = {"stamp": "1", "seconds": 60.0, "ends": now + 60.0, "mode": "daemon", "origin": ("ssh", CLIENT)}
    return Armed("u1", "web1", **{"boot": clock.boot_id(), "begun": now - 0.02, **common, **facts})


def pids(found: list[survivors.Found]) -> set[int]:
    """Of those that last."""
    return {one.pid for one in lasting([one.process for one in found])}


def alive(those: list[processes.Process]) -> list[int]:
    """The pids of those that still live."""
    return [one.pid for one in those if processes.is_alive(one.pid, one.start)]


def test_a_module_and_its_command_are_ended_and_named(world: World) -> None:
    switch = armed()
    tree = world.settle(world.module())
    found = survivors.end("u1", "web1", switch)
    assert pids(found) == {one.pid for one in tree} and not alive(tree)
    (module,) = [one.to_dict() for one in found if one.process.pid == tree[0].pid]
    assert module["command"].endswith("AnsiballZ_command.py") and "after the switch was armed" in module["why"]
    (world.root / "go").touch()
    time.sleep(0.3)
    assert not (world.root / "written").exists()


def test_one_that_ignores_a_polite_end_is_killed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survivors, "TERM_SECONDS", 0.3)
    switch = armed()
    tree = world.settle(world.module(STUBBORN))
    assert survivors.end("u1", "web1", switch) and not alive(tree)


def test_the_mark_of_the_guard_counts_without_a_switch_and_only_for_its_own_host(world: World) -> None:
    tree = world.settle(world.module(**{survivors.MARK: f"u1/web1@{HERE}"}))
    for update_id, host, store in (("u1", "web2", str(HERE)), ("u2", "web1", str(HERE)), ("u1", "web1", "")):
        assert not survivors.find(update_id, host, armed(begun=0.0), store)
    found = survivors.find("u1", "web1", None, str(HERE))
    assert pids(found) == {one.pid for one in tree}
    assert survivors.MARK in found[0].why


NOT_OURS: list[tuple[str, Callable[[], Armed | None]]] = [
    ("no switch is armed", lambda: None),
    ("it came before the switch", lambda: armed(begun=clock.now() + 3600.0)),
    ("another boot", lambda: armed(boot="an earlier one")),
    ("armed over SSH from elsewhere", lambda: armed(origin=("ssh", "192.0.2.9"))),
    ("armed from nobody knows where", lambda: armed(origin=("other", ""))),
    ("armed by a controller on this machine", lambda: armed(origin=("local", "0" * 64))),
]


@pytest.mark.parametrize(("why", "switch"), NOT_OURS, ids=[case[0] for case in NOT_OURS])
def test_what_does_not_belong_to_the_update_is_left_alone(
    world: World, why: str, switch: Callable[[], Armed | None]
) -> None:
    tree = world.settle(world.module())
    assert not survivors.end("u1", "web1", switch())
    assert len(alive(tree)) == len(tree)


def test_two_that_come_from_nobody_knows_where_have_nothing_in_common(world: World) -> None:
    """As modules do that `docker exec` or chroot starts, whose playbook may be another."""
    tree = world.settle(world.module(SSH_CONNECTION=""))
    assert not survivors.end("u1", "web1", armed(origin=("other", "")))
    assert len(alive(tree)) == len(tree)


def test_a_module_that_comes_over_ssh_counts_by_its_client(world: World) -> None:
    switch = armed()
    tree = world.settle(world.module())
    world.settle(world.module(name="AnsiballZ_other.py", SSH_CONNECTION="192.0.2.8 50022 192.0.2.1 22"))
    assert pids(survivors.find("u1", "web1", switch)) == {one.pid for one in tree}


def test_a_module_that_python_reads_from_a_pipe_counts_too(world: World) -> None:
    switch = armed(begun=clock.now() - 0.02)
    end, other = os.pipe()
    pid = world.start([sys.executable], stdin=end)
    assert [one.process.pid for one in survivors.find("u1", "web1", switch)] == [pid]
    with open(world.root / "file", "w+", encoding="ascii") as file:
        world.start([sys.executable], stdin=file.fileno())  # a program from a file is nobody's module
    assert [one.process.pid for one in survivors.find("u1", "web1", switch)] == [pid]
    os.close(end)
    os.close(other)


OTHERS = ["AnsiballZ_command.py", "ansible-tmp-1795422911.9-16195-162"]


@pytest.mark.parametrize("name", OTHERS)
def test_who_only_names_a_module_is_none(world: World, name: str) -> None:
    """An editor that has it open, an ssh that starts it on another host."""
    path = world.root / name
    path.write_text("sleep 60\n")
    code = "import os, sys; os.execv('/bin/sh', ['vi', sys.argv[1]])"
    editor = world.start([sys.executable, "-c", code, str(path)])
    end = time.monotonic() + IN_TIME
    while (process := processes.look(editor)) is None or process.argv != ("vi", str(path)):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert not survivors.find("u1", "web1", armed(begun=0.0))


OURS = [
    f"open('/proc/self/comm', 'w').write({processes.COMM!r})\n" + MODULE,
    MODULE.replace("command = '", f"command = 'printf {processes.COMM} > /proc/$$/comm; "),
]


@pytest.mark.parametrize("text", OURS, ids=["the module is ours", "what it started is ours"])
def test_who_waits_for_us_or_for_our_lock_is_spared(world: World, text: str) -> None:
    """A module of this collection, which may hang on the lock that the switch holds, and what started it."""
    pid = world.module(text, name="AnsiballZ_shadow_restore.py")
    end = time.monotonic() + IN_TIME
    tree = world.settle(pid)
    while all(one.comm != processes.COMM for one in tree):
        assert time.monotonic() < end
        tree = world.settle(pid)
    assert not survivors.end("u1", "web1", armed(begun=0.0)) and len(alive(tree)) == len(tree)


def test_one_that_can_t_be_ended_is_named_and_nothing_is_changed(
    shop: Shop, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it were in state D: no signal reaches it."""
    shop.shadow()
    shop.update()
    before = shop.state()
    for name in ("TERM_SECONDS", "KILL_SECONDS"):
        monkeypatch.setattr(survivors, name, 0.1)
    monkeypatch.setattr(survivors, "_send", lambda process, number: None)
    pid = world.module(**{survivors.MARK: f"u1/web1@{shop.store}"})
    world.settle(pid)
    with pytest.raises(errors.Survivor, match=rf"AnsiballZ_command.py \(pid {pid}: it carries the mark"):
        shop.restore()
    assert shop.state() == before
    with working(shop.target(), "look") as work:
        assert work.update.state == "open"


def test_a_restore_ends_them_first_and_says_so(shop: Shop, world: World) -> None:
    shop.shadow()
    before = shop.state()
    shop.update()
    late = f"import time\nwhile True:\n    open({str(shop.config / 'late')!r}, 'w').write('late'); time.sleep(0.01)\n"
    pid = world.module(late, **{survivors.MARK: f"u1/web1@{shop.store}"})
    restored = shop.restore().to_dict()
    assert [one["pid"] for one in restored["ended"]] == [pid] and shop.state() == before
    journal = (shop.store / "updates/u1/web1/journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in journal][:2] == ["survivors-ended", "restore-begin"]
    time.sleep(0.1)
    assert shop.state() == before
