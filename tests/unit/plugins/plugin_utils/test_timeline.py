# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The timeline against golden texts: what a tired person reads, in the cases that matter."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.plugin_utils import timeline

GOLDEN = Path(__file__).parent / "golden"
START = 1767582760.0
Event = dict[str, Any]


def row(name: str, wave: int, action: str = "restored", **facts: Any) -> Event:
    """One resource of a restored event."""
    done = {"attempts": 1, "bytes": 1200, "item_count": 3, "seconds": 0.1, "validation": "ok", "reason": ""}
    return {"name": name, "wave": wave, "action": action, **done, **facts}


def shadowed(host: str, at: float = 0) -> Event:
    shapes = [
        ("shop-config", "file", 1_200_000, 312, 0.21),
        ("shop-db", "sqlite", 52_000_000, 1, 0.61),
        ("shop-service", "systemd_unit", 2100, 3, 0.05),
    ]
    records = [
        {"name": n, "type": t, "method": "copy", "bytes": b, "item_count": i, "stored_bytes": b // 3, "seconds": s}
        for n, t, b, i, s in shapes
    ]
    return {
        "event": "shadowed",
        "time": START + at,
        "host": host,
        "update_id": "shop-2.4.0",
        "records": records,
        "store": "/var/lib/umbra",
    }


def analyzed(at: float = 1) -> Event:
    tiers = {"web1:shop-db": "medium", "web1:shop-config": "low", "web1:shop-service": "low"}
    resources = {key: {"tier": tier, "score": 20.0, "eta": {"p50": 1, "p90": 4}} for key, tier in tiers.items()}
    rto = {"p50": 2.1, "p90": 7.9}
    return {"event": "analyzed", "time": START + at, "rto": rto, "risk": 0.039, "waves": 2, "resources": resources}


def prestaged(host: str, at: float = 2, refused: str = "only root may raise a priority") -> Event:
    leases = [
        {"name": "shop-db", "tier": "medium", "effective": {}, "refused": {"nice": refused} if refused else {}},
        {"name": "shop-config", "tier": "low", "effective": {}, "refused": {}},
    ]
    return {"event": "prestaged", "time": START + at, "host": host, "leases": leases}


def failed(host: str, at: float = 9, message: str = "Status code was 500 and not [200]") -> Event:
    return {"event": "failed", "time": START + at, "host": host, "task": "Shop answers over HTTP", "message": message}


def restored(host: str, at: float = 13, seconds: float = 3.1, rows: list[Event] | None = None, **facts: Any) -> Event:
    if rows is None:
        rows = [
            row("shop-config", 1),
            row("shop-db", 1, attempts=2, bytes=52_000_000, item_count=1, seconds=1.9),
            row("shop-service", 2, "unchanged", attempts=0, bytes=0, item_count=0, seconds=0.0),
        ]
    return {
        "event": "restored",
        "time": START + at,
        "host": host,
        "ok": all(one["action"] in ("restored", "unchanged") for one in rows),
        "seconds": seconds,
        "resources": rows,
        "displaced": f"/var/lib/umbra/updates/shop-2.4.0/{host}/displaced-1.json",
        "undo": "umbra.rollback.shadow_restore with update_id: shop-2.4.0, undo: true, store: /var/lib/umbra",
        **facts,
    }


def broken(host: str, at: float = 14) -> Event:
    """The database could not be brought back, and what needs it was left alone."""
    reason = "shop-db: could not be restored: /srv/shop has 12 bytes free, and the database needs 52000000."
    rows = [
        row("shop-config", 1),
        row("shop-db", 1, "failed", attempts=3, seconds=9.0, validation="failed", reason=reason),
        row(
            "shop-service",
            2,
            "untouched",
            attempts=0,
            bytes=0,
            item_count=0,
            seconds=0.0,
            validation="skipped",
            reason="it needs shop-db",
        ),
    ]
    return restored(host, at, 9.4, rows)


def tried(host: str, at: float = 14) -> Event:
    """The database came back at the third attempt."""
    given = {"asked": {}, "effective": {}, "wait": 2.0}
    second = {**given, "tier": "medium", "method": "replace", "refused": {"nice": "only root may raise a priority"}}
    third = {**given, "tier": "high", "method": "online", "refused": {}}
    escalations = [
        {"attempt": 1, "method": "online", "why": "shop-db: /srv/shop.db is locked.", "next": second},
        {
            "attempt": 2,
            "method": "replace",
            "why": "shop-db: /srv/shop.db is still open in shop (pid 12).",
            "next": third,
        },
    ]
    rows = [
        row("shop-config", 1),
        row("shop-db", 1, attempts=3, seconds=9.0, escalations=escalations),
        row("shop-service", 2),
    ]
    return restored(host, at, 9.4, rows)


def committed(host: str, at: float = 20) -> Event:
    return {"event": "committed", "time": START + at, "host": host}


FLEET = [f"web{number}" for number in range(1, 51)]
BEGUN = [*(shadowed(host) for host in FLEET), analyzed(), *(prestaged(host, refused="") for host in FLEET)]
BIG_ROWS = [row(f"tree-{number}", 1 + number // 10, seconds=number / 10) for number in range(30)]

CASES: dict[str, list[Event]] = {
    "rolled_back": [shadowed("web1"), analyzed(), prestaged("web1"), failed("web1"), restored("web1")],
    "committed": [shadowed("web1"), analyzed(), prestaged("web1", refused=""), committed("web1")],
    "open": [shadowed("web1"), analyzed()],
    "incomplete": [
        *(shadowed(host) for host in ("web1", "db1")),
        analyzed(),
        failed("web1"),
        restored("web1"),
        broken("db1"),
    ],
    "tried_again": [shadowed("web1"), failed("web1"), tried("web1")],
    "nothing_restored": [shadowed("web1"), analyzed(), failed("web1", message="")],
    "slower_than_the_bound": [shadowed("web1"), analyzed(), failed("web1"), restored("web1", 40, 25.0)],
    "cut_short": [shadowed("web1"), failed("web1"), restored("web1", rows=[row("shop-config", 1)])],
    "damaged_store": [
        shadowed("web1"),
        failed("web1"),
        restored("web1", rows=[], ok=False, displaced=None, undo="", reason="/var/lib/umbra/packs/1 is damaged."),
    ],
    "waves_in_lockstep": [
        shadowed("web1"),
        shadowed("db1"),
        analyzed(),
        failed("web1"),
        *(restored(host, 10, 0.4, [], displaced=None) for host in ("web1", "db1")),
        *(restored(host, 12, 1.5, [row("shop-config", 1), row("shop-db", 1)]) for host in ("db1", "web1")),
        *(restored(host, 14, 0.9, [row("shop-service", 2)]) for host in ("db1", "web1")),
    ],
    "mended_and_run_again": [
        shadowed("web1"),
        failed("web1"),
        broken("web1"),
        restored("web1", 590, 0.5, []),
        restored("web1", 600, 4.0, [row("shop-config", 1, "unchanged"), row("shop-db", 1), row("shop-service", 2)]),
    ],
    "undone": [restored("web1", rows=[row("shop-config", 1)], displaced=None, undo="", undone=True)],
    "fleet_rolled_back": [
        *BEGUN,
        *(failed(host, message="timeout") for host in FLEET[:12]),
        *(restored(host, 13 + index / 10) for index, host in enumerate(FLEET)),
    ],
    "fleet_incomplete": [
        *BEGUN,
        failed("web7"),
        failed("web9", message="unreachable:\n\x1b[31mssh\udcff"),
        *(broken(host) if host in ("web7", "web8") else restored(host, 14) for host in FLEET if host != "web9"),
    ],
    "many_resources": [failed("web1"), restored("web1", rows=BIG_ROWS)],
    "long_texts": [
        {**shadowed("a-very-long-host-name.in-a-very-long-domain.example.org"), "update_id": "u" * 128},
        failed("a-very-long-host-name.in-a-very-long-domain.example.org", message="m" * 300),
    ],
    "nothing": [],
}


@pytest.mark.parametrize("name", CASES)
def test_it_reads_as_it_should(name: str) -> None:
    """To take over new texts after reading them: UMBRA_GOLDEN=write and run this test again."""
    text = "\n".join(timeline.lines(CASES[name])) + "\n"
    path = GOLDEN / f"timeline_{name}.txt"
    if os.environ.get("UMBRA_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_it_fits_the_terminal_and_every_character_can_be_printed(name: str) -> None:
    for line in timeline.lines(CASES[name]):
        assert line.isprintable()
        assert len(line) <= timeline.WIDTH or line.startswith("    ")  # a path or a command is not broken
        assert line == line.rstrip()


@pytest.mark.parametrize("name", CASES)
def test_the_order_in_which_events_were_read_is_no_matter(name: str) -> None:
    events = [{**event, "time": event["time"] + index / 1000} for index, event in enumerate(CASES[name])]
    assert timeline.lines(random.Random(3).sample(events, len(events))) == timeline.lines(events)


INCOMPLETE = ["incomplete", "nothing_restored", "cut_short", "damaged_store", "fleet_incomplete"]


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_as_before_comes_first_and_only_then(name: str) -> None:
    told = timeline.lines(CASES[name])
    first = "\n".join(told[:3])
    assert ("ACTION NEEDED" in first) == (name in INCOMPLETE or name == "long_texts")
    assert any("ansible-playbook" in line for line in told) == ("ACTION NEEDED" in first)


def test_every_failed_host_is_named_however_many_there_are() -> None:
    text = " ".join("\n".join(timeline.lines([*BEGUN, *map(broken, FLEET)])).split())
    assert ", ".join(FLEET) + ": shop-db: FAILED after 3 attempts" in text


def test_the_update_is_named_by_the_caller_or_by_an_event() -> None:
    assert timeline.lines([committed("web1")], "up-9")[0] == "Update up-9 COMMITTED on web1."
    assert timeline.lines([shadowed("web1"), committed("web1")])[0] == "Update shop-2.4.0 COMMITTED on web1."


def test_a_fleet_takes_a_screen_and_not_more() -> None:
    assert len(timeline.lines(CASES["fleet_rolled_back"])) < 30
