# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The score: its parts add up, nothing that grows lowers it, and bad options get one sentence."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import InputError
from ansible_collections.umbra.rollback.plugins.module_utils.predict.score import TYPE_FACTORS, WEIGHTS, Facts, scorer
from hypothesis import given
from hypothesis import strategies as st

facts = st.builds(
    Facts,
    depth=st.integers(0, 10_000),
    dependents=st.integers(0, 10**6),
    bytes=st.integers(0, 2**60),
    type=st.sampled_from([*TYPE_FACTORS, "some_new_type"]),
    p_fail=st.floats(0, 1),
)
weights = st.dictionaries(st.sampled_from(sorted(WEIGHTS)), st.floats(0.01, 100))
grown = st.sampled_from(["depth", "dependents", "bytes", "p_fail"])


@given(facts, weights)
def test_contributions_add_up_to_a_score_from_0_to_100(one: Facts, given_weights: dict[str, float]) -> None:
    score = scorer(given_weights).score(one)
    assert 0 <= score.value <= 100
    assert math.fsum(score.contributions.values()) == pytest.approx(score.value, abs=0.05)
    assert set(score.contributions) == set(WEIGHTS)
    assert all(points >= 0 for points in score.contributions.values())


@given(facts, weights, grown, st.data())
def test_more_of_anything_never_lowers_it(one: Facts, given_weights: dict[str, float], name: str, data: Any) -> None:
    value = getattr(one, name)
    more = data.draw(st.floats(value, 1) if name == "p_fail" else st.integers(value, 2**61))
    rules = scorer(given_weights)
    assert rules.score(replace(one, **{name: more})).value >= rules.score(one).value


def test_by_hand() -> None:
    one = Facts(depth=2, dependents=3, bytes=100 * 2**30, type="file", p_fail=0.25)
    score = scorer().score(one)
    assert score.contributions == {"depth": 7.5, "dependents": 10.0, "volume": 30.0, "type": 1.5, "p_fail": 10.0}
    assert (score.value, score.tier) == (59.0, "medium")


def test_weights_are_put_over_the_defaults_and_divided_by_their_sum() -> None:
    assert scorer({"volume": 0}).weights["dependents"] == pytest.approx(0.20 / 0.70)
    only = scorer({"depth": 0, "dependents": 0, "type": 0, "p_fail": 0, "volume": 3})
    assert only.score(Facts(0, 0, 2**60, "file", 0)).value == 100


@pytest.mark.parametrize(("value", "tier"), [(0, "low"), (29.99, "low"), (30, "medium"), (60, "high"), (100, "high")])
def test_tiers_begin_at_their_thresholds(value: float, tier: str) -> None:
    assert scorer().tier(value) == tier


def test_equal_thresholds_leave_no_medium() -> None:
    assert {scorer(tiers={"medium": 50, "high": 50}).tier(value) for value in (49, 50)} == {"low", "high"}


WRONG = [
    ({"colour": 1}, {}, "weights: unknown key 'colour'."),
    ({"depth": -1}, {}, "weights: depth is -1."),
    ({"depth": "much"}, {}, "weights: depth is 'much', not a number."),
    ({"depth": True}, {}, "weights: depth is True, not a number."),
    ({"depth": math.nan}, {}, "weights: depth is nan, not a number."),
    ({"depth": math.inf}, {}, "weights: depth is inf, not a number."),
    (dict.fromkeys(WEIGHTS, 0), {}, "weights: all are 0."),
    ([1], {}, "weights: is list, not a dictionary."),
    ({}, {"low": 3}, "tiers: unknown key 'low'."),
    ({}, {"high": 101}, "tiers: high is 101."),
    ({}, {"medium": 70}, "tiers: medium (70) is above high (60)."),
]


@pytest.mark.parametrize(("given_weights", "tiers", "sentence"), WRONG)
def test_bad_options_get_one_sentence(given_weights: Any, tiers: Any, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        scorer(given_weights, tiers)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)
