# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every verb on every kind of resource: killed at each call that changes something, refused at each call, run again."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import UmbraError
from ansible_collections.umbra.rollback.tests.faults.tracer import ERRORS, Tracer
from ansible_collections.umbra.rollback.tests.faults.verbs import Moment
from ansible_collections.umbra.rollback.tests.faults.worlds import Unrestored
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.providers.conformance import check_sentence

Points = Callable[..., list[int]]


def test_killed_at_every_call(moment: Moment, tracer: Tracer, calls: dict[int, str], points: Points) -> None:
    """The state is the old one or on its way; run again, it comes to its end, and nothing is left behind."""
    whole = tracer.run(moment.call, UmbraError)
    assert (whole.status, whole.text) == (0, "")
    moment.check()
    for at in points(whole.calls):
        moment.again()
        ended = tracer.run(moment.call, UmbraError, at)
        where = f"killed at {at} of {whole.calls} ({calls.get(ended.struck or 0)})"
        assert ended.killed or ended.struck is None, f"{where}: {ended.text}"
        if moment.verb.spares:
            assert moment.world.state() == moment.before, where
        print(where)  # pytest shows it with a failure
        moment.call()
        moment.check()


@pytest.mark.parametrize("reading", [False, True], ids=["changing", "reading"])
@pytest.mark.parametrize("error", ERRORS)
def test_refused_at_every_call(
    moment: Moment, tracer: Tracer, calls: dict[int, str], points: Points, error: str, reading: bool
) -> None:
    """It ends well or with a sentence, never with a traceback; run again, it comes to its end."""
    whole = tracer.run(moment.call, UmbraError, reading=reading)
    assert (whole.status, whole.text) == (0, "")
    for at in points(whole.calls, some=True):
        moment.again()
        ended = tracer.run(moment.call, UmbraError, at, getattr(errno, error), reading=reading)
        where = f"{error} at {at} of {whole.calls} ({calls.get(ended.struck or 0)}): {ended.text}"
        assert not ended.killed and not ended.is_broken, where
        if moment.verb.spares:
            assert moment.world.state() == moment.before, where
        print(where)  # pytest shows it with a failure
        if ended.status:
            check_sentence(Unrestored(reason=ended.text))
            moment.call()
        else:
            moment.world.sweep()  # whose end could not be cleaned up is cleaned up by the next
        moment.check()
