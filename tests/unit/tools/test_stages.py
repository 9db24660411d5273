# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stages run side by side, all of them, and are counted."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from environments import Environment
from pythons import Python
from stages import Runner, Stage

NO_ENVIRONMENT = Environment(Path("/nonexistent"), Python((3, 12, 0), sys.executable), ())


def a_stage(name: str, *scripts: str, turn: str = "", telling: str = "", limit: int = 60) -> Stage:
    commands = tuple((sys.executable, "-c", script) for script in scripts)
    return Stage(name, commands, Path.cwd(), NO_ENVIRONMENT, turn=turn, telling=telling, limit=limit)


@pytest.mark.parametrize(
    ("script", "counts"),
    [
        ("print('fine')", (True, 1, 0, 0)),
        ("print('===== 12 passed, 3 skipped in 0.31s =====')", (True, 12, 0, 3)),
        ("print('noise: 7 passed, as I said'); print('12 passed, 0 failed')", (True, 12, 0, 0)),
        ("print('2 failed, 10 passed, 1 error in 61.20s (0:01:01)'); raise SystemExit(1)", (False, 10, 3, 0)),
        ("print('5 passed in 0.10s'); raise SystemExit(1)", (False, 5, 1, 0)),
        ("raise SystemExit(3)", (False, 0, 1, 0)),
    ],
)
def test_counts(script: str, counts: tuple[bool, int, int, int], tmp_path: Path) -> None:
    (outcome,) = Runner([a_stage("one", script)], tmp_path).run(1)
    assert (outcome.ok, outcome.passed, outcome.failed, outcome.skipped) == counts


def test_a_failure_stops_nothing_and_shows_what_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = a_stage(
        "bad", "print('ERROR: the reason'); print('chatter'); raise SystemExit(1)", "print('more')", telling="ERROR"
    )
    missing = Stage("missing", (("/nonexistent/program",),), Path.cwd(), NO_ENVIRONMENT)
    outcomes = Runner([bad, missing, a_stage("good", "pass")], tmp_path).run(1)
    assert [(outcome.stage.name, outcome.ok) for outcome in outcomes] == [
        ("bad", False),
        ("missing", False),
        ("good", True),
    ]
    assert "more" in (tmp_path / "bad.log").read_text()
    said = capsys.readouterr().out
    assert "    ERROR: the reason\n" in said
    assert "chatter" not in said
    assert "No such file" in said
    assert [line.split()[1] for line in said.splitlines() if not line.startswith(" ")] == ["FAILED", "FAILED", "ok"]


def test_a_stage_that_exceeds_its_limit_ends_with_all_it_started(tmp_path: Path) -> None:
    child = "import subprocess; subprocess.run(['sleep', '60'])"
    begin = time.monotonic()
    (outcome,) = Runner([a_stage("slow", child, limit=1)], tmp_path).run(1)
    assert not outcome.ok
    assert time.monotonic() - begin < 10
    assert "ended after 1 s, which is its limit" in (tmp_path / "slow.log").read_text()


def test_stages_of_one_turn_take_turns_and_others_do_not_wait(tmp_path: Path) -> None:
    times = tmp_path / "times"
    note = f"import time; f = open({str(times)!r}, 'a', 1); f.write('{{}}\\n'); time.sleep(0.4); f.write('end\\n')"
    stages = [a_stage(name, note.format(name), turn="t") for name in ("first", "second")]
    Runner([*stages, a_stage("other", f"open({str(times)!r}, 'a').write('other\\n')")], tmp_path).run(2)
    lines = times.read_text().split()
    assert [line for line in lines if line != "other"] == ["first", "end", "second", "end"]
    assert lines.index("other") < lines.index("second")
