# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets of packages with a real apt and dpkg, which know nothing but a repository made here."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import (
    RestoreFailed,
    ShadowFailed,
    SourceMissing,
    Unsupported,
    ValidationFailed,
)
from ansible_collections.umbra.rollback.plugins.module_utils.packages import managers
from ansible_collections.umbra.rollback.plugins.module_utils.providers.package import PackageProvider
from ansible_collections.umbra.rollback.plugins.module_utils.resource import Resource, check_options
from ansible_collections.umbra.rollback.tests.unit.support import debs
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents

from . import conformance
from .conformance import MemorySteps, ProviderConformance, Subject, check_sentence, context

CONFIG = Path("/etc/shop")
A, NEW = "/etc/shop/a.conf", "/etc/shop/new.conf"
DIRECTORY = Path("/srv/debs")
# It needs what another resource brings back.
SERVICE = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/test -e /run/shop-settings\n"
SERVICE += "[Install]\nWantedBy=multi-user.target\n"


def resource(*packages: str, **options: Any) -> Resource:
    """A resource with the defaults filled in."""
    values = check_options({"packages": packages, **options}, PackageProvider.interface.options, "test")
    return Resource("the-packages", "package", values)


def files() -> dict[str, str]:
    """Configuration, with all that may have been left beside it."""
    found = {}
    for path in CONFIG.rglob("*") if CONFIG.is_dir() else ():
        if path.is_file():
            st = path.stat()
            found[str(path)] = f"{st.st_mode:o} {st.st_uid} {st.st_mtime_ns} {path.read_text()}"
    return found


def snapshot() -> dict[str, object]:
    """All of our packages, and their files."""
    shared = {str(path): path.read_text() for path in Path("/usr/share").glob("shop*/*")}
    return {**debs.state("shop"), "config": files(), "files": shared}


def publish() -> debs.Debs:
    """Two versions of a shop, and what belongs to it."""
    repository = debs.Debs(DIRECTORY)
    one, two = {A: "a 1\n"}, {A: "a 2\n", NEW: "new 2\n"}
    repository.add("shop", "1", {"Depends": "shop-old"}, one)
    repository.add("shop", "2", {"Depends": "shop-extra, shop-lib (>= 2)"}, two)
    repository.add("shop-old", "1")
    repository.add("shop-extra", "2", config={"/etc/shop/extra.conf": "extra 2\n"})
    for version in ("1", "2"):
        repository.add("shop-lib", version)
        repository.add("shop-db", version, {"Source": "shop-database", "Depends": f"shop-db-data (= {version})"})
        repository.add("shop-db-data", version, {"Source": "shop-database"})
    repository.add("shop-user", "1", {"Depends": "shop-lib (>= 2)"})
    repository.add("shop-bad", "1")
    repository.add("shop-bad", "2", scripts={"postinst": "touch /run/shop-bad-ran; exit 1"})
    repository.add("shop-slow", "1")
    repository.add("shop-slow", "2", scripts={"preinst": "kill -9 $PPID"})
    repository.add(
        "shop-once", "1", scripts={"postinst": "test ! -e /run/shop-die || { rm /run/shop-die; kill -9 $PPID; }"}
    )
    repository.add("shop-once", "2")
    unit = {"/lib/systemd/system/shop-service.service": SERVICE}
    start = "systemctl enable shop-service; deb-systemd-invoke restart shop-service.service || exit 1"
    for version in ("1", "2"):
        repository.add("shop-service", version, files=unit, scripts={"postinst": start})
    repository.add("shop-ng", "2", {"Conflicts": "shop-knot", "Replaces": "shop-knot"})
    repository.add("shop-knot", "1", {"Conflicts": "shop-ng"})
    repository.add("shop-knot-utils", "1", {"Depends": "shop-knot"})
    repository.add("shop-knot-utils", "2", {"Depends": "shop-ng"})
    repository.add("shop-mover", "1", files={"/usr/share/shop-tool/tool": "1\n"})
    repository.add("shop-mover", "2", {"Depends": "shop-tool"})
    moved = {"Breaks": "shop-mover (<< 2)", "Replaces": "shop-mover (<< 2)"}
    repository.add("shop-tool", "2", moved, files={"/usr/share/shop-tool/tool": "2\n"})
    native = debs.run("dpkg", "--print-architecture").strip()
    repository.add("shop-arch", "1")
    repository.add("shop-arch", "2", arch=native)
    repository.publish()
    return repository


@pytest.fixture(scope="module")
def built() -> debs.Debs:
    """The repository, built once."""
    return publish()


@pytest.fixture
def repository(built: debs.Debs) -> Iterator[debs.Debs]:
    """None of our packages before and after."""
    _clean(built)
    yield built
    _clean(built)


def _clean(built: debs.Debs) -> None:
    debs.purge("shop")
    shutil.rmtree(CONFIG, ignore_errors=True)
    if not debs.SOURCES.read_text():
        built.publish()
    debs.run("apt-get", "clean")


class Round:
    """A resource, shadowed."""

    def __init__(self, tmp_path: Path, *packages: str, **options: Any) -> None:
        self.provider = PackageProvider(context(tmp_path))
        self.contents = MemoryContents()
        self.before = snapshot()
        self.shadow = self.provider.create(resource(*packages, **options), None, self.contents)
        assert snapshot() == self.before

    @property
    def covered(self) -> dict[str, bool]:
        """Keys of what it covers, and whether an archive is kept."""
        return {f"{one['name']}:{one['arch']}": bool(one["archive"]) for one in self.shadow.data["packages"]}

    def back(self, offline: bool = True) -> tuple[str, ...]:
        """Restore without any repository, and validate. Returns the notes."""
        if offline:
            debs.Debs.vanish()
        assert self.provider.drift(self.shadow, self.contents)
        outcome = self.provider.restore(self.shadow, self.contents, MemorySteps())
        self.provider.validate(self.shadow, self.contents)
        return outcome.notes

    def back_exactly(self) -> tuple[str, ...]:
        """`back`, and all of our packages are as they were."""
        notes = self.back()
        assert snapshot() == self.before
        assert not self.provider.drift(self.shadow, self.contents)
        assert self.provider.restore(self.shadow, self.contents, MemorySteps()).items == 0
        return notes


class ShopSubject(Subject):
    """A package with a dependency, and a configuration file that the administrator changed."""

    def __init__(self, tmp_path: Path) -> None:
        self.provider = PackageProvider(context(tmp_path))
        self.resource = resource("shop")
        debs.install("shop=1")
        debs.run("apt-mark", "hold", "shop")
        Path(A).write_text("mine\n")

    def change(self) -> None:
        """As an update does it, which takes away what is not needed any more."""
        debs.install("shop=2")
        debs.run("apt-mark", "unhold", "shop")
        debs.run("apt-get", "-y", "--purge", "autoremove")
        Path(A).write_text("theirs\n")
        os.utime(A, ns=(1, 1))
        os.utime(f"{A}.dpkg-dist", ns=(1, 1))

    def snapshot(self) -> object:
        """Packages, marks and files."""
        return snapshot()

    def destroy(self) -> None:
        """Purged, with all that it needed."""
        debs.run("apt-mark", "unhold", "shop")
        debs.run("apt-get", "-y", "--purge", "--auto-remove", "remove", "shop")

    def refused(self) -> Iterator[Resource]:
        """What is not there."""
        yield replace(resource("shop", "shop-none"), name="refused")
        yield replace(resource("*"), name="refused")

    def query(self) -> Mapping[str, Any]:
        """By its name."""
        return {"pattern": "sho*"}


@pytest.mark.machine
@pytest.mark.root
@pytest.mark.usefixtures("repository")
class TestConformance(ProviderConformance):
    """What every provider promises."""

    @pytest.fixture
    def subject(self, tmp_path: Path, repository: debs.Debs, monkeypatch: pytest.MonkeyPatch) -> Subject:
        monkeypatch.setattr(conformance, "KILLS", 8)  # each takes seconds
        return ShopSubject(tmp_path)


@pytest.mark.machine
@pytest.mark.root
@pytest.mark.usefixtures("repository")
class TestRestore:
    """What updates do to packages; each way back is without a repository."""

    def test_versions_dependencies_and_configuration(self, tmp_path: Path) -> None:
        """The dependency that the old version needs was removed, the one that the new version needs came."""
        ShopSubject(tmp_path)
        one = Round(tmp_path, "shop")
        assert one.covered == {"shop:all": True, "shop-old:all": True}
        debs.install("shop=2")
        debs.run("apt-get", "-y", "--purge", "autoremove")
        assert Path(NEW).exists() and not Path("/usr/share/shop-old").exists()
        drift = one.provider.drift(one.shadow, one.contents)
        said = [f"{change.action} {change.what}: {change.before} -> {change.after}" for change in drift.changes]
        assert said[:4] == [
            "replace package shop:all: 2 -> 1",
            "create package shop-old:all: not-installed -> 1",
            "remove package shop-extra:all: 2 -> 2 (not-installed)",
            "remove package shop-lib:all: 2 -> 2 (not-installed)",
        ]
        assert one.back_exactly() == ()

    def test_what_others_need_now_stays(self, tmp_path: Path) -> None:
        debs.install("shop-lib=1", "shop=1")
        debs.run("apt-mark", "auto", "shop-lib")
        one = Round(tmp_path, "shop")
        assert one.covered["shop-lib:all"]
        debs.install("shop=2", "shop-user")
        assert one.back() == ("shop-lib:all stays 2 and was 1: shop-user would suffer",)
        assert "shop-user 1 ii " in str(snapshot())

    def test_what_would_break_others_is_refused(self, tmp_path: Path) -> None:
        debs.install("shop-lib=1")
        one = Round(tmp_path, "shop-lib")
        debs.install("shop-lib=2", "shop-user")
        before = snapshot()
        with pytest.raises(RestoreFailed, match="would remove or change shop-user too") as failed:
            one.back()
        check_sentence(failed.value)
        assert snapshot() == before

    def test_packages_of_one_source_go_back_together(self, tmp_path: Path) -> None:
        debs.install("shop-db=1", "shop-db-data=1")
        Debs = debs.Debs
        Debs.vanish()  # apt can't foresee it
        publish()
        one = Round(tmp_path, "shop-db")
        assert one.covered == {"shop-db:all": True, "shop-db-data:all": True}
        debs.install("shop-db=2", "shop-db-data=2")
        one.back_exactly()

    def test_a_failed_update_goes_back_without_running_its_scripts_again(self, tmp_path: Path) -> None:
        debs.install("shop-bad=1")
        one = Round(tmp_path, "shop-bad")
        debs.install("shop-bad=2", check=False)
        assert "half-configured" in debs.run("dpkg-query", "--show", "--showformat=${Status}", "shop-bad")
        Path("/run/shop-bad-ran").unlink()
        one.back_exactly()
        assert not Path("/run/shop-bad-ran").exists()

    def test_an_update_that_was_killed(self, tmp_path: Path) -> None:
        debs.install("shop-slow=1")
        one = Round(tmp_path, "shop-slow")
        debs.install("shop-slow=2", check=False)
        assert "reinst" in debs.run("dpkg-query", "--show", "--showformat=${Status}", "shop-slow")
        one.back_exactly()

    def test_a_new_package_whose_installation_was_killed(self, tmp_path: Path) -> None:
        one = Round(tmp_path, "shop-slow", allow_missing=True)
        debs.install("shop-slow=2", check=False)
        one.back_exactly()

    def test_dpkg_is_killed_on_the_way_back(self, tmp_path: Path) -> None:
        debs.install("shop-once=1")
        one = Round(tmp_path, "shop-once")
        debs.install("shop-once=2")
        debs.Debs.vanish()
        Path("/run/shop-die").touch()
        with pytest.raises(RestoreFailed, match="shop-once:all") as failed:
            one.provider.restore(one.shadow, one.contents, MemorySteps())
        check_sentence(failed.value)
        assert not Path("/run/shop-die").exists()
        one.back_exactly()

    def test_a_service_that_can_not_start_yet_stops_nothing(self, tmp_path: Path) -> None:
        """Its package is back; the service stays for whoever brings back what it needs."""
        settings = Path("/run/shop-settings")
        settings.touch()
        debs.install("shop-service=1")
        one = Round(tmp_path, "shop-service")
        debs.install("shop-service=2")
        settings.unlink()
        try:
            one.back_exactly()
            assert debs.run("systemctl", "is-active", "shop-service", check=False).strip() != "active"
        finally:
            debs.run("systemctl", "disable", "shop-service")

    def test_a_knot_of_conflicts(self, tmp_path: Path) -> None:
        """The old package conflicts with what only the new version of another one needs."""
        debs.install("shop-knot", "shop-knot-utils=1")
        one = Round(tmp_path, "shop-knot", "shop-knot-utils", "shop-ng", allow_missing=True)
        debs.install("shop-knot-utils=2")
        assert "shop-knot 1 ii" not in str(snapshot())
        one.back_exactly()

    def test_a_file_that_moved_to_another_package(self, tmp_path: Path) -> None:
        debs.install("shop-mover=1")
        one = Round(tmp_path, "shop-mover")
        debs.install("shop-mover=2")
        one.back_exactly()

    def test_another_architecture(self, tmp_path: Path) -> None:
        debs.install("shop-arch=1")
        one = Round(tmp_path, "shop-arch")
        debs.install("shop-arch=2")
        displaced = one.provider.displace(one.shadow, one.contents)
        changed = snapshot()
        one.provider.restore(one.shadow, one.contents, MemorySteps())
        assert snapshot() == one.before
        one.provider.restore(displaced, one.contents, MemorySteps())
        assert snapshot() == changed

    def test_holds_and_marks(self, tmp_path: Path) -> None:
        debs.install("shop=1")
        debs.run("apt-mark", "hold", "shop-old")
        debs.run("apt-mark", "auto", "shop")
        one = Round(tmp_path, "shop", "shop-old")
        debs.run("apt-mark", "unhold", "shop-old")
        debs.run("apt-mark", "manual", "shop", "shop-old")
        debs.run("apt-mark", "hold", "shop")
        drift = one.provider.drift(one.shadow, one.contents)
        assert [f"{change.what}: {change.before} -> {change.after}" for change in drift.changes] == [
            "package shop:all: held, manual -> not held, automatic",
            "package shop-old:all: not held, manual -> held, automatic",
        ]
        one.back_exactly()

    def test_what_was_not_installed_is_purged(self, tmp_path: Path) -> None:
        one = Round(tmp_path, "shop", allow_missing=True)
        debs.install("shop=1")
        debs.run("apt-mark", "hold", "shop")
        Path(A).write_text("mine\n")
        one.back_exactly()
        assert not CONFIG.exists()

    def test_what_was_only_configuration_is_that_again(self, tmp_path: Path) -> None:
        debs.install("shop=1")
        Path(A).write_text("mine\n")
        debs.run("dpkg", "--remove", "shop")
        one = Round(tmp_path, "shop")
        debs.install("shop=2")
        debs.run("apt-get", "-y", "autoremove")
        Path(A).write_text("theirs\n")
        notes = one.back()
        assert notes == ()
        assert debs.run("dpkg-query", "--show", "--showformat=${db:Status-Status}", "shop") == "config-files"
        assert Path(A).read_text() == "mine\n"


@pytest.mark.machine
@pytest.mark.root
@pytest.mark.usefixtures("repository")
class TestFiles:
    """Configuration, and what people changed."""

    def test_a_configuration_file_that_was_deleted_stays_deleted(self, tmp_path: Path) -> None:
        debs.install("shop=1")
        Path(A).unlink()
        one = Round(tmp_path, "shop")
        debs.install("shop=2", "-o", "Dpkg::Options::=--force-confmiss")
        assert Path(A).exists()
        one.back_exactly()

    def test_a_file_of_the_user_is_not_taken_for_one_of_the_new_version(self, tmp_path: Path) -> None:
        """It was there before, nobody's; the new version has a configuration file of that name."""
        debs.install("shop=1")
        Path(NEW).write_text("mine\n")
        one = Round(tmp_path, "shop")
        debs.install("shop=2")
        assert Path(NEW).read_text() == "mine\n"
        one.back()
        assert Path(NEW).read_text() == "mine\n"

    def test_a_file_that_was_replaced_by_hand_comes_back(self, tmp_path: Path) -> None:
        debs.install("shop=1")
        one = Round(tmp_path, "shop")
        Path("/usr/share/shop/version").write_text("by hand\n")
        drift = one.provider.drift(one.shadow, one.contents)
        assert [change.what for change in drift.changes] == ["package shop:all"]
        one.back_exactly()

    def test_a_file_that_people_had_changed_stays_changed(self, tmp_path: Path) -> None:
        debs.install("shop=1")
        Path("/usr/share/shop/version").write_text("by hand\n")
        one = Round(tmp_path, "shop")
        debs.install("shop=2")
        assert Path("/usr/share/shop/version").read_text() == "2\n"
        one.back_exactly()


@pytest.mark.machine
@pytest.mark.root
@pytest.mark.usefixtures("repository")
class TestArchives:
    """Where archives come from."""

    def test_what_no_repository_has_is_refused_before_the_update(self, tmp_path: Path, repository: debs.Debs) -> None:
        debs.install("shop-lib=1")
        debs.Debs.vanish()
        provider = PackageProvider(context(tmp_path))
        with pytest.raises(ShadowFailed, match="no repository has shop-lib:all 1 any more") as refused:
            provider.create(resource("shop-lib"), None, MemoryContents())
        check_sentence(refused.value)
        one = Round(tmp_path, "shop-lib", fetch=False)
        assert one.covered == {"shop-lib:all": False}
        repository.publish()
        debs.install("shop-lib=2")
        debs.Debs.vanish()
        with pytest.raises(RestoreFailed, match="the archive of shop-lib:all 1 was not kept") as failed:
            one.provider.restore(one.shadow, one.contents, MemorySteps())
        check_sentence(failed.value)
        repository.publish()
        one.back(offline=False)
        assert snapshot() == one.before

    def test_the_cache_of_apt_serves(self, tmp_path: Path) -> None:
        debs.install("shop-lib=1")
        shutil.copy(DIRECTORY / "shop-lib_1_all.deb", "/var/cache/apt/archives/")
        debs.SOURCES.write_text("")
        debs.run("apt-get", "update")
        one = Round(tmp_path, "shop-lib")
        assert one.covered == {"shop-lib:all": True}

    def test_a_cached_archive_that_is_not_the_listed_one_is_not_believed(
        self, tmp_path: Path, repository: debs.Debs
    ) -> None:
        debs.install("shop-lib=1")
        other = debs.Debs(tmp_path / "other").add("shop-lib", "1", files={"/usr/share/shop-lib/evil": "x"})
        shutil.copy(other, "/var/cache/apt/archives/shop-lib_1_all.deb")
        one = Round(tmp_path, "shop-lib")
        digest = one.shadow.data["packages"][0]["archive"]
        assert one.contents.get(digest) == (repository.directory / "shop-lib_1_all.deb").read_bytes()

    def test_undo_without_the_new_archive_names_it(self, tmp_path: Path) -> None:
        debs.install("shop-lib=1")
        one = Round(tmp_path, "shop-lib")
        debs.install("shop-lib=2")
        displaced = one.provider.displace(one.shadow, one.contents)
        one.back()
        with pytest.raises(RestoreFailed, match="the archive of shop-lib:all 2 was not kept"):
            one.provider.restore(displaced, one.contents, MemorySteps())


@pytest.mark.machine
@pytest.mark.root
@pytest.mark.usefixtures("repository")
class TestRefusals:
    """What is said, and to whom."""

    def test_the_holder_of_the_lock_is_named(self, tmp_path: Path) -> None:
        debs.install("shop-lib=1")
        one = Round(tmp_path, "shop-lib", timeout=1)
        debs.install("shop-lib=2")
        script = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(); input()"
        for path in ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock"):
            argv = ["python3", "-uc", script, path]
            with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
                assert holder.stdout is not None
                holder.stdout.readline()
                with pytest.raises(RestoreFailed, match=rf"is held by process {holder.pid} \(python3 -uc") as busy:
                    one.provider.restore(one.shadow, one.contents, MemorySteps())
                check_sentence(busy.value)
                holder.kill()
        one.back_exactly()

    def test_what_is_half_way_is_refused(self, tmp_path: Path) -> None:
        debs.install("shop-bad=2", check=False)
        provider = PackageProvider(context(tmp_path))
        for call in (provider.estimate, lambda one: provider.create(one, None, MemoryContents())):
            with pytest.raises(ShadowFailed, match="shop-bad:all is half-configured") as refused:
                call(resource("shop-bad"))
            check_sentence(refused.value)

    def test_a_name_that_is_not_there(self, tmp_path: Path) -> None:
        provider = PackageProvider(context(tmp_path))
        with pytest.raises(SourceMissing, match="package shop-typo does not exist"):
            provider.estimate(resource("shop-typo"))

    def test_the_message_names_what_differs(self, tmp_path: Path) -> None:
        debs.install("shop-lib=1", "shop-db=1", "shop-db-data=1")
        one = Round(tmp_path, "shop-lib", "shop-db")
        debs.install("shop-lib=2")
        with pytest.raises(ValidationFailed, match="package shop-lib:all is 2 and was 1") as failed:
            one.provider.validate(one.shadow, one.contents)
        check_sentence(failed.value)

    def test_a_query_gives_one_resource_a_package(self, tmp_path: Path) -> None:
        debs.install("shop-db=1", "shop-db-data=1", "shop-lib=1")
        debs.run("dpkg", "--remove", "shop-lib")
        provider = PackageProvider(context(tmp_path))
        assert provider.query({"pattern": "shop-*", "manager": "auto"}) == [
            {"name": name, "packages": [name], "manager": "auto"} for name in ("shop-db", "shop-db-data")
        ]

    def test_auto_is_apt_on_a_debian_that_has_dnf(self, tmp_path: Path) -> None:
        assert shutil.which("dnf")
        assert managers.choose(context(tmp_path), "x", "auto", 10.0).kind == "apt"


def test_a_host_without_the_manager_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here an empty path stands in for a host that has neither."""
    monkeypatch.setenv("PATH", str(tmp_path))
    provider = PackageProvider(context(tmp_path))
    for kind, words in (("auto", "neither apt nor dnf"), ("dnf", "no dnf"), ("apt", "no apt")):
        with pytest.raises(Unsupported, match=f"this host has {words}") as refused:
            provider.estimate(resource("shop", manager=kind))
        check_sentence(refused.value)
