# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""umbra.rollback as a competitor: a fresh process for each job, one twin of the kernel."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from measure import Command
from peers import GENERATION, JOBS, Commands, Place, Tool


@dataclass(frozen=True)
class Inside:
    """What the engine itself took, import and start of Python aside: seconds, and CPU seconds of all threads."""

    wall: float
    cpu: float


class Engine(Tool):
    """The engine with the twin `name`; `collections` is the directory that has ansible_collections in it."""

    def __init__(self, name: str, collections: Path, kernel: Path | None, cache: Path) -> None:
        self.name = name
        self._collections = collections
        self._cache = cache
        self._kernel = [str(kernel), hashlib.sha256(kernel.read_bytes()).hexdigest()] if kernel else []

    def does(self, job: str) -> bool:
        """All of them."""
        return job in JOBS

    def compile(self) -> None:
        """Import all of it once, so that no measurement has Python compile it."""
        place = Place(Path("/"), Path("/"))
        here = str(Path(__file__).parent)
        environment = self.environment(place)
        environment["PYTHONPATH"] += f"{os.pathsep}{here}"
        subprocess.run([sys.executable, "-c", "import engine_job"], env=environment, check=True)

    def commands(self, job: str, place: Place) -> Commands:
        """The engine's own function, called by engine_job.py."""
        script = str(Path(__file__).with_name("engine_job.py"))
        said = {
            "job": job,
            "tree": str(place.tree),
            "store": str(place.store / "store"),
            "update_id": f"bench-{place.generation or GENERATION['first']}",
            "twin": self.name,
            "kernel": self._kernel,
            "report": str(self._report(place)),
        }
        return (Command((sys.executable, script, json.dumps(said))),)

    def environment(self, place: Place) -> dict[str, str]:
        """As for the others; compiled once, as an installed collection is."""
        own = {"PYTHONPATH": str(self._collections), "PYTHONPYCACHEPREFIX": str(self._cache)}
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        return {**kept, **own, "HOME": str(place.store)}

    def prepare(self, job: str, place: Place) -> None:
        """Nothing of the job before may be taken for this one's."""
        self._report(place).unlink(missing_ok=True)

    def inside(self, place: Place) -> Inside:
        """What the last job took."""
        return Inside(**json.loads(self._report(place).read_text()))

    def _report(self, place: Place) -> Path:
        return place.store.with_name(f"{self.name}.json")  # not in the store, whose bytes are counted
