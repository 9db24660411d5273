# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the emergency tool says, as lines for people."""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import human
from ..verbs.outcome import FAILED, RESTORED, UNCHANGED, UNTOUCHED, WOULD
from .facts import MEANING, NEXT

ACTIONS = {
    RESTORED: "back, verified",
    UNCHANGED: "as before already",
    FAILED: "FAILED",
    UNTOUCHED: "left alone",
    WOULD: "would be restored",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns, each as wide as its widest cell."""
    cells = [list(head), *([human.clean(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]


def when(seconds: float) -> str:
    """A moment, in UTC, and how long ago that is."""
    ago = time.time() - seconds
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    return f"{text}, {human.duration(ago)} ago" if ago >= 1 else text


def expected(rto: Sequence[float] | None) -> str:
    """A predicted time: its median, and the bound that holds in 9 of 10 cases."""
    return f"{human.duration(rto[0])}, 9 of 10 times below {human.duration(rto[1])}" if rto else "not known"


def updates(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The updates of a host."""
    rows = [
        (
            one["update_id"],
            one["state"],
            when(one["created"]) if "created" in one else "-",
            str(one.get("resources", "-")),
            human.size(one["bytes"]) if "bytes" in one else "-",
            expected(one["rto"]) if one["rto"] else "-",
        )
        for one in found
    ]
    lines = table(("UPDATE", "STATE", "SHADOWED", "RESOURCES", "SIZE", "TIME TO GO BACK"), rows)
    return [*lines, *(f"{one['update_id']}: {human.clean(one['problem'])}" for one in found if "problem" in one)]


def standing(one: Mapping[str, Any]) -> list[str]:
    """How one update stands, in full."""
    lines = [f"Update {one['update_id']} is {one['state']}: {MEANING.get(one['state'], '')}."]
    if "problem" in one:
        return [*lines, human.clean(one["problem"])]
    size = f"{human.count(one['resources'], 'resource')}, {human.size(one['bytes'])}"
    lines.append(f"  shadowed   {when(one['created'])} ({size})")
    lines.append(f"  way back   {expected(one['rto'])}")
    if one.get("displaced"):
        lines.append(f"  set aside  the failed state of {human.count(len(one['displaced']), 'rollback')} (see undo)")
    if one["held_bytes"]:
        lines.append(f"  held       {human.size(one['held_bytes'])} for the way back")
    return [*lines, *(f"  switch     {text}" for text in switch(one.get("watchdog") or {}))]


def switch(told: Mapping[str, Any]) -> list[str]:
    """How the dead-man switch stands, as shadow_info tells of it; nothing where none is armed and none has fired."""
    lines = []
    armed = told.get("state") == "armed"
    if "fired" in told:
        goes_on = "; it tries to go back until it can" if armed else ""
        lines.append(f"fired at {told['fired']}, because {told['why']}{goes_on}")
    elif armed:
        watched = "" if told["pid"] else "; but NOBODY WATCHES: its process is gone"
        lines.append(f"armed ({told['mode']}): goes back by itself in {human.duration(told['deadline'])}{watched}")
    if "problem" in told:
        lines.append(told["problem"])
    return [human.clean(line) for line in lines]


def next_command(tool: str, one: Mapping[str, Any]) -> list[str]:
    """The command that is most likely wanted next."""
    if one["state"] not in NEXT:
        return ["Nothing is to be done."]
    command, purpose = NEXT[one["state"]]
    lines = [f"Next: {tool} {command} {one['update_id']}", f"      {purpose}"]
    if command == "restore":
        lines.append(f"Look first, this touches nothing: {tool} diff {one['update_id']}")
    return lines


def plan(found: Mapping[str, Any]) -> list[str]:
    """The order of the way back."""
    source = "the analysis before it" if found["source"] == "analysis" else "this host alone; nobody analyzed it"
    lines = [
        f"The way back of update {found['update_id']}: {human.count(len(found['steps']), 'resource')} here in "
        f"{human.count(found['waves'], 'wave')}, as planned by {source}.",
        f"Predicted time: {expected(found['rto'])}.",
        "",
    ]
    rows = [
        (
            str(step["wave"]),
            step["name"],
            step["type"],
            human.size(step["bytes"]),
            expected(step["eta"]),
            f"{step['score']:.0f} ({step['tier']})" if found["source"] == "analysis" else "-",
            ", ".join([*step["needs"], *step["needs_remote"]]) or "-",
        )
        for step in found["steps"]
    ]
    lines += table(("WAVE", "RESOURCE", "TYPE", "SIZE", "TIME", "SCORE", "NEEDS"), rows)
    return [*lines, *elsewhere(found)]


def elsewhere(found: Mapping[str, Any]) -> list[str]:
    """What this host can't bring back."""
    remote = sorted({name for step in found["steps"] for name in step["needs_remote"]})
    if not remote:
        return []
    return [f"On other hosts, and to be brought back there first: {', '.join(remote)}."]


def restore_question(found: Mapping[str, Any], one: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """What a restore is about to do."""
    steps = [step for step in found["steps"] if not names or step["name"] in names]
    size = human.size(sum(step["bytes"] for step in steps))
    return [
        f"This brings {human.count(len(steps), 'resource')} of this host ({size}) back to the state before update "
        f"{found['update_id']}, of {when(one['created'])}:",
        *(f"  wave {step['wave']}  {step['name']} ({step['type']}, {human.size(step['bytes'])})" for step in steps),
        f"Predicted time: {expected(found['rto'])}. What is there now is set aside first; undo brings it back.",
        *elsewhere(found),
    ]


def undo_question(one: Mapping[str, Any]) -> list[str]:
    """What an undo is about to do."""
    return [
        f"This brings back what the rollbacks of update {one['update_id']} set aside: the failed state.",
        "What is there now is set aside first, and kept until commit or prune.",
    ]


def commit_question(one: Mapping[str, Any]) -> list[str]:
    """What a commit is about to do."""
    aside = len(one["displaced"])
    return [
        f"This declares update {one['update_id']} good ({human.count(one['resources'], 'resource')}). It gives back "
        f"{human.size(one['held_bytes'])} that are held, and forgets what {human.count(aside, 'rollback')} set aside.",
        "The state before the update stays in the store until retention lets it go.",
    ]


def results(result: Mapping[str, Any]) -> list[str]:
    """How it went for each resource."""
    rows = [
        (
            one["name"],
            ACTIONS.get(one["action"], one["action"]),
            human.count(one["item_count"], "item"),
            human.size(one["bytes"]),
            human.duration(one["seconds"]),
        )
        for one in result["resources"]
    ]
    lines = table(("RESOURCE", "", "CHANGED", "WRITTEN", "TIME"), rows)
    lines += [f"{one['name']}: {human.clean(one['reason'])}" for one in result["resources"] if one.get("reason")]
    lines += [f"{one['name']}: {human.clean(note)}" for one in result["resources"] for note in one.get("notes", ())]
    return [*lines, *map(human.clean, result["notes"])]


def diff(result: Mapping[str, Any], changes: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a restore would change."""
    lines = []
    for one in result["resources"]:
        what = f"{human.count(one['item_count'], 'change')}" if one["action"] == WOULD else "nothing"
        lines.append(f"{one['name']} ({one['type']}, wave {one['wave']}): {what}")
    for change in changes:
        if "prepared" in change:
            lines += ["", *change["prepared"].rstrip("\n").split("\n")]
        else:
            lines += ["", f"--- {change['before_header']}", f"+++ {change['after_header']}"]
            lines += _unified(change["before"], change["after"])
    return [*lines, *map(human.clean, result["notes"])]


def _unified(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=3)
    return list(lines)[2:]  # without its own two lines of heading


def tool_name(path: str | None) -> str:
    """How to call the tool at `path` (None: it runs from elsewhere)."""
    if path is None:
        return "umbra"
    return path if os.access(path, os.X_OK) else f"python3 {path}"
