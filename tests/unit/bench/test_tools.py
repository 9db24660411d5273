# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every competitor's jobs; those of programs that every machine has are really done, and so are the engine's."""

from __future__ import annotations

from pathlib import Path

import pytest
import targets
import workloads
from ansible_collections.umbra.rollback.plugins.module_utils import version
from bench import arguments, size
from engine import Engine
from measure import JobFailed, measure
from peers import (
    CHANGED,
    CREATING,
    DRIFT,
    FULL,
    JOBS,
    PEERS,
    VERIFY,
    Cp,
    Git,
    Hashlib,
    Place,
    Rsync,
    RsyncLink,
    Tar,
    Tool,
)

COLLECTIONS = Path(version.__file__).parents[5]


def competitor(name: str, tmp_path: Path) -> Tool:
    known = {"pure": Engine("pure", COLLECTIONS, None, tmp_path / "cache")}
    return known.get(name) or PEERS[name]()


def everything_else_of(place: Place) -> Place:
    """As if a fresh file system were mounted where the tree is."""
    place.live.rename(place.live.with_name("away"))
    place.live.mkdir()
    return place


@pytest.mark.parametrize("name", ["pure", *(one.name for one in (Cp, Rsync, RsyncLink, Git, Tar, Hashlib))])
def test_each_job_does_what_it_is_for(name: str, tmp_path: Path) -> None:
    tool = competitor(name, tmp_path)
    live, store = tmp_path / "live", tmp_path / "stores" / name
    live.mkdir()
    store.mkdir(parents=True)
    workloads.small(120).make(live / "tree")
    victims = workloads.victims(live / "tree")
    generation = 0
    shadowed = ""
    for job in (one for one in JOBS if tool.does(one)):
        generation += job in CREATING
        place = Place(live, store, generation)
        if job == CHANGED:
            workloads.change(place.tree, victims, seed=1)
        now = workloads.fingerprint(place.tree, victims)
        if job == DRIFT:
            workloads.change(place.tree, victims, seed=2)
        if job == FULL:
            place = everything_else_of(place)
        tool.prepare(job, place)
        measure(tool.commands(job, place), tool.environment(place), tmp_path / "log")
        if job in CREATING:
            shadowed = now
        if job in (DRIFT, FULL):
            assert workloads.fingerprint(tool.restored(place), victims) == shadowed, job
        if isinstance(tool, Engine):
            assert tool.inside(place).wall > 0


def test_a_damaged_store_fails_the_engines_job(tmp_path: Path) -> None:
    tool = competitor("pure", tmp_path)
    place = Place(tmp_path / "live", tmp_path / "store", 1)
    place.store.mkdir()
    workloads.small(20).make(place.tree)
    measure(tool.commands("first", place), tool.environment(place), tmp_path / "log")
    (pack,) = (place.store / "store" / "packs").glob("*.pack")
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)
    with pytest.raises(JobFailed, match="ended with 1"):
        measure(tool.commands(VERIFY, place), tool.environment(place), tmp_path / "log")


def test_every_target_is_of_a_job_that_the_peer_does() -> None:
    for wanted in (targets.W1, targets.W2):
        for job, peers in wanted.items():
            for peer in peers:
                assert PEERS[peer]().does(job), (job, peer)


def test_a_job_that_a_tool_does_not_do_has_no_commands(tmp_path: Path) -> None:
    assert not Tar().does(DRIFT)
    assert Tar().commands(DRIFT, Place(tmp_path, tmp_path)) == ()


def test_arguments_keep_the_order_in_which_things_are_done() -> None:
    options = arguments(["--work", "W3,W1", "--jobs", "full,first", "--peers", "rsync,cp", "--limit", "200M"])
    assert (options.work, options.jobs, options.peers) == (("W1", "W3"), ("first", "full"), ("cp", "rsync"))
    assert options.limit == 200 << 20


@pytest.mark.parametrize("argv", [["--jobs", "fast"], ["--limit", "much"], ["--fs", "ntfs"]])
def test_an_unknown_word_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(argv)
    assert argv[1] in capsys.readouterr().err


@pytest.mark.parametrize(("text", "expected"), [("7", 7), ("3k", 3 << 10), ("200M", 200 << 20), ("2G", 2 << 30)])
def test_sizes(text: str, expected: int) -> None:
    assert size(text) == expected
