# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back on one host: order, what is kept, what fails, and what a killed restore leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import errors
from ansible_collections.umbra.rollback.plugins.module_utils.providers.file import FileProvider
from ansible_collections.umbra.rollback.plugins.module_utils.store.update import HostUpdate
from ansible_collections.umbra.rollback.plugins.module_utils.tree import apply as apply_module
from ansible_collections.umbra.rollback.plugins.module_utils.tree import scan as scan_module
from ansible_collections.umbra.rollback.plugins.module_utils.tree.compare import compare_open
from ansible_collections.umbra.rollback.plugins.module_utils.tree.rootfs import RootFs
from ansible_collections.umbra.rollback.plugins.module_utils.tree.scan import Look
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import (
    commit,
    create,
    diff,
    prestage,
    restore,
    rounds,
)
from ansible_collections.umbra.rollback.plugins.module_utils.verbs.outcome import Restored
from ansible_collections.umbra.rollback.plugins.module_utils.verbs.run import working

from .conftest import Shop, touched, tree


def actions(done: Restored) -> dict[str, str]:
    return {result.name: result.action for result in done.results}


def test_everything_comes_back_and_the_order_follows_the_dependencies(shop: Shop) -> None:
    before = shop.state()
    shop.shadow()
    shop.update()
    done = shop.restore()
    assert actions(done) == {"config": "restored", "database": "restored", "service": "restored"}
    assert [result.wave for result in done.results] == [1, 1, 2]
    assert done.state == "rolled_back" and not done.bad and done.stopped == ("service",)
    assert shop.state() == before
    # the failed state is kept while the service still runs; it is stopped before what it needs is restored
    log = shop.log.read_text().split()
    assert log[:3] == ["create", "create", "stop"] and log.index("restore") > 2


def test_nothing_changed_is_recorded_as_rolled_back_and_touches_nothing(shop: Shop) -> None:
    shop.shadow()
    inodes = touched(shop.config)
    done = shop.restore()
    assert set(actions(done).values()) == {"unchanged"} and not done.changed
    assert done.state == "rolled_back" and done.displaced is None
    assert touched(shop.config) == inodes
    assert shop.log.read_text().split() == ["create"], "a service that needs nothing that changed is not stopped"


def test_undo_brings_the_failed_state_back_and_a_second_rollback_still_works(shop: Shop) -> None:
    before = shop.state()
    shop.shadow()
    shop.update()
    failed = shop.state()
    assert shop.restore().displaced
    undone = shop.restore(undo=True)
    assert undone.state == "undone" and shop.state() == failed
    assert shop.restore().state == "rolled_back"
    assert shop.state() == before
    shop.restore(undo=True)
    assert shop.state() == failed


def test_a_damaged_shadow_is_found_before_anything_is_changed(shop: Shop) -> None:
    shop.shadow()
    shop.update()
    failed = shop.state()
    for path in (shop.store / "packs").glob("*.pack"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.chmod(0o600)
        path.write_bytes(content)
    with pytest.raises(errors.StoreError) as caught:
        shop.restore()
    assert "damaged" in str(caught.value) or "missing" in str(caught.value)
    assert shop.state() == failed
    assert shop.log.read_text().split() == ["create"], "nothing was stopped either"


def test_a_resource_that_fails_leaves_its_dependents_alone_and_the_rest_comes_back(shop: Shop) -> None:
    before = shop.state()
    refusing = {
        "create": ["sh", "-c", 'echo copy > "$UMBRA_SHADOW/copy"'],
        "restore": ["sh", "-c", "echo disk on fire >&2; exit 3"],
        "drift": ["false"],
    }
    alone = {"name": "alone", "type": "command", **refusing}
    above = {"name": "above", "type": "file", "path": str(shop.config), "depends_on": ["alone"]}
    resources = [*shop.resources(service={"depends_on": ["database"]})[::2], alone, above]
    create.create(shop.target(), resources)
    shop.update()
    changed = tree(shop.config)
    done = restore.restore(shop.target(), restore.Request())
    assert actions(done) == {"alone": "failed", "database": "restored", "above": "untouched", "service": "restored"}
    assert tree(shop.config) == changed
    assert shop.state()["rows"] == before["rows"]
    assert done.state == "failed"
    message = done.to_dict()["msg"]
    assert "alone" in message and "disk on fire" in message and "above (it needs alone)" in message
    failed = next(result for result in done.results if result.name == "alone")
    assert failed.attempts == 3 and len(failed.escalations) == 3 and failed.validation == "failed"


@pytest.mark.parametrize(("failures", "attempts"), [(1, 2), (2, 3)])
def test_a_resource_that_fails_at_first_is_tried_again(shop: Shop, failures: int, attempts: int) -> None:
    counter = shop.root / "counter"
    script = f'echo x >> "$1"; [ $(wc -l < "$1") -gt {failures} ]'
    stubborn = {
        "name": "stubborn",
        "type": "command",
        "create": ["sh", "-c", 'echo copy > "$UMBRA_SHADOW/copy"'],
        "restore": ["sh", "-c", script, "sh", str(counter)],
        "drift": ["false"],
    }
    create.create(shop.target(), [stubborn])
    done = shop.restore()
    (result,) = done.results
    assert (result.action, result.attempts, len(result.escalations)) == ("restored", attempts, failures)
    assert done.state == "rolled_back"


def test_going_on_after_a_failure_keeps_the_failed_state_that_was_set_aside_first(shop: Shop) -> None:
    before = shop.state()
    flag = shop.root / "broken"
    flag.touch()
    fragile = {
        "restore": ["sh", "-ec", '[ ! -e "$1" ]; cp "$UMBRA_SHADOW/state" "$2"', "sh", str(flag), str(shop.service)]
    }
    shop.shadow(service=fragile)
    shop.update()
    failed = shop.state()
    assert shop.restore().state == "failed"
    flag.unlink()
    assert shop.restore().state == "rolled_back"
    assert shop.state() == before
    shop.restore(undo=True)
    assert shop.state()["tree"] == failed["tree"] and shop.state()["rows"] == failed["rows"]


def test_waves_one_by_one_are_the_same_as_all_at_once(shop: Shop) -> None:
    before = shop.state()
    shop.shadow()
    shop.update()
    failed = shop.state()
    ready = shop.restore(wave=0)
    assert ready.state == "restoring" and ready.stopped == ("service",) and not ready.results
    assert {**shop.state(), "service": ""} == {**failed, "service": ""}, "wave 0 restores nothing"
    first = shop.restore(wave=1)
    assert set(actions(first)) == {"config", "database"} and first.state == "restoring"
    second = shop.restore(wave=2)
    assert actions(second) == {"service": "restored"} and second.state == "rolled_back"
    assert shop.state() == before


def test_what_failed_on_another_host_is_not_built_upon(shop: Shop) -> None:
    shop.shadow(service={"depends_on": ["db1:master"]})
    shop.update()
    done = shop.restore(unmet=("db1:master",))
    assert actions(done)["service"] == "untouched" and actions(done)["config"] == "restored"
    assert done.state == "failed" and "db1:master" in done.to_dict()["msg"]


def test_what_changed_after_it_was_kept_is_kept_as_well(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone writes before the restore begins: nothing was changed yet, and it is kept anew."""
    before = shop.state()
    shop.shadow()
    shop.update()
    restore_files, calls = FileProvider.restore, []

    def write_and_restore(self: FileProvider, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            (shop.config / "main.conf").write_text("late\n")
            (shop.config / "more").write_text("late, too\n")
        return restore_files(self, *args)

    monkeypatch.setattr(FileProvider, "restore", write_and_restore)
    done = shop.restore()
    config = next(result for result in done.results if result.name == "config")
    assert (config.action, config.attempts) == ("restored", 2)
    assert "changed after its failed state was kept" in config.escalations[0]["why"]
    assert shop.state() == before
    shop.restore(undo=True)
    assert (shop.config / "main.conf").read_text() == "late\n" and (shop.config / "more").read_text() == "late, too\n"


def count_looks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The root of each tree that is looked at to be compared or shadowed, from now on."""
    looks: list[bytes] = []
    look_at = Look.__init__

    def counted(self: Look, root: bytes, *args: Any) -> None:
        looks.append(root)
        look_at(self, root, *args)

    monkeypatch.setattr(Look, "__init__", counted)
    return looks


@pytest.mark.parametrize("late", ["nothing", "another file", "the same file"])
def test_what_changed_after_it_was_compared_is_kept_as_well(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    """The failed state is kept from the look that compared it; what came after that is seen before the first change."""
    before = tree(shop.config)
    create.create(shop.target(), [shop.resources()[1]])
    shop.update()
    drift_of, looks = FileProvider.drift, count_looks(monkeypatch)
    monkeypatch.setattr(scan_module, "MOMENT", 3600.0)  # however slow this machine is

    def drift_and_write(self: FileProvider, *args: Any) -> Any:
        found = drift_of(self, *args)
        if late == "another file":
            (shop.config / "sites" / "7.conf").write_text("late\n")
            (shop.config / "more").write_text("late, too\n")
        elif late == "the same file":
            (shop.config / "main.conf").write_text("late\n")
        return found

    monkeypatch.setattr(FileProvider, "drift", drift_and_write)
    done = shop.restore()
    assert len(looks) == (2 if late == "another file" else 1), "one served for both, or it was kept anew"
    assert done.state == "rolled_back" and tree(shop.config) == before
    monkeypatch.undo()
    shop.restore(undo=True)
    assert (shop.config / "new.conf").exists()
    if late == "another file":
        assert (shop.config / "sites" / "7.conf").read_text() == "late\n"
        assert (shop.config / "more").read_text() == "late, too\n"
    elif late == "the same file":
        assert (shop.config / "main.conf").read_text() == "late\n"


@pytest.mark.parametrize("why", ["a service stops", "a moment passes", "unstable", "too many"])
def test_it_is_looked_at_again_before_it_is_kept(shop: Shop, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """What a service still writes is part of the failed state; an old look proves little; and looks take memory."""
    unstable = {"config": {"allow_unstable": True}} if why == "unstable" else {}
    resources = shop.resources(**unstable)
    create.create(shop.target(), resources if why == "a service stops" else [resources[1]])
    shop.update()
    monkeypatch.setattr(scan_module, "MOMENT", 0.0 if why == "a moment passes" else 3600.0)
    if why == "too many":
        monkeypatch.setattr(restore, "LOOKED_MOST", 20)
    looks = count_looks(monkeypatch)
    assert shop.restore().state == "rolled_back"
    assert looks.count(os.fsencode(shop.config)) == 2


def test_nothing_stays_open_of_a_way_back_that_ends_before_it_changes_anything(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its file system could not be unmounted: a full one, say, that a person wants to mend."""
    shop.shadow()
    shop.update()

    def refuse(*args: Any, **facts: Any) -> None:
        raise errors.NoSpace(where="/", free=0, what="the journal", needed=1)

    monkeypatch.setattr(rounds.Round, "begin", refuse)
    with pytest.raises(errors.NoSpace) as caught:
        shop.restore()
    paths = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if os.path.lexists(link)]
    assert caught.value and [path for path in paths if path.startswith(str(shop.config.parent))] == []


def test_what_changed_while_it_was_restored_stays(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it is restored, so that the state kept first is the failed one: what came late is left where it is."""
    before = shop.state()
    shop.shadow()
    shop.update()
    failed = shop.state()
    calls = []

    def compare_and_write(fs: RootFs, *args: Any) -> Any:
        found = compare_open(fs, *args)
        if fs.root == os.fsencode(shop.config):
            calls.append(1)
        if len(calls) == 1:
            (shop.config / "main.conf").write_text("late\n")
        return found

    monkeypatch.setattr(apply_module, "compare_open", compare_and_write)
    done = shop.restore()
    monkeypatch.undo()
    assert done.state == "failed" and actions(done)["config"] == "failed"
    assert f"{shop.config}/main.conf: changed after its failed state was kept" in done.to_dict()["msg"]
    for _again in range(2):
        assert (shop.config / "main.conf").read_text() == "late\n"
        assert shop.restore().state == "failed"
    (shop.config / "main.conf").rename(shop.root / "saved")
    assert shop.restore().state == "rolled_back"
    assert shop.state() == before
    shop.restore(undo=True)
    assert shop.state()["tree"] == failed["tree"]


def test_a_part_comes_back_alone_and_the_update_stays_open(shop: Shop) -> None:
    before = shop.state()
    shop.shadow()
    shop.update()
    done = shop.restore(names=("config",))
    assert actions(done) == {"config": "restored"} and done.state == "open"
    assert shop.state()["tree"] == before["tree"] and shop.state()["rows"] != before["rows"]
    assert "stop" in shop.log.read_text().split() and shop.log.read_text().split()[-1] == "start"
    assert shop.restore().state == "rolled_back" and shop.state() == before


def test_names_and_states_that_make_no_sense_are_refused(shop: Shop) -> None:
    with pytest.raises(errors.StoreMissing):
        shop.restore()
    shop.shadow()
    with pytest.raises(errors.ManifestMissing, match="u1"):
        shop.restore("other")
    with pytest.raises(errors.ResourceUnknown, match="config"):
        shop.restore(names=("confg",))
    with pytest.raises(errors.StateRefused, match="nothing to bring back"):
        shop.restore(undo=True)
    commit.commit(shop.target(), None, None)
    with pytest.raises(errors.StateRefused, match="force"):
        shop.restore()
    shop.update()
    assert shop.restore(force=True).state == "rolled_back"


def test_check_mode_says_what_would_change_and_touches_nothing(shop: Shop) -> None:
    shop.shadow()
    shop.update()
    before = touched(shop.root)
    done = restore.check(shop.target(), restore.Request())
    assert actions(done) == {"config": "would_restore", "database": "would_restore", "service": "would_restore"}
    shown = str(diff.of(done.drifts))
    for expected in ("main.conf", "version = 1", "new.conf", "3.conf", "orders"):
        assert expected in shown
    after = touched(shop.root)
    assert after == before


def test_check_mode_of_one_wave_tells_of_that_wave_alone(shop: Shop) -> None:
    shop.shadow()
    shop.update()
    done = restore.check(shop.target(), restore.Request(wave=2))
    assert actions(done) == {"service": "would_restore"} and list(done.drifts) == ["service"]


def test_a_diff_is_bounded(shop: Shop) -> None:
    shop.shadow()
    for number in range(500):
        (shop.config / f"{'n' * 150}{number}").write_text("x\n" * 2000)
    shown = diff.of(restore.check(shop.target(), restore.Request()).drifts)
    assert len(str(shown)) < 40_000 and "more" in str(shown)


def test_the_held_space_is_given_back_first(shop: Shop) -> None:
    shop.shadow()
    prestaged = prestage.prestage(shop.target(), prestage.Budget())
    assert prestaged.held_bytes > 0
    shop.update()
    shop.restore(wave=0)
    assert not list(shop.store.rglob("reserve"))


def test_services_that_need_each_other_come_back_as_one_unit(shop: Shop) -> None:
    before = shop.state()
    shop.shadow(config={"depends_on": ["service"]}, service={"depends_on": ["config"]})
    shop.update()
    done = shop.restore()
    assert {result.wave for result in done.results} == {1} and done.state == "rolled_back"
    assert shop.state() == before


KILLED = """
import os, sys
sys.path[:0] = {path!r}
from pathlib import Path
from ansible_collections.umbra.rollback.plugins.module_utils.store import journal
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import restore
from ansible_collections.umbra.rollback.plugins.module_utils.verbs.run import Target
left = int(sys.argv[1])
appended = journal.Journal.append
def append(self, *args, **facts):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), 9)
    appended(self, *args, **facts)
journal.Journal.append = append
restore.restore(Target("u1", "web1", sys.argv[2], 5.0), restore.Request())
"""


def test_killed_at_every_line_of_the_journal_it_goes_on(shop: Shop, tmp_path_factory: Any) -> None:
    before = shop.state()
    shop.shadow()
    shop.update()
    failed = shop.state()
    script = KILLED.format(path=[entry for entry in sys.path if entry])
    kept = tmp_path_factory.mktemp("kept") / "root"
    shutil.copytree(shop.root, kept, symlinks=True)
    for line in range(1, 40):
        shutil.rmtree(shop.root)
        subprocess.run(["cp", "-a", str(kept), str(shop.root)], check=True)
        argv = [sys.executable, "-c", script, str(line), str(shop.store)]
        status = subprocess.run(argv, check=False).returncode
        if status == 0:
            break
        assert status == -signal.SIGKILL
        assert shop.restore().state == "rolled_back", line
        assert shop.state() == before, line
        shop.restore(undo=True)
        undone = shop.state()
        assert undone["tree"] == failed["tree"] and undone["rows"] == failed["rows"], line
    else:
        pytest.fail("the restore never ended")
    assert line >= 7, "there are that many lines, so that many deaths were tried"


def test_only_one_works_on_a_host_at_a_time_and_the_other_is_told_who(shop: Shop) -> None:
    shop.shadow()
    with working(shop.target(), "restore"), pytest.raises(errors.StoreLocked, match=f"restore.*u1.*{os.getpid()}"):
        restore.restore(shop.target(lock_timeout=0.1), restore.Request())


def test_secrets_are_nowhere_but_in_the_secrets_file(shop: Shop) -> None:
    secret = "s3cr3t-t0k3n"
    shop.shadow(service={"environment": {"TOKEN": secret}})
    shop.update()
    done = shop.restore()
    assert secret not in str(done.to_dict())
    holders = [path for path in shop.root.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert [path.name for path in holders] == ["secrets.json"]
    assert holders[0].stat().st_mode & 0o777 == 0o600
    assert isinstance(holders[0], Path)


def test_a_failed_state_that_can_not_be_kept_anew_fails_only_its_resource(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store can't take the newer one: the resource fails, and the others are restored."""
    before = shop.state()
    shop.shadow()
    shop.update()
    restore_files, save = FileProvider.restore, HostUpdate.save_displaced
    calls: list[int] = []

    def write_and_restore(self: FileProvider, *args: Any) -> Any:
        (shop.config / "main.conf").write_text("late\n")
        return restore_files(self, *args)

    def save_once(self: HostUpdate, *args: Any) -> None:
        calls.append(1)
        if len(calls) > 2:  # that of services, then that of the others
            raise errors.NoSpace(where="The store", free=0, what="a manifest", needed=1)
        save(self, *args)

    monkeypatch.setattr(FileProvider, "restore", write_and_restore)
    monkeypatch.setattr(HostUpdate, "save_displaced", save_once)
    done = shop.restore()
    monkeypatch.undo()
    assert actions(done) == {"config": "failed", "database": "restored", "service": "untouched"}
    assert (shop.config / "main.conf").read_text() == "late\n"
    assert any("could not be kept anew" in note for note in done.to_dict()["notes"])
    assert shop.restore().state == "rolled_back" and shop.state() == before
    shop.restore(undo=True)
    assert (shop.config / "main.conf").read_text() == "late\n"


def test_what_is_half_restored_never_takes_the_place_of_the_failed_state(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even of a provider that notes no step before its first change."""
    before = shop.state()
    shop.shadow()
    shop.update()
    failed = shop.state()
    restore_files, calls = FileProvider.restore, []

    def half(self: FileProvider, *args: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            return restore_files(self, *args)
        (shop.config / "main.conf").write_text("version = 1\n")
        raise errors.ChangedSinceKept(name="config", path="a file", problem="something came there")

    monkeypatch.setattr(FileProvider, "restore", half)
    assert shop.restore().state == "rolled_back" and shop.state() == before
    assert len(calls) == 2
    shop.restore(undo=True)
    assert shop.state()["tree"] == failed["tree"]


def test_to_undo_is_to_undo_all_rollbacks_since_the_last_undo(shop: Shop) -> None:
    shop.shadow()
    shop.update()
    failed = shop.state()
    shop.restore(names=("config",))
    shop.restore()
    assert shop.restore(undo=True).state == "undone"
    assert (shop.state()["tree"], shop.state()["rows"]) == (failed["tree"], failed["rows"])
    assert shop.restore(undo=True).state == "undone"  # twice is once
    assert (shop.state()["tree"], shop.state()["rows"]) == (failed["tree"], failed["rows"])
    (shop.config / "main.conf").write_text("tried by hand\n")
    shop.restore(names=("config",))
    shop.restore(undo=True)
    assert (shop.config / "main.conf").read_text() == "tried by hand\n"
    assert shop.restore().state == "rolled_back"
