# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report: whole, self-contained, safe against what others wrote, and drawn so that nothing covers anything."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.shadow import Claim
from ansible_collections.umbra.rollback.plugins.plugin_utils import report_svg
from ansible_collections.umbra.rollback.plugins.plugin_utils.analysis import (
    Analysis,
    AnalysisOptions,
    HostInput,
    analyze,
)
from ansible_collections.umbra.rollback.plugins.plugin_utils.report_html import BARS, bars, render
from ansible_collections.umbra.rollback.tests.unit.support.manifests import MIB, manifest, shadow

EVIL = "</title><script>alert(1)</script>\"' onload=x\x1b[31m\udcff"
VOID = {"meta", "br", "rect", "path", "circle"}


class Page(HTMLParser):
    """What is on a page: tags that balance, ids, links within the page, titles, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, attribute: str) -> list[str]:
        return [value for _tag, attrs in self.tags if (value := attrs.get(attribute)) is not None]


def update(hosts: int, each: int, options: AnalysisOptions | None = None) -> Analysis:
    """Each resource needs the one before it but one, and the first of a host the last of the host before."""
    inputs = []
    for host in range(hosts):
        shadows = [
            shadow(f"r{number}", [f"r{number - 2}"] if number > 1 else [f"h{host - 1}:r{each - 1}"] if host else [])
            for number in range(each)
        ]
        inputs.append(HostInput(f"h{host}", manifest(f"h{host}", *shadows)))
    return analyze("up-1", inputs, options)


def hostile() -> Analysis:
    """An update in which every text that others write tries to be markup."""
    uses = Claim("uses", "path", EVIL, EVIL)
    provides = Claim("provides", "path", EVIL, EVIL)
    shadows = [shadow("a", type=EVIL, claims=[uses]), shadow("b", ["a"], claims=[provides])]
    return analyze(EVIL, [HostInput(EVIL, manifest(EVIL, *shadows, update_id=EVIL))], AnalysisOptions(max_rto=0.1))


SIZES = [(1, 0), (1, 1), (1, 5), (5, 10), (45, 2), (20, 25)]


@pytest.mark.parametrize(("hosts", "each"), SIZES)
def test_the_page_is_well_formed_and_every_link_leads_somewhere(hosts: int, each: int) -> None:
    page = Page(render(update(hosts, each), 0.0))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {href.removeprefix("#") for href in page.values("href")} <= set(ids)
    assert page.text.count("\u2026") <= hosts * each * 4


def test_it_needs_no_network_and_no_script() -> None:
    text = render(update(2, 5), 0.0)
    page = Page(text)
    assert not {tag for tag, dummy in page.tags} & {"script", "link", "img", "iframe", "object", "embed"}
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text.replace("url(#tip)", "")
    assert "default-src 'none'" in text


def test_what_others_wrote_stays_text(tmp_path: Path) -> None:
    text = render(hostile(), 0.0)
    page = Page(text)
    assert "<script" not in text
    assert not any(name.startswith("on") for _tag, attrs in page.tags for name in attrs)
    assert "\x1b" not in text
    (tmp_path / "report.html").write_text(text, encoding="utf-8")  # no broken bytes are left in it


def test_equal_analyses_give_equal_pages() -> None:
    assert render(update(2, 5), 5.0) == render(update(2, 5), 5.0)
    assert "1970-01-01 00:00 UTC" in render(update(1, 1), 5.0)


def test_it_shows_verdict_refusals_warnings_and_evidence() -> None:
    text = Page(render(update(1, 4, AnalysisOptions(max_rto=0.5)), 0.0)).text
    assert "Gate: refused" in text
    assert "max_rto is 0.5 s" in text
    assert "90 % bounds are assumed" in text
    assert "declared in `depends_on` of the resource" in text
    assert "Gate: passed" in Page(render(update(1, 4, AnalysisOptions(max_rto=5000)), 0.0)).text
    assert "no limits set" in Page(render(update(1, 4), 0.0)).text


def test_every_resource_has_a_row_with_a_bar_as_long_as_its_score() -> None:
    found = update(3, 6)
    text = render(found, 0.0)
    rows = re.findall(r'<tr id="r\d+">.*?</tr>', text)
    assert len(rows) == 18
    for row in rows:
        score = float(re.findall(r'class="score"><span>([\d.]+)', row)[0])
        assert sum(map(float, re.findall(r"width:([\d.]+)%", row))) == pytest.approx(score, abs=0.06)


def test_tiers_differ_by_shape_and_not_by_colour_alone() -> None:
    shapes = {re.sub(r'class="[^"]*"', "", report_svg.mark(tier)) for tier in report_svg.TIERS}
    assert len(shapes) == 3


@pytest.mark.parametrize(("hosts", "each"), SIZES)
def test_no_two_boxes_overlap_and_all_are_inside(hosts: int, each: int) -> None:
    text = report_svg.draw(update(hosts, each), {})
    width, height = (int(value) for value in re.findall(r'viewBox="0 0 (\d+) (\d+)" role', text)[0])
    found = re.findall(r'class="box [^"]*" x="(\d+)" y="(\d+)"', text)
    places = [(int(x), int(y)) for x, y in found]
    assert all(x + report_svg.WIDTH <= width and y + report_svg.HEIGHT <= height for x, y in places)
    for (x1, y1), (x2, y2) in itertools.combinations(places, 2):
        assert abs(x1 - x2) >= report_svg.WIDTH or abs(y1 - y2) >= report_svg.HEIGHT


def test_later_waves_are_further_right() -> None:
    text = report_svg.draw(update(1, 9), {})
    columns = [int(x) for x in re.findall(r'class="wave" x="(\d+)"', text)]
    assert columns == sorted(set(columns))
    assert len(columns) == 5


def test_many_resources_are_drawn_by_host_and_wave_and_many_hosts_not_all() -> None:
    text = report_svg.draw(update(2, 100), {})
    assert "2 resources" in text
    assert text.count('class="box ') == 100
    many = update(45, 2)
    assert report_svg.omitted_hosts(many) == 5
    assert "5 hosts with lower scores left out" in render(many, 0.0)


def test_a_cycle_is_marked_in_the_picture_and_in_the_table() -> None:
    found = analyze("up-1", [HostInput("h", manifest("h", shadow("a", ["b"]), shadow("b", ["a"])))])
    text = render(found, 0.0)
    assert text.count("looped") >= 2
    assert text.count("&#8635;") == 2
    assert 'class="edge cyclic"' in text


def test_a_name_is_shortened_in_its_middle() -> None:
    assert report_svg.shortened("abcdefghij", 7) == "abc\u2026hij"
    assert report_svg.shortened("abcdefg", 7) == "abcdefg"


def test_bars_follow_waves_workers_and_preparation() -> None:
    long = [shadow(f"r{n}", seconds=10.0, size=1000 * MIB, items=1) for n in range(3)]
    found = analyze("up-1", [HostInput("h", manifest("h", *long, shadow("last", ["r0"])))], AnalysisOptions(workers=2))
    prepare, *rest = bars(found)
    by_name = {span.label: span for span in rest}
    assert prepare.start + prepare.p50 == pytest.approx(by_name["r0"].start)
    assert by_name["r1"].start == by_name["r0"].start
    assert by_name["r2"].start == pytest.approx(by_name["r0"].start + by_name["r0"].p50)
    assert by_name["last"].start == pytest.approx(by_name["r2"].start + by_name["r2"].p50)


def test_the_chart_is_bounded_and_says_so() -> None:
    text = render(update(10, 10), 0.0)
    assert text.count('class="track"') == BARS
    assert f"The {BARS} longest are shown, {101 - BARS} are not." in text
