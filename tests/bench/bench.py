# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make bench`: shadow and restore trees with umbra.rollback and with what a user would pick instead, side by side."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import chart
import module
import report
import rounds
import volumes
import workloads
from engine import Engine
from peers import FIRST, JOBS, PEERS, Tool
from rounds import Bench, Settings
from workloads import Work

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
CHART = ROOT / "docs" / "benchmarks.svg"
TWINS = ("native", "pure")
PREFIX = "run-"
WORKS = ("W1", "W2", "W3")
UNITS = {"K": 10, "M": 20, "G": 30}


def size(text: str) -> int:
    """Bytes of a text such as 200M."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in UNITS else (text, "")
    if not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is no size: write 200M or 2G")
    return int(number) << UNITS.get(unit, 0)


def some_of(known: Sequence[str]) -> Any:
    """The type of an argument that is a list of some of these, in the order they are known."""

    def chosen(text: str) -> tuple[str, ...]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is unknown; there are {', '.join(known)}")
        return tuple(name for name in known if name in names)

    return chosen


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    add = parser.add_argument
    add("--work", type=some_of(WORKS), default=WORKS, help="some of W1,W2,W3")
    add(
        "--jobs", type=some_of(tuple(JOBS)), default=tuple(JOBS), help=f"some of {','.join(JOBS)}; first is always done"
    )
    add("--peers", type=some_of(tuple(PEERS)), default=tuple(PEERS), help=f"some of {','.join(PEERS)}")
    add("--twins", type=some_of(TWINS), default=TWINS, help="native, pure, or both; the first is held to the targets")
    add("--rounds", type=int, default=5, help="how often everything is done")
    add("--files", type=int, default=workloads.FULL_FILES, help="how many files W1 has")
    add("--limit", type=size, help="at most so many bytes in W2 and W3, such as 200M")
    add("--fs", choices=tuple(volumes.MKFS), default="ext4", help="the file system to make for each round")
    add("--dir", type=Path, default=BUILD / "bench", help="a directory with room for it")
    add("--cold", action="store_true", help="empty the caches of the machine before each measurement")
    add("--no-module", action="store_true", help="leave out what a module costs beside the engine")
    add("--kernel", type=Path, help="the native kernel's file, if it is not the collection's own")
    add("--collections", type=Path, default=BUILD, help="the directory that has ansible_collections in it")
    add("--json", type=Path, default=BUILD / "bench.json", help="where all that was measured is written")
    add("--chart", action="store_true", help=f"write {CHART.relative_to(ROOT)}")
    return parser.parse_args(argv)


def works(options: argparse.Namespace) -> list[Work]:
    """The trees to work on."""
    made = {
        "W1": lambda: workloads.small(options.files),
        "W2": lambda: workloads.large(options.limit),
        "W3": lambda: workloads.usr(options.limit),
    }
    return [made[name]() for name in options.work]


def tools(options: argparse.Namespace) -> dict[str, Tool]:
    """The twins first, then the peers."""
    collection = options.collections.resolve() / "ansible_collections" / "umbra" / "rollback"
    built = collection / "plugins/module_utils/kernel/built"
    libc = "gnu" if platform.libc_ver()[0] == "glibc" else "musl"
    kernel = options.kernel or built / f"umbra_kernel.{platform.machine()}-linux-{libc}.so"
    if "native" in options.twins and not kernel.is_file():
        raise SystemExit(f"{kernel} is missing: make it with `make kernel`, or give --twins pure.")
    cache = options.dir / "pycache"
    twins = {
        name: Engine(name, options.collections.resolve(), kernel.resolve() if name == "native" else None, cache)
        for name in options.twins
    }
    return {**twins, **{name: PEERS[name]() for name in options.peers}}


def machine(competitors: dict[str, Tool]) -> dict[str, Any]:
    """What was measured on, and with."""
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "processor": model[0] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "versions": rounds.versions(competitors),
    }


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """One run at a time in a directory; what a killed one left there is removed."""
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"Another run is at work in {directory}: wait for it, or name another --dir.") from None
        for left in directory.glob(f"{PREFIX}*"):
            shutil.rmtree(left)
        yield


def tell(bench: Bench, todo: Sequence[Work], options: argparse.Namespace) -> dict[str, Any]:
    """Print the tables; what they say, for the file."""
    summaries = report.summarize(bench.samples)
    ours = options.twins[0]
    verdicts = report.judge(summaries, ours, options.twins, options.fs)
    for work in todo:
        mine = [one for one in summaries if one.work == work.name]
        judged = [one for one in verdicts if one.work == work.name]
        print(f"\n{work.name}: {work.title}, {options.fs}, {options.rounds} rounds" + ("" if work.full else SMALLER))
        print("\n".join([*report.table(mine, judged, ours, options.twins), *report.others(judged)]))
    print(f"\n{len([one for one in verdicts if one.met])} of {len(verdicts)} targets met by {ours}. {LEGEND}")
    floor = report.floor(bench.floors)
    if floor:
        print(report.floor_line(floor))
    return {
        "floor": floor,
        "summaries": [asdict(one) for one in summaries],
        "targets": [{**asdict(one), "met": one.met} for one in verdicts],
        "samples": [asdict(one) for one in bench.samples],
        "failed": bench.broken,
    }


SMALLER = "; SMALLER than what the targets are for"
LEGEND = (
    "Ratios are medians of the peer by ours; ours is the engine alone, with its whole process in brackets. "
    "docs/benchmarks.md says more."
)


def run(options: argparse.Namespace) -> int:
    """All of it; 1 when a tool failed."""
    options.jobs = tuple(job for job in JOBS if job in options.jobs or job == FIRST)
    options.dir.mkdir(parents=True, exist_ok=True)
    options.dir = options.dir.resolve()
    competitors = tools(options)
    todo = works(options)
    needed = max(rounds.needed(work, list(competitors.values())) for work in todo)
    print(f"{options.dir} needs room for {needed >> 20} MiB", flush=True)
    volumes.check(options.fs, options.dir, needed)
    found: dict[str, Any] = {
        "machine": machine(competitors),
        "options": {key: str(value) for key, value in vars(options).items()},
    }
    for tool in competitors.values():
        if isinstance(tool, Engine):
            tool.compile()
    if not options.no_module:
        found["module"] = module.overhead(options.collections.resolve()) or {}
    with alone(options.dir), tempfile.TemporaryDirectory(prefix=PREFIX, dir=options.dir) as directory:
        settings = Settings(Path(directory), options.fs, options.jobs, options.rounds, options.cold)
        bench = Bench(settings, list(competitors.values()))
        try:
            for work, number in ((work, number) for work in todo for number in range(options.rounds)):
                bench.run(work, number)
        except (volumes.NoVolume, subprocess.CalledProcessError) as error:
            bench.broken["the run"] = str(error)  # what was measured until now is told
    found |= tell(bench, todo, options)
    if not options.no_module:
        print(module.line(found["module"]) if found["module"] else "module: no ansible is beside this Python")
    for name, reason in bench.broken.items():
        print(f"{name} FAILED: {reason}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written: {options.json}")
    if options.chart:
        _chart(found, bench, todo, options)
    return 1 if bench.broken else 0


def _chart(found: dict[str, Any], bench: Bench, todo: Sequence[Work], options: argparse.Namespace) -> None:
    facts = found["machine"]
    note = (
        f"{facts['processor']}, {facts['cores']} cores, {facts['memory'] >> 30} GiB; Linux {facts['kernel']}, "
        f"{options.fs}; medians of {options.rounds} rounds, {time.strftime('%Y-%m-%d')}"
    )
    titles = {work.name: work.title for work in todo}
    CHART.write_text(chart.chart(report.summarize(bench.samples), titles, options.twins, note))
    print(f"written: {CHART}")


def main(argv: Sequence[str]) -> int:
    """Run, in a mount namespace of our own; see this file's first line."""
    options = arguments(argv)
    volumes.keep_mounts_private()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if missing := [name for name in ("rsync", "findmnt", "losetup", "mount") if not shutil.which(name)]:
        raise SystemExit(f"Programs are missing: {', '.join(missing)}")
    try:
        return run(options)
    except (volumes.NoVolume, subprocess.CalledProcessError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
