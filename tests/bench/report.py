# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Medians, ratios and what they were to be; the table of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import targets
from peers import FIRST, JOBS, VERIFY
from rounds import Sample
from targets import AS_TAR, MEMORY, ONLY_HASHING, REFLINKS


@dataclass(frozen=True)
class Summary:
    """All rounds of one job by one tool: medians, but for `minimum` (of `wall`) and `peak`, which is the largest."""

    work: str
    job: str
    tool: str
    rounds: int
    wall: float
    minimum: float
    cpu: float
    process: float
    peak: int
    disk: int


@dataclass(frozen=True)
class Verdict:
    """One target. `ratio` is how many times better than `against` we are, `wanted` how many times we have to be."""

    work: str
    job: str
    against: str
    ratio: float
    wanted: float

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.ratio >= self.wanted


def summarize(samples: Iterable[Sample]) -> list[Summary]:
    """One line for each work, job and tool, in the order of the jobs, the tools as they first came."""
    groups: dict[tuple[str, str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.work, sample.job, sample.tool), []).append(sample)
    works = list(dict.fromkeys(work for work, _job, _tool in groups))
    jobs = list(JOBS)
    ordered = sorted(groups.items(), key=lambda item: (works.index(item[0][0]), jobs.index(item[0][1])))
    return [_summary(key, group) for key, group in ordered]


def _summary(key: tuple[str, str, str], group: Sequence[Sample]) -> Summary:
    return Summary(
        *key,
        len(group),
        statistics.median(one.wall for one in group),
        min(one.wall for one in group),
        statistics.median(one.cpu for one in group),
        statistics.median(one.process for one in group),
        max(one.peak for one in group),
        int(statistics.median(one.disk for one in group)),
    )


def judge(summaries: Iterable[Summary], ours: str, twins: Iterable[str], fs: str) -> list[Verdict]:
    """Every target that was measured, for the twin `ours`. What no peer was measured for is not in it."""
    known = {(one.work, one.job, one.tool): one for one in summaries}
    found = []
    for (work, job, tool), our in known.items():
        if tool != ours:
            continue
        for peer in (one for one in known.values() if (one.work, one.job) == (work, job) and one.tool not in twins):
            wanted = targets.ratio(work, job, peer.tool, fs)
            if wanted is not None:
                found.append(Verdict(work, job, peer.tool, peer.wall / our.wall, wanted))
        found.append(Verdict(work, job, "memory", MEMORY / our.peak, 1.0))
        if job == FIRST:
            found += _of_the_first(known, our, fs)
    return found


def _of_the_first(known: Mapping[tuple[str, str, str], Summary], our: Summary, fs: str) -> Iterable[Verdict]:
    if tar := known.get((our.work, FIRST, "tar")):
        yield Verdict(our.work, FIRST, "tar's bytes", tar.disk / our.disk, AS_TAR)
    hashing = known.get((our.work, VERIFY, "hashlib"))
    if hashing and our.work == "W2" and fs in REFLINKS:
        yield Verdict(our.work, FIRST, "hashing alone", hashing.wall / our.wall, ONLY_HASHING[FIRST, VERIFY, "hashlib"])


HEAD = ("", "tool", "median", "min", "CPU", "peak", "on disk", "ratio", "of CPU", "wanted", "")
WIDTHS = (20, 10, 9, 9, 9, 7, 8, 7, 7, 7, 8)


def table(summaries: Sequence[Summary], verdicts: Iterable[Verdict], ours: str, twins: Sequence[str]) -> list[str]:
    """The lines of one work's table: each job, each tool; the ratios are of the peer to `ours`."""
    judged = {(one.job, one.against): one for one in verdicts}
    our = {one.job: one for one in summaries if one.tool == ours}
    lines = [_line(HEAD)]
    last = ""
    for one in summaries:
        mine = our.get(one.job) if one.tool not in twins else None
        verdict = judged.get((one.job, one.tool))
        cells = (
            JOBS[one.job] if one.job != last else "",
            one.tool,
            f"{one.wall:.3f} s",
            f"{one.minimum:.3f} s",
            f"{one.cpu:.3f} s",
            f"{one.peak >> 20} M",
            f"{one.disk >> 20} M" if one.disk else "",
            f"{one.wall / mine.wall:.2f}" if mine else "",
            f"{one.cpu / mine.cpu:.2f}" if mine else "",
            f"{verdict.wanted:.2f}" if verdict else "",
            _word(verdict) if verdict else f"({one.process:.3f} s)" if one.tool in twins else "",
        )
        lines.append(_line(cells))
        last = one.job
    return lines


def others(verdicts: Iterable[Verdict]) -> list[str]:
    """Lines for the targets that are no ratio of a tool's time: memory, bytes, hashing."""
    found = []
    for one in verdicts:
        if one.against == "memory":
            if not one.met:
                found.append(f"{one.work} {JOBS[one.job]}: more than {MEMORY >> 20} MiB of memory: NOT MET")
        elif " " in one.against:
            what = f"{one.work} {JOBS[one.job]} against {one.against}"
            found.append(f"{what}: {one.ratio:.3f}, wanted {one.wanted:.3f}: {_word(one)}")
    return found


def floor(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Medians of what the machine could do in each round."""
    return {key: statistics.median(one[key] for one in measured) for key in measured[0]} if measured else {}


def floor_line(found: Mapping[str, float]) -> str:
    """The same in one line."""
    return (
        f"floor: memcpy {found['memcpy'] / 1e9:.2f} GB/s; sha256 {found['sha256'] / 1e9:.2f} GB/s on one core, "
        f"{found['sha256_all_cores'] / 1e9:.2f} on all; files of 4 KiB made per second {found['creations']:,.0f} "
        f"by one process, {found['creations_all_cores']:,.0f} by one for each core"
    )


def _word(verdict: Verdict) -> str:
    return "met" if verdict.met else "NOT MET"


def _line(cells: Sequence[str]) -> str:
    first = f"{cells[0]:{WIDTHS[0]}} {cells[1]:{WIDTHS[1]}}"
    rest = " ".join(f"{cell:>{width}}" for cell, width in zip(cells[2:], WIDTHS[2:]))
    return f"{first} {rest}".rstrip()
