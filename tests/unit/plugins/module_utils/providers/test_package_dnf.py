# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets of packages with a real dnf and rpm: Debian's, in the machine, with a repository made here."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import (
    RestoreFailed,
    ShadowFailed,
    SourceMissing,
    ValidationFailed,
)
from ansible_collections.umbra.rollback.plugins.module_utils.providers.package import PackageProvider
from ansible_collections.umbra.rollback.plugins.module_utils.resource import Resource, check_options
from ansible_collections.umbra.rollback.tests.unit.support import rpms
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents
from ansible_collections.umbra.rollback.tests.unit.support.debs import run

from . import conformance
from .conformance import MemorySteps, ProviderConformance, Subject, check_sentence, context, run_and_kill

CONFIG = Path("/etc/shop")
A, B, C, NEW = (CONFIG / name for name in ("a.conf", "b.conf", "c.conf", "new.conf"))
DATA = Path("/usr/share/shop/version")
DIRECTORY = Path("/srv/rpms")
NOTHING, SHOP = Path("/srv/saved/nothing"), Path("/srv/saved/shop")
LONG = "shop-with-a-name-that-is-longer-than-the-column-of-it"


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
    return {**rpms.state(), "files": files}


def publish() -> rpms.Rpms:
    """Two versions of a shop, and what belongs to it."""
    repository = rpms.Rpms(DIRECTORY)
    repository.add("shop", "1", ["Requires: shop-old"], {str(A): "a 1"})
    repository.add("shop", "2", ["Requires: shop-extra", "Requires: shop-lib >= 2"], {str(A): "a 2", str(NEW): "new 2"})
    repository.add("shop-old", "1")
    repository.add("shop-extra", "2", config={"/etc/shop/extra.conf": "extra 2"})
    repository.add("shop-user", "1", ["Requires: shop-lib >= 2"])
    data = "%package data\nSummary: a test\nRequires: /bin/sh\n%description data\na test\n%files data\n"
    for version in ("1", "2"):
        repository.add("shop-lib", version)
        repository.add("shop-kept", version, config={str(B): f"b {version}"})
        repository.add("shop-replaced", version, config={str(C): f"c {version}"}, directive="%config")
        repository.add("shop-db", version, ["Provides: /bin/sh"], more=data)
        repository.add(LONG, version, ["Epoch: 3"])
        repository.add("shop-long", version, [f"Requires: {LONG} = 3:{version}"])
        repository.add("shop-arch", version, native=version == "2")
    repository.add("shop-ng", "2", ["Conflicts: shop-knot"])
    repository.add("shop-knot", "1", ["Conflicts: shop-ng"])
    repository.add("shop-knot-utils", "1", ["Requires: shop-knot"])
    repository.add("shop-knot-utils", "2", ["Requires: shop-ng"])
    repository.add("shop-gone", "1")
    repository.add("shop-next", "1")
    repository.add("shop-next", "2", ["Obsoletes: shop-gone"])
    kill = "if test -e /run/shop-die; then rm /run/shop-die; kill -9 $PPID; fi"
    repository.add("shop-once", "1", ["Provides: /bin/sh"], more=f"%pre\n{kill}")
    repository.add("shop-once", "2", ["Provides: /bin/sh"], more=f"%post\n{kill}")
    repository.publish()
    return repository


@pytest.fixture(scope="module")
def built() -> rpms.Rpms:
    """The repository, built once; and a shop, installed once: with a dependency, and locked."""
    repository = publish()
    rpms.save(NOTHING)
    rpms.dnf("install", "shop-1")
    rpms.dnf("versionlock", "add", "shop-1")
    rpms.save(SHOP)
    return repository


@pytest.fixture
def repository(built: rpms.Rpms) -> Iterator[rpms.Rpms]:
    """No rpm at first."""
    rpms.load(NOTHING)
    rpms.empty_cache()
    yield built
    built.come()


def install_shop() -> None:
    """The administrator changed its configuration, and another file."""
    rpms.load(SHOP)
    A.write_text("mine\n")
    DATA.write_text("mine\n")


class Round:
    """A resource, shadowed."""

    def __init__(self, tmp_path: Path, repository: rpms.Rpms, *packages: str, **options: Any) -> None:
        self.repository = repository
        self.provider = PackageProvider(context(tmp_path))
        self.contents = MemoryContents()
        self.before = snapshot()
        self.shadow = self.provider.create(resource(*packages, **options), None, self.contents)
        assert snapshot() == self.before

    @property
    def covered(self) -> dict[str, bool]:
        """Keys of what it covers, and whether an archive is kept."""
        return {f"{one['name']}:{one['arch']}": bool(one["archive"]) for one in self.shadow.data["packages"]}

    def drift(self) -> list[str]:
        """In words."""
        changes = self.provider.drift(self.shadow, self.contents).changes
        return [f"{change.action} {change.what}: {change.before} -> {change.after}" for change in changes]

    def back(self) -> tuple[str, ...]:
        """Restore without a repository, and validate. Returns the notes."""
        self.repository.vanish()
        outcome = self.provider.restore(self.shadow, self.contents, MemorySteps())
        self.provider.validate(self.shadow, self.contents)
        assert outcome.items > 0
        return outcome.notes

    def back_exactly(self) -> tuple[str, ...]:
        """`back`, and all packages are as they were."""
        notes = self.back()
        assert snapshot() == self.before
        assert not self.provider.drift(self.shadow, self.contents)
        return notes


class ShopSubject(Subject):
    """A locked package with a dependency, and a configuration file that the administrator changed."""

    def __init__(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        self.provider = PackageProvider(context(tmp_path))
        self.resource = resource("shop")
        rpms.load(SHOP)
        repository.cache("shop-1", "shop-old-1")  # another test has them downloaded
        A.write_text("mine\n")

    def change(self) -> None:
        """As an update does it, with a real .rpmnew."""
        rpms.LOCKS.write_text("")
        rpms.dnf("upgrade", "shop")
        A.write_text("theirs\n")
        os.utime(A, ns=(1, 1))

    def snapshot(self) -> object:
        """Packages, locks, reasons and files."""
        return snapshot()

    def destroy(self) -> None:
        """Removed, with all that it needed."""
        rpms.LOCKS.write_text("")
        rpms.dnf("remove", "shop")
        shutil.rmtree(CONFIG)

    def refused(self) -> Iterator[Resource]:
        """What is not there."""
        yield replace(resource("shop", "shop-none"), name="refused")
        yield replace(resource("*"), name="refused")

    def query(self) -> Mapping[str, Any]:
        """By its name."""
        return {"pattern": "sho*", "manager": "dnf"}


@pytest.mark.machine
@pytest.mark.root
@pytest.mark.usefixtures("repository")
class TestConformance(ProviderConformance):
    """What every provider promises."""

    @pytest.fixture
    def subject(self, tmp_path: Path, repository: rpms.Rpms, monkeypatch: pytest.MonkeyPatch) -> Subject:
        monkeypatch.setattr(conformance, "KILLS", 3)  # each takes seconds
        return ShopSubject(tmp_path, repository)


@pytest.mark.machine
@pytest.mark.root
class TestRestore:
    """What updates do to packages; each way back is without a repository."""

    def test_versions_dependencies_and_configuration(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        """There, killed in the middle, back, and forth again."""
        install_shop()
        one = Round(tmp_path, repository, "shop")
        assert one.covered == {"shop:noarch": True, "shop-old:noarch": True}
        rpms.LOCKS.write_text("")
        rpms.dnf("upgrade", "shop")
        rpms.dnf("autoremove")
        assert A.with_name("a.conf.rpmnew").read_text() == "a 2\n" and NEW.exists()
        changed = snapshot()
        assert one.drift()[:4] == [
            "replace package shop:noarch: 2-1 -> 1-1",
            "create package shop-old:noarch: not-installed -> 1-1",
            "remove package shop-extra:noarch: 2-1 -> 2-1 (not-installed)",
            "remove package shop-lib:noarch: 2-1 -> 2-1 (not-installed)",
        ]
        displaced = one.provider.displace(one.shadow, one.contents)
        restore = partial(one.provider.restore, one.shadow, one.contents, MemorySteps())
        for kill_at in (20, 40):
            run_and_kill(restore, kill_at)
        assert one.back_exactly() == ()
        repository.come()
        one.provider.restore(displaced, one.contents, MemorySteps())
        assert snapshot() == changed

    def test_what_others_need_now_stays(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        rpms.dnf("install", "shop-lib-1", "shop-1")
        one = Round(tmp_path, repository, "shop")
        assert one.covered["shop-lib:noarch"]
        rpms.dnf("install", "shop-2", "shop-user")
        assert one.back() == ("shop-lib:noarch stays 2-1 and was 1-1: shop-user-1-1.noarch would suffer",)
        assert "shop-user 1-1 noarch" in str(rpms.state()["packages"])

    def test_what_would_break_others_is_refused(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        rpms.dnf("install", "shop-lib-1")
        one = Round(tmp_path, repository, "shop-lib")
        rpms.dnf("install", "shop-lib-2", "shop-user")
        before = snapshot()
        with pytest.raises(RestoreFailed, match="would remove or change shop-user-1-1.noarch too") as failed:
            one.back()
        check_sentence(failed.value)
        assert snapshot() == before

    def test_what_goes_along_with_a_locked_and_protected_package(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        """A name that is longer than the table of dnf allows, an epoch, and dnf's protection."""
        rpms.dnf("install", "shop-long-1", "shop-1")
        rpms.dnf("versionlock", "add", "shop-long")
        protected = Path("/etc/dnf/protected.d/shop.conf")
        protected.write_text("shop\n")
        one = Round(tmp_path, repository, "shop-long", "shop")
        assert sorted(one.covered) == ["shop-long:noarch", "shop-old:noarch", f"{LONG}:noarch", "shop:noarch"]
        protected.unlink()
        rpms.dnf("--disableplugin=versionlock", "upgrade", "shop-long")
        one.back_exactly()

    def test_packages_of_one_source_go_back_together(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        rpms.dnf("install", "shop-db-1", "shop-db-data-1")
        one = Round(tmp_path, repository, "shop-db")
        assert one.covered == {"shop-db:noarch": True, "shop-db-data:noarch": True}
        rpms.dnf("upgrade", "shop-db", "shop-db-data")
        one.back_exactly()

    def test_a_knot_of_conflicts(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        rpms.dnf("install", "shop-knot", "shop-knot-utils-1")
        one = Round(tmp_path, repository, "shop-knot", "shop-knot-utils", "shop-ng", allow_missing=True)
        rpms.dnf("--allowerasing", "install", "shop-knot-utils-2")
        assert "shop-knot 1" not in str(snapshot())
        one.back_exactly()

    def test_what_was_obsoleted(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        """A package whose new version takes the place of another one."""
        rpms.dnf("install", "shop-gone", "shop-next-1")
        one = Round(tmp_path, repository, "shop-next")
        assert one.covered == {"shop-gone:noarch": True, "shop-next:noarch": True}
        rpms.dnf("upgrade", "shop-next")
        assert "shop-gone 1" not in str(snapshot())
        one.back_exactly()

    def test_another_architecture(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        rpms.dnf("install", "shop-arch-1")
        one = Round(tmp_path, repository, "shop-arch")
        rpms.dnf("upgrade", "shop-arch")
        assert "noarch" not in str(rpms.state()["packages"])
        one.back_exactly()

    def test_an_update_that_was_killed(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        """The new version came, and the old one did not go."""
        rpms.dnf("install", "shop-once-1")
        one = Round(tmp_path, repository, "shop-once")
        Path("/run/shop-die").touch()
        rpms.dnf("upgrade", "shop-once", check=False)
        assert rpms.state()["packages"] == ["shop-once 1-1 noarch", "shop-once 2-1 noarch"]
        one.back_exactly()

    def test_rpm_is_killed_on_the_way_back_and_called_again(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        rpms.dnf("install", "shop-once-1")
        one = Round(tmp_path, repository, "shop-once")
        rpms.dnf("upgrade", "shop-once")
        Path("/run/shop-die").touch()
        one.back_exactly()
        assert not Path("/run/shop-die").exists()

    def test_locks_and_reasons_and_a_file_replaced_by_hand(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        rpms.dnf("install", "shop-1")
        rpms.dnf("versionlock", "add", "shop-old")
        rpms.dnf("versionlock", "exclude", "shop-2")
        one = Round(tmp_path, repository, "shop", "shop-old")
        rpms.dnf("versionlock", "delete", "shop-old")
        rpms.dnf("versionlock", "add", "shop-1")
        rpms.dnf("mark", "install", "shop-old")
        DATA.write_text("by hand\n")
        assert one.drift() == [
            "replace package shop:noarch: 1-1 -> 1-1",
            "metadata package shop:noarch: held (shop-0:1-1.*), manual -> not held, manual",
            "metadata package shop-old:noarch: not held, manual -> held (shop-old-0:1-1.*), automatic",
        ]
        one.back_exactly()

    def test_a_lock_on_the_new_version_is_one_on_the_old_again(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        rpms.dnf("install", "shop-lib-1")
        rpms.dnf("versionlock", "add", "shop-lib")
        one = Round(tmp_path, repository, "shop-lib")
        rpms.dnf("versionlock", "delete", "shop-lib")
        rpms.dnf("upgrade", "shop-lib")
        rpms.dnf("versionlock", "add", "shop-lib")
        one.back_exactly()

    def test_what_was_not_installed_is_removed(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        one = Round(tmp_path, repository, "shop", allow_missing=True)
        rpms.dnf("install", "shop-2")
        rpms.dnf("versionlock", "add", "shop")
        A.write_text("mine\n")
        one.back_exactly()


@pytest.mark.machine
@pytest.mark.root
class TestFiles:
    """Configuration, and what rpm leaves beside it."""

    def test_what_rpm_leaves_beside_configuration(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        """Real ones, from files that the administrator changed; one of an earlier update stays as it was."""
        rpms.dnf("install", "shop-kept-1", "shop-replaced-1")
        earlier = C.with_name("c.conf.rpmnew")
        for path in (B, C, earlier):
            path.write_text("mine\n")
        one = Round(tmp_path, repository, "shop-kept", "shop-replaced")
        rpms.dnf("upgrade", "shop-kept", "shop-replaced")
        left = sorted(path.name for path in CONFIG.iterdir())
        assert left == ["b.conf", "b.conf.rpmnew", "c.conf", "c.conf.rpmnew", "c.conf.rpmsave"]
        assert (B.read_text(), C.read_text()) == ("mine\n", "c 2\n")
        one.back_exactly()
        assert earlier.read_text() == "mine\n"

    def test_a_configuration_file_that_was_deleted_stays_deleted(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        rpms.dnf("install", "shop-replaced-1")
        C.unlink()
        one = Round(tmp_path, repository, "shop-replaced")
        rpms.dnf("upgrade", "shop-replaced")
        assert C.exists()
        one.back_exactly()

    def test_a_file_of_the_user_is_not_taken_for_one_of_the_new_version(
        self, tmp_path: Path, repository: rpms.Rpms
    ) -> None:
        """It was there before, nobody's; the new version has a configuration file of that name."""
        rpms.dnf("install", "shop-1")
        NEW.write_text("mine\n")
        one = Round(tmp_path, repository, "shop")
        rpms.dnf("upgrade", "shop")
        assert NEW.read_text() == "mine\n"
        one.back()
        assert snapshot() == one.before

        rpms.dnf("remove", "shop")
        NEW.write_text("mine\n")
        one = Round(tmp_path, repository, "shop", allow_missing=True)
        repository.come()
        rpms.dnf("install", "shop-2")
        one.back_exactly()

    def test_neither_is_one_that_is_equal_to_it(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        """rpm deletes it, and does not rename it."""
        rpms.dnf("install", "shop-1")
        NEW.write_text("new 2\n")
        one = Round(tmp_path, repository, "shop")
        rpms.dnf("upgrade", "shop")
        one.back()
        assert NEW.read_text() == "new 2\n"


@pytest.mark.machine
@pytest.mark.root
class TestArchives:
    """Where archives come from."""

    def test_what_no_repository_has_is_refused_before_the_update(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        rpms.dnf("install", "shop-lib-1")
        repository.vanish()
        provider = PackageProvider(context(tmp_path))
        with pytest.raises(ShadowFailed, match="no repository has shop-lib:noarch 1-1 any more") as refused:
            provider.create(resource("shop-lib"), None, MemoryContents())
        check_sentence(refused.value)
        one = Round(tmp_path, repository, "shop-lib", fetch=False)
        assert one.covered == {"shop-lib:noarch": False}
        repository.come()
        rpms.dnf("upgrade", "shop-lib")
        repository.vanish()
        restore = partial(one.provider.restore, one.shadow, one.contents, MemorySteps())
        with pytest.raises(RestoreFailed, match="the archive of shop-lib:noarch 1-1 was not kept") as failed:
            restore()
        check_sentence(failed.value)
        repository.come()
        restore()
        assert snapshot() == one.before

    def test_the_cache_of_dnf_serves_when_it_is_right(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        rpms.dnf("install", "shop-lib-1")
        whole = repository.path("shop-lib-1").read_bytes()
        cached = repository.cache("shop-lib-1")
        repository.vanish(and_cache=False)
        cached.write_bytes(whole[:-9] + b"x" * 9)
        provider = PackageProvider(context(tmp_path))
        with pytest.raises(ShadowFailed, match="no repository has shop-lib:noarch 1-1 any more"):
            provider.create(resource("shop-lib"), None, MemoryContents())
        cached.write_bytes(whole)
        one = Round(tmp_path, repository, "shop-lib")
        assert one.contents.get(one.shadow.data["packages"][0]["archive"]) == whole


@pytest.mark.machine
@pytest.mark.root
class TestRefusals:
    """What is said, and to whom."""

    def test_the_holder_of_the_lock_is_named(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        rpms.dnf("install", "shop-lib-1")
        one = Round(tmp_path, repository, "shop-lib", timeout=1)
        rpms.dnf("upgrade", "shop-lib")
        script = "import fcntl; f = open('/var/lib/rpm/.rpm.lock', 'w'); fcntl.lockf(f, 2); print(); input()"
        argv = ["python3", "-uc", script]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            with pytest.raises(RestoreFailed, match=rf"is held by process {holder.pid} \(python3 -uc") as busy:
                one.provider.restore(one.shadow, one.contents, MemorySteps())
            check_sentence(busy.value)
            holder.kill()

    def test_several_versions_at_a_time_are_refused(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        rpms.dnf("install", "shop-lib-1")
        run("rpm", "--install", "--force", str(repository.path("shop-lib-2")))
        provider = PackageProvider(context(tmp_path))
        for call in (provider.estimate, lambda one: provider.create(one, None, MemoryContents())):
            with pytest.raises(ShadowFailed, match="shop-lib:noarch is installed in several versions") as refused:
                call(resource("shop-lib"))
            check_sentence(refused.value)

    def test_a_name_that_is_not_there(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        with pytest.raises(SourceMissing, match="package shop-typo does not exist"):
            PackageProvider(context(tmp_path)).estimate(resource("shop-typo"))

    def test_the_message_names_what_differs(self, tmp_path: Path, repository: rpms.Rpms) -> None:
        rpms.dnf("install", "shop-1", "shop-lib-1")
        one = Round(tmp_path, repository, "shop", "shop-lib")
        rpms.dnf("upgrade", "shop-lib")
        with pytest.raises(ValidationFailed, match="package shop-lib:noarch is 2-1 and was 1-1") as failed:
            one.provider.validate(one.shadow, one.contents)
        check_sentence(failed.value)
        rpms.dnf("downgrade", "shop-lib-1")
        run("rpm", "--erase", "--nodeps", "shop-old")
        with pytest.raises(ValidationFailed, match=r"shop-old is needed by \(installed\) shop-1-1.noarch") as failed:
            one.provider.validate(one.shadow, one.contents)
        check_sentence(failed.value)
