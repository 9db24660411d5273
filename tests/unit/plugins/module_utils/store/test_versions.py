# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Git history: `git log -p` shows what each update changed, whatever the names and whoever's configuration."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import (
    CommandFailed,
    StoreCorrupt,
    StoreLocked,
    ToolMissing,
)
from ansible_collections.umbra.rollback.plugins.module_utils.resource import Resource
from ansible_collections.umbra.rollback.plugins.module_utils.shadow import Root, Shadow
from ansible_collections.umbra.rollback.plugins.module_utils.store import versions
from ansible_collections.umbra.rollback.plugins.module_utils.store.store import Store
from ansible_collections.umbra.rollback.plugins.module_utils.tree.entry import Entry, encode

from .helpers import flip, manifest, modes_below, open_store, put_tree, run_and_kill, shadow


def record(store: Store, update_id: str, *shadows: Shadow, created: float = 1_700_000_000.0) -> str:
    shadowed = manifest(store, update_id, *shadows, created=created)
    store.update(update_id).publish(shadowed, {})
    return versions.record(store, shadowed)


def versioned(store: Store, name: str, tree: dict[str, bytes]) -> Shadow:
    return shadow(name, put_tree(store.contents, tree), versioned=True)


def listed(store: Store, entries: Iterable[Entry], path: str = "/etc/r0") -> Shadow:
    root = Root("tree", store.contents.put(encode(entries)))
    resource = Resource("r0", "file", {"path": path}, versioned=True)
    return Shadow(resource, "copy", 1.0, 0.1, 1, 1, 1, root.digest, (root,))


def git(store: Store, *arguments: str) -> str:
    """What git prints for somebody who looks at the history."""
    command = ["git", "-C", f"{store.path}/versions.git", *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8", "surrogateescape")


def names(store: Store) -> dict[str, str]:
    """Mode by path of what the last commit has."""
    lines = git(store, "ls-tree", "-r", "-z", "HEAD").split("\0")[:-1]
    return {line.partition("\t")[2]: line[:6] for line in lines}


def test_the_log_shows_what_each_update_changed(store: Store) -> None:
    assert record(store, "u1", versioned(store, "shop", {"a.conf": b"one\n", "b.conf": b"same\n"}))
    assert record(store, "u2", versioned(store, "shop", {"a.conf": b"two\n", "b.conf": b"same\n"}))
    assert record(store, "u3", versioned(store, "shop", {"b.conf": b"same\n"}))
    assert git(store, "log", "--format=%s").splitlines() == [
        "Update u3 on web1: shop",
        "Update u2 on web1: shop",
        "Update u1 on web1: shop",
    ]
    second = git(store, "show", "HEAD~1")
    assert "-one\n+two\n" in second and "same" not in second
    assert "deleted file" in git(store, "log", "-p", "-1")
    assert git(store, "log", "-1", "--format=%an <%ae> %ct") == "umbra.rollback <umbra@localhost> 1700000000\n"


def test_what_did_not_change_makes_no_commit(store: Store) -> None:
    first = record(store, "u1", versioned(store, "shop", {"a": b"x"}))
    assert record(store, "u2", versioned(store, "shop", {"a": b"x"})) == ""
    assert git(store, "rev-parse", "main").strip() == first
    assert git(store, "for-each-ref", "--format=%(refname)") == "refs/heads/main\n"


def test_only_what_is_versioned_is_recorded(store: Store) -> None:
    assert record(store, "u1", shadow("r0", put_tree(store.contents, {"a": b"x"}))) == ""
    assert not os.path.exists(f"{store.path}/versions.git")
    record(store, "u2", versioned(store, "r1", {"a": b"x"}), shadow("r2", put_tree(store.contents, {"b": b"y"})))
    assert set(names(store)) == {"web1/r1/a"}


def test_hosts_and_resources_have_their_own_place(store: Store) -> None:
    other = open_store(Path(store.path), "../web2")
    record(store, "u1", versioned(store, "shop", {"a": b"1"}), versioned(store, "a/../b", {"a": b"2"}))
    record(other, "u1", versioned(other, "shop", {"a": b"3"}))
    record(store, "u2", versioned(store, "shop", {"a": b"4"}))
    assert set(names(store)) == {"web1/shop/a", "web1/a%2F..%2Fb/a", "%2E.%2Fweb2/shop/a"}
    assert git(store, "show", "HEAD:web1/a%2F..%2Fb/a") == "2", "what was not shadowed again stays"


def test_kinds_modes_and_odd_names(store: Store) -> None:
    put = store.contents.put
    odd = [b"new\nline", b'quo"te', b"back\\slash", b"\xff\xfe", b"tab\tspace ", b" ", b".gitignore", "größe".encode()]
    files = [Entry(b"d/" + name, "f", 0o644, size=3, digest=put(b"odd")) for name in odd]
    entries = [
        Entry(b"", "d", 0o755),
        Entry(b".git", "d", 0o755),
        Entry(b".git/config", "f", 0o644, size=4, digest=put(b"evil")),
        Entry(b"d", "d", 0o755),
        Entry(b"d/.GitModules", "l", 0o777, target=b"x"),
        *files,
        Entry(b"exec", "f", 0o750, size=2, digest=put(b"#!")),
        Entry(b"fifo", "p", 0o644),
        Entry(b"hard", "h", target=b"exec"),
        Entry(b"link", "l", 0o777, target=b"/etc/\xff passwd\n"),
        Entry(b"plain", "f", 0o604, size=0, digest=put(b"")),
    ]
    record(store, "u1", listed(store, entries))
    expected = {f"web1/r0/d/{os.fsdecode(name)}": "100644" for name in odd}
    expected.update({"web1/r0/%.git/config": "100644", "web1/r0/d/%.GitModules": "120000", "web1/r0/exec": "100755"})
    expected.update({"web1/r0/hard": "100755", "web1/r0/link": "120000", "web1/r0/plain": "100644"})
    assert names(store) == expected
    assert git(store, "show", "HEAD:web1/r0/link") == os.fsdecode(b"/etc/\xff passwd\n")
    assert git(store, "fsck", "--strict", "--no-dangling") == ""


def test_a_single_file_has_its_name(store: Store) -> None:
    record(store, "u1", listed(store, [Entry(b"", "f", 0o644, size=1, digest=store.contents.put(b"1"))], "/etc/hosts"))
    record(store, "u2", listed(store, [], "/etc/hosts"))
    assert "b/web1/r0/hosts" in git(store, "show", "HEAD~1")
    assert "deleted file" in git(store, "show", "HEAD")


def test_large_files_are_left_out_and_counted(store: Store) -> None:
    tree = {"large": bytes(versions.LARGEST + 1), "fits": b"x" * versions.LARGEST}
    record(store, "u1", versioned(store, "shop", tree))
    assert set(names(store)) == {"web1/shop/fits"}
    assert "shop: without 1 files that have more than 1048576 bytes" in git(store, "log", "-1", "--format=%B")


def test_nobody_s_configuration_matters(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    config = ["[user]", "name = me", "[init]", "defaultBranch = other", "templateDir = /nowhere", "[core]", "broken ="]
    (tmp_path / "home/.gitconfig").write_text("\n".join([*config, "[this is no configuration"]))
    for name, value in {
        "HOME": str(tmp_path / "home"),
        "GIT_CONFIG_GLOBAL": str(tmp_path / "home/.gitconfig"),
        "GIT_DIR": "/nowhere",
        "GIT_INDEX_FILE": "/nowhere",
        "GIT_OBJECT_DIRECTORY": "/nowhere",
        "GIT_AUTHOR_NAME": "me",
        "GIT_COMMITTER_NAME": "me",
    }.items():
        monkeypatch.setenv(name, value)
    record(store, "u1", versioned(store, "shop", {"a": b"x"}))
    for name in ("GIT_CONFIG_GLOBAL", "GIT_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nowhere")
    assert git(store, "log", "--format=%an %cn %D") == "umbra.rollback umbra.rollback HEAD -> main\n"


def test_the_history_is_closed_to_others(store: Store) -> None:
    before = os.umask(0)
    try:
        record(store, "u1", versioned(store, "shop", {"a": b"x"}))
        record(store, "u2", versioned(store, "shop", {"a": b"y"}))
    finally:
        os.umask(before)
    for path, _is_directory, mode in modes_below(Path(store.path)):
        assert not mode & 0o077, path


def test_without_git_it_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolMissing, match="git is not on this host. Install git"):
        record(store, "u1", versioned(store, "shop", {"a": b"x"}))


def test_what_git_says_is_told(store: Store) -> None:
    record(store, "u1", versioned(store, "shop", {"a": b"x"}))
    (Path(store.path) / "versions.git/HEAD").unlink()
    with pytest.raises(CommandFailed, match="the Git history of the store: `git .*not a git repository"):
        record(store, "u2", versioned(store, "shop", {"a": b"y"}))


def test_a_damaged_content_is_told_and_nothing_is_committed(store: Store) -> None:
    first = record(store, "u1", versioned(store, "shop", {"a": b"x"}))
    damaged = versioned(store, "shop", {"a": b"y" * 5000, **{f"b{n}": os.urandom(50_000) for n in range(20)}})
    store.contents.flush()
    location = store.contents.location(store.contents.put(b"y" * 5000))
    flip(Path(location.path), location.offset + 100)
    with pytest.raises(StoreCorrupt, match=location.path):
        record(store, "u2", damaged)
    assert git(store, "rev-parse", "main").strip() == first


def test_writers_wait_for_each_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "LOCK_WAIT", 0.1)
    other = open_store(Path(store.path), "web2")
    with other.locks.versioning("u9", 0), pytest.raises(StoreLocked, match="versions of update u9"):
        record(store, "u1", versioned(store, "shop", {"a": b"x"}))


def test_locks_of_a_killed_git_are_removed(store: Store) -> None:
    record(store, "u1", versioned(store, "shop", {"a": b"x"}))
    for name in ("refs/heads/main.lock", "HEAD.lock", "packed-refs.lock", "config.lock"):
        (Path(store.path) / "versions.git" / name).touch()
    assert record(store, "u2", versioned(store, "shop", {"a": b"y"}))


def test_killed_anywhere_it_goes_on(store: Store) -> None:
    """Killed in this process; git itself goes on, or ends because nobody feeds it."""
    killed = 0
    while True:
        shadowed = manifest(store, f"u{killed}", versioned(store, "shop", {"a": b"%d" % killed}))
        store.contents.flush()
        if not run_and_kill(lambda: versions.record(store, shadowed), killed + 1):  # noqa: B023
            break
        versions.record(store, shadowed)
        assert git(store, "show", "HEAD:web1/shop/a") == f"{killed}"
        killed += 1
    assert killed >= 2
    assert git(store, "fsck", "--strict", "--no-dangling") == ""
