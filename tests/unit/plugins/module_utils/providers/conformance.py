# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every provider promises, as tests: a provider's own test gives a Subject, and inherits them all."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.context import Context
from ansible_collections.umbra.rollback.plugins.module_utils.errors import (
    ContentMissing,
    ProviderError,
    StoreCorrupt,
    UmbraError,
    ValidationFailed,
)
from ansible_collections.umbra.rollback.plugins.module_utils.providers.base import Drift, Provider, Steps
from ansible_collections.umbra.rollback.plugins.module_utils.resource import Resource, parse_one
from ansible_collections.umbra.rollback.plugins.module_utils.shadow import Claim, Shadow, with_secrets, without_secrets
from ansible_collections.umbra.rollback.plugins.module_utils.tree import entry
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents

KILLS = 12  # at how many points a restore is killed
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
ACTS = frozenset(
    """
    open write pwrite writev fsync fdatasync rename replace unlink remove rmdir mkdir chmod fchmod chown lchown fchown
    utime symlink link mknod mkfifo truncate ftruncate setxattr removexattr copy_file_range sendfile fork_exec
    execute executemany executescript commit backup close flock
    """.split()  # noqa: SIM905
)


def context(tmp_path: Path) -> Context:
    """A run that works below `tmp_path`."""
    workdir = tmp_path / "workdir"
    workdir.mkdir(mode=0o700, exist_ok=True)
    return Context("update-1", "host-1", str(workdir))


class MemorySteps:
    """A journal that lasts as long as the test."""

    def __init__(self, kept: Shadow | None = None) -> None:
        self.noted: dict[str, dict[str, Any]] = {}
        self.kept = kept

    def done(self, step: str) -> bool:
        """Whether `step` was noted."""
        return step in self.noted

    def note(self, step: str, **facts: Any) -> None:
        """Write `step` down."""
        json.dumps(facts)  # what the real journal would refuse is refused here
        self.noted[step] = facts


class FileSteps:
    """A journal that survives the death of who writes it; with `kill_at`, it kills its writer at that note.

    Note number n dies before it is written at 2 * n - 1, and after that at 2 * n.
    """

    kept: Shadow | None = None

    def __init__(self, path: Path, kill_at: int = 0) -> None:
        self._path, self._left = path, kill_at
        path.touch()

    def done(self, step: str) -> bool:
        """Whether `step` was noted, by this process or another one."""
        return step in self._path.read_text().splitlines()

    def note(self, step: str, **facts: Any) -> None:
        """Write `step` down; it is on disk when this returns."""
        self._tick()
        with self._path.open("a") as journal:
            journal.write(f"{step}\n")
            journal.flush()
            os.fsync(journal.fileno())
        self._tick()

    def _tick(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def run_and_kill(call: Callable[[], object], kill_at: int = 0) -> int | None:
    """Run `call` in a process of its own, which is killed (-9) just before its act number `kill_at` (0: never).

    Acts are calls of the C functions in ACTS. Returns how many there were, or None when it was killed. What the dead
    process had started is waited for: it lives on, as it would in life.
    """
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the other thread is pytest's watchdog, and holds no lock
        supervisor = os.fork()
    if supervisor == 0:
        os.close(readable)
        _supervise(call, kill_at, writable)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        count = pipe.read()
    _pid, status = os.waitpid(supervisor, 0)
    code = os.WEXITSTATUS(status)
    if code in (signal.SIGKILL, signal.SIGALRM):
        return None
    assert code == 0, "the restore failed in its process: see its traceback in the captured output"
    return int(count)


def _supervise(call: Callable[[], object], kill_at: int, writable: int) -> None:
    code = 1
    try:
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
        victim = os.fork()
        if victim == 0:
            _act(call, kill_at, writable)
        _pid, status = os.waitpid(victim, 0)
        code = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:  # nobody is left
        os._exit(code)
    finally:
        os._exit(code or 1)


def _act(call: Callable[[], object], kill_at: int, writable: int) -> None:
    acts = 0

    def tick(_frame: object, event: str, function: Any) -> None:
        nonlocal acts
        if event == "c_call" and getattr(function, "__name__", "") in ACTS:
            acts += 1
            if acts == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        threading.setprofile(tick)
        sys.setprofile(tick)
        call()
        sys.setprofile(None)
        os.write(writable, b"%d" % acts)
        code = 0
    except BaseException:  # noqa: BLE001 (the edge of a process that must not go on as a second pytest)
        sys.setprofile(None)
        traceback.print_exc()
    finally:
        os._exit(code)


def check_sentence(error: UmbraError) -> None:
    """A message is for a person at 3 a.m.: one line, which ends, and nothing of Python in it."""
    message = str(error)
    assert "\n" not in message
    assert message[-1] in ".!?", message
    assert ".." not in message.replace("...", ""), message
    assert "Traceback" not in message and "Error(" not in message and "{" not in message, message
    assert len(message) < 1200


def spread(total: int, most: int) -> Iterable[int]:
    """At most `most` numbers from 1 to `total`, both included, evenly spread."""
    if total <= most:
        return range(1, total + 1)
    return sorted({1 + (total - 1) * number // (most - 1) for number in range(most)})


class Subject(ABC):
    """A live resource that a test may change and break, and the provider that knows it."""

    provider: Provider
    resource: Resource

    @abstractmethod
    def change(self) -> None:
        """Change the live resource as an update would. Called again after each restore."""

    @abstractmethod
    def snapshot(self) -> object:
        """All of the live resource's state that a restore promises to bring back: equal for equal states."""

    @abstractmethod
    def destroy(self) -> None:
        """Lose the live resource, as far as that is possible."""

    def refused(self) -> Iterator[Resource]:
        """Resources that can't be shadowed: estimate and create refuse them with a sentence."""
        return iter(())

    def query(self) -> Mapping[str, Any] | None:
        """Options of a query that finds the resource (None: the type has no query)."""
        return None


class ProviderConformance:
    """Inherit, and override the fixture `subject`. The class variables say what a type can't promise by its nature."""

    tells: ClassVar[bool] = True  # the provider can tell equal from changed
    keeps_broken: ClassVar[bool] = True  # displace keeps even a destroyed resource, so that undo brings that back
    near: ClassVar[float] = 2.0  # an estimate is within this factor of what create finds

    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        raise NotImplementedError

    @pytest.fixture
    def contents(self) -> MemoryContents:
        return MemoryContents()

    # --- help for the tests below, and for a provider's own

    @staticmethod
    def create(subject: Subject, contents: MemoryContents, previous: Shadow | None = None) -> Shadow:
        """A shadow as a later run has it: published without secrets, read from its JSON, secrets put back."""
        return ProviderConformance.publish(subject, subject.provider.create(subject.resource, previous, contents))

    @staticmethod
    def publish(subject: Subject, shadow: Shadow) -> Shadow:
        """`shadow` through a manifest and back."""
        public, secrets = without_secrets(subject.resource, subject.provider.interface)
        text = json.dumps(replace(shadow, resource=public).to_dict())
        return with_secrets(Shadow.from_dict(json.loads(text)), secrets)

    @staticmethod
    def reachable(shadow: Shadow, contents: MemoryContents) -> list[str]:
        """Every content that the shadow stands on."""
        found = [root.digest for root in shadow.roots]
        for root in shadow.roots:
            if root.kind == "tree":
                found.extend(entry.digests(contents.get(root.digest)))
        return list(dict.fromkeys(found))

    def expect_equal(self, subject: Subject, shadow: Shadow, contents: MemoryContents, state: object) -> None:
        """The live resource is in `state` again, and its provider says so too."""
        assert subject.snapshot() == state
        subject.provider.validate(shadow, contents)
        if self.tells:
            assert subject.provider.drift(shadow, contents) == Drift(0)

    # --- what is seen

    def test_it_is_named_in_the_registry(self, subject: Subject) -> None:
        from ansible_collections.umbra.rollback.plugins.module_utils.providers import registry

        assert registry.PROVIDERS[subject.provider.type] is type(subject.provider)
        again = parse_one(subject.resource.to_dict(), registry.INTERFACES, "resources[0]")
        assert again == subject.resource

    def test_estimate_is_near_what_create_finds(self, subject: Subject, contents: MemoryContents) -> None:
        estimate = subject.provider.estimate(subject.resource)
        shadow = self.create(subject, contents)
        slack = 64 << 10  # what is small may be far off
        assert estimate.bytes <= shadow.bytes * self.near + slack
        assert shadow.bytes <= estimate.bytes * self.near + slack
        assert estimate.items <= shadow.items * self.near + 10
        assert shadow.items <= estimate.items * self.near + 10

    def test_claims_are_values(self, subject: Subject) -> None:
        before = subject.snapshot()
        claims = subject.provider.claims(subject.resource)
        assert all(isinstance(claim, Claim) for claim in claims)
        assert {claim.role for claim in claims} <= {"provides", "uses"}
        assert all(claim.kind and claim.value and claim.evidence for claim in claims)
        assert subject.snapshot() == before

    def test_a_query_finds_it(self, subject: Subject) -> None:
        options = subject.query()
        interface = subject.provider.interface
        assert bool(options) == bool(interface.query_options)
        if options is None:
            return
        defaults = {key: option.default for key, option in interface.query_options.items()}
        found = subject.provider.query({**defaults, **options})
        assert [one["name"] for one in found] == sorted({one["name"] for one in found})
        interfaces = {subject.provider.type: interface}
        parsed = [parse_one({"type": subject.provider.type, **one}, interfaces, "query") for one in found]
        required = [key for key, option in interface.options.items() if option.required]
        wanted = [subject.resource.options[key] for key in required]
        assert wanted in [[one.options[key] for key in required] for one in parsed]

    # --- the copy

    def test_create_changes_nothing(self, subject: Subject, contents: MemoryContents) -> None:
        before = subject.snapshot()
        subject.provider.estimate(subject.resource)
        self.create(subject, contents)
        assert subject.snapshot() == before

    def test_a_shadow_survives_json(self, subject: Subject, contents: MemoryContents) -> None:
        shadow = subject.provider.create(subject.resource, None, contents)
        assert self.publish(subject, shadow) == shadow

    def test_create_again_gives_the_same_checksum(self, subject: Subject, contents: MemoryContents) -> None:
        first = self.create(subject, contents)
        again = self.create(subject, contents, previous=first)
        unrelated = self.create(subject, MemoryContents(), previous=first)  # what `previous` stands on is gone
        assert first.checksum == again.checksum == unrelated.checksum
        subject.change()
        changed = self.create(subject, contents, previous=again)
        assert changed.checksum != first.checksum

    def test_what_is_previous_may_be_gone(self, subject: Subject, contents: MemoryContents) -> None:
        first = self.create(subject, contents)
        state = subject.snapshot()
        fresh = MemoryContents()
        shadow = self.create(subject, fresh, previous=first)
        subject.provider.verify(shadow, fresh)
        subject.change()
        subject.provider.restore(shadow, fresh, MemorySteps())
        self.expect_equal(subject, shadow, fresh, state)

    def test_verify_reads_every_content(self, subject: Subject, contents: MemoryContents) -> None:
        shadow = self.create(subject, contents)
        digests = self.reachable(shadow, contents)
        assert digests
        assert subject.provider.verify(shadow, contents) > 0
        for digest in list(digests)[:20]:
            kept = contents.blobs[digest]
            contents.blobs[digest] = bytes([kept[0] ^ 1]) + kept[1:] if kept else b"x"
            with pytest.raises(StoreCorrupt) as corrupt:
                subject.provider.verify(shadow, contents)
            check_sentence(corrupt.value)
            del contents.blobs[digest]
            with pytest.raises(ContentMissing) as missing:
                subject.provider.verify(shadow, contents)
            check_sentence(missing.value)
            contents.blobs[digest] = kept
        subject.provider.verify(shadow, contents)

    def test_secrets_stay_out(self, subject: Subject, contents: MemoryContents) -> None:
        secrets = without_secrets(subject.resource, subject.provider.interface)[1]
        shadow = self.create(subject, contents)
        subject.change()
        told = repr(subject.provider.drift(shadow, contents))
        displaced = self.publish(subject, subject.provider.displace(shadow, contents))
        told += repr(subject.provider.restore(shadow, contents, MemorySteps()))
        for made in (shadow, displaced):
            public, _secrets = without_secrets(made.resource, subject.provider.interface)
            told += json.dumps(replace(made, resource=public).to_dict())
        for secret in _texts(secrets):
            assert secret not in told

    # --- what differs

    def test_drift_tells_equal_from_changed(self, subject: Subject, contents: MemoryContents) -> None:
        shadow = self.create(subject, contents)
        if self.tells:
            assert subject.provider.drift(shadow, contents) == Drift(0)
        subject.change()
        before = subject.snapshot()
        drift = subject.provider.drift(shadow, contents)
        assert subject.snapshot() == before
        assert drift and drift.total >= len(drift.changes) > 0
        assert len(drift.changes) <= 100
        assert {change.action for change in drift.changes} <= {"create", "replace", "remove", "metadata"}
        assert all(change.what for change in drift.changes)

    def test_validate_tells_equal_from_changed(self, subject: Subject, contents: MemoryContents) -> None:
        shadow = self.create(subject, contents)
        subject.provider.validate(shadow, contents)
        subject.change()
        before = subject.snapshot()
        with pytest.raises(ValidationFailed) as failed:
            subject.provider.validate(shadow, contents)
        check_sentence(failed.value)
        assert subject.snapshot() == before
        subject.provider.restore(shadow, contents, MemorySteps())
        subject.provider.validate(shadow, contents)

    # --- the way back

    def test_restore_brings_back(self, subject: Subject, contents: MemoryContents) -> None:
        state = subject.snapshot()
        shadow = self.create(subject, contents)
        subject.change()
        assert subject.snapshot() != state
        outcome = subject.provider.restore(shadow, contents, MemorySteps())
        assert outcome.items > 0 and outcome.method
        self.expect_equal(subject, shadow, contents, state)

    def test_restore_of_what_is_equal_writes_nothing(self, subject: Subject, contents: MemoryContents) -> None:
        shadow = self.create(subject, contents)
        subject.change()
        subject.provider.restore(shadow, contents, MemorySteps())
        before = subject.snapshot()
        again = subject.provider.restore(shadow, contents, MemorySteps())
        assert subject.snapshot() == before
        if self.tells:
            assert (again.items, again.bytes) == (0, 0)

    def test_what_is_displaced_can_be_brought_back(self, subject: Subject, contents: MemoryContents) -> None:
        state = subject.snapshot()
        shadow = self.create(subject, contents)
        subject.change()
        changed = subject.snapshot()
        displaced = self.publish(subject, subject.provider.displace(shadow, contents))
        assert subject.snapshot() == changed
        subject.provider.restore(shadow, contents, MemorySteps())
        self.expect_equal(subject, shadow, contents, state)
        subject.provider.verify(displaced, contents)
        subject.provider.restore(displaced, contents, MemorySteps())
        self.expect_equal(subject, displaced, contents, changed)

    def test_restore_after_all_is_lost(self, subject: Subject, contents: MemoryContents) -> None:
        state = subject.snapshot()
        shadow = self.create(subject, contents)
        subject.destroy()
        lost = subject.snapshot()
        assert lost != state
        displaced = self.publish(subject, subject.provider.displace(shadow, contents))
        assert subject.snapshot() == lost
        with suppress(ProviderError):  # too broken to be compared is different, too
            assert subject.provider.drift(shadow, contents)
        with pytest.raises(ValidationFailed):
            subject.provider.validate(shadow, contents)
        subject.provider.restore(shadow, contents, MemorySteps())
        self.expect_equal(subject, shadow, contents, state)
        if self.keeps_broken:
            subject.provider.verify(displaced, contents)
            subject.provider.restore(displaced, contents, MemorySteps())
            self.expect_equal(subject, displaced, contents, lost)

    def test_stop_and_start_may_be_repeated(self, subject: Subject, contents: MemoryContents) -> None:
        state = subject.snapshot()
        shadow = self.create(subject, contents)
        subject.provider.stop(shadow)
        subject.provider.stop(shadow)
        subject.provider.start(shadow)
        subject.provider.start(shadow)
        assert subject.snapshot() == state

    def test_every_method_leads_back(self, subject: Subject, contents: MemoryContents) -> None:
        state = subject.snapshot()
        shadow = self.create(subject, contents)
        methods = subject.provider.methods(shadow)
        assert methods and len(set(methods)) == len(methods)
        for method in methods if len(methods) > 1 else ():  # one alone is what all other tests are about
            provider = type(subject.provider)(replace(subject.provider.context, method=method))
            for lose in (subject.change, subject.destroy):
                lose()
                assert provider.restore(shadow, contents, MemorySteps()).items
                self.expect_equal(subject, shadow, contents, state)

    def test_forget_may_be_repeated(self, subject: Subject, contents: MemoryContents) -> None:
        state = subject.snapshot()
        shadow = self.create(subject, contents)
        subject.provider.forget(shadow)
        subject.provider.forget(shadow)
        assert subject.snapshot() == state

    def test_a_restore_that_is_killed_can_be_finished(
        self, subject: Subject, contents: MemoryContents, tmp_path: Path
    ) -> None:
        """Killed at points spread over all its acts."""
        state = subject.snapshot()
        shadow = self.create(subject, contents)

        restore = partial(subject.provider.restore, shadow, contents)
        subject.change()
        acts = run_and_kill(partial(restore, FileSteps(tmp_path / "steps")))
        assert acts
        self.expect_equal(subject, shadow, contents, state)
        for kill_at in spread(acts, KILLS):
            subject.change()
            steps = FileSteps(tmp_path / f"steps-{kill_at}")
            run_and_kill(partial(restore, steps), kill_at)
            self._finish(subject, shadow, contents, steps, state)

    @pytest.mark.parametrize("how", ["change", "destroy"])
    def test_a_restore_that_is_killed_at_a_step_can_be_finished(
        self, subject: Subject, contents: MemoryContents, tmp_path: Path, how: str
    ) -> None:
        """Killed before and after each note in the journal."""
        state = subject.snapshot()
        shadow = self.create(subject, contents)
        survived = False
        for kill_at in range(1, 100):
            getattr(subject, how)()
            path = tmp_path / f"steps-{kill_at}"
            dying = FileSteps(path, kill_at)
            survived = run_and_kill(partial(subject.provider.restore, shadow, contents, dying)) is not None
            self._finish(subject, shadow, contents, FileSteps(path), state)
            if survived:
                break
        assert survived

    def _finish(self, subject: Subject, shadow: Shadow, contents: MemoryContents, steps: Steps, state: object) -> None:
        """What the verb does when it is called again: look, then restore with the same journal."""
        try:
            subject.provider.drift(shadow, contents)
        except UmbraError as error:  # too broken to be compared: it counts as changed
            check_sentence(error)
        subject.provider.restore(shadow, contents, steps)
        self.expect_equal(subject, shadow, contents, state)

    # --- what is refused

    def test_what_cannot_be_shadowed_is_refused(self, subject: Subject, contents: MemoryContents) -> None:
        before = subject.snapshot()
        for resource in subject.refused():
            with pytest.raises(ProviderError) as estimated:
                subject.provider.estimate(resource)
            with pytest.raises(ProviderError) as created:
                subject.provider.create(resource, None, contents)
            for error in (estimated.value, created.value):
                check_sentence(error)
                assert resource.name in str(error)
        assert subject.snapshot() == before


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
    elif value not in (None, ""):
        yield str(value)
