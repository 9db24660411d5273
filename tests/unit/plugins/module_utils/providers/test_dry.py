# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode: whatever is asked of a dry provider, nothing is changed, kept, stopped or started."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import ProviderError
from ansible_collections.umbra.rollback.plugins.module_utils.providers.base import Outcome, Provider
from ansible_collections.umbra.rollback.plugins.module_utils.providers.dry import DryProvider
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.providers.conformance import (
    MemorySteps,
    ProviderConformance,
    Subject,
)
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.providers.test_command import CommandSubject
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.providers.test_sqlite import SqliteSubject
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents


@pytest.fixture(params=[SqliteSubject, CommandSubject])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    made: Subject = request.param(tmp_path)
    return made


def test_nothing_is_written_by_any_method(subject: Subject) -> None:
    contents, steps = MemoryContents(), MemorySteps()
    shadow = ProviderConformance.create(subject, contents)
    subject.change()
    state, kept, work = subject.snapshot(), dict(contents.blobs), Path(subject.provider.context.workdir)
    dry = DryProvider(subject.provider)
    made = dry.create(subject.resource, shadow, contents)
    displaced = dry.displace(shadow, contents)
    drift = dry.drift(shadow, contents)
    assert dry.restore(shadow, contents, steps) == Outcome(drift.total, drift.bytes, "check")
    assert dry.stop(shadow) is False
    dry.start(shadow)
    dry.validate(shadow, contents)
    dry.forget(shadow)
    assert dry.verify(shadow, contents) > 0
    assert (made.method, made.roots, displaced.method, displaced.roots) == ("check", (), "check", ())
    assert subject.snapshot() == state
    assert (contents.blobs, steps.noted, list(work.iterdir())) == (kept, {}, [])


def test_what_is_read_is_what_the_provider_says(subject: Subject) -> None:
    contents, dry = MemoryContents(), DryProvider(subject.provider)
    shadow = ProviderConformance.create(subject, contents)
    estimate = subject.provider.estimate(subject.resource)
    assert dry.estimate(subject.resource) == estimate
    made = dry.create(subject.resource, None, contents)
    assert (made.resource, made.bytes, made.items) == (subject.resource, estimate.bytes, estimate.items)
    assert dry.claims(subject.resource) == subject.provider.claims(subject.resource)
    assert dry.drift(shadow, contents) == subject.provider.drift(shadow, contents)
    assert (dry.type, dry.interface) == (subject.provider.type, subject.provider.interface)
    assert dry.capabilities == subject.provider.capabilities
    if options := subject.query():
        assert dry.query(options) == subject.provider.query(options)


def test_what_would_be_refused_is_refused(subject: Subject) -> None:
    for resource in subject.refused():
        with pytest.raises(ProviderError):
            DryProvider(subject.provider).create(resource, None, MemoryContents())


def test_one_that_is_lost_would_be_displaced(subject: Subject) -> None:
    contents = MemoryContents()
    shadow = ProviderConformance.create(subject, contents)
    subject.destroy()
    dry = DryProvider(subject.provider)
    assert dry.displace(shadow, contents).method == "check"
    assert dry.restore(shadow, contents, MemorySteps()).items > 0


def test_no_method_of_a_provider_is_forgotten() -> None:
    """One that is added to the contract must not reach the wrapped provider, or be missed, by accident."""
    methods = [name for name, _method in inspect.getmembers(Provider, inspect.isfunction) if not name.startswith("_")]
    assert [name for name in methods if name not in vars(DryProvider)] == []


def test_a_wrapper_does_not_change_the_class(tmp_path: Path) -> None:
    before = DryProvider.type
    DryProvider(SqliteSubject(tmp_path).provider)
    assert DryProvider.type == before
