# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the native kernel may take for large graphs: time, memory, and how long it goes on when it is interrupted.

Bounds of time are far from what is measured, and farther from what a way that does not scale would take: these tests
run under sanitizers, and on machines that are busy.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import graph, montecarlo, selected
from ansible_collections.umbra.rollback.tests.unit.support.kernels import python
from ansible_collections.umbra.rollback.tests.unit.support.twins import BUILT, using


@pytest.fixture(autouse=True, scope="module")
def native() -> Iterator[None]:
    """One loaded kernel for all examples."""
    with using("native"):
        yield
    selected.limit(0)


def many_edges() -> list[tuple[int, int]]:
    """300,000 edges of 100,000 nodes, without a cycle, in no order that helps."""
    draw = random.Random(1)
    names = list(range(100_000))
    draw.shuffle(names)
    pairs = [sorted(draw.sample(range(100_000), 2)) for dummy in range(300_000)]
    return [(names[need], names[node]) for node, need in pairs]


def test_a_hundred_thousand_nodes_take_no_time() -> None:
    large = 100_000, many_edges()
    begun = time.process_time()
    assert len(graph.waves(*large)[0]) == 100_000
    assert max(graph.dependents(*large)) > 1000
    assert time.process_time() - begun < 60


def test_a_hundred_thousand_resources_take_no_time() -> None:
    count = 100_000
    plan = [at % 7 for at in range(count)], [at % 90 for at in range(count)], [1.0] * count, [2.0] * count
    begun = time.process_time()
    assert len(montecarlo.totals(*plan, 4, 100)) == 100
    assert time.process_time() - begun < 60


class Interrupted(Exception):
    """Raised by a signal's handler, as KeyboardInterrupt is."""


def interrupt(number: int, frame: object) -> None:
    raise Interrupted


def long_chain() -> None:
    """What would take minutes."""
    graph.dependents(800_000, [(at, at - 1) for at in range(1, 800_000)] * 4)


def many_draws() -> None:
    """What would take minutes."""
    montecarlo.totals([0] * 1000, [0] * 1000, [1.0] * 1000, [2.0] * 1000, 1, 4_000_000)


@pytest.mark.parametrize("call", [long_chain, many_draws])
def test_a_signal_ends_it(call: Callable[[], None]) -> None:
    before = signal.signal(signal.SIGALRM, interrupt)
    selected.limit(2)
    begun = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        with pytest.raises(Interrupted):
            call()
        assert time.monotonic() - begun < 20
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


WITHOUT_MEMORY = """
import resource, sys
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import graph, montecarlo, selected
selected.choose("native", sys.argv[1], None)
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
most = 2**32 - 3
for call in (
    lambda: graph.components(most, []),
    lambda: graph.waves(300_000_000, [(1, 0)]),
    lambda: graph.dependents(40_000_000, []),
    lambda: montecarlo.totals([0], [most], [1.0], [2.0], 1, 5),
    lambda: montecarlo.totals([0], [0], [1.0], [2.0], 1, most),
):
    try:
        call()
    except MemoryError:
        print("MemoryError")
"""


def test_without_memory_it_says_so() -> None:
    done = python(WITHOUT_MEMORY, str(BUILT))
    assert (done.stdout.split(), done.stderr) == (["MemoryError"] * 5, "")


DEPENDENTS = """
import resource, sys
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import graph, selected
selected.choose("native", sys.argv[1], None)
selected.limit(64)
edges = [(at, at // 2) for at in range(1, 100_000)] * 3
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert graph.dependents(100_000, edges)[0] == 99_999
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_bounded_whatever_the_threads() -> None:
    done = python(DEPENDENTS, str(BUILT))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 256 << 10  # KiB
