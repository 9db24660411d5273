# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command provider: the conformance suite on real programs, and what is special to programs of the user's."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import (
    ProviderError,
    ResourceInvalid,
    RestoreFailed,
    ShadowFailed,
    StoreCorrupt,
    ToolMissing,
    UmbraError,
    Unsupported,
    ValidationFailed,
)
from ansible_collections.umbra.rollback.plugins.module_utils.providers.base import Drift, Outcome
from ansible_collections.umbra.rollback.plugins.module_utils.providers.command import CommandProvider
from ansible_collections.umbra.rollback.plugins.module_utils.resource import Resource, parse_one
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.providers.conformance import (
    MemorySteps,
    ProviderConformance,
    Subject,
    check_sentence,
    context,
)
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents

TOKEN = "hunter2-and-more"
# A small service, whose state is a directory, and which runs while there is a file `running` in it.
SCRIPT = """#!/bin/sh
# what it says has the secret in it, on purpose
echo "$UMBRA_PHASE of $UMBRA_RESOURCE for $UMBRA_UPDATE_ID on $UMBRA_HOST with $SHOP_TOKEN" | tee -a "$SHOP_LOG" >&2
set -e
test "$SHOP_TOKEN" = hunter2-and-more
cd "$SHOP_STATE" || test "$1" = restore
case "$1" in
    create) cp -R data "$UMBRA_SHADOW/" ;;
    restore)
        mkdir -p "$SHOP_STATE/data.new"
        rm -rf "$SHOP_STATE/data.new"
        cp -R "$UMBRA_SHADOW/data" "$SHOP_STATE/data.new"
        rm -rf "$SHOP_STATE/data"
        mv "$SHOP_STATE/data.new" "$SHOP_STATE/data" ;;
    verify) test -f "$UMBRA_SHADOW/data/orders" ;;
    drift | validate)
        rm -rf "$SHOP_STATE/data.new"
        diff -r "$UMBRA_SHADOW/data" "$SHOP_STATE/data" ;;
    stop) rm -f running ;;
    start) touch running ;;
esac
"""


def resource_of(**options: Any) -> Resource:
    return parse_one(
        {"name": "legacy", "type": "command", "create": "true", "restore": "true", **options},
        {"command": CommandProvider.interface},
        "resources[0]",
    )


class CommandSubject(Subject):
    """The small service, and its script."""

    def __init__(self, tmp_path: Path) -> None:
        self.provider = CommandProvider(context(tmp_path))
        self.directory = tmp_path / "state"
        self.log = tmp_path / "log"
        script = tmp_path / "shop's script"
        script.write_text(SCRIPT)
        script.chmod(0o755)
        (self.directory / "data").mkdir(parents=True)
        for number in range(5):
            (self.directory / "data" / f"order-{number}").write_text(f"{number}\n")
        (self.directory / "data" / "orders").write_text("5\n")
        (self.directory / "running").touch()
        environment = {"SHOP_TOKEN": TOKEN, "SHOP_STATE": str(self.directory), "SHOP_LOG": str(self.log)}
        phases = ("create", "restore", "verify", "drift", "validate", "stop", "start")
        self.resource = resource_of(environment=environment, **{phase: [str(script), phase] for phase in phases})

    def change(self) -> None:
        (self.directory / "data" / "order-0").write_text("changed\n")
        (self.directory / "data" / "order-9").write_text("new\n")

    def snapshot(self) -> object:
        return {
            str(path.relative_to(self.directory)): path.read_bytes() if path.is_file() else b"directory"
            for path in self.directory.rglob("*")
        }

    def destroy(self) -> None:
        shutil.rmtree(self.directory / "data")

    def refused(self) -> Iterator[Resource]:
        yield resource_of(create="no-such-program-here --now")
        yield resource_of(restore=["/no/such/program"])
        yield resource_of(chdir="/no/such/directory")
        yield resource_of(environment={"A=B": "c"})


class TestCommand(ProviderConformance):
    keeps_broken = False  # the user's create can't copy what is gone

    @pytest.fixture
    def subject(self, tmp_path: Path) -> CommandSubject:
        return CommandSubject(tmp_path)

    def test_its_programs_know_what_they_are_run_for(self, subject: CommandSubject, contents: MemoryContents) -> None:
        shadow = self.create(subject, contents)
        subject.change()
        subject.provider.displace(shadow, contents)
        subject.provider.restore(shadow, contents, MemorySteps())
        said = [line.replace(TOKEN, "token") for line in subject.log.read_text().splitlines()]
        phases = ["create", "displace", "drift", "stop", "restore", "start"]
        assert said == [f"{phase} of legacy for update-1 on host-1 with token" for phase in phases]

    def test_its_own_secrets_are_hidden_in_what_goes_wrong(
        self, subject: CommandSubject, contents: MemoryContents
    ) -> None:
        shadow = self.create(subject, contents)
        options = {**subject.resource.options, "environment": {**subject.resource.options["environment"]}}
        options["environment"]["SHOP_STATE"] = "/nowhere"
        broken = replace(subject.resource, options=options)
        told: list[UmbraError] = []
        with pytest.raises(ShadowFailed) as failed:
            subject.provider.create(broken, None, contents)
        told.append(failed.value)
        with pytest.raises(ValidationFailed) as invalid:
            subject.provider.validate(replace(shadow, resource=broken), contents)
        told.append(invalid.value)
        for error in told:
            check_sentence(error)
            assert TOKEN not in str(error) and "with ********" in str(error)
        displaced = subject.provider.displace(replace(shadow, resource=broken), contents)
        assert displaced.method == "none"
        assert TOKEN not in json.dumps(dict(displaced.data))

    def test_what_was_not_kept_is_said_when_it_is_asked_for(
        self, subject: CommandSubject, contents: MemoryContents
    ) -> None:
        shadow = self.create(subject, contents)
        subject.destroy()
        displaced = self.publish(subject, subject.provider.displace(shadow, contents))
        assert (displaced.method, displaced.roots) == ("none", ())
        subject.provider.restore(shadow, contents, MemorySteps())
        assert subject.provider.verify(displaced, contents) == 0
        assert subject.provider.drift(displaced, contents).total == 1
        with pytest.raises(RestoreFailed, match="nothing to bring back.*could not be shadowed") as refused:
            subject.provider.restore(displaced, contents, MemorySteps())
        check_sentence(refused.value)
        with pytest.raises(ValidationFailed):
            subject.provider.validate(displaced, contents)

    def test_a_copy_that_its_program_finds_bad_is_damaged(
        self, subject: CommandSubject, contents: MemoryContents
    ) -> None:
        shadow = self.create(subject, contents)
        options = {**subject.resource.options, "verify": ("/bin/sh", "-c", "echo the dump has no end; exit 3")}
        with pytest.raises(StoreCorrupt, match="ended with 3 .the dump has no end"):
            subject.provider.verify(replace(shadow, resource=replace(shadow.resource, options=options)), contents)

    def test_a_service_that_cannot_stop_is_restored_all_the_same(
        self, subject: CommandSubject, contents: MemoryContents
    ) -> None:
        state = subject.snapshot()
        subject.resource = replace(subject.resource, options={**subject.resource.options, "stop": ("false",)})
        shadow = self.create(subject, contents)
        with pytest.raises(ProviderError, match="`false` ended with 1"):
            subject.provider.stop(shadow)
        subject.change()
        outcome = subject.provider.restore(shadow, contents, MemorySteps())
        assert subject.snapshot() == state
        assert "`false` ended with 1" in outcome.notes[0]

    def test_it_is_started_although_nothing_differs(self, subject: CommandSubject, contents: MemoryContents) -> None:
        state, shadow = subject.snapshot(), self.create(subject, contents)
        assert subject.provider.stop(shadow)
        assert subject.snapshot() != state
        assert subject.provider.restore(shadow, contents, MemorySteps()) == Outcome(0, 0, "none")
        assert subject.snapshot() == state


# --- without the optional programs


@pytest.fixture
def provider(tmp_path: Path) -> CommandProvider:
    return CommandProvider(context(tmp_path))


@pytest.fixture
def contents() -> MemoryContents:
    return MemoryContents()


COPY = "touch $UMBRA_SHADOW/copy"


def test_two_programs_are_enough(provider: CommandProvider, contents: MemoryContents, tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.write_text("v1")
    resource = resource_of(
        create=["/bin/sh", "-c", f"cp {live} $UMBRA_SHADOW"], restore=["/bin/sh", "-c", f"cp $UMBRA_SHADOW/live {live}"]
    )
    shadow = provider.create(resource, None, contents)
    assert provider.verify(shadow, contents) > 0
    drift = provider.drift(shadow, contents)
    assert (drift.total, drift.changes[0].before) == (1, "not known without a `drift` command")
    live.write_text("v2")
    assert not provider.stop(shadow)
    assert provider.restore(shadow, contents, MemorySteps()).items == 2
    assert live.read_text() == "v1"
    provider.validate(shadow, contents)
    contents.blobs[shadow.roots[0].digest] += b"x"
    with pytest.raises(StoreCorrupt):
        provider.validate(shadow, contents)


def test_a_string_is_split_and_never_a_shell(provider: CommandProvider, tmp_path: Path) -> None:
    resource = resource_of(create="touch '$UMBRA_SHADOW' \"a b\" c;d", chdir=str(tmp_path))
    assert resource.options["create"] == ("touch", "$UMBRA_SHADOW", "a b", "c;d")
    with pytest.raises(ShadowFailed, match="left nothing"):
        provider.create(resource, None, MemoryContents())
    assert {"$UMBRA_SHADOW", "a b", "c;d"} <= set(os.listdir(tmp_path))


# What the user may write wrong: options, the error, and what it says.
REFUSED: list[tuple[dict[str, Any], type[UmbraError], str]] = [
    ({"create": "echo 'never closed"}, ResourceInvalid, "can't be split into words .no closing quotation"),
    ({"create": ""}, ResourceInvalid, "names no program"),
    ({"create": "   "}, ResourceInvalid, "names no program"),
    ({"create": []}, ResourceInvalid, "names no program"),
    ({"create": ["", "x"]}, ResourceInvalid, "names no program"),
    ({"create": ["echo", 5]}, ResourceInvalid, "has 5, which is no argument"),
    ({"create": ["echo", "a\0b"]}, ResourceInvalid, "which is no argument"),
    ({"create": 5}, ResourceInvalid, "is int, not command"),
    ({"create": None}, ResourceInvalid, "`create` is missing"),
    ({"environment": ["A=b"]}, ResourceInvalid, "is list, not dict"),
    ({"create": "no-such-program"}, ToolMissing, "no-such-program is not on this host"),
    ({"create": "./relative"}, ToolMissing, "/relative is not on this host"),
    ({"create": "/etc/passwd"}, ToolMissing, "/etc/passwd is not on this host"),
    ({"create": "pwd", "environment": {"PATH": "/nowhere"}}, ToolMissing, "pwd is not on this host"),
    ({"environment": {"": "x"}}, Unsupported, "can't be a variable"),
    ({"chdir": "/etc/passwd"}, Unsupported, "/etc/passwd is not a directory"),
    ({"create": ["/bin/sh", "-c", "exit 3"]}, ShadowFailed, "ended with 3 .no output"),
    ({"create": ["/bin/sh", "-c", "echo out; echo why >&2; exit 3"]}, ShadowFailed, "ended with 3 .why"),
    ({"create": ["/bin/sh", "-c", "kill -9 $$"]}, ShadowFailed, "was killed by signal 9"),
    ({"create": "sleep 20", "timeout": 0.2}, ShadowFailed, "was killed by signal 9 .killed after 0 s"),
    ({"create": ["/bin/sh", "-c", "printf 'a\\nb\\n'; exit 1"]}, ShadowFailed, "ended with 1 .a b"),
]


@pytest.mark.parametrize(("options", "error", "says"), REFUSED)
def test_what_goes_wrong_is_one_sentence(
    provider: CommandProvider, contents: MemoryContents, options: dict[str, Any], error: type[UmbraError], says: str
) -> None:
    with pytest.raises(error, match=says) as raised:
        provider.create(resource_of(**options), None, contents)
    check_sentence(raised.value)
    assert "legacy" in str(raised.value)


def test_a_program_that_cannot_be_executed_is_told(
    provider: CommandProvider, contents: MemoryContents, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_bytes(b"\x7fELF but not really")
    script.chmod(0o755)
    with pytest.raises(Unsupported, match="can't be started .exec format error"):
        provider.create(resource_of(create="./script", chdir=str(tmp_path)), None, contents)


@pytest.mark.parametrize(
    ("script", "drift"),
    [("exit 0", 0), ("echo one; echo; echo two; exit 1", 2), ("exit 1", 1), ("seq 1 300; exit 1", 300)],
)
def test_drift_is_what_the_program_prints(
    provider: CommandProvider, contents: MemoryContents, script: str, drift: int
) -> None:
    shell = ["/bin/sh", "-c"]
    shadow = provider.create(resource_of(create=[*shell, COPY], drift=[*shell, script]), None, contents)
    found = provider.drift(shadow, contents)
    assert (found.total, len(found.changes)) == (drift, min(drift, 100))


def test_a_drift_program_that_fails_is_an_error_and_the_restore_goes_on(
    provider: CommandProvider, contents: MemoryContents
) -> None:
    shell = ["/bin/sh", "-c"]
    shadow = provider.create(resource_of(create=[*shell, COPY], drift=[*shell, "echo no; exit 2"]), None, contents)
    with pytest.raises(ProviderError, match="ended with 2 .no."):
        provider.drift(shadow, contents)
    outcome = provider.restore(shadow, contents, MemorySteps())
    assert outcome.items == 2 and "ended with 2" in outcome.notes[0]


@pytest.mark.parametrize("phase", ["restore", "start"])
def test_what_fails_on_the_way_back_is_told(provider: CommandProvider, contents: MemoryContents, phase: str) -> None:
    shell = ["/bin/sh", "-c"]
    options = {"create": [*shell, COPY], phase: [*shell, "echo full; exit 4"]}
    shadow = provider.create(resource_of(**options), None, contents)
    with pytest.raises(RestoreFailed, match="ended with 4 .full.") as failed:
        provider.restore(shadow, contents, MemorySteps())
    check_sentence(failed.value)


def test_more_patience_gives_a_program_more_time(provider: CommandProvider, contents: MemoryContents) -> None:
    resource = resource_of(create=["/bin/sh", "-c", f"sleep 0.5; {COPY}"], timeout=0.1)
    with pytest.raises(ShadowFailed):
        provider.create(resource, None, contents)
    patient = CommandProvider(replace(provider.context, patience=100.0))
    assert patient.create(resource, None, contents).items == 2


def test_nothing_is_left_behind(provider: CommandProvider, contents: MemoryContents) -> None:
    shadow = provider.create(resource_of(create=["/bin/sh", "-c", COPY], drift="true"), None, contents)
    assert provider.drift(shadow, contents) == Drift(0)
    provider.restore(shadow, contents, MemorySteps())
    assert os.listdir(provider.context.workdir) == []
