# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Makefile calls: `run.py WHAT [ARGUMENT...]` (see main), or `run.py check [STAGE...] [-- ARGUMENT...]`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import debian
import environments
import pythons
import tree
from checks import Checks, Machine
from environments import Environment
from stages import Runner

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
PINS = ROOT / "requirements"
AT_ONCE = 2
# These would change what the programs we call do, or where git looks.
UNWANTED = ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONPATH")


def survey() -> Machine:
    """Look for Pythons, choose among them, and say what was chosen."""
    known, found = pythons.find_controllers(PINS), pythons.find_pythons()
    chosen = pythons.choose(known, found)
    print(pythons.explain(known, found, chosen), flush=True)
    if not chosen:
        raise SystemExit(1)
    unit = PINS / "unit.txt"
    controllers = {
        choice.controller.line: Environment(
            BUILD / f"venv-{choice.controller.line}" if number else ROOT / ".venv",
            choice.python,
            (choice.controller.requirements, unit),
        )
        for number, choice in enumerate(chosen)
    }
    pins = (chosen[0].controller.requirements, unit, PINS / "checks.txt")
    checks = Environment(BUILD / "venv-checks", chosen[0].python, pins)
    engines = tuple(Environment(BUILD / f"venv-python{python.minor}", python, (unit,)) for python in found)
    kernel = Environment(BUILD / "venv-kernel", chosen[0].python, (unit, PINS / "kernel.txt"))
    return Machine(controllers, checks, engines, kernel)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One run at a time in this tree."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another make in this tree", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def set_up(needed: Iterable[Environment], with_collection: Iterable[Environment]) -> None:
    """Stage the tree, make the environments that are needed, and install the collection into some of them."""
    begin = time.monotonic()
    staged = BUILD / "ansible_collections" / "umbra" / "rollback"
    names = tree.stage(ROOT, staged)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(environments.ensure, dict.fromkeys(needed)))
    for environment in dict.fromkeys(with_collection):
        key = tree.content_key(staged, names)
        tree.install(tree.build(staged, BUILD / "artifact", key, environment), key, environment)
    print(f"{'set-up':20} {'ok':6} {time.monotonic() - begin:5.0f} s", flush=True)


def demo(arguments: list[str]) -> int:
    """Set up what the demo needs, and run it."""
    with alone():
        machine = survey()
        set_up([machine.main], [machine.main])
    playbook = [machine.main.program("ansible-playbook"), "umbra.rollback.demo", *arguments]
    # What a person reads is laid out in lines, whoever has not chosen another way.
    environment = {"ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml", **os.environ}
    return subprocess.run(playbook, check=False, env=environment).returncode


def bench(arguments: list[str]) -> int:
    """Measure against other tools; see tests/bench. No other make works in this tree meanwhile."""
    if "-h" not in arguments and "--help" not in arguments:
        debian.ensure(ROOT / "tests" / "bench" / "packages.txt")
    with alone():
        machine = survey()
        set_up([machine.main], [])
        script = ROOT / "tests" / "bench" / "bench.py"
        return subprocess.run([machine.main.program("python"), "-B", str(script), *arguments], check=False).returncode


def kernel(arguments: list[str]) -> int:
    """Build the native kernel, for all platforms unless told otherwise, to where it is committed."""
    with alone():
        machine = survey()
        environments.ensure(machine.kernel)
        script = ROOT / "extensions" / "kernel" / "build.py"
        return subprocess.run([machine.kernel.program("python"), "-B", str(script), *arguments], check=False).returncode


def fuzz(arguments: list[str]) -> int:
    """Read damaged files for a while, and end at the first that is not refused as it should be."""
    debian.ensure(ROOT / "tests" / "testbed" / "packages.txt")
    with alone():
        checks = Checks(survey(), BUILD)
        stage = checks.sanitized("fuzz", ("address", *checks.fuzz(*arguments)))
        set_up([stage.needs], [])
        (command,) = stage.commands
        environment = {**os.environ, **stage.environment}
        return subprocess.run(command, cwd=stage.cwd, env=environment, check=False).returncode


def check(words: list[str], pytest_arguments: list[str]) -> int:
    """Set up what some stages need (all, without any word), run them, and count."""
    begin = time.monotonic()
    with alone():
        checks = Checks(survey(), BUILD, tuple(pytest_arguments))
        stages = checks.named(words) if words else checks.all()
        if any(stage.name.startswith(("unit", "integration", "sanitize", "faults", "guests")) for stage in stages):
            debian.ensure(ROOT / "tests" / "testbed" / "packages.txt")
        set_up([stage.needs for stage in stages], [stage.needs for stage in stages if stage.with_collection])
        outcomes = Runner(stages, BUILD / "log").run(AT_ONCE)
    bad = sorted(outcome.stage.name for outcome in outcomes if not outcome.ok)
    print(
        f"{len(outcomes)} stages in {time.monotonic() - begin:.0f} s" + (f"; FAILED: {', '.join(bad)}" if bad else "")
    )
    passed, failed, skipped = (sum(getattr(one, word) for one in outcomes) for word in ("passed", "failed", "skipped"))
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""), flush=True)
    return 1 if bad else 0


def main(arguments: list[str]) -> int:
    """Do what the first argument says; see this file's first line."""
    for name in UNWANTED:
        os.environ.pop(name, None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    what, *rest = arguments or [""]
    if what == "demo":
        return demo(rest)
    if what == "bench":
        return bench(rest)
    if what == "kernel":
        return kernel(rest)
    if what == "fuzz":
        return fuzz(rest)
    if what != "check":
        raise SystemExit(__doc__)
    for name in [name for name in os.environ if name.startswith("ANSIBLE_")]:
        del os.environ[name]  # what the user likes is no matter of the tests
    cut = rest.index("--") if "--" in rest else len(rest)
    return check(rest[:cut], rest[cut + 1 :])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
