# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How hard attempts try: what each is given, of the thread alone, and that nothing of it is left when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.context import Context
from ansible_collections.umbra.rollback.plugins.module_utils.effort import exert, standing
from ansible_collections.umbra.rollback.plugins.module_utils.effort.exert import Effort, exerted, for_attempt
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import selected

ROOT = os.geteuid() == 0
HOW = ["sh", "-c", "nice; ionice"]  # what a program says of itself
LAST = Effort("high", 4.0, 2, True)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context("u1", "web1", str(tmp_path))


def words(context: Context, service: bool = False) -> list[str]:
    return context.run(HOW, service=service).stdout.split("\n")[:2]


def of_process(process: int) -> tuple[int, str]:
    """Niceness and I/O priority of another process, as others see it."""
    shown = subprocess.run(["ionice", "-p", str(process)], stdout=subprocess.PIPE, text=True, check=True).stdout
    return os.getpriority(os.PRIO_PROCESS, process), shown.strip()


# (number, most, tier of the resource), what it is given: tier, patience, kernel threads per core, all limits lifted
ATTEMPTS = [
    ((1, 3, "low"), Effort("low")),
    ((1, 1, "low"), Effort("low")),
    ((1, 3, "high"), Effort("high")),
    ((2, 3, "low"), Effort("medium", 2.0, 1)),
    ((2, 4, "medium"), Effort("high", 2.0, 1)),
    ((3, 5, "low"), Effort("high", 4.0, 1)),
    ((3, 3, "low"), Effort("high", 4.0, 2, True)),
    ((2, 2, "low"), Effort("high", 2.0, 2, True)),
]


@pytest.mark.parametrize(("which", "given"), ATTEMPTS)
def test_each_attempt_is_given_more_and_the_last_all(which: tuple[int, int, str], given: Effort) -> None:
    assert for_attempt(*which) == given


# effort; what root's programs say of themselves under it; their I/O priority where only root may have the best
GIVEN = [
    (Effort(), 0, "none: prio 0", "none: prio 0"),
    (Effort("medium"), -5, "best-effort: prio 2", "best-effort: prio 2"),
    (Effort("high"), -10, "best-effort: prio 0", "best-effort: prio 0"),
    (LAST, -15, "realtime: prio 7", "best-effort: prio 0"),
]


@pytest.mark.parametrize(("effort", "nice", "io", "io_of_users"), GIVEN)
def test_programs_have_it_services_do_not_and_it_ends(
    context: Context, effort: Effort, nice: int, io: str, io_of_users: str
) -> None:
    before = standing.now()
    plain = words(context)
    with exerted(effort) as granted:
        inside = words(context)
        assert words(context, service=True) == plain, "what runs on is not given anything"
        assert words(context) == inside, "and that took nothing from the thread"
    assert inside == [str(nice if nice and ROOT else before.nice), io if ROOT else io_of_users]
    assert standing.now() == before and words(context) == plain
    assert ("nice" in granted.refused) == (bool(nice) and not ROOT)
    assert {**granted.effective, **granted.refused}.keys() >= granted.asked.keys() - {"cgroup"}


def test_the_rest_of_the_process_is_as_it_was(context: Context) -> None:
    """Priorities are of the thread: another one, and what that starts, has none of it."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        plain = pool.submit(words, context).result()
        with exerted(Effort("high")):
            assert words(context)[1] == "best-effort: prio 0"
            assert pool.submit(words, context).result() == plain


def test_the_kernel_has_more_threads_in_this_thread_alone() -> None:
    selected.limit(1)
    try:
        with exerted(Effort("high", 2.0, 2)) as granted:
            assert selected.threads() == 2 * selected.cores() == granted.effective["threads"]
        assert selected.threads() == 1
    finally:
        selected.limit(0)


def test_one_in_another_ends_at_the_outer_one(context: Context) -> None:
    with exerted(Effort("medium")):
        outer = words(context)
        with exerted(Effort("high")):
            assert words(context) != outer
        assert words(context) == outer


DAEMON = """
setsid sh -c 'sleep 300 & echo $! >> "$1"; sleep 300' sh "$1" &
echo $! >> "$1"
while [ "$(wc -l < "$1")" -lt 2 ]; do sleep 0.05; done
"""


def test_what_a_program_leaves_behind_gets_back_its_place(context: Context, tmp_path: Path) -> None:
    """A daemon, and what that has started: it must not run on with the priority of a restore."""
    plain = of_process(os.getpid())
    with exerted(LAST):
        assert context.run(["sh", "-c", DAEMON, "sh", str(tmp_path / "pids")]).status == 0
        left = [int(line) for line in (tmp_path / "pids").read_text().split()]
        try:
            assert len(left) == 2
            assert [of_process(one) for one in left] == [plain, plain]
        finally:
            for one in left:
                os.kill(one, signal.SIGKILL)


def test_a_program_that_is_waited_for_keeps_it(context: Context, tmp_path: Path) -> None:
    """Another thread's program ends, and what is left behind is looked for: this one is not."""
    from concurrent.futures import ThreadPoolExecutor

    go, ready = tmp_path / "go", tmp_path / "ready"
    wait = ["sh", "-c", 'touch "$1"; while [ ! -e "$2" ]; do sleep 0.05; done; ionice', "sh", str(ready), str(go)]

    def slow() -> str:
        with exerted(Effort("high")):
            return context.run(wait).stdout

    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(slow)
        while not ready.exists():
            time.sleep(0.02)
        with exerted(Effort("high")):
            context.run(["true"])
        go.touch()
        assert said.result() == "best-effort: prio 0\n"


NOBODY = """
import json, os, sys
sys.path[:0] = {path!r}
from ansible_collections.umbra.rollback.plugins.module_utils.effort import standing
from ansible_collections.umbra.rollback.plugins.module_utils.effort.exert import Effort, exerted
os.setgroups([]); os.setgid(65534); os.setuid(65534)
before = standing.now()
with exerted(Effort("high", 4.0, 2, True)) as granted:
    nice = os.nice(0)
print(json.dumps({{**granted.to_dict(), "nice": nice, "put_back": standing.now() == before}}))
"""


@pytest.mark.skipif(not ROOT, reason="the tests above have tried this then")
def test_who_is_not_root_is_told_what_is_refused_and_goes_on() -> None:
    import json

    script = NOBODY.format(path=[entry for entry in sys.path if entry])
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    told = json.loads(done.stdout)
    assert told["put_back"] and told["nice"] == standing.now().nice and "only root" in told["refused"]["nice"]
    assert told["effective"]["io"] == "best-effort 0" and "realtime 7" in told["refused"]["io"]


def test_where_the_system_call_is_not_known_it_is_told(monkeypatch: pytest.MonkeyPatch, context: Context) -> None:
    monkeypatch.setattr(standing, "_CALLS", {})
    with exerted(Effort("high")) as granted:
        assert words(context)[0] == ("-10" if ROOT else str(standing.now().nice))
    assert "not known" in granted.refused["io"] and standing.now().io is None


def test_nothing_is_kept_of_a_process_when_all_is_over() -> None:
    with exerted(Effort("high")):
        assert exert._process.before is not None
    assert exert._process.before is None and not exert._process.efforts
