# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits of cgroups, as both versions write them, and the way out of real ones."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.effort import cgroups
from ansible_collections.umbra.rollback.plugins.module_utils.effort.cgroups import Hierarchy

ROOT = os.geteuid() == 0
V1, V2 = frozenset({"cpu", "cpuacct", "blkio", "memory"}), frozenset[str]()

# controllers; files in cgroups; what limits whom (cgroup of the limit, kind), the nearest first; the way out
LIMITS = [
    (V2, {}, [], ""),
    (V2, {"a/b/cpu.max": "max 100000", "a/b/memory.max": "max", "a/b/io.max": "", "a/memory.high": "max"}, [], ""),
    (V2, {"a/b/cpu.max": "50000 100000"}, [("a/b", "cpu")], "a"),
    (V2, {"a/memory.high": "1073741824", "a/b/io.max": "8:0 rbps=1048576"}, [("a/b", "io"), ("a", "memory")], "."),
    (V2, {"cpu.max": "1000 100000"}, [(".", "cpu")], ""),
    (V1, {"a/b/cpu.cfs_quota_us": "-1", "a/b/memory.limit_in_bytes": "9223372036854771712"}, [], ""),
    (V1, {"a/b/cpu.cfs_quota_us": "25000"}, [("a/b", "cpu")], "a"),
    (V1, {"a/blkio.throttle.write_bps_device": "8:0 1048576"}, [("a", "io")], "."),
    (V1, {"a/memory.limit_in_bytes": "1073741824"}, [("a", "memory")], "."),
]


@pytest.mark.parametrize(("controllers", "files", "expected", "out"), LIMITS)
def test_limits_and_the_nearest_place_above_them(
    tmp_path: Path, controllers: frozenset[str], files: dict[str, str], expected: list[tuple[str, str]], out: str
) -> None:
    """On plain directories, as the kernel lets nobody write just any limit."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    hierarchy = Hierarchy(str(tmp_path), str(tmp_path / "a" / "b"), controllers)
    found = cgroups.limits(hierarchy)
    assert [(os.path.relpath(limit.group, tmp_path), limit.kind) for limit in found] == expected
    if found:
        assert cgroups.beyond(hierarchy, found) == (os.path.normpath(tmp_path / out) if out else "")


MOUNTS = """\
25 30 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
26 30 0:24 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
27 30 0:25 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
28 30 0:26 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
"""
PLACES = "12:cpu,cpuacct:/user\n8:memory:/docker/abc/x\n7:memory:/elsewhere\n1:name=systemd:/init\n0::/a b\n"


def test_places_are_found_below_their_mount_points(tmp_path: Path) -> None:
    """As the files of proc(5) say it; `/elsewhere` can't be seen from a container whose root is another cgroup."""
    for name, text in (("self/mountinfo", MOUNTS), ("thread-self/cgroup", PLACES)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    assert [(one.mount, one.place) for one in cgroups.hierarchies(proc=str(tmp_path))] == [
        ("/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/user"),
        ("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/x"),
        ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/systemd/init"),
        ("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/a b"),
    ]
    assert cgroups.hierarchies(proc=str(tmp_path / "nothing")) == []


# Says where it is before, while and after the last attempt is made: it itself, a program, a service, and a daemon.
TRY = """
import json, os, signal, subprocess, sys
sys.path[:0] = {path!r}
from pathlib import Path
from typing import Any
from ansible_collections.umbra.rollback.plugins.module_utils.context import Context
from ansible_collections.umbra.rollback.plugins.module_utils.effort import cgroups
from ansible_collections.umbra.rollback.plugins.module_utils.effort.exert import Effort, exerted
{change}
group, work = sys.argv[1:]
cgroups.enter(group + "/cgroup.procs")
context = Context("u1", "web1", work)
def of(text):
    return [line for line in text.splitlines() if line.split(":", 1)[1].startswith({start!r})][0]
def mine():
    return of(Path("/proc/thread-self/cgroup").read_text())
said = {{"before": mine()}}
with exerted(Effort("high", 4.0, 2, True)) as granted:
    said["self"] = mine()
    said["program"] = of(context.run(["cat", "/proc/self/cgroup"]).stdout)
    said["service"] = of(context.run(["cat", "/proc/self/cgroup"], service=True).stdout)
    left = ["sh", "-c", 'setsid sleep 300 & echo $!']
    daemon = int(context.run(left).stdout)
    said["daemon"] = of(Path(f"/proc/{{daemon}}/cgroup").read_text())
    os.kill(daemon, signal.SIGKILL)
    said["granted"] = granted.to_dict()
    if {pretended}:
        running = subprocess.Popen(["sleep", "300"])  # another thread's program, that was started outside
said["after"] = mine()
if {pretended}:
    said["running"] = of(Path(f"/proc/{{running.pid}}/cgroup").read_text())
    running.kill()
    running.wait()
print(json.dumps(said))
"""
# The kernel has no limit to set here in version 2: its controllers are version 1's. So one is said to be there.
PRETEND = "cgroups.limits = lambda one: [] if one.controllers else [cgroups.Limit('cpu', one.place, 'cpu.max: 1 2')]"


def attempt(group: Path, work: Path, start: str, change: str = "") -> dict[str, Any]:
    import json

    script = TRY.format(path=[entry for entry in sys.path if entry], start=start, change=change, pretended=bool(change))
    argv = [sys.executable, "-c", script, str(group), str(work)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[frozenset[str]], Path]]:
    """Where a hierarchy is mounted, which is done if need be. A machine that can not fails: nothing would be tried."""
    made: list[Path] = []

    def mount(controllers: frozenset[str]) -> Path:
        found = [Path(one.mount) for one in cgroups.hierarchies() if one.controllers == controllers]
        if not found:
            found = [tmp_path / "cgroup"]
            found[0].mkdir()
            kind = ["cgroup", "-o", ",".join(controllers)] if controllers else ["cgroup2"]
            subprocess.run(["mount", "-t", *kind, "none", str(found[0])], check=True)
            made.extend(found)
        return found[0]

    yield mount
    for path in made:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def make_group() -> Iterator[Any]:
    """Makes a cgroup in a hierarchy, and removes it."""
    made: list[Path] = []

    def make(mount: Path) -> Path:
        made.append(mount / f"umbra-test-{uuid.uuid4().hex[:8]}")
        made[-1].mkdir()
        return made[-1]

    yield make
    for path in made:
        path.rmdir()


@pytest.mark.skipif(not ROOT, reason="only root may make cgroups")
def test_the_last_attempt_leaves_a_limit_of_version_1_and_comes_back(
    tmp_path: Path, mounted: Any, make_group: Any
) -> None:
    """Its thread does, with the programs that it starts; a service and a daemon stay in the limited cgroup."""
    group = make_group(mounted(frozenset({"cpu"})))
    (group / "cpu.cfs_quota_us").write_text("50000")
    said = attempt(group, tmp_path, "cpu:")
    home = f"cpu:/{group.name}"
    assert [said[key].endswith(home) for key in ("before", "self", "program", "service", "daemon", "after")] == [
        True, False, False, True, True, True,
    ]  # fmt: skip
    assert said["granted"]["effective"]["cgroup"] == [str(group.parent)]
    assert said["granted"]["asked"]["cgroup"][0] == f"no cpu.cfs_quota_us: 50000 ({group})"


@pytest.mark.skipif(not ROOT, reason="only root may make cgroups")
def test_the_last_attempt_leaves_a_cgroup_of_version_2_as_a_process(
    tmp_path: Path, mounted: Any, make_group: Any
) -> None:
    """The limit is pretended (see PRETEND); the cgroups, and moving between them, are real."""
    group = make_group(mounted(V2))
    killed = group.parent / f"{cgroups.NAME}-99999999"
    killed.mkdir()
    said = attempt(group, tmp_path, ":", PRETEND)
    home = f":/{group.name}"
    assert said["running"].endswith(home)
    assert [said[key].endswith(home) for key in ("before", "self", "program", "service", "daemon", "after")] == [
        True, False, False, True, True, True,
    ]  # fmt: skip
    assert said["granted"]["effective"]["cgroup"][0].startswith(str(group.parent / cgroups.NAME))
    assert not list(group.parent.glob(f"{cgroups.NAME}*")), "its room is gone, and that of one that was killed"
