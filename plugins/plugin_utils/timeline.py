# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happened, as the short text that a tired person reads at the end of a run: what to do, then the timeline."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from itertools import groupby
from typing import Any

from ..module_utils.verbs.attempts import told
from . import human

Event = Mapping[str, Any]

WIDTH = 96
HOSTS_SINGLY = 3  # hosts that are told one by one; of more, their sum is told
ROWS = 12  # resources of one host that are told one by one
REFUSALS = 5
TRIES = 6  # attempts that failed, of one host
INDENT = " " * 21  # below the text of an entry: "  +0:12  shadowed    "
BAD = ("failed", "untouched")
AGAIN = "ansible-playbook -i INVENTORY umbra.rollback.rollback -e umbra_update_id={update_id}"
ORDER = ("shadowed", "analyzed", "prestaged", "failed", "restored", "committed")


def lines(events: Sequence[Event], update_id: str = "") -> list[str]:
    """The timeline of one update, at most 96 columns wide but for paths and commands, of printable characters only.

    `events` are what the actions recorded, in any order (their keys: docs/analysis.md).
    """
    told = sorted((event for event in events if event["event"] in ORDER), key=_when)
    if not told:
        return ["Nothing was recorded of this update."]
    named = (event["update_id"] for event in told if event.get("update_id"))
    update_id = human.clean(update_id or next(named, "UPDATE_ID"))
    start = float(told[0]["time"])
    moment = datetime.fromtimestamp(start, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    page = [*_headline(told, update_id), "", f"Timeline (began {moment})"]
    predicted: Event | None = None
    for members in _groups(told):
        kind = str(members[0]["event"])
        if kind == "analyzed":
            predicted = members[-1]
        text = _restored(members, predicted) if kind == "restored" else _TELLERS[kind](members)
        page += _entry(float(members[0]["time"]) - start, kind, text)
    return [*page, *_kept(told)]


def _when(event: Event) -> tuple[float, int]:
    return float(event["time"]), ORDER.index(event["event"])


def _groups(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Events that are told together: of one kind, one after the other; a restore run again is told by itself."""
    for _kind, group in groupby(events, key=lambda event: str(event["event"])):
        members: list[Event] = []
        seen: set[tuple[str, str]] = set()
        for event in group:
            rows = {(event["host"], row["name"]) for row in event.get("resources", ()) if event["event"] == "restored"}
            if seen & rows or (
                event["event"] == "restored" and not rows and event["host"] in {one for one, dummy in seen}
            ):
                yield members
                members, seen = [], set()
            members.append(event)
            seen |= rows
        yield members


# --- how it stands: what has to be done comes first


def _headline(events: Sequence[Event], update_id: str) -> list[str]:
    problems = _problems(events)
    if problems:
        title = f"ACTION NEEDED: the way back of update {update_id} is NOT complete."
        return [
            "=" * WIDTH,
            *_wrapped(title, ""),
            "=" * WIDTH,
            *(line for problem in problems for line in _wrapped(problem, "    ", "  - ")),
            "",
            *_wrapped("Mend the cause named above, then run the way back again; it goes on from where it stopped:", ""),
            f"    {AGAIN.format(update_id=update_id)}",
            *_wrapped(f"The shadows are all still there, in {_stores(events)}: nothing was deleted.", ""),
        ]
    merged = _merged(events)
    committed = {event["host"] for event in events if event["event"] == "committed"}
    rolled_back = sorted(set(merged) - committed)
    parts = []
    if rolled_back:
        rows = [row for host in rolled_back for row in merged[host]["rows"].values()]
        undone = any(merged[host]["undone"] for host in rolled_back)
        state = "UNDONE: the failed state is back" if undone else "ROLLED BACK: all is as before the update"
        proof = ", each one validated" if all(row["validation"] == "ok" for row in rows) else ""
        parts.append(f"{state} on {_names(rolled_back)} ({human.count(len(rows), 'resource')}{proof}).")
    if committed:
        parts.append(f"COMMITTED on {_names(sorted(committed))}.")
    shadowed = {event["host"] for event in events if event["event"] == "shadowed"}
    if waiting := sorted(shadowed - committed - set(merged)):
        parts.append(f"OPEN on {_names(waiting)}: shadowed, neither committed nor rolled back.")
    return [line for part in parts for line in _wrapped(f"Update {update_id} {part}", "  ")] or [f"Update {update_id}"]


def _problems(events: Sequence[Event]) -> list[str]:
    """What is not as it was before the update, spelled out; equal ones of many hosts are one."""
    hosts_of: defaultdict[str, list[str]] = defaultdict(list)
    ended = {event["host"]: float(event["time"]) for event in events if event["event"] in ("restored", "committed")}
    for event in events:
        if event["event"] == "failed" and ended.get(event["host"], -1.0) < float(event["time"]):
            hosts_of[f"NOTHING WAS RESTORED after it failed: {_cause(event)}"].append(event["host"])
    shadowed = {event["host"]: event["records"] for event in events if event["event"] == "shadowed"}
    for host, state in _merged(events).items():
        untouched: defaultdict[str, list[str]] = defaultdict(list)
        for row in state["rows"].values():
            if row["action"] == "failed":
                hosts_of[f"{row['name']}: {_outcome(row)}"].append(host)
            elif row["action"] == "untouched":
                untouched[human.clean(row.get("reason") or "no reason was given")].append(row["name"])
        missing = [one["name"] for one in shadowed.get(host, ()) if one["name"] not in state["rows"]]
        if missing and not state["undone"]:
            untouched[human.clean(state["reason"]) or "it was not asked for, or the way back was cut short"] += missing
        for reason, names in untouched.items():
            hosts_of[f"{', '.join(names)}: NOT RESTORED: {reason}"].append(host)
        if not state["ok"] and not untouched and not any(row["action"] == "failed" for row in state["rows"].values()):
            reason = human.clean(state["reason"]) or "the restore ended before it was done"
            hosts_of[f"NOT FINISHED: {reason}"].append(host)
    return [f"{_names(hosts, len(hosts))}: {problem}" for problem, hosts in hosts_of.items()]


def _merged(events: Iterable[Event]) -> dict[str, dict[str, Any]]:
    """By host, all its restores in one: the last outcome of each resource, and how long it took from begin to end."""
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        if event["event"] != "restored":
            continue
        fresh = {"rows": {}, "begin": float(event["time"]) - float(event["seconds"]), "end": 0.0}
        state = found.setdefault(event["host"], fresh)
        state["rows"].update({row["name"]: row for row in event["resources"]})
        state["end"] = float(event["time"])
        state["undone"] = bool(event.get("undone"))
        state["reason"] = event.get("reason") or event.get("message") or ""
        bad = any(row["action"] in BAD for row in state["rows"].values())
        state["ok"] = bool(event["ok"]) and not bad
    return found


def _stores(events: Sequence[Event]) -> str:
    stores = sorted(
        {human.clean(event["store"]) for event in events if event["event"] == "shadowed" and event.get("store")}
    )
    return ", ".join(stores) or "the store of each host"


# --- the entries of the timeline


def _shadowed(events: Sequence[Event]) -> list[str]:
    every = [record for event in events for record in event["records"]]
    longest_host = max(_sum(event["records"], "seconds") for event in events)
    text = [f"{_hosts(events)} {_volume(every)} in {human.duration(longest_host)}"]
    for event in events if len(events) <= HOSTS_SINGLY else ():
        if len(events) > 1:
            text.append(f"  {human.clean(event['host'])}: {_volume(event['records'])}")
        longest = sorted(event["records"], key=lambda record: -float(record["seconds"]))[:ROWS]
        text += _table([_record(record) for record in event["records"] if record in longest])
        text += _more(len(event["records"]) - len(longest))
    return text


def _volume(records: Sequence[Event]) -> str:
    held, stored = human.size(_sum(records, "bytes")), human.size(_sum(records, "stored_bytes"))
    return f"{human.count(len(records), 'resource')}, {held} ({stored} new in the store)"


def _record(record: Event) -> list[str]:
    items = human.count(int(record["item_count"]), "item")
    cells = [record["name"], record["type"], human.size(record["bytes"]), items, human.duration(record["seconds"])]
    return [str(cell) for cell in cells]


def _analyzed(events: Sequence[Event]) -> list[str]:
    text = []
    for event in events:
        tiers = Counter(one["tier"] for one in event["resources"].values())
        told = ", ".join(f"{tiers[tier]} {tier}" for tier in ("high", "medium", "low") if tiers[tier])
        rto = event["rto"]
        text.append(
            f"the way back: {human.duration(rto['p50'])}, at most {human.duration(rto['p90'])} (90 %); "
            f"risk {human.percent(event['risk'])}; {human.count(event['waves'], 'wave')}; tiers: {told or 'none'}"
        )
    return text


def _prestaged(events: Sequence[Event]) -> list[str]:
    leases = [lease for event in events for lease in event["leases"]]
    refused: Counter[str] = Counter()
    for lease in leases:
        refused.update(f"{kind}: {human.clean(reason)}" for kind, reason in lease["refused"].items())
    text = [f"{_hosts(events)} {human.count(len(leases), 'lease')}{', all granted' if not refused else ''}"]
    text += [
        f"  not granted to {human.count(count, 'lease')}: {reason}" for reason, count in refused.most_common(REFUSALS)
    ]
    return text + _more(len(refused) - REFUSALS)


def _failed(events: Sequence[Event]) -> list[str]:
    hosts_of: defaultdict[str, list[str]] = defaultdict(list)
    for event in events:
        hosts_of[_cause(event)].append(event["host"])
    return [f"{_names(hosts, len(hosts))}: {cause}" for cause, hosts in hosts_of.items()]


def _cause(event: Event) -> str:
    task = human.clean(event.get("task") or "")
    message = human.clean(event.get("message") or "no message")
    return f"{task}: {message}" if task else message


def _restored(events: Sequence[Event], predicted: Event | None) -> list[str]:
    hosts = _merged(events)
    text = []
    for host, state in hosts.items() if len(hosts) <= HOSTS_SINGLY else ():
        rows = list(state["rows"].values())
        seconds = human.duration(state["end"] - state["begin"])
        idle = human.clean(state["reason"]) or "ready, nothing restored yet"
        said = f"{_score(rows, state['undone'])} in {seconds}" if rows else idle
        text.append(f"{human.clean(host)}: {said}")
        if len(rows) <= ROWS:
            text += _table([_row(row) for row in sorted(rows, key=_position)])
            text += _tries(sorted(rows, key=_position))
        else:
            text += _waves(rows)
    if len(hosts) > HOSTS_SINGLY:
        rows = [row for state in hosts.values() for row in state["rows"].values()]
        undone = any(state["undone"] for state in hosts.values())
        text += [f"{len(hosts)} hosts: {_score(rows, undone)}", *_waves(rows)]
    if predicted:
        text.append(_compared(max(state["end"] - state["begin"] for state in hosts.values()), predicted["rto"]))
    return text


def _score(rows: Sequence[Event], undone: bool) -> str:
    bad = sum(row["action"] in BAD for row in rows)
    state = "as the update left them" if undone else "as before"
    return f"{len(rows) - bad} of {human.count(len(rows), 'resource')} {state}{f', {bad} NOT' if bad else ''}"


def _waves(rows: Sequence[Event]) -> list[str]:
    text = []
    for wave, group in groupby(sorted(rows, key=_position), key=lambda row: row["wave"]):
        members = list(group)
        actions = Counter(row["action"] for row in members)
        told = ", ".join(f"{actions[action]} {action}" for action in ("restored", "unchanged", *BAD) if actions[action])
        longest = human.duration(max(float(row["seconds"]) for row in members))
        text.append(f"  wave {wave}: {told}; {human.size(_sum(members, 'bytes'))} written, slowest {longest}")
    return text


def _row(row: Event) -> list[str]:
    if row["action"] in BAD:
        return [f"wave {row['wave']}", row["name"], _outcome(row)]
    written = (
        f"{human.count(int(row['item_count']), 'item')}, {human.size(row['bytes'])}"
        if row["action"] == "restored"
        else "-"
    )
    checked = "valid" if row["validation"] == "ok" else f"validation {row['validation']}"
    tries = f", {row['attempts']} tries" if int(row["attempts"]) > 1 else ""
    return [f"wave {row['wave']}", row["name"], row["action"], written, human.duration(row["seconds"]), checked + tries]


def _tries(rows: Sequence[Event]) -> list[str]:
    """Why attempts failed, and what the next ones were given."""
    text = [human.clean(f"{row['name']}, {told(one)}") for row in rows for one in row.get("escalations", ())]
    return [f"  {line}" for line in text[:TRIES]] + _more(len(text) - TRIES)


def _outcome(row: Event) -> str:
    reason = human.clean(row.get("reason") or "no reason was given").removeprefix(f"{row['name']}: ")
    if row["action"] == "failed":
        return f"FAILED after {human.count(int(row['attempts']), 'attempt')}: {reason}"
    return f"NOT RESTORED: {reason}"


def _position(row: Event) -> tuple[int, str]:
    return int(row["wave"]), str(row["name"])


def _compared(actual: float, rto: Event) -> str:
    verdict = "within the bound" if actual <= float(rto["p90"]) else "LONGER than the bound"
    said = f"predicted {human.duration(rto['p50'])}, at most {human.duration(rto['p90'])} (90 %)"
    return f"took {human.duration(actual)}; {said}: {verdict}"


def _committed(events: Sequence[Event]) -> list[str]:
    return [_names([event["host"] for event in events])]


_TELLERS: Mapping[str, Callable[[Sequence[Event]], list[str]]] = {
    "shadowed": _shadowed,
    "analyzed": _analyzed,
    "prestaged": _prestaged,
    "failed": _failed,
    "committed": _committed,
}


def _kept(events: Sequence[Event]) -> list[str]:
    """Where the failed state is and how to bring it back; once for all hosts whose paths differ only in their name."""
    committed = {event["host"] for event in events if event["event"] == "committed"}
    places: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    last = {event["host"]: event for event in events if event["event"] == "restored" and event.get("displaced")}
    for host, event in last.items():
        if host not in committed:
            parts = [part.replace(host, "<host>") if len(last) > 1 else part for part in event["displaced"].split("/")]
            places["/".join(parts), event.get("undo") or ""].append(host)
    text = []
    for (path, undo), hosts in places.items():
        text += [
            "",
            f"The failed state is kept on {_names(hosts)}, until commit or prune, in",
            f"    {human.clean(path)}",
        ]
        if undo:
            text += ["To bring it back (undo this way back):", f"    {human.clean(undo)}"]
    return text


# --- words and widths


def _entry(offset: float, kind: str, text: Sequence[str]) -> list[str]:
    whole = round(offset)
    clock = (
        f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}" if whole >= 3600 else f"{whole // 60}:{whole % 60:02}"
    )
    label = {"failed": "FAILED", "analyzed": "predicted"}.get(kind, kind)
    head = f"{'+' + clock:>8}  {label:<10} "
    first = _wrapped(text[0], INDENT + "  ", head)
    return first + [line for more in text[1:] for line in _wrapped(more, INDENT + "    ", INDENT)]


def _wrapped(text: str, later: str, first: str = "") -> list[str]:
    blanks = len(text) - len(text.lstrip())
    return textwrap.wrap(
        text.lstrip(), WIDTH, initial_indent=first + " " * blanks, subsequent_indent=later, break_on_hyphens=False
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows with their columns aligned; the last cell of each has no width of its own."""
    rows = [[human.clean(cell) for cell in row] for row in rows]
    widths: defaultdict[int, int] = defaultdict(int)
    for row in rows:
        for column, cell in enumerate(row[:-1]):
            widths[column] = max(widths[column], len(cell))
    return ["  " + "  ".join([*(f"{cell:<{widths[n]}}" for n, cell in enumerate(row[:-1])), row[-1]]) for row in rows]


def _more(count: int) -> list[str]:
    return [f"  and {count} more"] if count > 0 else []


def _hosts(events: Sequence[Event]) -> str:
    return f"{_names(sorted({event['host'] for event in events}))}:"


def _names(hosts: Sequence[str], shown: int = HOSTS_SINGLY) -> str:
    """The hosts by name, or how many they are."""
    if len(hosts) > shown:
        return f"{len(hosts)} hosts"
    return ", ".join(human.clean(host) for host in hosts)


def _sum(records: Iterable[Event], key: str) -> float:
    return sum(float(record[key]) for record in records)
