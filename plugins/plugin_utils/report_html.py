# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The analysis as one page of HTML without network or script: verdict, picture, times, resources, evidence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from ..module_utils.kernel import montecarlo
from ..module_utils.predict.score import WEIGHTS
from . import human, report_svg
from .analysis import Analysis
from .assess import Assessment
from .report_style import STYLE

_MINUTES = [60.0 * minutes for minutes in (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1440, 2880, 7200, 14400)]
BARS = 60  # resources in the chart of times
EDGES = 5000  # dependencies in the table
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(analysis: Analysis, generated: float) -> str:
    """The page. `generated` (seconds since the epoch) is the moment it names; equal arguments give equal pages."""
    ranked = sorted(analysis.resources.values(), key=lambda one: (-one.score.value, one.key))
    anchors = {one.key: f"r{number}" for number, one in enumerate(ranked, 1)}
    title = f"Way back of {human.markup(analysis.update_id)}"
    when = datetime.fromtimestamp(generated, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    body = [
        f'<header><h1>{title}</h1><p class="muted">umbra.rollback, {when}</p></header>',
        _verdict(analysis),
        _notes(analysis),
        _picture(analysis, anchors),
        _times(analysis),
        _table(analysis, ranked, anchors),
        _evidence(analysis),
        _how(analysis),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body><main>{''.join(body)}</main></body></html>\n"
    )


def _verdict(analysis: Analysis) -> str:
    gate = analysis.gate
    limits = analysis.options.max_rto is not None or analysis.options.max_risk is not None
    if not gate.passed:
        sign, state = "&#10007;", "refused"
    elif limits:
        sign, state = "&#10003;", "passed"
    else:
        sign, state = "&#8211;", "no limits set"
    refusals = "".join(f"<p>{human.markup(text)}</p>" for text in gate.refusals)
    tiles = [
        ("time of the way back", human.duration(analysis.rto[0]), f"90 % bound: {human.duration(analysis.rto[1])}"),
        ("risk that something fails", human.percent(analysis.risk), "of the way back, not of the update"),
        ("resources", f"{len(analysis.resources):,}", _tiers(analysis)),
        ("waves", str(analysis.waves), f"on {human.count(len(analysis.hosts), 'host')}"),
    ]
    cells = "".join(
        f'<div class="tile"><span>{name}</span><strong>{value}</strong><span>{detail}</span></div>'
        for name, value, detail in tiles
    )
    kind = "refused" if not gate.passed else "passed" if limits else "open"
    said = f'<p><b class="sign">{sign}</b> Gate: <b>{state}</b></p>'
    return f'<section class="gate {kind}">{said}{refusals}</section><section class="tiles">{cells}</section>'


def _tiers(analysis: Analysis) -> str:
    tiers = [one.score.tier for one in analysis.resources.values()]
    return ", ".join(f"{tiers.count(tier):,} {tier}" for tier in reversed(report_svg.TIERS) if tier in tiers)


def _notes(analysis: Analysis) -> str:
    items = "".join(f"<li>{human.markup(text)}</li>" for text in (*analysis.warnings, *analysis.notes))
    return f"<section><h2>To know</h2><ul>{items}</ul></section>" if items else ""


def _picture(analysis: Analysis, anchors: dict[str, str]) -> str:
    legend = "".join(f"<span>{_mark(tier)} {tier}</span>" for tier in report_svg.TIERS)
    arrows = '<span><i class="stroke"></i> declared</span><span><i class="stroke claimed"></i> found in claims</span>'
    left_out = report_svg.omitted_hosts(analysis)
    note = f" {human.count(left_out, 'host')} with lower scores left out." if left_out else ""
    return (
        "<section><h2>Order of the way back</h2>"
        '<p class="muted">Waves from left to right; an arrow leads from what is restored first to what needs it. '
        f"Rest on a box or an arrow to see why.{note}</p>"
        f'<p class="legend">{legend}{arrows}</p>'
        f'<div class="scroll">{report_svg.draw(analysis, anchors)}</div></section>'
    )


def _mark(tier: str) -> str:
    size = 'width="14" height="14" viewBox="0 0 14 14"'
    return f'<svg class="tiermark" {size} aria-hidden="true">{report_svg.mark(tier)}</svg>'


# --- times


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of the chart: seconds since the way back began."""

    label: str
    detail: str
    tier: str
    start: float
    p50: float
    p90: float


def bars(analysis: Analysis) -> list[Bar]:
    """When each restore begins and ends if everything takes its median time, in the order of the way back."""
    several = len(analysis.hosts) > 1
    clock = analysis.turn + max(analysis.prepare.values(), default=0.0)
    detail = "verify shadows, keep the failed state"
    found = [Bar("prepare", detail, "none", analysis.turn, clock - analysis.turn, clock - analysis.turn)]
    cells: defaultdict[int, defaultdict[str, list[Assessment]]] = defaultdict(lambda: defaultdict(list))
    for one in analysis.resources.values():
        cells[one.wave][one.host].append(one)
    for wave in sorted(cells):
        clock += analysis.turn if several else 0.0
        end = clock
        for members in cells[wave].values():
            times = [one.eta.p50 for one in members]
            for one, ended in zip(members, montecarlo.ends(times, analysis.options.workers), strict=True):
                found.append(_bar(one, clock + ended - one.eta.p50, several))
                end = max(end, clock + ended)
        clock = end
    return found


def _bar(one: Assessment, start: float, several: bool) -> Bar:
    detail = f"wave {one.wave}, {one.host}" if several else f"wave {one.wave}"
    return Bar(one.shadow.name, detail, one.score.tier, start, one.eta.p50, one.eta.p90)


def _times(analysis: Analysis) -> str:
    every = bars(analysis)
    longest = set(sorted(every, key=lambda span: -span.p90)[:BARS])
    shown = [span for span in every if span in longest]
    end = max([analysis.rto[1], *(span.start + span.p90 for span in shown)]) * 1.02 or 1.0
    limit = analysis.options.max_rto
    lines = [("p50", analysis.rto[0], "median of the whole"), ("p90", analysis.rto[1], "90 % of the whole")]
    if limit is not None and limit <= end * 1.5:
        end = max(end, limit * 1.02)
        lines.append(("limit", limit, "max_rto"))
    rules = "".join(f'<i class="rule {kind}" style="left:{100 * at / end:.2f}%"></i>' for kind, at, _name in lines)
    rows = "".join(_row(span, end) for span in shown)
    legend = "".join(
        f'<span><i class="key {kind}"></i> {name}: {human.duration(at)}</span>' for kind, at, name in lines
    )
    left_out = len(every) - len(shown)
    note = f" The {len(shown)} longest are shown, {left_out:,} are not." if left_out else ""
    return (
        '<section><h2>Time</h2><p class="muted">Full bar: median. Light bar: 90 % bound of that resource.'
        f'{note}</p><p class="legend">{legend}</p>'
        f'<div class="chart">{rows}<div class="rules">{rules}</div>{_axis(end)}</div></section>'
    )


def _row(span: Bar, end: float) -> str:
    start, p50, p90 = (f"{100 * value / end:.2f}%" for value in (span.start, span.p50, span.p90))
    times = human.duration(span.p50) + (f" (90 %: {human.duration(span.p90)})" if span.p90 > span.p50 else "")
    label = human.markup(report_svg.shortened(span.label, 30))
    title = human.markup(f"{span.label}, {span.detail}: begins at {human.duration(span.start)}, takes {times}")
    return (
        f'<div class="label" title="{title}">{label} <small>{human.markup(span.detail)}</small></div>'
        f'<div class="track" title="{title}">'
        f'<b class="{span.tier} light" style="left:{start};width:{p90}"></b>'
        f'<b class="{span.tier}" style="left:{start};width:{p50}"></b></div>'
    )


def _axis(end: float) -> str:
    """Ticks at round times, six at most."""
    powers = [base * 10.0**power for power in range(-3, 1) for base in (1, 2, 5)]
    step = next((step for step in [*powers, 10, 20, *_MINUTES] if end / step <= 6), end / 4)
    ticks = "".join(
        f'<span style="left:{100 * number * step / end:.2f}%">{human.duration(number * step) if number else "0"}</span>'
        for number in range(int(end * 0.97 / step) + 1)
    )
    return f'<div class="label"></div><div class="axis">{ticks}</div>'


# --- tables


def _table(analysis: Analysis, ranked: Sequence[Assessment], anchors: dict[str, str]) -> str:
    legend = "".join(f'<span><i class="factor {name}"></i> {name}</span>' for name in WEIGHTS)
    heads = ("Resource", "Host", "Tier", "Score", "Wave", "Time (90 %)", "Fails", "Size", "Dependents", "Needs")
    head = "".join(f"<th>{name}</th>" for name in heads)
    rows = "".join(_resource(one, anchors) for one in ranked)
    return (
        f'<section><h2>Resources</h2><p class="legend">{legend}</p><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _resource(one: Assessment, anchors: dict[str, str]) -> str:
    parts = "".join(
        f'<i class="factor {name}" style="width:{points:g}%"></i>' for name, points in one.score.contributions.items()
    )
    told = human.markup(", ".join(f"{name} {points:.1f}" for name, points in one.score.contributions.items()))
    needs = ", ".join(
        f'<a href="#{anchors[need]}">{human.markup(need.removeprefix(f"{one.host}:"))}</a>' for need in one.needs[:20]
    )
    more = f" and {len(one.needs) - 20} more" if len(one.needs) > 20 else ""
    about = "measured" if one.eta.measured else "assumed: too few restores were seen"
    sign = "" if one.eta.measured else "~"
    cells = [
        f"<td><b>{human.markup(one.shadow.name)}</b><br><small>{human.markup(one.shadow.type)}</small></td>",
        f"<td>{human.markup(one.host)}</td>",
        f'<td class="tier">{_mark(one.score.tier)} {one.score.tier}</td>',
        f'<td title="{told}"><div class="score"><span>{one.score.value:.1f}</span>'
        f'<div class="bar">{parts}</div></div></td>',
        f"<td>{one.wave}{' &#8635;' if one.cycle else ''}</td>",
        f'<td title="{about}">{human.duration(one.eta.p50)} ({sign}{human.duration(one.eta.p90)})</td>',
        f"<td>{human.markup(human.percent(one.p_fail))}</td>",
        f"<td>{human.size(one.shadow.bytes)}</td>",
        f"<td>{one.dependents}</td>",
        f'<td class="needs">{needs}{more}</td>',
    ]
    return f'<tr id="{anchors[one.key]}">{"".join(cells)}</tr>'


def _evidence(analysis: Analysis) -> str:
    if not analysis.edges:
        return ""
    rows = "".join(
        f"<tr><td>{human.markup(edge.source)}</td><td>{human.markup(edge.target)}</td>"
        f"<td>{'declared' if edge.declared else ''}{' and ' if edge.declared and edge.claimed else ''}"
        f"{'claimed' if edge.claimed else ''}</td>"
        f"<td>{'<br>'.join(human.markup(text) for text in edge.evidence)}</td></tr>"
        for edge in analysis.edges[:EDGES]
    )
    left_out = len(analysis.edges) - EDGES
    note = f'<p class="muted">The first {EDGES:,} are shown.</p>' if left_out > 0 else ""
    return (
        f"<section><details><summary>Why: {human.count(len(analysis.edges), 'dependency', 'dependencies')} and their "
        f'evidence</summary>{note}<div class="scroll"><table><thead><tr><th>Resource</th><th>Needs</th><th>Known</th>'
        f"<th>Evidence</th></tr></thead><tbody>{rows}</tbody></table></div></details></section>"
    )


def _how(analysis: Analysis) -> str:
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in analysis.scorer.weights.items())
    tiers = analysis.scorer.tiers
    return (
        f'<footer class="muted"><p>Score: 100 times the sum of weight and factor ({weights}); medium from '
        f"{tiers['medium']:g}, high from {tiers['high']:g}. Times: learnt per host, type and method from its history; "
        f"where ~ stands, the 90 % bound is an assumption. The whole: simulated, with "
        f"{analysis.options.workers} resources at once on each host, wave after wave.</p></footer>"
    )
