# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run keeps of its hosts, whatever they are called, and from several workers at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.plugin_utils.this_run import ThisRun

NAMES = ["web1", "web1.example.com", "../../etc", ".hidden", "a/b", "host with spaces", "ünïcode", "[::1]:22"]


@pytest.mark.parametrize("host", NAMES)
def test_a_host_is_kept_below_its_directory_and_found_again(tmp_path: Path, host: str) -> None:
    run = ThisRun(str(tmp_path), "u1")
    run.keep_host(host, {"update_id": "u1"}, [{"seconds": 1}], 0.5)
    run.keep_plan(host, {"steps": []})
    assert run.hosts() == {host: {"manifest": {"update_id": "u1"}, "history": [{"seconds": 1}], "turn": 0.5}}
    assert run.plan(host) == {"steps": []} and run.plan("nobody") is None
    assert {path.name for path in tmp_path.iterdir()} == {"umbra"}


def test_updates_are_apart(tmp_path: Path) -> None:
    ThisRun(str(tmp_path), "u1").record("shadowed", host="a")
    assert ThisRun(str(tmp_path), "u2").events() == [] and ThisRun(str(tmp_path), "u2").hosts() == {}


def test_events_of_many_workers_are_all_there(tmp_path: Path) -> None:
    workers = []
    for number in range(8):
        if (pid := os.fork()) == 0:
            for dummy in range(50):
                ThisRun(str(tmp_path), "u1").record("restored", host=f"h{number}", resources=[], text="x" * 5000)
            os._exit(0)
        workers.append(pid)
    for pid in workers:
        assert os.waitpid(pid, 0)[1] == 0
    events = ThisRun(str(tmp_path), "u1").events()
    assert len(events) == 400 and all(len(event["text"]) == 5000 for event in events)


def test_unmet_is_what_failed_last(tmp_path: Path) -> None:
    run = ThisRun(str(tmp_path), "u1")
    run.record(
        "restored", host="a", resources=[{"name": "x", "action": "failed"}, {"name": "y", "action": "untouched"}]
    )
    run.record("restored", host="b", resources=[{"name": "x", "action": "restored"}])
    assert run.unmet() == ["a:x", "a:y"]
    run.record("restored", host="a", resources=[{"name": "x", "action": "restored"}])
    assert run.unmet() == ["a:y"]
