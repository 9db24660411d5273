# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of a real systemd: the machine of tests/testbed."""

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
    SourceMissing,
    Unsupported,
    ValidationFailed,
)
from ansible_collections.umbra.rollback.plugins.module_utils.providers.systemd_unit import SystemdUnitProvider
from ansible_collections.umbra.rollback.plugins.module_utils.resource import Resource, check_options
from ansible_collections.umbra.rollback.plugins.module_utils.systemd import manager
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents

from .conformance import MemorySteps, ProviderConformance, Subject, check_sentence, context

CONFIG = Path("/etc/systemd/system")
SERVICE = """[Unit]
Description=version {version}
[Service]
ExecStart=/bin/sleep {version}0000
[Install]
WantedBy=multi-user.target
"""


def resource(unit: str, **options: Any) -> Resource:
    """A resource with the defaults filled in."""
    values = check_options({"unit": unit, **options}, SystemdUnitProvider.interface.options, "test")
    return Resource("the-unit", "systemd_unit", values)


def systemctl(*words: str) -> str:
    """What systemctl prints, whatever its status."""
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False).stdout.strip()


def ask(unit: str, name: str) -> str:
    """One property of a unit."""
    return systemctl("show", "--value", f"--property={name}", unit)


def put(path: Path, text: str) -> None:
    """A file and its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write(path: Path, text: str) -> None:
    """A file, its directories, and systemd told of it."""
    put(path, text)
    systemctl("daemon-reload")


def files_of(word: str, *places: Path) -> dict[str, str]:
    """Every file and link below the directories of units that has `word` in its path or its target."""
    found = {}
    for place in places or (CONFIG, Path("/run/systemd/system"), Path("/usr/lib/systemd/system")):
        for path in place.rglob("*"):
            if path.is_symlink():
                if word in f"{path} {os.readlink(path)}":
                    found[str(path)] = f"-> {os.readlink(path)} {path.lstat().st_mtime_ns}"
            elif path.is_file() and word in str(path):
                found[str(path)] = f"{path.stat().st_mode:o} {path.stat().st_mtime_ns} {path.read_text()}"
    return found


def state_of(unit: str, word: str) -> dict[str, Any]:
    """All that a restore of the unit brings back."""
    shown = systemctl("show", "--property=ActiveState,LoadState,UnitFileState,NeedDaemonReload", unit)
    words = dict(line.split("=", 1) for line in shown.splitlines())
    return {**words, "enabled": systemctl("is-enabled", unit), "files": files_of(word)}


def remove(word: str) -> None:
    """Whatever a test left of its units."""
    listed = systemctl("list-units", "--all", "--plain", "--full", "--no-legend", f"{word}*").splitlines()
    units = [line.split()[0] for line in listed]
    if units:
        systemctl("stop", *units)
    paths = files_of(word)
    for path in paths:
        Path(path).unlink()
    if units or paths:
        systemctl("daemon-reload")
        systemctl("reset-failed", *units)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No unit of ours before and after; and no second of waiting after each of some hundred restarts."""
    monkeypatch.setattr(manager, "STEADY", 0.01)
    remove("shop")
    yield
    remove("shop")


class Round:
    """One unit of a test, shadowed at the end of `__init__`."""

    def __init__(self, tmp_path: Path, unit: str, **options: Any) -> None:
        self.provider = SystemdUnitProvider(context(tmp_path))
        self.contents = MemoryContents()
        self.steps = MemorySteps()
        self.unit = unit
        self.before = state_of(unit, "shop")
        self.shadow = self.provider.create(resource(unit, **options), None, self.contents)

    def back(self) -> tuple[str, ...]:
        """Restore and validate; the state is as it was. Returns what drift said before."""
        drift = self.provider.drift(self.shadow, self.contents)
        outcome = self.provider.restore(self.shadow, self.contents, self.steps)
        assert bool(outcome.items) == bool(drift)
        self.provider.validate(self.shadow, self.contents)
        assert state_of(self.unit, "shop") == self.before
        return tuple(f"{change.what}: {change.before} -> {change.after}" for change in drift.changes)


class UnitSubject(Subject):
    """A service of its own, with a drop-in, enabled and running."""

    def __init__(self, tmp_path: Path) -> None:
        self.provider = SystemdUnitProvider(context(tmp_path))
        self.resource = resource("shop-a.service")
        self.file = CONFIG / "shop-a.service"
        self.drop_in = CONFIG / "shop-a.service.d/limits.conf"
        put(self.file, SERVICE.format(version=1))
        put(self.drop_in, "[Service]\nNice=1\n")
        systemctl("enable", "--now", "shop-a.service")

    def change(self) -> None:
        """A new version, which is not enabled, and does not run."""
        systemctl("disable", "--now", "shop-a.service")
        put(self.file, SERVICE.format(version=2) + "Alias=shop-alias.service\n")
        put(self.drop_in, "[Service]\nNice=2\n")
        put(self.drop_in.with_name("more.conf"), "[Service]\nNice=3\n")
        (CONFIG / "shop-alias.service").unlink(missing_ok=True)
        (CONFIG / "shop-alias.service").symlink_to(self.file)
        for path in (self.file, self.drop_in, self.drop_in.with_name("more.conf"), CONFIG / "shop-alias.service"):
            os.utime(path, ns=(2, 2), follow_symlinks=False)  # the same state, whenever it is made
        systemctl("daemon-reload")

    def snapshot(self) -> object:
        """Files, links, and how it runs."""
        return state_of("shop-a.service", "shop")

    def destroy(self) -> None:
        """Nothing is left."""
        remove("shop")
        shutil.rmtree(self.drop_in.parent, ignore_errors=True)

    def refused(self) -> Iterator[Resource]:
        """What is not there, and what is no unit."""
        for name in ("shop-none.service", "shop@.service", "shop", "shop*.service", "-x", "a/b.service"):
            yield replace(resource(name), name="refused")

    def query(self) -> Mapping[str, Any]:
        """By its name."""
        return {"pattern": "shop-*"}


@pytest.mark.machine
@pytest.mark.root
@pytest.mark.usefixtures("clean")
class TestConformance(ProviderConformance):
    """What every provider promises."""

    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        return UnitSubject(tmp_path)


@pytest.mark.machine
@pytest.mark.root
@pytest.mark.usefixtures("clean")
class TestRestore:
    """What updates do to units."""

    def test_what_is_equal_goes_on_running(self, tmp_path: Path) -> None:
        UnitSubject(tmp_path)
        one = Round(tmp_path, "shop-a.service")
        pid = ask("shop-a.service", "MainPID")
        assert one.back() == ()
        assert ask("shop-a.service", "MainPID") == pid

    def test_what_is_only_disabled_goes_on_running(self, tmp_path: Path) -> None:
        UnitSubject(tmp_path)
        one = Round(tmp_path, "shop-a.service")
        pid = ask("shop-a.service", "MainPID")
        systemctl("disable", "shop-a.service")
        said = one.back()
        assert said[0] == "shop-a.service: enabled: disabled -> enabled"
        assert said[1].startswith("/etc/systemd/system/multi-user.target.wants/shop-a.service")
        assert ask("shop-a.service", "MainPID") == pid

    def test_a_changed_definition_takes_effect(self, tmp_path: Path) -> None:
        subject = UnitSubject(tmp_path)
        one = Round(tmp_path, "shop-a.service")
        write(subject.file, SERVICE.format(version=2))
        systemctl("restart", "shop-a.service")
        said = one.back()
        assert "ExecStart=/bin/sleep 20000" in said[0] and "ExecStart=/bin/sleep 10000" in said[0]
        pid = ask("shop-a.service", "MainPID")
        assert Path(f"/proc/{pid}/cmdline").read_text() == "/bin/sleep\x0010000\0"

    def test_a_touched_file_is_no_reason_to_restart(self, tmp_path: Path) -> None:
        subject = UnitSubject(tmp_path)
        one = Round(tmp_path, "shop-a.service")
        pid = ask("shop-a.service", "MainPID")
        subject.file.touch()
        one.back()
        assert ask("shop-a.service", "MainPID") == pid

    def test_a_restore_killed_before_the_restart_restarts_when_it_goes_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An exception stands in for the kill, at the one moment when the files are equal and the process is not."""
        subject = UnitSubject(tmp_path)
        one = Round(tmp_path, "shop-a.service")
        write(subject.file, SERVICE.format(version=2))
        systemctl("restart", "shop-a.service")

        def reload(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(manager.Manager, "reload", reload)
            with pytest.raises(KeyboardInterrupt):
                one.provider.restore(one.shadow, one.contents, one.steps)
        one.provider.restore(one.shadow, one.contents, one.steps)
        one.provider.validate(one.shadow, one.contents)
        pid = ask("shop-a.service", "MainPID")
        assert Path(f"/proc/{pid}/cmdline").read_text() == "/bin/sleep\x0010000\0"
        assert one.provider.restore(one.shadow, one.contents, one.steps).items == 0
        assert ask("shop-a.service", "MainPID") == pid

    def test_what_an_update_masked_runs_again(self, tmp_path: Path) -> None:
        """With its file below /usr/lib, as a package has it."""
        write(Path("/usr/lib/systemd/system/shop-v.service"), SERVICE.format(version=1))
        systemctl("enable", "--now", "shop-v.service")
        one = Round(tmp_path, "shop-v.service")
        systemctl("mask", "--now", "shop-v.service")
        assert systemctl("is-enabled", "shop-v.service") == "masked"
        assert "shop-v.service: enabled: masked -> enabled" in one.back()

    def test_what_was_masked_is_masked_again(self, tmp_path: Path) -> None:
        write(Path("/usr/lib/systemd/system/shop-v.service"), SERVICE.format(version=1))
        systemctl("mask", "shop-v.service")
        one = Round(tmp_path, "shop-v.service")
        systemctl("unmask", "shop-v.service")
        systemctl("enable", "--now", "shop-v.service")
        one.back()
        assert systemctl("is-enabled", "shop-v.service") == "masked"

    def test_a_packaged_unit_that_was_edited_by_hand_is_put_back(self, tmp_path: Path) -> None:
        path = Path("/usr/lib/systemd/system/shop-v.service")
        write(path, SERVICE.format(version=1))
        systemctl("start", "shop-v.service")
        one = Round(tmp_path, "shop-v.service")
        write(path, SERVICE.format(version=2))
        one.back()
        assert "10000" in path.read_text()

    def test_an_instance_has_the_files_of_its_template_and_no_other_instance(self, tmp_path: Path) -> None:
        write(CONFIG / "shop@.service", SERVICE.format(version=1))
        write(CONFIG / "shop@.service.d/a.conf", "[Service]\nNice=1\n")
        write(CONFIG / "shop@one.service.d/a.conf", "[Service]\nNice=2\n")
        systemctl("enable", "--now", "shop@one.service", "shop@two.service")
        one = Round(tmp_path, "shop@one.service")
        pid = ask("shop@two.service", "MainPID")
        kept = set(one.shadow.data["set"]["paths"])
        assert kept == {
            f"{CONFIG}/shop@.service",
            f"{CONFIG}/shop@.service.d",
            f"{CONFIG}/shop@one.service.d",
            f"{CONFIG}/multi-user.target.wants/shop@one.service",
        }
        write(CONFIG / "shop@.service", SERVICE.format(version=2))
        (CONFIG / "shop@.service.d/a.conf").unlink()
        systemctl("disable", "--now", "shop@one.service")
        one.back()
        assert ask("shop@two.service", "MainPID") == pid

    def test_a_unit_may_be_named_by_an_alias(self, tmp_path: Path) -> None:
        UnitSubject(tmp_path)
        (CONFIG / "shop-other.service").symlink_to(CONFIG / "shop-a.service")
        systemctl("daemon-reload")
        one = Round(tmp_path, "shop-other.service")
        assert one.shadow.data["id"] == "shop-a.service"
        (CONFIG / "shop-other.service").unlink()
        systemctl("stop", "shop-a.service")
        systemctl("daemon-reload")
        one.back()

    def test_a_unit_that_the_update_brought_is_stopped_and_removed(self, tmp_path: Path) -> None:
        provider = SystemdUnitProvider(context(tmp_path))
        with pytest.raises(SourceMissing):
            provider.create(resource("shop-new.service"), None, MemoryContents())
        one = Round(tmp_path, "shop-new.service", allow_missing=True)
        assert one.before["LoadState"] == "not-found"
        text = SERVICE.format(version=1).replace("multi-user.target", "shop-none.target")
        write(CONFIG / "shop-new.service", text)
        write(CONFIG / "shop-new.service.d/a.conf", "[Service]\nNice=1\n")
        systemctl("enable", "--now", "shop-new.service")
        assert (CONFIG / "shop-none.target.wants").is_dir()
        displaced = one.provider.displace(one.shadow, one.contents)
        one.back()
        assert not (CONFIG / "shop-none.target.wants").exists()
        assert not (CONFIG / "shop-new.service.d").exists()
        one.provider.restore(displaced, one.contents, MemorySteps())
        assert systemctl("is-active", "shop-new.service") == "active"
        assert systemctl("is-enabled", "shop-new.service") == "enabled"

    def test_what_did_not_run_is_stopped(self, tmp_path: Path) -> None:
        write(CONFIG / "shop-b.service", SERVICE.format(version=1))
        one = Round(tmp_path, "shop-b.service")
        systemctl("start", "shop-b.service")
        assert one.back() == ("shop-b.service: active: active -> inactive",)

    def test_what_failed_too_often_runs_again(self, tmp_path: Path) -> None:
        subject = UnitSubject(tmp_path)
        one = Round(tmp_path, "shop-a.service")
        broken = SERVICE.format(version=1).replace("/bin/sleep", "/bin/false")
        write(subject.file, broken.replace("[Install]", "Restart=always\nRestartSec=0\n[Install]"))
        for dummy in range(6):
            systemctl("restart", "shop-a.service")
        assert systemctl("is-failed", "shop-a.service") == "failed"
        one.back()

    def test_a_oneshot_that_remains_and_a_timer(self, tmp_path: Path) -> None:
        oneshot = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
        write(CONFIG / "shop-once.service", oneshot)
        write(CONFIG / "shop-once.timer", "[Timer]\nOnCalendar=yearly\n[Install]\nWantedBy=timers.target\n")
        systemctl("start", "shop-once.service")
        systemctl("enable", "--now", "shop-once.timer")
        rounds = [Round(tmp_path, unit) for unit in ("shop-once.service", "shop-once.timer")]
        write(CONFIG / "shop-once.timer", "[Timer]\nOnCalendar=daily\n")
        systemctl("disable", "--now", "shop-once.timer")
        systemctl("stop", "shop-once.service")
        for one in rounds:
            one.provider.restore(one.shadow, one.contents, one.steps)
        for one in rounds:
            one.provider.validate(one.shadow, one.contents)
            assert state_of(one.unit, "shop") == one.before

    def test_a_job_in_progress_is_not_started_again(self, tmp_path: Path) -> None:
        write(CONFIG / "shop-job.service", "[Service]\nType=oneshot\nExecStart=/bin/sleep 10000\n")
        systemctl("start", "--no-block", "shop-job.service")
        one = Round(tmp_path, "shop-job.service")
        assert one.shadow.data["active"] == "activating"
        systemctl("stop", "shop-job.service")
        one.provider.restore(one.shadow, one.contents, one.steps)
        one.provider.validate(one.shadow, one.contents)
        assert systemctl("is-active", "shop-job.service") == "inactive"

    def test_stop_and_start(self, tmp_path: Path) -> None:
        UnitSubject(tmp_path)
        one = Round(tmp_path, "shop-a.service")
        assert one.provider.stop(one.shadow) is True
        assert systemctl("is-active", "shop-a.service") == "inactive"
        assert one.provider.stop(one.shadow) is False
        one.provider.start(one.shadow)
        assert systemctl("is-active", "shop-a.service") == "active"


@pytest.mark.machine
@pytest.mark.root
@pytest.mark.usefixtures("clean")
class TestFailure:
    """What can't be brought back is said, in time."""

    def test_what_never_gets_ready_is_given_up(self, tmp_path: Path) -> None:
        write(CONFIG / "shop-slow.service", "[Service]\nExecStart=/bin/sleep 10000\n")
        systemctl("start", "shop-slow.service")
        one = Round(tmp_path, "shop-slow.service", timeout=1)
        slow = one.shadow.data["id"]
        systemctl("stop", slow)
        write(CONFIG / f"{slow}.d/slow.conf", "[Service]\nExecStartPre=/bin/sleep 10000\n")
        mended = one.provider.create(one.shadow.resource, None, one.contents)
        running = replace(mended, data={**mended.data, "active": "active", "sub": "running"})
        with pytest.raises(RestoreFailed, match=r"systemctl start shop-slow.service` ended with -9: killed after 1 s"):
            one.provider.restore(running, one.contents, MemorySteps())

    def test_what_does_not_last_is_not_valid(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is active when `systemctl start` returns, and dies with what a file resource has not brought back yet."""
        monkeypatch.setattr(manager, "STEADY", 1.0)
        program = tmp_path / "program"
        program.write_text("#!/bin/sh\nexec /bin/sleep 10000\n")
        program.chmod(0o755)
        write(CONFIG / "shop-p.service", f"[Service]\nExecStart={program}\nRestart=always\nRestartSec=200ms\n")
        systemctl("start", "shop-p.service")
        one = Round(tmp_path, "shop-p.service", timeout=3)
        program.write_text("#!/bin/sh\nsleep 0.3\n")
        systemctl("restart", "shop-p.service")
        with pytest.raises(ValidationFailed) as failed:
            one.provider.validate(one.shadow, one.contents)
        check_sentence(failed.value)
        assert "was active" in str(failed.value)

    def test_the_message_names_what_differs(self, tmp_path: Path) -> None:
        UnitSubject(tmp_path)
        one = Round(tmp_path, "shop-a.service")
        systemctl("stop", "shop-a.service")
        with pytest.raises(ValidationFailed, match="shop-a.service: active is inactive and was active"):
            one.provider.validate(one.shadow, one.contents)


@pytest.mark.machine
@pytest.mark.root
@pytest.mark.usefixtures("clean")
class TestLook:
    """What is only read."""

    def test_claims_are_what_the_directives_say(self, tmp_path: Path) -> None:
        more = "Requires=shop-db.service\n[Service]\nEnvironmentFile=-/etc/default/shop"
        text = SERVICE.format(version=1).replace("[Service]", more)
        write(CONFIG / "shop-c.service", text)
        found = SystemdUnitProvider(context(tmp_path)).claims(resource("shop-c.service"))
        assert {(claim.role, claim.kind, claim.value, claim.evidence) for claim in found} == {
            ("provides", "unit", "shop-c.service", "unit name"),
            ("uses", "unit", "shop-db.service", "unit directive Requires"),
            ("uses", "path", "/etc/default/shop", "unit directive EnvironmentFile"),
            ("uses", "path", "/bin/sleep", "unit directive ExecStart"),
        }

    def test_a_query_finds_loaded_units_and_files_but_no_templates(self, tmp_path: Path) -> None:
        write(CONFIG / "shop-a.service", SERVICE.format(version=1))
        write(CONFIG / "shop@.service", SERVICE.format(version=1))
        write(CONFIG / "shop-x\\x2dy.service", SERVICE.format(version=1))
        (CONFIG / "shop-alias.service").symlink_to(CONFIG / "shop-a.service")
        systemctl("daemon-reload")
        systemctl("start", "shop@one.service")
        found = SystemdUnitProvider(context(tmp_path)).query({"pattern": "shop*", "scope": "system"})
        assert found == [
            {"name": "shop-a.service", "unit": "shop-a.service", "scope": "system"},
            {"name": "shop-x_x2dy.service", "unit": "shop-x\\x2dy.service", "scope": "system"},
            {"name": "shop@one.service", "unit": "shop@one.service", "scope": "system"},
        ]

    def test_a_name_with_an_escape(self, tmp_path: Path) -> None:
        write(CONFIG / "shop-x\\x2dy.service", SERVICE.format(version=1))
        systemctl("enable", "--now", "shop-x\\x2dy.service")
        one = Round(tmp_path, "shop-x\\x2dy.service")
        write(CONFIG / "shop-x\\x2dy.service", SERVICE.format(version=2))
        systemctl("disable", "--now", "shop-x\\x2dy.service")
        one.back()

    def test_the_user_s_manager(self, tmp_path: Path) -> None:
        systemctl("stop", "user@0.service")
        provider = SystemdUnitProvider(context(tmp_path))
        user = resource("shop-u.service", scope="user")
        with pytest.raises(Unsupported, match="loginctl enable-linger"):
            provider.estimate(user)
        systemctl("start", "user@0.service")
        os.environ["XDG_RUNTIME_DIR"] = "/run/user/0"
        path = Path.home() / ".config/systemd/user/shop-u.service"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SERVICE.format(version=1).replace("multi-user", "default"))
        systemctl("--user", "daemon-reload")
        systemctl("--user", "enable", "--now", "shop-u.service")
        del os.environ["XDG_RUNTIME_DIR"]
        contents = MemoryContents()
        before = files_of("shop", path.parent)
        shadow = provider.create(user, None, contents)
        path.write_text("")
        (path.parent / "default.target.wants/shop-u.service").unlink()
        assert provider.stop(shadow) is True
        provider.restore(shadow, contents, MemorySteps())
        provider.validate(shadow, contents)
        assert files_of("shop", path.parent) == before


def test_a_host_without_systemd_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a directory that is not there stands in for a host where systemd does not run."""
    monkeypatch.setattr(manager, "BOOTED", str(tmp_path / "missing"))
    provider = SystemdUnitProvider(context(tmp_path))
    for call in (provider.estimate, provider.claims, lambda unit: provider.create(unit, None, MemoryContents())):
        with pytest.raises(Unsupported) as refused:
            call(resource("shop.service"))
        check_sentence(refused.value)
        assert str(refused.value) == (
            "the-unit: systemd does not run on this host. Use type command with commands that stop and start it."
        )
    with pytest.raises(Unsupported, match="query shop"):
        provider.query({"pattern": "shop-*", "scope": "system"})
