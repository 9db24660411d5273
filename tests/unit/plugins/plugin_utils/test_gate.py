# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: what it refuses, whom it names, and whether what it says would pass does pass."""

from __future__ import annotations

import re

from ansible_collections.umbra.rollback.plugins.plugin_utils.analysis import (
    Analysis,
    AnalysisOptions,
    HostInput,
    analyze,
)
from ansible_collections.umbra.rollback.tests.unit.support.manifests import MIB, manifest, record, shadow

HISTORY = [record("flaky", ok=number % 3 > 0, time=number) for number in range(30)]


def run(options: AnalysisOptions | None = None, small: int = 2) -> Analysis:
    """One large database, some small trees, and one resource that often fails."""
    shadows = [shadow(f"small{number}") for number in range(small)]
    db = shadow("db", size=6000 * MIB, items=1, seconds=60.0, type="sqlite")
    return analyze("up-1", [HostInput("h", manifest("h", db, shadow("flaky"), *shadows), HISTORY)], options)


def test_without_limits_everything_passes() -> None:
    assert run().gate.passed


def test_a_limit_that_is_kept_passes() -> None:
    found = run()
    assert run(AnalysisOptions(max_rto=found.rto[1], max_risk=found.risk)).gate.passed


def test_a_median_below_the_limit_is_not_enough() -> None:
    found = run()
    limit = (found.rto[0] + found.rto[1]) / 2
    assert not run(AnalysisOptions(max_rto=limit)).gate.passed


def test_too_slow_names_what_costs_most_and_what_would_pass() -> None:
    (refusal,) = run(AnalysisOptions(max_rto=180)).gate.refusals
    assert "and max_rto is 180 s: db on h costs most (up to " in refusal
    assert re.search(r"if db came back within \d+\.\d s \(make it smaller, or update it by itself\)\.$", refusal)


def test_what_it_says_would_pass_does() -> None:
    (refusal,) = run(AnalysisOptions(max_rto=20)).gate.refusals
    found = re.search(r"It would pass with max_rto: (\d+)", refusal)
    assert found is not None
    assert run(AnalysisOptions(max_rto=int(found[1]))).gate.passed
    (refusal,) = run(AnalysisOptions(max_risk=0.05)).gate.refusals
    found = re.search(r"It would pass with max_risk: ([0-9.]+),", refusal)
    assert found is not None
    assert run(AnalysisOptions(max_risk=float(found[1]))).gate.passed


def test_when_no_single_one_is_to_blame_it_says_to_split() -> None:
    (refusal,) = run(AnalysisOptions(max_rto=1)).gate.refusals
    assert refusal.endswith("or if the update were split into smaller ones.")


def test_too_risky_names_the_likeliest_to_fail() -> None:
    (refusal,) = run(AnalysisOptions(max_risk=0.2)).gate.refusals
    assert "and max_risk is 0.2: flaky on h is the likeliest to (0." in refusal
    (refusal,) = run(AnalysisOptions(max_risk=0.001), small=40).gate.refusals
    assert refusal.endswith("or if the update were split into smaller ones.")


def test_both_limits_have_a_sentence_each() -> None:
    gate = run(AnalysisOptions(max_rto=1, max_risk=0.001)).gate
    assert (gate.passed, len(gate.refusals)) == (False, 2)
    assert all("\n" not in refusal for refusal in gate.refusals)
