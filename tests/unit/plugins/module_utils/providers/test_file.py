# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider of files: what every provider promises, and what only this one does."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.context import Context
from ansible_collections.umbra.rollback.plugins.module_utils.errors import (
    RestoreFailed,
    SourceMissing,
    StoreCorrupt,
    Unsupported,
    ValidationFailed,
)
from ansible_collections.umbra.rollback.plugins.module_utils.providers.base import Drift
from ansible_collections.umbra.rollback.plugins.module_utils.providers.file import FileProvider
from ansible_collections.umbra.rollback.plugins.module_utils.resource import Resource, name_for_path, parse_one
from ansible_collections.umbra.rollback.plugins.module_utils.shadow import Claim, Root
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.tree.trees import (
    IS_ROOT,
    break_small,
    build_rich,
    build_small,
    mounted,
    picture,
    remove,
    root_only,
    write,
)
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents
from ansible_collections.umbra.rollback.tests.unit.support.twins import pytest_generate_tests, twin

from .conformance import MemorySteps, ProviderConformance, Subject, check_sentence, context

__all__ = ["pytest_generate_tests", "twin"]


def resource(path: Path, **options: Any) -> Resource:
    raw = {"name": "shop-files", "type": "file", "path": str(path), **options}
    return parse_one(raw, {"file": FileProvider.interface}, "resources[0]")


class TreeSubject(Subject):
    """A tree with everything in it that the user of the test may make."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / "tree"
        (build_rich if IS_ROOT else build_small)(self.path)
        self.provider = FileProvider(context(tmp_path))
        self.resource = resource(self.path)

    def change(self) -> None:
        break_small(self.path)

    def snapshot(self) -> object:
        return picture(self.path)

    def destroy(self) -> None:
        remove(self.path)

    def refused(self) -> Iterator[Resource]:
        yield resource(self.path / "none")
        yield resource(self.path / "none" / "deeper")

    def query(self) -> Mapping[str, Any]:
        return {"pattern": str(self.path.parent / "tr*"), "kind": "directory"}


class FileSubject(TreeSubject):
    """A single file."""

    def __init__(self, tmp_path: Path) -> None:
        super().__init__(tmp_path)
        self.path = write(tmp_path / "one.conf", "port = 80\n", 0o640)
        self.resource = resource(self.path)

    def change(self) -> None:
        self.path.unlink()
        write(self.path, "port = 8080\n")

    def query(self) -> Mapping[str, Any]:
        return {"pattern": str(self.path.parent / "*.conf"), "kind": "file", "min_age": 60}


class TestTree(ProviderConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        return TreeSubject(tmp_path)


class TestFile(ProviderConformance):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        return FileSubject(tmp_path)


@pytest.fixture
def contents() -> MemoryContents:
    return MemoryContents()


@pytest.fixture
def provider(tmp_path: Path) -> FileProvider:
    return FileProvider(context(tmp_path))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return build_small(tmp_path / "tree")


def test_what_was_not_there_is_removed_and_brought_back(
    tmp_path: Path, provider: FileProvider, contents: MemoryContents
) -> None:
    path = tmp_path / "to-be"
    with pytest.raises(SourceMissing) as missing:
        provider.create(resource(path), None, contents)
    assert str(path) in str(missing.value)
    shadow = provider.create(resource(path, allow_missing=True), None, contents)
    assert (shadow.items, shadow.bytes) == (0, 0)
    assert provider.drift(shadow, contents) == Drift(0)
    build_small(path)
    made = picture(path)
    displaced = provider.displace(shadow, contents)
    provider.restore(shadow, contents, MemorySteps())
    assert not path.exists()
    provider.validate(shadow, contents)
    provider.restore(displaced, contents, MemorySteps())
    assert picture(path) == made


def test_the_record_of_a_shadow(tree: Path, provider: FileProvider, contents: MemoryContents) -> None:
    first = provider.create(resource(tree), None, contents)
    assert first.method == "copy"
    assert first.roots == (Root("tree", first.checksum), first.roots[1])
    assert first.data["parent"] == str(tree.parent.resolve())
    assert first.data["parents"][-1] == [0o700, os.geteuid(), os.getegid()]
    assert (first.data["skipped"], first.data["read"]) == ([], 3)
    again = provider.create(resource(tree), first, contents)
    assert (again.method, again.checksum) == ("incremental", first.checksum)
    assert provider.create(resource(tree), first, MemoryContents()).method == "copy"
    assert provider.claims(resource(tree)) == (Claim("provides", "path", str(tree), "option path"),)


def test_what_goes_missing_can_be_displaced(tree: Path, provider: FileProvider, contents: MemoryContents) -> None:
    shadow = provider.create(resource(tree), None, contents)
    shutil.rmtree(tree)
    displaced = provider.displace(shadow, contents)
    assert (displaced.items, displaced.resource) == (0, shadow.resource)


def test_room_for_the_largest_file_twice_and_for_a_block_of_each(
    tree: Path, provider: FileProvider, contents: MemoryContents
) -> None:
    small = provider.create(resource(tree), None, contents)
    write(tree / "l 1 2 3 4", os.urandom(9_999_999))
    os.symlink("f 644 0 0 1 a 99999999999", tree / "link to nothing")
    large = provider.create(resource(tree), None, contents)
    assert provider.extra_bytes(large, contents) == 9_999_999
    assert provider.extra_bytes(replace(small, bytes=small.items * 4096), MemoryContents()) == small.items * 4096
    many = replace(large, items=10_000)
    assert provider.extra_bytes(many, contents) == 10_000 * 4096


def test_exclude_may_be_written_from_the_top_or_as_a_path(
    tree: Path, provider: FileProvider, contents: MemoryContents
) -> None:
    for patterns in (["/etc/secret"], [f"{tree}/etc/secret"], ["secret"], ["etc/secret"]):
        chosen = resource(tree, exclude=patterns)
        assert provider.estimate(chosen).items == 9
        assert provider.create(chosen, None, contents).items == 9


def test_validate_lets_what_is_excluded_come_and_go(
    tree: Path, provider: FileProvider, contents: MemoryContents
) -> None:
    write(tree / "etc" / "run.pid", "1")
    chosen = resource(tree, exclude=["*.pid"])
    shadow = provider.create(chosen, None, contents)
    (tree / "etc" / "run.pid").unlink()
    provider.validate(shadow, contents)
    write(tree / "etc" / "run.pid", "2")
    write(tree / "etc" / "other.pid", "3")
    provider.validate(shadow, contents)
    assert provider.drift(shadow, contents) == Drift(0)
    (tree / "etc" / "app.conf").write_text("port = 1\n")
    with pytest.raises(ValidationFailed) as failed:
        provider.validate(shadow, contents)
    assert f"1 of 10 differ: {tree}/etc/app.conf (contents, mtime)" in str(failed.value)


def test_validate_reads_what_stat_does_not_prove(tree: Path, provider: FileProvider, contents: MemoryContents) -> None:
    shadow = provider.create(resource(tree), None, contents)
    write(tree / "etc" / "app.conf", "port = 99\n")  # as long, and of the same time
    with pytest.raises(ValidationFailed):
        provider.validate(shadow, contents)


def test_verify_refuses_a_listing_that_leads_outside(
    tree: Path, provider: FileProvider, contents: MemoryContents
) -> None:
    shadow = provider.create(resource(tree), None, contents)
    evil = contents.put(contents.get(shadow.checksum).replace(b" etc/secret ", b" etc/../../evil "))
    with pytest.raises(StoreCorrupt):
        provider.verify(replace(shadow, roots=(Root("tree", evil), shadow.roots[1])), contents)


# --- the directory that the root is in ----------------------------------------------------------------------------


def test_who_did_not_restore_it_reads_it(tmp_path: Path, tree: Path, contents: MemoryContents) -> None:
    """What was restored has another inode than when it was shadowed: a provider that knows no more reads all of it."""
    first, second = FileProvider(context(tmp_path)), FileProvider(context(tmp_path))
    shadow = first.create(resource(tree), None, contents)
    shutil.rmtree(tree)
    first.restore(shadow, contents, MemorySteps())
    first.validate(shadow, contents)
    second.validate(shadow, contents)
    conf = tree / "etc" / "app.conf"
    info = conf.stat()
    conf.write_text("port = 81\n")
    os.utime(conf, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert conf.stat().st_size == info.st_size
    for provider in (second, first):
        with pytest.raises(ValidationFailed) as caught:
            provider.validate(shadow, contents)
        assert "etc/app.conf (contents)" in str(caught.value)


def test_missing_parents_are_made_as_they_were(
    tmp_path: Path, provider: FileProvider, contents: MemoryContents
) -> None:
    root = build_small(tmp_path / "one" / "two" / "root")
    (tmp_path / "one").chmod(0o2711)
    before = picture(root)
    shadow = provider.create(resource(root), None, contents)
    shutil.rmtree(tmp_path / "one")
    outcome = provider.restore(shadow, contents, MemorySteps())
    assert outcome.notes == (f"made 2 missing directories above {root}",)
    assert picture(root) == before
    assert (tmp_path / "one").stat().st_mode & 0o7777 == 0o2711
    provider.validate(shadow, contents)


def test_a_parent_that_is_a_file_now_is_told(tmp_path: Path, provider: FileProvider, contents: MemoryContents) -> None:
    root = build_small(tmp_path / "one" / "root")
    shadow = provider.create(resource(root), None, contents)
    shutil.rmtree(tmp_path / "one")
    (tmp_path / "one").write_text("a file")
    assert provider.drift(shadow, contents).total == 10
    with pytest.raises(RestoreFailed, match="/one: not a directory"):
        provider.restore(shadow, contents, MemorySteps())


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A path that leads through a symlink, as releases of applications do."""
    build_small(tmp_path / "releases" / "1" / "conf")
    (tmp_path / "releases" / "2").mkdir()
    (tmp_path / "current").symlink_to("releases/1")
    return tmp_path / "current" / "conf"


def test_a_symlink_above_is_followed_where_it_leads_now(
    tmp_path: Path, linked: Path, provider: FileProvider, contents: MemoryContents
) -> None:
    before = picture(linked)
    shadow = provider.create(resource(linked), None, contents)
    assert shadow.data["parent"] == str(tmp_path / "releases" / "1")
    break_small(linked)
    assert provider.restore(shadow, contents, MemorySteps()).notes == ()
    assert picture(linked) == before
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("releases/2")
    outcome = provider.restore(shadow, contents, MemorySteps())
    was, now = tmp_path / "releases" / "1", tmp_path / "releases" / "2"
    assert outcome.notes == (f"the directory of {linked} was {was} and is {now} now: restored there",)
    assert picture(now / "conf") == before


@root_only
def test_a_symlink_that_another_user_turned_is_refused(
    tmp_path: Path, linked: Path, provider: FileProvider, contents: MemoryContents
) -> None:
    for path in (tmp_path / "current", tmp_path / "releases" / "1", tmp_path / "releases" / "2"):
        os.chown(path, 1234, 1234, follow_symlinks=False)
    shadow = provider.create(resource(linked), None, contents)
    break_small(linked)
    provider.restore(shadow, contents, MemorySteps())  # it leads where it led
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("releases/2")
    os.chown(tmp_path / "current", 1234, 1234, follow_symlinks=False)
    with pytest.raises(RestoreFailed) as refused:
        provider.restore(shadow, contents, MemorySteps())
    check_sentence(refused.value)
    assert "and a symlink that is not root's makes it" in str(refused.value)
    assert os.listdir(tmp_path / "releases" / "2") == []


@root_only
def test_root_is_not_led_to_what_is_not_the_users_own(
    tmp_path: Path, linked: Path, provider: FileProvider, contents: MemoryContents
) -> None:
    """Else who owns a symlink above the path would have any tree of the host shadowed, and then laid out in his own."""
    os.chown(tmp_path / "current", 1234, 1234, follow_symlinks=False)
    with pytest.raises(Unsupported) as refused:
        provider.create(resource(linked), None, contents)
    check_sentence(refused.value)
    assert f"the way to {linked} leads through a symlink that is not root's" in str(refused.value)
    assert contents.blobs == {}


def test_where_it_was_is_where_it_was_read(tmp_path: Path, linked: Path, provider: FileProvider) -> None:
    """The symlink above is turned while the tree is read."""
    write(tmp_path / "releases" / "2" / "conf" / "other", "other")

    class Turning(MemoryContents):
        def put(self, data: bytes) -> str:
            os.symlink("releases/2", digest := tmp_path / hashlib.sha256(data).hexdigest())
            digest.replace(tmp_path / "current")
            return super().put(data)

    shadow = provider.create(resource(linked), None, Turning())
    assert shadow.data["parent"] == str(tmp_path / "releases" / "1")


def test_a_dangling_symlink_above_is_not_made_a_directory(
    tmp_path: Path, linked: Path, provider: FileProvider, contents: MemoryContents
) -> None:
    before = picture(linked)
    shadow = provider.create(resource(linked), None, contents)
    shutil.rmtree(tmp_path / "releases")
    provider.restore(shadow, contents, MemorySteps())
    assert picture(tmp_path / "releases" / "1" / "conf") == before
    shutil.rmtree(tmp_path / "releases")
    (tmp_path / "current").unlink()
    with pytest.raises(RestoreFailed, match="no such file or directory"):
        provider.restore(shadow, contents, MemorySteps())
    assert not os.path.lexists(tmp_path / "current")


# --- the store ----------------------------------------------------------------------------------------------------


@pytest.fixture
def in_store(tmp_path: Path) -> FileProvider:
    """A provider of a run whose store is in the tree that it shadows."""
    store = tmp_path / "var" / "lib" / "umbra"
    (store / "tmp" / "host-1").mkdir(parents=True)
    (store / "FORMAT").write_text("umbra-store 1\n")
    return FileProvider(Context("update-1", "host-1", str(store / "tmp" / "host-1")))


def test_the_store_is_never_shadowed_nor_restored_over(
    tmp_path: Path, in_store: FileProvider, contents: MemoryContents
) -> None:
    write(tmp_path / "var" / "file", "1")
    shadow = in_store.create(resource(tmp_path / "var"), None, contents)
    store = tmp_path / "var" / "lib" / "umbra"
    assert (shadow.items, shadow.data["skipped"]) == (3, [str(store)])
    write(store / "objects" / "ab" / "precious", "precious")
    write(tmp_path / "var" / "file", "2")
    in_store.restore(shadow, contents, MemorySteps())
    in_store.validate(shadow, contents)
    assert (store / "objects" / "ab" / "precious").read_text() == "precious"
    empty = in_store.create(resource(tmp_path / "none", allow_missing=True), None, contents)
    assert empty.items == 0


@pytest.mark.parametrize("path", ["var/lib/umbra", "var/lib/umbra/objects", "way/umbra"])
def test_what_is_in_the_store_is_refused(
    tmp_path: Path, in_store: FileProvider, contents: MemoryContents, path: str
) -> None:
    (tmp_path / "way").symlink_to("var/lib")
    for method in (in_store.estimate, lambda chosen: in_store.create(chosen, None, contents)):
        with pytest.raises(Unsupported) as refused:
            method(resource(tmp_path / path, allow_missing=True))
        check_sentence(refused.value)


# --- queries ------------------------------------------------------------------------------------------------------

QUERIES: list[tuple[dict[str, Any], list[str]]] = [
    ({"pattern": "etc/*"}, ["etc/app.conf", "etc/new.conf", "etc/secret"]),
    ({"pattern": "etc/*.conf"}, ["etc/app.conf", "etc/new.conf"]),
    ({"pattern": "etc/*.conf", "min_age": 3600}, ["etc/app.conf"]),
    ({"pattern": "etc/*.conf", "max_age": 3600}, ["etc/new.conf"]),
    ({"pattern": "etc/*.conf", "min_age": 3600, "max_age": 3600}, []),
    ({"pattern": "*", "kind": "directory"}, ["bin", "empty", "etc"]),
    ({"pattern": "*", "kind": "file"}, []),
    ({"pattern": "*"}, ["bin", "current", "empty", "etc", "pipe"]),
    ({"pattern": "**/tool*", "kind": "file"}, ["bin/tool", "bin/tool-2"]),
    ({"pattern": "**", "kind": "directory"}, ["", "bin", "empty", "etc"]),
    ({"pattern": "none/*"}, []),
]


@pytest.mark.parametrize(("options", "names"), QUERIES, ids=str)
def test_a_query(tree: Path, provider: FileProvider, options: dict[str, Any], names: list[str]) -> None:
    (tree / "etc" / "new.conf").touch()
    defaults = {key: option.default for key, option in FileProvider.interface.query_options.items()}
    found = provider.query({**defaults, **options, "pattern": f"{tree}/{options['pattern']}"})
    assert [one["path"] for one in found] == [str(tree / name) for name in names]
    assert [one["name"] for one in found] == [str(tree / name) for name in names]


NAMES = [
    ("/etc/shop/a.conf", "/etc/shop/a.conf"),
    ("/etc/my files", "path-/etc/my_files-bbab973a"),
    ("/etc/my_files", "/etc/my_files"),
    ("/", "/"),
    ("/.hidden", "/.hidden"),
    ("/\udcff", "path-/_-ce4db70e"),
    ("/" + "x" * 300, "path-" + "x" * 186 + "-"),
]


@pytest.mark.parametrize(("path", "name"), NAMES)
def test_names_of_resources(path: str, name: str) -> None:
    made = name_for_path(path)
    assert made.startswith(name)
    raw = {"name": made, "type": "file", "path": path}
    assert parse_one(raw, {"file": FileProvider.interface}, "query").name == made


@root_only
def test_what_is_mounted_is_named_in_the_record(tree: Path, provider: FileProvider, contents: MemoryContents) -> None:
    with mounted(tree / "empty", "-t", "tmpfs", "none"):
        write(tree / "empty" / "file", "1")
        assert provider.create(resource(tree), None, contents).data["skipped"] == [str(tree / "empty")]
        whole = provider.create(resource(tree, one_file_system=False), None, contents)
        assert (whole.data["skipped"], whole.items) == ([], 11)
