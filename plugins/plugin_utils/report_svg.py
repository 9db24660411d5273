# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The dependency graph as a picture: waves are columns, hosts are bands, an arrow leads to what is restored later."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from . import human
from .analysis import Analysis
from .assess import Assessment
from .graph import Edge, essential

SINGLY = 120  # resources that are drawn one by one; of more, each box stands for those of one host and wave
HOSTS_DRAWN = 40
TALL = 8  # boxes in one column of a cell
WIDTH, HEIGHT = 200, 40
GAP_X, GAP_Y, WAVE_GAP, BAND_GAP, LABEL, MARGIN = 12, 10, 64, 14, 24, 14
NAME_SHOWN = 22
TIERS = ("low", "medium", "high")


@dataclass(frozen=True, slots=True)
class Box:
    """One box of the picture: a resource, or all resources of one host in one wave."""

    host: str
    wave: int
    members: tuple[Assessment, ...]

    @property
    def tier(self) -> str:
        """The highest tier in it."""
        return max((one.score.tier for one in self.members), key=TIERS.index)


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the picture's boxes (x, y), bands (host, y, height) and columns (wave, x) are, and how big it is."""

    boxes: Mapping[int, tuple[float, float]]
    bands: Sequence[tuple[str, float, float]]
    columns: Sequence[tuple[int, float]]
    width: float
    height: float


def draw(analysis: Analysis, anchors: Mapping[str, str]) -> str:
    """The picture as an SVG element. `anchors` are the ids on the page that the boxes of single resources lead to."""
    hosts = _hosts(analysis)
    boxes = _boxes(analysis, hosts)
    box_of = {one.key: index for index, box in enumerate(boxes) for one in box.members}
    arrows = _arrows(analysis, box_of)
    placed = _place(boxes, arrows, hosts)
    parts = [_band(*band, placed.width) for band in placed.bands]
    parts += [f'<text class="wave" x="{x:.0f}" y="{LABEL - 8}">wave {wave}</text>' for wave, x in placed.columns]
    parts += [_arrow(pair, edges, boxes, placed) for pair, edges in sorted(arrows.items())]
    parts += [_box(box, placed.boxes[index], anchors) for index, box in enumerate(boxes)]
    width, height = f"{placed.width:.0f}", f"{placed.height:.0f}"
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    label = f"{human.count(len(analysis.resources), 'resource')} in {human.count(analysis.waves, 'wave')}"
    head = (
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" class="tip"/></marker>'
    )
    return f'<svg {size} role="img" aria-label="{label}"><defs>{head}</defs>{"".join(parts)}</svg>'


def omitted_hosts(analysis: Analysis) -> int:
    """How many hosts the picture leaves out."""
    return len(analysis.hosts) - len(_hosts(analysis))


def mark(tier: str, x: float = 7, y: float = 7) -> str:
    """The tier's sign, so that colour is not all there is: a circle, a diamond, a triangle."""
    shape = {
        "low": f'<circle cx="{x:g}" cy="{y:g}" r="4.5"/>',
        "medium": f'<path d="M{x:g} {y - 6:g} l6 6 l-6 6 l-6 -6 z"/>',
        "high": f'<path d="M{x:g} {y - 6:g} l6.5 11 h-13 z"/>',
    }[tier]
    return f'<g class="mark {tier}">{shape}</g>'


def shortened(text: str, shown: int = NAME_SHOWN) -> str:
    """`text` with its middle left out, since names differ at both ends."""
    return text if len(text) <= shown else f"{text[: shown // 2]}\u2026{text[len(text) - shown + shown // 2 + 1 :]}"


def _hosts(analysis: Analysis) -> list[str]:
    """The hosts that are drawn: those with the highest score first, when there are too many."""
    if len(analysis.hosts) <= HOSTS_DRAWN:
        return list(analysis.hosts)
    worst: defaultdict[str, float] = defaultdict(float)
    for one in analysis.resources.values():
        worst[one.host] = max(worst[one.host], one.score.value)
    kept = set(sorted(analysis.hosts, key=lambda host: -worst[host])[:HOSTS_DRAWN])
    return [host for host in analysis.hosts if host in kept]


def _boxes(analysis: Analysis, hosts: Iterable[str]) -> list[Box]:
    drawn = set(hosts)
    shown = [one for one in analysis.resources.values() if one.host in drawn]
    if len(shown) <= SINGLY:
        return [Box(one.host, one.wave, (one,)) for one in shown]
    cells: defaultdict[tuple[str, int], list[Assessment]] = defaultdict(list)
    for one in shown:
        cells[one.host, one.wave].append(one)
    return [Box(host, wave, tuple(members)) for (host, wave), members in cells.items()]


def _arrows(analysis: Analysis, box_of: Mapping[str, int]) -> dict[tuple[int, int], list[Edge]]:
    """The edges by (box of what is needed, box of what needs it); those that others imply are left out."""
    found: defaultdict[tuple[int, int], list[Edge]] = defaultdict(list)
    for edge in analysis.edges:
        need, user = box_of.get(edge.target), box_of.get(edge.source)
        if need is not None and user is not None and need != user:
            found[need, user].append(edge)
    return {pair: found[pair] for pair in essential(found)}


def _place(boxes: Sequence[Box], arrows: Iterable[tuple[int, int]], hosts: Sequence[str]) -> Placed:
    cells: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for index, box in enumerate(boxes):
        cells[box.host, box.wave].append(index)
    needs: defaultdict[int, list[int]] = defaultdict(list)
    for need, index in arrows:
        needs[index].append(need)
    waves = sorted({box.wave for box in boxes})
    columns, width = _columns(cells, waves)
    bands: list[tuple[str, float, float]] = []
    placed: dict[int, tuple[float, float]] = {}
    y = float(LABEL)
    for host in hosts:
        rows = max((min(TALL, len(cells[host, wave])) for wave in waves), default=0)
        height = LABEL + max(1, rows) * (HEIGHT + GAP_Y) + MARGIN - GAP_Y
        bands.append((host, y, height))
        for wave, x in columns:
            members = sorted(cells[host, wave], key=lambda index: _height_of_needs(needs[index], placed))
            for position, index in enumerate(members):
                across, down = divmod(position, TALL)
                placed[index] = (x + across * (WIDTH + GAP_X), y + LABEL + down * (HEIGHT + GAP_Y))
        y += height + BAND_GAP
    return Placed(placed, bands, columns, width, y - BAND_GAP + 2)


def _columns(
    cells: Mapping[tuple[str, int], Sequence[int]], waves: Iterable[int]
) -> tuple[list[tuple[int, float]], float]:
    """Where the column of each wave begins, and where the last one ends: as wide as its fullest cell."""
    fullest: defaultdict[int, int] = defaultdict(int)
    for (_host, wave), members in cells.items():
        fullest[wave] = max(fullest[wave], len(members))
    columns = []
    x = float(MARGIN)
    for wave in waves:
        columns.append((wave, x))
        x += -(-fullest[wave] // TALL) * (WIDTH + GAP_X) - GAP_X + WAVE_GAP
    return columns, max(x - WAVE_GAP, 240.0) + MARGIN


def _height_of_needs(needs: Sequence[int], placed: Mapping[int, tuple[float, float]]) -> float:
    """The mean height of what is drawn already: beside it, arrows cross least (Sugiyama, Tagawa, Toda 1981)."""
    heights = [placed[need][1] for need in needs if need in placed]
    return sum(heights) / len(heights) if heights else 0.0


def _band(host: str, y: float, height: float, width: float) -> str:
    return (
        f'<rect class="band" x="1" y="{y:.0f}" width="{width - 2:.0f}" height="{height:.0f}" rx="8"/>'
        f'<text class="host" x="{MARGIN}" y="{y + 16:.0f}">{human.markup(host)}</text>'
    )


def _arrow(pair: tuple[int, int], edges: Sequence[Edge], boxes: Sequence[Box], placed: Placed) -> str:
    (x1, y1), (x2, y2) = placed.boxes[pair[0]], placed.boxes[pair[1]]
    x1, y1, y2 = x1 + WIDTH, y1 + HEIGHT / 2, y2 + HEIGHT / 2
    cyclic = boxes[pair[0]].wave == boxes[pair[1]].wave
    if cyclic:  # both in one column: out on the right, and back in there
        x2 += WIDTH
        bend = 22 + abs(y2 - y1) / 8
        path = f"M{x1:.0f} {y1 - 4:.0f} C{x1 + bend:.0f} {y1:.0f} {x2 + bend:.0f} {y2:.0f} {x2 + 2:.0f} {y2 + 4:.0f}"
    else:
        bend = max(24.0, min(90.0, (x2 - x1) / 2))
        path = f"M{x1:.0f} {y1:.0f} C{x1 + bend:.0f} {y1:.0f} {x2 - bend:.0f} {y2:.0f} {x2 - 2:.0f} {y2:.0f}"
    kind = "cyclic" if cyclic else "claimed" if not any(edge.declared for edge in edges) else "declared"
    title = human.markup(_why(edges))
    lines = f'<path class="reach" d="{path}"/><path class="line" d="{path}"/>'
    return f'<g class="edge {kind}"><title>{title}</title>{lines}</g>'


def _why(edges: Sequence[Edge]) -> str:
    lines = []
    for edge in edges[:10]:
        lines.append(f"{edge.source} needs {edge.target}")
        lines += [f"- {text}" for text in edge.evidence]
    if len(edges) > 10:
        lines.append(f"and {len(edges) - 10} more")
    return "\n".join(lines)


def _box(box: Box, at: tuple[float, float], anchors: Mapping[str, str]) -> str:
    x, y = at
    one = box.members[0]
    if len(box.members) == 1:
        name, title = shortened(one.shadow.name), _about(one)
        detail = f"{shortened(one.shadow.type, 10)} \u00b7 {one.score.value:.0f} \u00b7 {human.duration(one.eta.p50)}"
    else:
        tiers = [one.score.tier for one in box.members]
        name = human.count(len(box.members), "resource")
        detail = ", ".join(f"{tiers.count(tier)} {tier}" for tier in reversed(TIERS) if tier in tiers)
        title = "\n".join([*(_about(one) for one in box.members[:10]), *(["..."] if len(box.members) > 10 else [])])
    looped = any(one.cycle for one in box.members)
    inside = (
        f"<title>{human.markup(title)}</title>"
        f'<rect class="box {box.tier}{" looped" if looped else ""}" x="{x:.0f}" y="{y:.0f}" '
        f'width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f"{mark(box.tier, x + 14, y + HEIGHT / 2)}"
        f'<text class="name" x="{x + 28:.0f}" y="{y + 17:.0f}">{human.markup(name)}</text>'
        f'<text class="detail" x="{x + 28:.0f}" y="{y + 32:.0f}">{human.markup(detail)}</text>'
    )
    anchor = anchors.get(one.key) if len(box.members) == 1 else None
    return f'<a href="#{anchor}">{inside}</a>' if anchor else f"<g>{inside}</g>"


def _about(one: Assessment) -> str:
    cycle = f", in a cycle of {len(one.cycle)}" if one.cycle else ""
    return (
        f"{one.key}: {one.shadow.type}, {human.size(one.shadow.bytes)}, wave {one.wave}{cycle}\n"
        f"score {one.score.value:.1f} ({one.score.tier}), {human.duration(one.eta.p50)} "
        f"(90 %: {human.duration(one.eta.p90)}), fails with {human.percent(one.p_fail)}\n"
        f"{human.count(one.dependents, 'dependent')}, needs {', '.join(one.needs) or 'nothing'}"
    )
