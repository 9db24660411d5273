# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shadowing all resources of an update, or none."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import errors
from ansible_collections.umbra.rollback.plugins.module_utils.store import versions
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import commit, create, info, requested, restore
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.store.helpers import fork

from .conftest import Shop, touched


def test_a_record_per_resource(shop: Shop) -> None:
    told = shop.shadow().to_dict()
    assert told["changed"] and not told["existing"]
    records = {record["name"]: record for record in told["shadows"]}
    assert set(records) == {"service", "config", "database"}
    assert records["config"]["item_count"] == 24 and records["database"]["item_count"] == 200
    assert told["totals"]["bytes"] == sum(record["bytes"] for record in told["shadows"])
    assert os.path.isfile(told["manifest"])


def test_run_again_it_keeps_the_state_before_the_update(shop: Shop) -> None:
    first = shop.shadow()
    shop.update()
    again = shop.shadow()
    assert again.existing and not again.changed
    assert again.manifest == first.manifest


def test_other_resources_under_the_same_name_are_refused(shop: Shop) -> None:
    shop.shadow()
    with pytest.raises(errors.ManifestExists, match="u1"):
        shop.shadow(config={"exclude": ["*.log"]})


@pytest.mark.parametrize("end", ["rolled_back", "committed", "undone"])
def test_an_update_that_ended_can_be_shadowed_again(shop: Shop, end: str) -> None:
    shop.shadow()
    shop.update()
    if end == "committed":
        commit.commit(shop.target(), None, None)
    else:
        shop.restore()
    if end == "undone":
        shop.restore(undo=True)
    before = shop.state()
    again = shop.shadow()
    assert again.changed and not again.existing
    (shop.config / "main.conf").write_text("version = 3\n")
    shop.service.write_text("failed again\n")
    assert shop.restore().state == "rolled_back"
    assert shop.state() == before


def test_an_update_whose_way_back_is_not_finished_is_not_shadowed_again(shop: Shop) -> None:
    shop.shadow()
    shop.update()
    shop.restore(wave=0)
    with pytest.raises(errors.StateRefused, match="umbra.rollback.rollback"):
        shop.shadow()


def test_the_second_shadow_reads_only_what_changed(shop: Shop) -> None:
    shop.shadow("u1")
    (shop.config / "main.conf").write_text("version = 1.1\n")
    again = {shadow.name: shadow for shadow in shop.shadow("u2").manifest.shadows}
    assert again["config"].previous == "u1" and again["config"].method == "incremental"
    assert again["config"].stored_bytes < 10_000


def test_a_failure_publishes_nothing(shop: Shop) -> None:
    with pytest.raises(errors.ProviderError, match="no such luck"):
        shop.shadow(service={"create": ["sh", "-c", "echo no such luck >&2; exit 1"]})
    assert info.info(shop.target("")).updates == ()
    assert shop.shadow().changed


def test_queries_are_replaced_by_what_they_find(shop: Shop) -> None:
    query = {"query": {"type": "file", "pattern": f"{shop.config}/sites/1*.conf"}, "priority": "high"}
    made = create.create(shop.target(), [query])
    names = [shadow.name for shadow in made.manifest.shadows]
    assert names == sorted(f"{shop.config}/sites/{n}.conf" for n in (1, *range(10, 20)))
    assert {shadow.resource.priority for shadow in made.manifest.shadows} == {"high"}


def test_a_query_that_finds_nothing_is_a_warning_and_nothing_at_all_is_refused(shop: Shop) -> None:
    empty = {"query": {"type": "file", "pattern": f"{shop.root}/nothing*"}}
    with pytest.raises(errors.ResourceInvalid, match="nothing to go back to"):
        create.create(shop.target(), [empty])
    made = create.create(shop.target(), [empty, *shop.resources()])
    assert any("finds nothing" in warning for warning in made.warnings)


def test_the_most_important_is_shadowed_first(shop: Shop) -> None:
    made = shop.shadow(database={"priority": "critical"}, service={"priority": "low"})
    assert [shadow.name for shadow in made.manifest.shadows] == ["database", "config", "service"]


def test_space_for_the_way_back_is_foreseen(shop: Shop) -> None:
    free = os.statvfs(shop.root).f_bavail * os.statvfs(shop.root).f_frsize
    with open(shop.config / "sparse", "wb") as sparse:
        sparse.truncate(4 << 30)
    percent = free * 100 // (4 << 30) + 1000
    with pytest.raises(errors.NoSpace, match="way back"):
        create.create(shop.target(), shop.resources(), reserve_percent=percent)


def test_a_store_that_is_there_takes_nothing_of_what_it_has_no_room_for(shop: Shop) -> None:
    """The first resource is looked at once for both: what it needs, and its shadow."""
    shop.shadow()
    (shop.config / "new").write_text("not in the store yet\n" * 5000)
    kept = {path for path in shop.store.rglob("*") if path.suffix == ".pack" or path.parent.parent.name == "objects"}
    config = {"name": "config", "type": "file", "path": str(shop.config)}
    percent = 1 + 100 * os.statvfs(shop.root).f_bavail * os.statvfs(shop.root).f_frsize // 100_000
    with pytest.raises(errors.NoSpace, match="way back"):
        create.create(shop.target("u2"), [config], reserve_percent=percent)
    now = {path for path in shop.store.rglob("*") if path.suffix == ".pack" or path.parent.parent.name == "objects"}
    assert now == kept


@pytest.mark.parametrize("again", [False, True])
def test_a_dump_that_the_first_resource_makes_is_in_the_tree_that_comes_after(shop: Shop, again: bool) -> None:
    """Only the first resource may be shadowed from what was seen before the store was touched."""
    dump = shop.config / "dump"
    dump.write_text("old")
    tree = {"name": "tree", "type": "file", "path": str(shop.config)}
    if again:
        create.create(shop.target("u0"), [tree])
    script = f"printf new > {dump}; cp {dump} $UMBRA_SHADOW"
    first = {"name": "dump", "type": "command", "create": ["/bin/sh", "-ec", script], "restore": ["true"]}
    create.create(shop.target("u1"), [tree, {**first, "priority": "high"}])
    dump.write_text("broken")
    shop.restore(names=("tree",))
    assert dump.read_text() == "new"


def test_the_store_in_the_tree_is_not_in_the_shadow_that_makes_it(shop: Shop) -> None:
    tree = {"name": "tree", "type": "file", "path": str(shop.root)}
    for update in ("u1", "u2"):
        made = create.create(shop.target(update), [tree]).manifest.shadows[0]
        assert made.items == sum(1 for path in shop.root.rglob("*") if shop.store not in (path, *path.parents)) + 1


BAD: dict[str, tuple[Callable[[Shop], Any], str]] = {
    "not a list": (lambda shop: {"name": "x"}, "not a list"),
    "empty": (lambda shop: [], "nothing to go back to"),
    "no type": (lambda shop: [{"name": "x"}], "`type` is missing"),
    "unknown type": (lambda shop: [{"name": "x", "type": "fiel"}], "'fiel' is unknown"),
    "unknown key": (lambda shop: shop.resources(config={"exlude": []}), "unknown key 'exlude'"),
    "wrong type": (lambda shop: shop.resources(config={"exclude": "*.log"}), "is str, not list"),
    "same name twice": (lambda shop: [*shop.resources(), shop.resources()[0]], "used twice"),
    "relative path": (lambda shop: shop.resources(config={"path": "etc/shop"}), "not an absolute path"),
    "missing path": (lambda shop: shop.resources(config={"path": "/no/such/place"}), "/no/such/place"),
    "not a database": (lambda shop: shop.resources(database={"path": str(shop.service)}), "database"),
    "depends on nothing": (lambda shop: shop.resources(config={"depends_on": ["dtabase"]}), "'dtabase'"),
    "bad priority": (lambda shop: shop.resources(config={"priority": "urgent"}), "'urgent'"),
    "bad name": (lambda shop: shop.resources(config={"name": "two words"}), "'two words'"),
    "no query for this type": (lambda shop: [{"query": {"type": "command"}}], "has no query"),
    "in another's tree": (
        lambda shop: [*shop.resources(), {"name": "x", "type": "file", "path": f"{shop.config}/sites"}],
        "is already in config",
    ),
    "the same path twice": (
        lambda shop: [{"name": name, "type": "file", "path": str(shop.config)} for name in "ab"],
        "is already in a",
    ),
    "missing program": (lambda shop: shop.resources(service={"create": ["no-such-program"]}), "no-such-program"),
}


def test_what_is_excluded_from_a_tree_may_be_a_resource_of_its_own(shop: Shop) -> None:
    inner = {"name": "inner", "type": "file", "path": f"{shop.config}/sites/3.conf"}
    beside = {"name": "beside", "type": "file", "path": f"{shop.config}2", "allow_missing": True}
    for pattern in ("sites/3.conf", "sites", "3.*"):
        outer = {"name": "outer", "type": "file", "path": str(shop.config), "exclude": [pattern]}
        assert create.check(shop.target(), [outer, inner, beside]).changed


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence_and_changes_nothing(shop: Shop, case: str) -> None:
    raw, expected = BAD[case]
    before = touched(shop.root)
    with pytest.raises(errors.UmbraError) as caught:
        create.create(shop.target(), raw(shop))
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert touched(shop.root) == before


@pytest.mark.parametrize("update_id", ["", "-x", "../x", "a/b", "x" * 129, "a b"])
def test_a_bad_update_id_is_refused(shop: Shop, update_id: str) -> None:
    before = touched(shop.root)
    with pytest.raises(errors.UpdateIdInvalid):
        shop.shadow(update_id)
    assert touched(shop.root) == before


def test_check_mode_estimates_and_touches_nothing(shop: Shop) -> None:
    before = touched(shop.root)
    told = create.check(shop.target(), shop.resources()).to_dict()
    assert told["changed"] and {record["method"] for record in told["shadows"]} == {"check"}
    assert next(r for r in told["shadows"] if r["name"] == "config")["item_count"] == 24
    assert touched(shop.root) == before


def test_a_git_history_needs_git_and_says_so_before_anything_is_made(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = touched(shop.root)
    monkeypatch.setenv("PATH", str(shop.root / "nothing"))
    with pytest.raises(errors.ToolMissing, match="git"):
        create.create(shop.target(), [{**shop.resources()[1], "versioned": True}])
    assert touched(shop.root) == before


def test_git_shows_what_each_update_changed(shop: Shop) -> None:
    versioned = [{**shop.resources()[1], "versioned": True}]
    create.create(shop.target("u1"), versioned)
    (shop.config / "main.conf").write_text("version = 1.1\n")
    create.create(shop.target("u2"), versioned)
    log = history(shop)
    assert "-version = 1\n+version = 1.1\n" in log and "u2" in log


@pytest.mark.parametrize("again", ["u1", "u2"])
def test_what_a_killed_create_did_not_put_into_the_git_history_the_next_one_does(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    """The same one, run again, or that of the next update: killed between the manifest and the history."""
    versioned = [{**shop.resources()[1], "versioned": True}]
    create.create(shop.target("u0"), versioned)
    (shop.config / "main.conf").write_text("version = 1.1\n")
    child = fork()
    if not child:
        monkeypatch.setattr(versions, "record", lambda *_args: os._exit(9))
        create.create(shop.target("u1"), versioned)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert "u1" not in history(shop)
    if again == "u2":
        (shop.config / "main.conf").write_text("version = 1.2\n")
    assert create.create(shop.target(again), versioned).warnings == ()
    log = history(shop)
    assert "-version = 1\n+version = 1.1\n" in log and "u1" in log
    assert ("-version = 1.1\n+version = 1.2\n" in log) == (again == "u2")
    assert create.create(shop.target("u1"), versioned).existing
    assert history(shop) == log, "what is recorded is not recorded again"


def history(shop: Shop) -> str:
    """What people see."""
    argv = ["git", "--git-dir", str(shop.store / "versions.git"), "log", "-p"]
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_a_temporary_directory_is_only_needed_by_what_uses_one(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full or read-only /tmp refuses nothing that can do without: not check mode, not a query, not the verb."""
    monkeypatch.setattr(tempfile, "tempdir", str(shop.service / "is a file"))
    pattern = {"query": {"type": "file", "pattern": f"{shop.config}*"}}
    assert create.check(shop.target(), [pattern]).changed
    assert create.create(shop.target(), [pattern]).changed
    shop.update()
    assert restore.check(shop.target(), restore.Request()).changed
    assert shop.restore().state == "rolled_back"
    dump = {
        "name": "dump",
        "type": "command",
        "create": ["sh", "-c", "touch $UMBRA_SHADOW/it"],
        "restore": ["true"],
        "drift": ["false"],
    }
    create.create(shop.target("u2"), [dump])
    (told,) = restore.check(shop.target("u2"), restore.Request()).notes
    assert "dump can't be compared" in told and "No private directory can be made in" in told


def test_no_digest_depends_on_a_secret(shop: Shop) -> None:
    one = shop.shadow("u1", service={"environment": {"TOKEN": "one"}}).manifest.request
    two = shop.shadow("u2", service={"environment": {"TOKEN": "two"}}).manifest.request
    assert one == two


def test_secrets_are_found_whatever_else_is_wrong() -> None:
    raw = [{"type": "command", "environment": {"TOKEN": "abc", "N": 1}, "unknown": 1}, "not even a dict", {"type": []}]
    assert requested.secrets_in(raw) == {"abc", "1"}
