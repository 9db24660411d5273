# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The chart: for each work and job one bar a tool, as long as its median."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from peers import JOBS
from report import Summary

WIDTH = 860
LABELS = 110  # where the bars begin
BARS = 560  # of the longest
BAR, GAP, JOB, WORK = 16, 4, 34, 44
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .work { font-size: 17px; font-weight: 600 } .job { font-size: 13px; font-weight: 600 }
  .ours { fill: #0b7285 } .peer { fill: #adb5bd } .best { stroke: #1f2328; stroke-width: 1 }
"""


def chart(summaries: Sequence[Summary], titles: Mapping[str, str], twins: Sequence[str], note: str) -> str:
    """An SVG. Bars of one job have one scale, and a mark shows the fastest round; `note` is written below."""
    parts: list[str] = []
    y = 0
    for work, title in titles.items():
        mine = [one for one in summaries if one.work == work]
        if not mine:
            continue
        y += WORK
        parts.append(f'<text class="work" x="12" y="{y}">{escape(f"{work}: {title}")}</text>')
        for job in dict.fromkeys(one.job for one in mine):
            y += JOB
            parts.append(f'<text class="job" x="12" y="{y - 8}">{escape(JOBS[job])}</text>')
            group = sorted((one for one in mine if one.job == job), key=lambda one: one.wall)
            for one in group:
                parts += _bar(one, max(one.wall for one in group), y, one.tool in twins)
                y += BAR + GAP
    y += JOB
    parts.append(f'<text x="12" y="{y}">{escape(note)}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 16}" width="{WIDTH}" role="img"'
    return "\n".join(
        [
            f'{head} aria-label="Seconds that each tool takes for each job">',
            f"<style>{STYLE}</style>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _bar(one: Summary, longest: float, y: int, ours: bool) -> list[str]:
    length = max(1.0, BARS * one.wall / longest)
    best = LABELS + BARS * one.minimum / longest
    kind = "ours" if ours else "peer"
    name = f"umbra, {one.tool}" if ours else one.tool
    said = f"{one.wall:.3f} s, fastest {one.minimum:.3f} s, of {one.rounds} rounds"
    return [
        f'<text x="{LABELS - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>',
        f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}"><title>{said}</title></rect>',
        f'<line class="best" x1="{best:.1f}" x2="{best:.1f}" y1="{y}" y2="{y + BAR}"/>',
        f'<text x="{LABELS + length + 8:.1f}" y="{y + 12}">{one.wall:.3g} s</text>',
    ]
