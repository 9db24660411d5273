# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pytest hooks: a test marked `machine` runs in a machine of its session, and is reported as if it ran here.

A conftest.py imports the hooks. The first such test starts the machine (machine.py) and a pytest in it, which runs
all that were selected, by the machine's own Python, with this tree and this pytest mounted read-only. Each report
comes back through an inherited pipe as a line of JSON.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

COLLECTION = Path(__file__).resolve().parents[2]
INSIDE = Path("/collections/ansible_collections/umbra/rollback")
SITE_PACKAGES = Path(pytest.__file__).resolve().parents[1]
PIPE = "UMBRA_TESTBED_PIPE"  # the number of the descriptor, inside
PATIENCE = 300  # seconds for one test

_machine = pytest.StashKey["Machine"]()


def is_inside() -> bool:
    """Whether this process runs in the machine."""
    return PIPE in os.environ


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    config.addinivalue_line("markers", "root: needs root; leave it out with -m 'not root'")
    config.addinivalue_line("markers", "machine: runs in a Debian with systemd, tests/testbed/machine.py; needs root")


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Report a test that the machine runs, instead of running it; what tests before it had set up, ends as it would."""
    if is_inside() or not _is_for_machine(item):
        return None
    if _machine not in item.config.stash:
        chosen = [other for other in item.session.items if _is_for_machine(other)]
        item.config.stash[_machine] = Machine(item.config, chosen)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in item.config.stash[_machine].reports(item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    item.session._setupstate.teardown_exact(nextitem)
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Inside, hand each report to the session outside."""
    if is_inside():
        os.write(int(os.environ[PIPE]), json.dumps(report._to_json()).encode() + b"\n")


class Machine:
    """A machine with a pytest in it, until the session ends."""

    def __init__(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        name = f"unit-{os.getpid()}"
        binds = [f"--bind={COLLECTION}:{INSIDE}", f"--bind={SITE_PACKAGES}:/site-packages"]
        done = subprocess.run(
            [*_script("start", name), f"--owner={os.getpid()}", *binds], capture_output=True, text=True, check=False
        )
        config.add_cleanup(lambda: subprocess.run(_script("stop", name), check=True))
        if done.returncode != 0:
            raise pytest.UsageError(f"machine.py start failed: {done.stdout}{done.stderr}")
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process that writes it)
        self._pipe, writable = os.pipe()
        argv = [*_script("exec", name), *_pytest(writable), *(_node(item, INSIDE) for item in items)]
        self._process = subprocess.Popen(argv, stdout=self._said, stderr=self._said, pass_fds=[writable])
        config.add_cleanup(self._end)
        os.close(writable)
        self._rest = b""
        self._found: dict[str, list[pytest.TestReport]] = {}

    def _end(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        os.close(self._pipe)
        self._said.close()

    def reports(self, item: pytest.Item) -> list[pytest.TestReport]:
        """What was reported of a test, once it is done; or that it never was, with what pytest said inside."""
        node, until = _node(item, Path()), time.monotonic() + PATIENCE
        while not self._is_done(node) and self._receive(until):
            pass
        reports = self._found.get(node, [])
        for report in reports:
            report.nodeid, report.location = item.nodeid, item.location
        if not self._is_done(node):
            self._said.seek(0)
            said = self._said.read().decode(errors="replace")[-4000:]
            lost = f"the machine did not finish this test; pytest said there:\n{said}"
            reports.append(pytest.TestReport(item.nodeid, item.location, {}, "failed", lost, "call"))
        return reports

    def _is_done(self, node: str) -> bool:
        return any(report.when == "teardown" for report in self._found.get(node, []))

    def _receive(self, until: float) -> bool:
        """Take what comes next; false when nothing will."""
        ended = self._process.poll() is not None
        if select.select([self._pipe], [], [], 0 if ended else 0.2)[0]:
            chunk = os.read(self._pipe, 1 << 16)
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for report in map(json.loads, lines):
                self._found.setdefault(report["nodeid"], []).append(pytest.TestReport._from_json(report))
            return bool(chunk)
        return not ended and time.monotonic() < until


def _is_for_machine(item: pytest.Item) -> bool:
    return item.get_closest_marker("machine") is not None


def _script(*words: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("machine.py")), *words]


def _pytest(pipe: int) -> list[str]:
    variables = {
        PIPE: str(pipe),
        "PYTHONPATH": f"{INSIDE.parents[2]}:/site-packages",
        "PYTHONPYCACHEPREFIX": "/run/pycache",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    options = ["-q", "-p", "no:cacheprovider", f"--rootdir={INSIDE}", "-c", f"{INSIDE}/pyproject.toml"]
    return ["env", *(f"{key}={value}" for key, value in variables.items()), "python3", "-m", "pytest", *options]


def _node(item: pytest.Item, root: Path) -> str:
    dummy, separator, rest = item.nodeid.partition("::")
    return f"{root / item.path.resolve().relative_to(COLLECTION)}{separator}{rest}"
