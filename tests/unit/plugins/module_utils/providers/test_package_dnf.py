# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets of packages with a real dnf and rpm: Debian's, in the machine, with a repository made here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import RestoreFailed, ShadowFailed
from ansible_collections.umbra.rollback.plugins.module_utils.providers.package import PackageProvider
from ansible_collections.umbra.rollback.plugins.module_utils.resource import Resource, check_options
from ansible_collections.umbra.rollback.tests.unit.support import rpms
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents
from ansible_collections.umbra.rollback.tests.unit.support.debs import run

from .conformance import MemorySteps, check_sentence, context, run_and_kill

CONFIG = Path("/etc/shop")
A, NEW = Path("/etc/shop/a.conf"), Path("/etc/shop/new.conf")
DATA = Path("/usr/share/shop/version")


def resource(*packages: str, **options: Any) -> Resource:
    """A resource with the defaults filled in."""
    given = {"packages": packages, "manager": "dnf", **options}
    return Resource("the-packages", "package", check_options(given, PackageProvider.interface.options, "test"))


def snapshot() -> dict[str, object]:
    """All packages, and their files."""
    files = {}
    for path in (*CONFIG.rglob("*"), *Path("/usr/share").glob("shop*/*")):
        if path.is_file():
            files[str(path)] = f"{path.stat().st_mode:o} {path.stat().st_mtime_ns} {path.read_text()}"
    return {**rpms.state("shop"), "files": files}


def publish() -> rpms.Rpms:
    """Two versions of a shop, and what belongs to it."""
    repository = rpms.Rpms(Path("/srv/rpms"))
    repository.add("shop", "1", ["Requires: shop-old"], {str(A): "a 1"})
    repository.add("shop", "2", ["Requires: shop-extra", "Requires: shop-lib >= 2"], {str(A): "a 2", str(NEW): "new 2"})
    repository.add("shop-old", "1")
    repository.add("shop-extra", "2", config={"/etc/shop/extra.conf": "extra 2"})
    for version in ("1", "2"):
        repository.add("shop-lib", version)
    repository.add("shop-user", "1", ["Requires: shop-lib >= 2"])
    repository.add("shop-ng", "2", ["Conflicts: shop-knot"])
    repository.add("shop-knot", "1", ["Conflicts: shop-ng"])
    repository.add("shop-knot-utils", "1", ["Requires: shop-knot"])
    repository.add("shop-knot-utils", "2", ["Requires: shop-ng"])
    kill = "%pre\nif test -e /run/shop-die; then rm /run/shop-die; kill -9 $PPID; fi"
    repository.add("shop-once", "1", ["Provides: /bin/sh"], scripts=kill)
    repository.add("shop-once", "2")
    repository.publish()
    return repository


@pytest.fixture(scope="module")
def built() -> rpms.Rpms:
    """The repository, built once."""
    return publish()


@pytest.fixture
def repository(built: rpms.Rpms) -> Iterator[rpms.Rpms]:
    """No rpm before and after."""
    _clean(built)
    yield built
    _clean(built)


def _clean(built: rpms.Rpms) -> None:
    rpms.purge()
    shutil.rmtree(CONFIG, ignore_errors=True)
    if not rpms.REPOSITORY.exists():
        built.publish()


class Round:
    """A resource, shadowed."""

    def __init__(self, tmp_path: Path, *packages: str, **options: Any) -> None:
        self.provider = PackageProvider(context(tmp_path))
        self.contents = MemoryContents()
        self.before = snapshot()
        self.shadow = self.provider.create(resource(*packages, **options), None, self.contents)

    def back(self) -> tuple[str, ...]:
        """Restore without any repository, and validate. Returns the notes."""
        rpms.Rpms.vanish()
        assert self.provider.drift(self.shadow, self.contents)
        outcome = self.provider.restore(self.shadow, self.contents, MemorySteps())
        self.provider.validate(self.shadow, self.contents)
        return outcome.notes

    def back_exactly(self) -> tuple[str, ...]:
        """`back`, and all packages are as they were."""
        notes = self.back()
        assert snapshot() == self.before
        assert self.provider.restore(self.shadow, self.contents, MemorySteps()).items == 0
        return notes


def install_shop() -> None:
    """A package with a dependency, locked, of which the administrator changed the configuration and another file."""
    rpms.dnf("install", "shop-1")
    rpms.dnf("versionlock", "add", "shop-1")
    A.write_text("mine\n")
    DATA.write_text("mine\n")


def upgrade_shop() -> None:
    """As an update does it, which takes away what is not needed any more."""
    rpms.LOCKS.write_text("")
    rpms.dnf("upgrade", "shop")
    rpms.dnf("autoremove")
    A.write_text("theirs\n")
    A.with_name("a.conf.rpmnew").write_text("2\n")


@pytest.mark.machine
@pytest.mark.root
@pytest.mark.usefixtures("repository")
class TestRestore:
    """What updates do to packages; each way back is without a repository."""

    def test_versions_dependencies_and_configuration(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        """There, killed in the middle, back, and forth again."""
        install_shop()
        one = Round(tmp_path, "shop")
        kept = {package["name"]: bool(package["archive"]) for package in one.shadow.data["packages"]}
        assert kept == {"shop": True, "shop-old": True}
        upgrade_shop()
        changed = snapshot()
        drift = one.provider.drift(one.shadow, one.contents)
        assert {
            f"{change.action} {change.what}: {change.before} -> {change.after}" for change in drift.changes[:4]
        } == {
            "replace package shop:noarch: 2-1 -> 1-1",
            "create package shop-old:noarch: not-installed -> 1-1",
            "remove package shop-extra:noarch: 2-1 -> 2-1 (not-installed)",
            "remove package shop-lib:noarch: 2-1 -> 2-1 (not-installed)",
        }
        displaced = one.provider.displace(one.shadow, one.contents)
        restore = partial(one.provider.restore, one.shadow, one.contents, MemorySteps())
        for kill_at in (20, 40):
            run_and_kill(restore, kill_at)
        assert one.back_exactly() == ()
        repository.publish()
        one.provider.restore(displaced, one.contents, MemorySteps())
        assert snapshot() == changed

    def test_what_would_break_others_is_refused(self, tmp_path: Path) -> None:
        rpms.dnf("install", "shop-lib-1", "shop-1")
        one = Round(tmp_path, "shop", "shop-lib")
        rpms.dnf("install", "shop-2", "shop-user")
        with pytest.raises(RestoreFailed, match="would remove or change shop-user-1-1.noarch too") as failed:
            one.back()
        check_sentence(failed.value)

    def test_a_knot_of_conflicts(self, tmp_path: Path) -> None:
        rpms.dnf("install", "shop-knot", "shop-knot-utils-1")
        one = Round(tmp_path, "shop-knot", "shop-knot-utils", "shop-ng", allow_missing=True)
        rpms.dnf("--allowerasing", "install", "shop-knot-utils-2")
        assert "shop-knot 1" not in str(snapshot())
        one.back_exactly()

    def test_rpm_is_killed_on_the_way_back_and_called_again(self, tmp_path: Path) -> None:
        rpms.dnf("install", "shop-once-1")
        one = Round(tmp_path, "shop-once")
        rpms.dnf("upgrade", "shop-once")
        Path("/run/shop-die").touch()
        one.back_exactly()
        assert not Path("/run/shop-die").exists()

    def test_locks_and_reasons_and_a_file_replaced_by_hand(self, tmp_path: Path) -> None:
        rpms.dnf("install", "shop-1")
        rpms.dnf("versionlock", "add", "shop-old")
        one = Round(tmp_path, "shop", "shop-old")
        rpms.dnf("versionlock", "delete", "shop-old")
        rpms.dnf("versionlock", "add", "shop")
        rpms.dnf("mark", "install", "shop-old")
        DATA.write_text("by hand\n")
        one.back_exactly()

    def test_what_was_not_installed_is_removed(self, tmp_path: Path) -> None:
        one = Round(tmp_path, "shop", allow_missing=True)
        rpms.dnf("install", "shop-2")
        A.write_text("mine\n")
        one.back_exactly()

    def test_what_no_repository_has_is_refused_before_the_update(self, tmp_path: Path) -> None:
        rpms.dnf("install", "shop-lib-1")
        rpms.Rpms.vanish()
        with pytest.raises(ShadowFailed, match="no repository has shop-lib:noarch 1-1 any more"):
            PackageProvider(context(tmp_path)).create(resource("shop-lib"), None, MemoryContents())

    def test_several_versions_at_a_time_are_refused(self, tmp_path: Path) -> None:
        rpms.dnf("install", "shop-lib-1")
        run("rpm", "--install", "--force", "/srv/rpms/packages/noarch/shop-lib-2-1.noarch.rpm")
        with pytest.raises(ShadowFailed, match="shop-lib:noarch is installed in several versions") as refused:
            PackageProvider(context(tmp_path)).create(resource("shop-lib"), None, MemoryContents())
        check_sentence(refused.value)
