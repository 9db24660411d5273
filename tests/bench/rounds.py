# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rounds: every job by every tool in turn, on file systems made for the round."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import measure
import volumes
import workloads
from engine import Engine
from measure import JobFailed
from peers import CHANGED, CREATING, DRIFT, FIRST, FULL, JOBS, RESTORING, VERIFY, Place, Tool
from workloads import Work

BLOCK = 4096
A_FILE = 2560  # bytes that a file takes beside its size: half a block, an inode, a name
COPIED = 1.1  # what a tool's store takes of that, at most
SPARE = 2 << 30


@dataclass(frozen=True)
class Sample:
    """What one job of one tool took in one round: seconds, and bytes.

    Of the engine `wall` and `cpu` are what it took itself, `process` what its whole process took. `peak` is the largest
    process. `disk` is what the tool's store takes afterwards; 0 where the job adds nothing to it.
    """

    work: str
    job: str
    tool: str
    round: int
    wall: float
    cpu: float
    process: float
    peak: int
    disk: int


@dataclass(frozen=True)
class Settings:
    """Where and how: the kind of file system, a directory with room, the jobs; `cold` empties caches before each."""

    directory: Path
    fs: str
    jobs: tuple[str, ...]
    rounds: int
    cold: bool


def needed(work: Work, tools: Sequence[Tool]) -> int:
    """Bytes that a round takes at most: the tree, the stores, and one restored tree."""
    tree = work.bytes + work.files * A_FILE
    stores = sum(COPIED * tree + work.files * tool.blocks * BLOCK for tool in tools if tool.does(FIRST))
    return int(2 * tree + stores) + SPARE


class Bench:
    """Runs rounds and collects what they took. A tool that fails is left out from then on; `broken` says why."""

    def __init__(self, settings: Settings, tools: Sequence[Tool]) -> None:
        self.samples: list[Sample] = []
        self.floors: list[dict[str, float]] = []
        self.broken: dict[str, str] = {}
        self._settings = settings
        self._tools = tools

    def run(self, work: Work, number: int) -> None:
        """One round of a work; each round begins with another tool. Raises NoVolume."""
        settings = self._settings
        cut = number % len(self._tools)
        tools = [*self._tools[cut:], *self._tools[:cut]]
        copies = 2 + sum(tool.does(FIRST) for tool in tools)
        inodes = int(work.files * copies * 1.2) + 20_000
        top = settings.directory
        with volumes.mounted(settings.fs, top / "floor.img", top / "floor", volumes.SMALLEST, 65_536) as fresh:
            self.floors.append(_floor(fresh))
        with volumes.mounted(settings.fs, top / "round.img", top / "round", 2 * needed(work, tools), inodes) as root:
            _Round(self, settings, work, number, root).run(tools)


def _floor(fresh: Path) -> dict[str, float]:
    argv = [sys.executable, str(Path(__file__).with_name("floor.py")), str(fresh)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


class _Round:
    """One round: the tree in `live`, beside it a store for each tool."""

    def __init__(self, bench: Bench, settings: Settings, work: Work, number: int, root: Path) -> None:
        self._bench = bench
        self._settings = settings
        self._work = work
        self._number = number
        self._root = root
        self._live = root / "live"
        self._generations: dict[str, int] = {}
        self._shadowed: dict[str, str] = {}  # the fingerprint of what a tool shadowed last
        self._victims: list[str] = []
        self._now = ""

    def run(self, tools: Sequence[Tool]) -> None:
        tree = self._live / "tree"
        self._live.mkdir()
        self._work.make(tree)
        self._victims = workloads.victims(tree)
        self._now = workloads.fingerprint(tree, self._victims)
        for tool in tools:
            (self._root / "stores" / tool.name).mkdir(parents=True)
        for job in self._settings.jobs:
            if job == CHANGED:
                workloads.change(tree, self._victims, seed=1)
                self._now = workloads.fingerprint(tree, self._victims)
            for tool in tools:
                if tool.does(job) and tool.name not in self._bench.broken:
                    self._try(job, tool)

    def _try(self, job: str, tool: Tool) -> None:
        said = f"{self._work.name} round {self._number + 1}/{self._settings.rounds}  {JOBS[job]:20} {tool.name:10}"
        try:
            sample = self._job(job, tool)
        except (JobFailed, subprocess.CalledProcessError) as error:
            self._bench.broken[tool.name] = f"{self._work.name}, {JOBS[job]}: {error}"
            print(f"{said} FAILED, and is left out from here on: {error}", flush=True)
            return
        self._bench.samples.append(sample)
        print(f"{said} {sample.wall:8.3f} s", flush=True)

    def _job(self, job: str, tool: Tool) -> Sample:
        if job in CREATING:
            self._generations[tool.name] = self._generations.get(tool.name, 0) + 1
        place = Place(self._live, self._root / "stores" / tool.name, self._generations.get(tool.name, 0))
        self._warm(job, place)
        if job == DRIFT:
            workloads.change(place.tree, self._victims, seed=2)
        with self._empty_place() if job == FULL else nullcontext():
            sample = self._measured(job, tool, place)
            if job in RESTORING:
                self._compare(tool, tool.restored(place) if job == FULL else place.tree)
        if job in CREATING:
            self._shadowed[tool.name] = self._now
        return sample

    def _warm(self, job: str, place: Place) -> None:
        """Have in the page cache what the job reads: borg takes out of it what it has read."""
        if job in (FIRST, VERIFY):
            workloads.warm(place.tree)
        elif job == CHANGED:
            workloads.warm(place.tree, self._victims)
        if job in (VERIFY, *RESTORING):
            workloads.warm(place.store)

    def _empty_place(self) -> volumes.Mounted:
        """A fresh file system over the directory that the tree is in: the tree is gone, and nothing was deleted."""
        settings = self._settings
        size = 3 * (self._work.bytes + self._work.files * A_FILE) + SPARE
        inodes = int(self._work.files * 1.5) + 20_000
        return volumes.mounted(settings.fs, settings.directory / "empty.img", self._live, size, inodes)

    def _measured(self, job: str, tool: Tool, place: Place) -> Sample:
        tool.prepare(job, place)
        volumes.settle(self._root, self._live, cold=self._settings.cold)
        commands, environment = tool.commands(job, place), tool.environment(place)
        used = measure.measure(commands, environment, self._settings.directory / "log")
        wall, cpu = used.wall, used.cpu
        if isinstance(tool, Engine):
            inside = tool.inside(place)
            wall, cpu = inside.wall, inside.cpu
        disk = volumes.allocated(place.store) if job in CREATING else 0
        return Sample(self._work.name, job, tool.name, self._number, wall, cpu, used.wall, used.peak, disk)

    def _compare(self, tool: Tool, restored: Path) -> None:
        if workloads.fingerprint(restored, self._victims) != self._shadowed[tool.name]:
            raise JobFailed("what it restored differs from what it had shadowed")


def versions(tools: Mapping[str, Tool]) -> dict[str, str]:
    """The first line of what each peer says its version is."""
    programs = sorted({"rsync" if name == "rsync-link" else name for name in tools if name not in ("hashlib",)})
    found = {}
    for name in programs:
        if isinstance(tools.get(name), Engine):
            continue
        argv = [name, "version" if name == "restic" else "--version"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        found[name] = done.stdout.partition("\n")[0]
    return found
