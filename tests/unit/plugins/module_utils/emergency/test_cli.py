# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emergency tool as a person runs it: each command, each exit status, and a host on which little works any more."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.emergency import cli, show
from ansible_collections.umbra.rollback.plugins.module_utils.plan import Plan, Step
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import arm, create, switch_record
from ansible_collections.umbra.rollback.plugins.module_utils.verbs.run import working
from ansible_collections.umbra.rollback.plugins.module_utils.watchdog import clock, units
from ansible_collections.umbra.rollback.plugins.module_utils.watchdog.armed import Armed
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.store.helpers import flip
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.verbs.conftest import Shop, touched

from .conftest import Tool, let_go, wait_for


def call(shop: Shop, *arguments: str, status: int = 0) -> str:
    """All that the command line prints in this process, and in this store."""
    out = io.StringIO()
    assert cli.run([*arguments, "--store", str(shop.store)], {}, out, out, None) == status, out.getvalue()
    return out.getvalue()


def document(shop: Shop, *arguments: str, status: int = 0) -> dict[str, Any]:
    """The document that it prints; `exit` in it is the exit status."""
    found: dict[str, Any] = json.loads(call(shop, *arguments, "--json", status=status))
    assert (found["command"], found["exit"]) == (arguments[0], status)
    return found


def shadow_elsewhere(shop: Shop, patch: pytest.MonkeyPatch, update_id: str = "u1", host: str = "web1") -> None:
    """As another machine does."""
    names = list(os.uname())
    names[1] = "elsewhere"
    with patch.context() as patched:
        patched.setattr(os, "uname", lambda: os.uname_result(names))
        create.create(shop.target(update_id, host), shop.resources())


# --- one night


def test_the_way_back_and_forth_on_a_host_where_nothing_is_set(shop: Shop) -> None:
    before = shop.state()
    shop.shadow()
    shop.update()
    failed = shop.state()
    tool = Tool(shop, None)
    assert f"Next: {tool.path} restore u1\n" in tool.say()
    said = tool.say("restore", "u1")
    assert "restoring config, wave 1 of 2\n" in said and "service: back, verified\n" in said
    assert "Update u1 is rolled back: all resources of this host are as before it, verified." in said
    assert f"If that was wrong: {tool.path} undo u1" in said
    assert shop.state() == before
    assert "The failed state of update u1 is back." in tool.say("undo", "u1", env={"PATH": ""})
    assert {**shop.state(), "service": ""} == {**failed, "service": ""}
    assert "Update u1 is committed." in tool.say("commit", "u1")
    assert "Update u1 is committed: the update was declared good." in tool.say("status", "u1")


@pytest.mark.pure
def test_status_tells_of_the_dead_man_switch(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Armed, with nobody who watches, and fired; and nothing of it where there is none."""
    monkeypatch.setattr(units, "here", lambda: False)
    shop.shadow()
    assert "switch" not in call(shop, "status", "u1")
    arm.arm(shop.target(), arm.Settings(7200.0))
    said = call(shop, "status", "u1")
    assert "  switch     armed (daemon): goes back by itself in 2 h\n" in said
    told = document(shop, "status", "u1")["update"]["watchdog"]
    assert told["state"] == "armed" and told["mode"] == "daemon" and 7000 < told["deadline"] <= 7200
    os.kill(told["pid"], signal.SIGKILL)
    wait_for(lambda: "NOBODY WATCHES" in call(shop, "status", "u1"))
    arm.extend(shop.target(), 0.1)
    wait_for(lambda: "switch     fired at 2" in call(shop, "status", "u1"))
    wait_for(lambda: document(shop, "status", "u1")["update"]["watchdog"]["state"] == "fired")
    assert ", because the update was not committed within 0.1 s\n" in call(shop, "status", "u1")
    assert "not committed" in document(shop, "status", "u1")["update"]["watchdog"]["why"]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"state": "damaged", "problem": "watchdog.json is cut off"}, "watchdog.json is cut off"),
        (
            {"state": "armed", "fired": "03:00", "why": "shop failed", "deadline": 0.0, "pid": 7, "mode": "daemon"},
            "fired at 03:00, because shop failed; it tries to go back until it can",
        ),
    ],
)
def test_a_switch_that_is_not_as_it_should_be(told: dict[str, Any], said: str) -> None:
    assert show.switch(told) == [said]


def test_a_store_with_a_key_wants_it(shop: Shop) -> None:
    right, wrong = shop.root / "right", shop.root / "wrong"
    right.write_text("a key of the night\n")
    wrong.write_text("a key of the morning")
    create.create(shop.target(store_key="a key of the night"), shop.resources())
    before = shop.state()
    shop.update()
    failed = shop.state()
    said = call(shop, "restore", "u1", status=2)
    assert "was written with a `store_key`" in said and "--store-key-file FILE" in said
    assert "not written with this `store_key`" in call(shop, "restore", "u1", "--store-key-file", str(wrong), status=2)
    assert "can't be read: No such file" in call(shop, "plan", "u1", "--store-key-file", "/nowhere", status=2)
    assert shop.state() == failed
    said = call(shop, "restore", "u1", "--store-key-file", str(right))
    assert f"--store-key-file {right} undo u1" in said
    assert shop.state() == before


def test_looking_touches_nothing(tool: Tool) -> None:
    shop = tool.shop
    before = touched(shop.root)
    for command in ("status", "list", "plan", "diff", "verify"):
        call(shop, command, *(["u1"] if command != "list" else []))
    call(shop, "verify")
    assert touched(shop.root) == before


def test_the_plan_is_that_of_the_analysis(tool: Tool) -> None:
    steps = (
        Step("database", 1, tier="high", score=71.0, eta=(4.0, 9.0), p_fail=0.1),
        Step("config", 2, ("database",), eta=(1.0, 2.0)),
        Step("service", 3, ("config",), ("db1:orders",), eta=(0.5, 1.0)),
    )
    store = Store.open(str(tool.shop.store), "web1")
    store.update("u1").save_plan(Plan("u1", "web1", steps, 3, (61.0, 130.0), "analysis"))
    said = call(tool.shop, "plan", "u1")
    assert "The way back of update u1: 3 resources here in 3 waves, as planned by the analysis before it." in said
    assert "Predicted time: 1 min 1 s, 9 of 10 times below 2 min 10 s." in said
    assert "71 (high)" in said and "On other hosts, and to be brought back there first: db1:orders." in said
    found = document(tool.shop, "plan", "u1")
    assert [step["name"] for step in found["steps"]] == ["database", "config", "service"]
    assert (found["source"], found["rto"], found["steps"][0]["eta"]) == ("analysis", [61.0, 130.0], [4.0, 9.0])
    assert "1 min 1 s, 9 of 10 times below 2 min 10 s" in call(tool.shop, "list")


def test_diff_shows_what_a_restore_changes(tool: Tool) -> None:
    said = call(tool.shop, "diff", "u1")
    assert "config (file, wave 1): 5 changes" in said and "\n-version = 2\n+version = 1\n" in said
    only = call(tool.shop, "diff", "u1", "database")
    assert "rows of table orders (100 rows -> 200 rows)" in only and "config (" not in only


def test_diff_is_bounded_unless_all_is_asked_for(shop: Shop) -> None:
    for number in range(60):
        (shop.config / f"{number}.conf").write_text("a line of some length\n" * 30)
    shop.shadow()
    for number in range(60):
        (shop.config / f"{number}.conf").write_text("another line of some length\n" * 30)
    some, everything = call(shop, "diff", "u1", "config"), call(shop, "diff", "u1", "config", "--all")
    assert "... and " in some and some.count("+++") < 60
    assert "... and " not in everything and everything.count("+++") == 60


def test_some_resources_or_one_wave(tool: Tool) -> None:
    shop = tool.shop
    said = call(shop, "restore", "u1", "--resource", "database")
    assert "What was asked for is done" in said and "\nFor the rest: umbra --store" in said
    assert "version = 2" in (shop.config / "main.conf").read_text()
    assert document(shop, "status")["update"]["state"] == "open"
    call(shop, "restore", "u1", "--wave", "0")
    assert document(shop, "status")["update"]["state"] == "restoring"
    found = document(shop, "restore", "u1")
    assert found["state"] == "rolled_back" and found["undo"].endswith(" undo u1")
    call(shop, "undo", "u1")
    said = call(shop, "restore", "u1", "--resource", "database")
    assert "What was asked for is done" in said and "update u1 is undone." in said


def test_what_fails_is_named_and_what_to_type_then(shop: Shop) -> None:
    script = f'[ -e {shop.root}/mended ] || exit 7; cp "$UMBRA_SHADOW/state" {shop.service}'
    shop.shadow(service={"restore": ["/bin/sh", "-ec", script]})
    shop.update()
    said = call(shop, "restore", "u1", "--max-attempts", "1", status=1)
    assert "2 of 3 resources are as before. Failed after 1 attempt: service: could not be restored: " in said
    assert "Then: umbra --store" in said
    assert document(shop, "restore", "u1", "--max-attempts", "1", status=1)["state"] == "failed"
    (shop.root / "mended").touch()
    assert document(shop, "restore", "u1")["state"] == "rolled_back"


# --- for programs

ALWAYS = {"command", "exit"}
KEYS = [
    (("status",), {"host", "store", "busy", "update", "updates"}),
    (("list",), {"host", "store", "busy", "updates"}),
    (("plan", "u1"), {"host", "store", "busy", "update_id", "source", "waves", "rto", "steps"}),
    (("diff", "u1"), {"update_id", "host", "store", "state", "resources", "diff", "notes"}),
    (("verify",), {"host", "store", "busy", "manifests", "contents", "bytes", "problems"}),
    (
        ("restore", "u1"),
        {"changed", "update_id", "host", "store", "state", "waves", "resources", "seconds", "displaced", "undo"}
        | {"stopped", "notes", "round", "repaired", "ended"},
    ),
    (("commit", "u1"), {"update_id", "host", "store", "changed", "dropped", "state", "warnings"}),
]


def test_every_command_has_a_document_with_the_keys_of_the_page(shop: Shop) -> None:
    page = (Path(__file__).parents[5] / "docs/emergency.md").read_text(encoding="utf-8")
    shop.shadow()
    for arguments, keys in KEYS:
        assert set(document(shop, *arguments, status=2 if arguments[0] == "commit" else 0)) >= ALWAYS
        if arguments[0] == "restore":
            call(shop, "undo", "u1", status=2)  # nothing differed, so that nothing was set aside
        if arguments[0] == "commit":
            shop.shadow("u2")
            arguments = ("commit", "u2")
        assert set(document(shop, *arguments)) == keys | ALWAYS
        assert not {key for key in keys if f"`{key}`" not in page}


# --- what is refused

REFUSED = [
    (("restore", "nope"), "Update nope was never shadowed on web1", "umbra --store {store} list  shows"),
    (("restore", "../u1"), "update_id '../u1' is not a valid name", ""),
    (("restore",), "restore: the update is missing: This host has: u1. Type: umbra --store {store} restore u1", ""),
    (
        ("restore", "u1", "--resource", "nope"),
        "Resource 'nope' is not among the shadows of update u1",
        "plan u1  lists",
    ),
    (("undo", "u1"), "No restore has set anything aside, so there is nothing to bring back.", "status u1  says"),
    (("status", "--host", "web2"), "--host web2: has no shadows. The store {store} has shadows of: web1.", ""),
    (("plan", "u1", "--kernel", "native"), "The native kernel was asked for", ""),
]


@pytest.mark.parametrize(("arguments", "message", "hint"), REFUSED)
def test_what_makes_no_sense_is_refused_with_what_to_type(
    shop: Shop, arguments: tuple[str, ...], message: str, hint: str
) -> None:
    shop.shadow()
    before = touched(shop.config)
    said = call(shop, *arguments, status=2)
    assert message.format(store=shop.store) in said and hint.format(store=shop.store) in said
    error = document(shop, *arguments, status=2)["error"]
    assert message.format(store=shop.store) in error["message"] and error["code"]
    assert touched(shop.config) == before


def test_a_committed_update_is_restored_only_by_force(tool: Tool) -> None:
    call(tool.shop, "commit", "u1")
    said = call(tool.shop, "restore", "u1", status=2)
    assert "is committed, so it can't be rolled back" in said and " restore u1 --force\n" in said
    assert document(tool.shop, "restore", "u1", "--force")["state"] == "rolled_back"


def test_a_link_to_it_finds_the_store(tool: Tool, tmp_path: Path) -> None:
    link = tmp_path / "umbra"
    link.symlink_to(tool.path)
    done = subprocess.run([link, "list"], check=True, env={}, cwd="/", capture_output=True, text=True, timeout=120)
    assert "u1" in done.stdout


def test_wrong_usage_ends_with_two(tool: Tool) -> None:
    assert "usage: umbra" in tool.say("restore", "--no-such", status=2)
    assert "examples:" in tool.say("-h")


def test_a_store_of_several_hosts_asks_which(shop: Shop) -> None:
    shop.shadow()
    create.create(shop.target("u1", "web2"), shop.resources())
    assert "--host: is missing. The store" in call(shop, status=2)
    assert "has shadows of: web1, web2. Name one; this one calls itself" in call(shop, status=2)
    assert "Host web2," in call(shop, "--host", "web2")
    here = os.uname().nodename
    create.create(shop.target("u3", f"{here.partition('.')[0]}.example.org"), shop.resources())
    assert "Update u3 is open" in call(shop)  # the same host, as the inventory calls it


def test_whose_shadows_they_are_is_said_where_another_host_made_them(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a store that hosts share. What only looks says it; what changes something is refused: here nobody is asked."""
    shadow_elsewhere(shop, monkeypatch)
    shop.update()
    here, before = os.uname().nodename, shop.state()
    told = f"This host calls itself {here}; these are the shadows of web1.\n"
    for command in (["status"], ["list"], ["plan", "u1"], ["diff", "u1"]):
        assert call(shop, *command).startswith(told)
        assert told not in call(shop, *command, "--host", "web1")
    for command in (["restore", "u1"], ["restore", "u1", "--yes"], ["commit", "u1"]):
        said = call(shop, *command, status=2)
        assert f"--host: is missing. This host calls itself {here}; these are the shadows of web1, made where" in said
        assert "called itself elsewhere. Where they are of this very host, type --host web1 to say so." in said
    assert shop.state() == before
    assert "rolled back" in call(shop, "restore", "u1", "--host", "web1")
    create.create(shop.target("u2", f"{here}.example.org"), shop.resources())
    assert "calls itself" not in call(shop, "list")


def test_whose_shadows_they_are_is_known_by_where_they_were_made(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """However an inventory calls the hosts."""
    shop.shadow()
    shadow_elsewhere(shop, monkeypatch, "u2", "web2")
    assert call(shop).startswith("Host web1, store")
    assert "rolled back" in call(shop, "restore", "u1")


def test_a_damaged_switch_is_in_the_status(shop: Shop) -> None:
    shop.shadow()
    now = clock.now()
    one = Armed("u1", "web1", "one", 3600.0, clock.boot_id(), now + 3600.0, now, "daemon")
    with working(shop.target(), "arm") as work:
        switch_record.save(work.update, one)
    assert "  switch     armed (daemon): goes back by itself in " in call(shop)
    flip(shop.store / "updates/u1/web1/watchdog.json", 100)
    said = call(shop)
    assert "watchdog.json is damaged: " in said and "goes by its copy" in said and "by itself in " in said
    with working(shop.target(), "watchdog") as work:
        work.update.journal.append(switch_record.FIRED, why="the shop was not well")
        work.update.journal.append(switch_record.ENDED)
    assert " UTC, because the shop was not well\n" in call(shop)


def break_format(shop: Shop) -> None:
    (shop.store / "FORMAT").write_text("umbra-store 99\n")


def break_manifest(shop: Shop) -> None:
    (shop.store / "updates/u1/web1/manifest.json").write_text("{")


def break_content(shop: Shop) -> None:
    for path in (shop.store / "packs").glob("*.pack"):
        flip(path)


def break_everything(shop: Shop) -> None:
    shutil.rmtree(shop.store)
    shop.store.mkdir()


@pytest.mark.parametrize(
    ("damage", "message", "looks", "verifies"),
    [
        (break_format, "says format 'umbra-store 99', and this release knows 'umbra-store 1'", 2, 2),
        (break_manifest, "it is not JSON", 0, 1),
        (break_content, "is damaged: ", 0, 1),
        (break_everything, "There is no store at ", 2, 2),
    ],
)
def test_a_broken_store_is_a_sentence_and_nothing_is_changed(
    tool: Tool, damage: Callable[[Shop], None], message: str, looks: int, verifies: int
) -> None:
    damage(tool.shop)
    before = touched(tool.shop.config)
    assert message in call(tool.shop, "restore", "u1", status=2)
    assert touched(tool.shop.config) == before
    for command, status in (("status", looks), ("list", looks), ("verify", verifies)):
        assert "umbra.rollback has a defect" not in call(tool.shop, command, status=status)


def test_verify_names_what_is_damaged(tool: Tool) -> None:
    assert document(tool.shop, "verify", "u1")["problems"] == []
    break_content(tool.shop)
    said = call(tool.shop, "verify", "u1", status=1)
    assert "It is needed by " in said and "of update u1 on web1" in said
    assert document(tool.shop, "verify", status=1)["problems"]


# --- a host on which little works


def test_output_that_nobody_takes_ends_nothing(tool: Tool) -> None:
    """A closed stdout, a full one, a reader that is gone: the way back is finished all the same."""
    shop = tool.shop
    failed: dict[str, Any] = {}
    for prepare in ('exec "$0" "$@" >&- 2>&- <&-', 'exec "$0" "$@" >/dev/full 2>&1'):
        done = subprocess.run(["/bin/sh", "-c", prepare, tool.path, "restore", "u1"], check=False, timeout=120)
        assert done.returncode == 0
        assert document(shop, "status")["update"]["state"] == "rolled_back"
        failed = document(shop, "undo", "u1")
    assert failed["state"] == "undone"
    process = tool.start("restore", "u1")
    assert process.stdout
    process.stdout.close()
    assert process.wait(120) == 0
    assert document(shop, "status")["update"]["state"] == "rolled_back"


READ_ONLY_TMP = """
mount --bind "$ROOT" /mnt
mount -t tmpfs none /tmp
mkdir -p "$ROOT"
mount --bind /mnt "$ROOT"
mount -o remount,ro /tmp
mount -t tmpfs -o ro none /var/tmp
! touch /tmp/x 2>/dev/null
exec "$0" "$@"
"""


def test_tmp_may_be_read_only(tool: Tool) -> None:
    shop = tool.shop
    before = shop.root
    options: dict[str, Any] = {"prefix": ["unshare", "-m", "/bin/sh", "-ec", READ_ONLY_TMP], "cwd": "/proc"}
    options["env"] = {"ROOT": str(before), "PATH": os.environ["PATH"]}
    assert "Update u1 is rolled back" in tool.say("restore", "u1", **options)
    said = tool.say("diff", "u1", **options)
    assert "config (file, wave 1): nothing" in said
    assert "database can't be compared with its shadow, so it counts as changed" in said
    assert "No private directory can be made in any of the usual places" in said and "have TMPDIR name" in said
    options["env"]["TMPDIR"] = str(before)
    assert "config (file, wave 1): nothing" in tool.say("diff", "u1", **options)


NOBODY: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that anybody can enter, and that belongs to whoever isn't root."""
    root = Path(tempfile.mkdtemp(prefix="umbra-test-"))
    if NOBODY:
        os.chown(root, NOBODY["user"], NOBODY["group"])
    yield root
    shutil.rmtree(root)


# What shadow_create does, from the engine in the archive: this test's own Python and files may be closed to others.
SHADOW = """
import pathlib, sys
archive, root = sys.argv[1:]
sys.path.insert(0, archive)
from umbra_rollback.emergency import build
from umbra_rollback.verbs import create, run
config = pathlib.Path(root, "config")
config.mkdir()
config.joinpath("main.conf").write_text("version = 1\\n")
resources = [{"name": "config", "type": "file", "path": str(config)}]
build.leave(create.create(run.Target("u1", "web1", f"{root}/store"), resources).store)
config.joinpath("main.conf").write_text("version = 2\\n")
"""


def test_whoever_is_not_root_has_a_store_and_a_tool_of_his_own(tool: Tool, public: Path) -> None:
    archive = str(shutil.copy(tool.path, public / "umbra"))
    os.chmod(archive, 0o755)

    def run(*command: str) -> str:
        options: dict[str, Any] = {"env": {}, "cwd": "/", "capture_output": True, "text": True, **NOBODY}
        done = subprocess.run(command, check=False, timeout=120, **options)
        assert done.returncode == 0, done
        return str(done.stdout)

    run("/usr/bin/python3", "-c", SHADOW, archive, str(public))
    his = str(public / "store" / "umbra")
    assert "Update u1 is rolled back: all resources of this host" in run(his, "restore", "u1")
    assert "Update u1 is rolled_back" in run(his)
    assert (public / "config/main.conf").read_text() == "version = 1\n"


def test_a_store_of_somebody_else_is_a_sentence_with_sudo(tool: Tool, public: Path) -> None:
    copy = shutil.copy(tool.path, public / "umbra")
    os.chmod(copy, 0o755)
    store = public / "store"
    store.mkdir(mode=0)
    done = subprocess.run(
        [copy, "restore", "u1", "--store", store], check=False, capture_output=True, text=True, timeout=120, **NOBODY
    )
    assert done.returncode == 2
    assert (
        f"The store {store} can't be used: Permission denied" in done.stderr
        and "sudo reads what is root's" in done.stderr
    )


# --- two at once, and interrupts


def test_a_second_one_shows_how_far_the_first_is(slow_tool: Tool) -> None:
    shop = slow_tool.shop
    with slow_tool.working("restore", "u1") as first:
        wait_for(lambda: "restoring service" in document(shop, "status")["busy"]["doing"])
        said = slow_tool.say("restore", "u1", "--no-wait", status=3)
        assert f"restore of update u1 by pid {first.pid} on " in said and "Nothing was started." in said
        assert f"Running now: restore of update u1 by pid {first.pid} " in slow_tool.say()
        assert document(shop, "commit", "u1", "--no-wait", status=3)["busy"]["pid"] == first.pid
        second = slow_tool.start("restore", "u1")
        assert second.stdout
        lines = [second.stdout.readline() for dummy in range(3)]
        assert "at work on this host" in lines[0] and lines[2].startswith("restoring service, wave 2 of 2")
        let_go(shop)
        said = second.stdout.read()
        assert second.wait(120) == 0, said
        assert "config: back, verified\n" in "".join(lines) + said  # which had ended before the second one began
        assert "It has ended well: update u1 is rolled_back." in said
        assert first.wait(120) == 0
    events = Store.open(str(shop.store), "web1").update("u1").journal.events()
    assert [event["event"] for event in events].count("restore-begin") == 1


def test_a_second_one_says_when_the_first_was_killed(slow_tool: Tool) -> None:
    with slow_tool.working("restore", "u1") as first:
        second = slow_tool.start("restore", "u1")
        assert second.stdout
        assert "at work on this host" in second.stdout.readline()
        first.kill()
        said = second.stdout.read()
    assert second.wait(120) == 1
    assert "It has ended, and update u1 is restoring" in said and f"Next: {slow_tool.path} restore u1" in said
    let_go(slow_tool.shop)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_ends_at_once_with_what_it_started_and_goes_on_later(slow_tool: Tool, number: int) -> None:
    shop = slow_tool.shop
    with slow_tool.working("restore", "u1") as first:
        (child,) = children(first.pid)
        begun = time.monotonic()
        first.send_signal(number)
        out, err = first.communicate(timeout=60)
        seconds = time.monotonic() - begun
    assert first.returncode == 128 + number
    assert seconds < 20  # the rest of the restore would take until the file is there: for ever
    assert (
        f"Interrupted. What was done is in the journal, and nothing is lost. To go on: {slow_tool.path} restore u1\n"
        in err
    )
    wait_for(lambda: not Path(f"/proc/{child}").exists())
    assert document(shop, "status")["update"]["state"] in ("restoring", "failed")
    let_go(shop)
    found = document(shop, "restore", "u1")
    assert found["state"] == "rolled_back" and found["displaced"].endswith("displaced-1.json")


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] or [
        int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()
    ]


def test_interrupting_the_second_one_leaves_the_first_at_work(slow_tool: Tool) -> None:
    with slow_tool.working("restore", "u1") as first:
        second = slow_tool.start("restore", "u1")
        assert second.stdout
        assert "at work on this host" in second.stdout.readline()
        second.send_signal(signal.SIGINT)
        dummy, err = second.communicate(timeout=60)
        assert second.returncode == 130 and "The other process goes on. Nothing was started." in err
        assert first.poll() is None
        let_go(slow_tool.shop)
        assert first.wait(120) == 0


@pytest.mark.parametrize(
    ("number", "prefix"),
    [(signal.SIGHUP, ()), (signal.SIGINT, ("/bin/sh", "-c", 'trap "" INT; exec "$0" "$@"'))],
    ids=["the terminal hangs up", "whoever started it ignores it"],
)
def test_what_does_not_end_a_way_back(slow_tool: Tool, number: int, prefix: tuple[str, ...]) -> None:
    with slow_tool.working("restore", "u1", prefix=prefix) as first:
        first.send_signal(number)
        let_go(slow_tool.shop)
        assert first.wait(120) == 0


def test_nothing_is_opened_in_the_place_of_a_closed_output(slow_tool: Tool) -> None:
    prefix = ("/bin/sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-')
    with slow_tool.working("restore", "u1", prefix=prefix) as first:
        assert {os.readlink(f"/proc/{first.pid}/fd/{number}") for number in range(3)} == {os.devnull}
        let_go(slow_tool.shop)
        assert first.wait(120) == 0
