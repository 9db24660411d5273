# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Medians, ratios, targets, the table and the chart, from samples that are written down here."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from chart import chart
from report import Summary, Verdict, floor, judge, others, summarize, table
from rounds import Sample

MIB = 1 << 20
TWINS = ("native", "pure")


def samples(
    tool: str, *walls: float, work: str = "W1", job: str = "first", peak: int = MIB, disk: int = MIB
) -> list[Sample]:
    return [Sample(work, job, tool, n, wall, wall / 2, wall + 0.1, peak, disk) for n, wall in enumerate(walls)]


@pytest.mark.parametrize(
    ("walls", "median", "minimum"), [((3.0, 1.0, 2.0), 2.0, 1.0), ((4.0, 1.0), 2.5, 1.0), ((7.0,), 7.0, 7.0)]
)
def test_medians_and_minimums(walls: tuple[float, ...], median: float, minimum: float) -> None:
    (one,) = summarize(samples("cp", *walls))
    assert (one.wall, one.minimum, one.cpu, one.rounds) == (median, minimum, median / 2, len(walls))


def test_the_peak_is_the_largest_and_bytes_are_the_median() -> None:
    (one,) = summarize(
        [*samples("cp", 1, peak=5, disk=7), *samples("cp", 1, peak=9, disk=9), *samples("cp", 1, peak=2)]
    )
    assert (one.peak, one.disk) == (9, 9)


def test_summaries_come_in_the_order_of_works_and_jobs() -> None:
    mixed = [*samples("cp", 1, job="full"), *samples("cp", 1, work="W3"), *samples("cp", 1), *samples("git", 1)]
    assert [(one.work, one.job, one.tool) for one in summarize(mixed)] == [
        ("W1", "first", "cp"),
        ("W1", "first", "git"),
        ("W1", "full", "cp"),
        ("W3", "first", "cp"),
    ]


def verdicts(*groups: list[Sample], ours: str = "native", fs: str = "ext4") -> dict[tuple[str, str, str], Verdict]:
    summaries = summarize(sample for group in groups for sample in group)
    return {(one.work, one.job, one.against): one for one in judge(summaries, ours, TWINS, fs)}


def test_a_ratio_is_the_peers_median_by_ours() -> None:
    found = verdicts(samples("native", 1, 2, 9), samples("pure", 50), samples("cp", 7), samples("rsync", 9.9))
    assert {key[2]: (one.ratio, one.wanted, one.met) for key, one in found.items()} == {
        "cp": (3.5, 3.5, True),
        "rsync": (4.95, 5, False),
        "memory": (256, 1, True),
    }


def test_the_twin_that_is_not_judged_is_no_peer() -> None:
    found = verdicts(samples("native", 1), samples("pure", 2), samples("cp", 7), ours="pure")
    assert found["W1", "first", "cp"].ratio == 3.5
    assert {against for _work, _job, against in found} == {"cp", "memory"}


def test_memory_and_bytes_have_limits() -> None:
    found = verdicts(samples("native", 1, peak=257 * MIB, disk=11 * MIB), samples("tar", 1, disk=10 * MIB))
    assert not found["W1", "first", "memory"].met
    assert not found["W1", "first", "tar's bytes"].met
    assert [line.rpartition(": ")[2] for line in others(found.values())] == ["NOT MET", "NOT MET"]


def test_on_usr_nobody_may_be_faster() -> None:
    found = verdicts(samples("native", 1.0, work="W3", job="full"), samples("tar", 0.9, work="W3", job="full"))
    assert found["W3", "full", "tar"].wanted == 1
    assert not found["W3", "full", "tar"].met


def test_with_reflinks_only_hashing_counts() -> None:
    groups = (
        samples("native", 1.0, work="W2"),
        samples("cp", 0.01, work="W2"),
        samples("native", 1.0, work="W2", job="verify"),
        samples("hashlib", 0.95, work="W2", job="verify"),
    )
    assert {key[2] for key in verdicts(*groups, fs="xfs") if key[1] == "first"} == {"memory", "hashing alone"}
    assert verdicts(*groups, fs="xfs")["W2", "first", "hashing alone"].met
    assert not verdicts(*groups, fs="ext4")["W2", "first", "cp"].met


def test_the_table_shows_each_tool_with_its_ratio_and_target() -> None:
    summaries = summarize([*samples("native", 1), *samples("pure", 8), *samples("cp", 7), *samples("tar", 3)])
    lines = table(summaries, judge(summaries, "native", TWINS, "ext4"), "native", TWINS)
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "first shadow native 1.000 s 1.000 s 0.500 s 1 M 1 M (1.100 s)",
        "pure 8.000 s 8.000 s 4.000 s 1 M 1 M (8.100 s)",
        "cp 7.000 s 7.000 s 3.500 s 1 M 1 M 7.00 7.00 3.50 met",
        "tar 3.000 s 3.000 s 1.500 s 1 M 1 M 3.00 3.00",
    ]
    assert len({line.index(" s ") for line in lines[1:]}) == 1  # the columns are below each other


def test_the_floor_is_the_median_of_the_rounds() -> None:
    assert floor([{"memcpy": 1.0}, {"memcpy": 9.0}, {"memcpy": 3.0}]) == {"memcpy": 3.0}
    assert floor([]) == {}


def test_the_chart_is_xml_with_a_bar_as_long_as_its_median() -> None:
    summaries: list[Summary] = summarize([*samples("native", 1, 3), *samples("cp", 8), *samples("git", 4, work="W9")])
    drawn = ElementTree.fromstring(chart(summaries, {"W1": "files & more"}, TWINS, "a <note>"))
    space = "{http://www.w3.org/2000/svg}"
    bars = {one.get("class"): float(one.get("width", "")) for one in drawn.iter(f"{space}rect") if one.get("class")}
    assert bars == {"ours": 140, "peer": 560}
    texts = [one.text for one in drawn.iter(f"{space}text")]
    assert texts == ["W1: files & more", "first shadow", "umbra, native", "2 s", "cp", "8 s", "a <note>"]
