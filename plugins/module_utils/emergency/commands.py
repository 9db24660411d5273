# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each command of the emergency tool does: it calls the verb that modules call, and shows what comes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from .. import human
from ..errors import StoreLocked
from ..store.locks import Holder
from ..store.store import Store
from ..store.update import HostUpdate
from ..verbs import commit as commit_verb
from ..verbs import diff as diff_verb
from ..verbs import info
from ..verbs import restore as restore_verb
from . import facts, show, work
from .screen import BOLD, GREEN, RED
from .session import BUSY, DONE, INCOMPLETE, REFUSED, Session
from .watch import Watch

# --- what only reads


def list_(session: Session) -> int:
    """All updates."""
    store = session.open()
    found = facts.updates(session.target(""), store)
    session.screen.lines(show.updates(found) if found else [f"Nothing was shadowed in {store.path} yet."])
    return session.document(DONE, **_where(session, store), updates=found)


def status(session: Session) -> int:
    """One update, the one that was named or the one that most likely matters; what runs now; what to type next."""
    store = session.open()
    found = facts.updates(session.target(""), store)
    wanted = session.update("status").update_id if session.update_id else facts.current(found)
    one = next((each for each in found if each["update_id"] == wanted), None)
    if one and one["state"] != "damaged":
        one = {**one, **(info.info(session.target(one["update_id"])).details or {})}
    where = _where(session, store)
    _say_status(session, store, where["busy"], one, len(found))
    return session.document(DONE, **where, update=one, updates=len(found))


def _say_status(
    session: Session, store: Store, busy: Mapping[str, Any] | None, one: Mapping[str, Any] | None, known: int
) -> None:
    screen = session.screen
    screen.line(f"Host {store.host}, store {store.path}.")
    if busy:
        screen.line(f"Running now: {busy['text']}", BOLD)
    if one is None:
        screen.line("Nothing was shadowed here yet, so there is nothing to go back to.")
        return
    screen.lines(show.standing(one))
    if known > 1:
        screen.line(f"  all {known} updates: {session.tool} list")
    if busy:
        screen.line(f"Next: {session.tool} restore {one['update_id']}", BOLD)
        screen.line("      shows how far it is until it ends, and starts nothing beside it")
    else:
        screen.lines(show.next_command(session.tool, one))


def plan(session: Session) -> int:
    """The order of the way back."""
    update = session.update("plan")
    store = session.open()
    found = facts.way_back(store, update)
    session.screen.lines(show.plan(found))
    return session.document(DONE, **_where(session, store), **found)


def diff(session: Session) -> int:
    """What a restore would change."""
    update = session.update("diff")
    request = restore_verb.Request(names=tuple(session.options["resources"]), force=True)
    session.screen.line("Reading the shadows, and what is there now. Nothing is touched.")
    result = work.run(lambda: restore_verb.check(session.target(update.update_id), request))
    room = math.inf if session.options["all"] else diff_verb.SHOWN_BYTES
    told, changes = result.to_dict(), diff_verb.of(result.drifts, room)
    session.screen.lines(show.diff(told, changes))
    return session.document(DONE, **{key: told[key] for key in ("update_id", "host", "store", "state", "resources")},
                            diff=changes, notes=told["notes"])  # fmt: skip


def verify(session: Session) -> int:
    """Read the store back, or what one update needs of it."""
    store = session.open()
    updates = [session.update("verify")] if session.update_id else None
    what = f"what update {session.update_id} needs" if updates else "the whole store"
    session.screen.line(f"Reading {what} back. Nothing is touched.")
    found = work.run(lambda: store.verify(updates))
    for problem in found.problems:
        session.screen.line(human.clean(problem), RED)
    good = f"{human.count(found.contents, 'content')} ({human.size(found.bytes)}) are as their checksums say"
    bad = f"{human.count(len(found.problems), 'problem')}, see above; " if found.problems else ""
    session.screen.line(f"{bad}{good}.", RED if found.problems else GREEN)
    told = {key: value for key, value in vars(found).items() if key != "problems"}
    status_ = INCOMPLETE if found.problems else DONE
    return session.document(status_, **_where(session, store), **told, problems=list(found.problems))


# --- what changes something


def restore(session: Session) -> int:
    """Go back."""
    update = session.update("restore")
    options = session.options
    request = restore_verb.Request(
        names=tuple(options["resources"]),
        wave=options["wave"],
        max_attempts=options["max_attempts"],
        force=options["force"],
    )
    return _alone(session, update, lambda: _go_back(session, update, request))


def undo(session: Session) -> int:
    """Bring the failed state back."""
    update = session.update("undo")
    request = restore_verb.Request(undo=True, max_attempts=session.options["max_attempts"])
    return _alone(session, update, lambda: _go_back(session, update, request))


def commit(session: Session) -> int:
    """Declare the update good."""
    update = session.update("commit")

    def work_() -> int:
        target = session.target(update.update_id)
        commit_verb.check(target, None, None)  # what is refused is refused before anybody is asked
        details = info.info(target).details or {}
        if not session.agreed(show.commit_question(details)):
            return session.document(REFUSED, update_id=update.update_id, state=update.state, changed=False)
        told = work.run(lambda: commit_verb.commit(target, None, None)).to_dict()
        session.screen.line(f"Update {update.update_id} is committed.", GREEN)
        return session.document(DONE, **told)

    return _alone(session, update, work_)


def _go_back(session: Session, update: HostUpdate, request: restore_verb.Request) -> int:
    store = session.open()
    target = session.target(update.update_id)
    found = facts.way_back(store, update)
    names = [step["name"] for step in found["steps"] if not request.names or step["name"] in request.names]
    if _will_be_tried(update, request, names) and not _asked(session, update, request, found):
        return session.document(REFUSED, update_id=update.update_id, state=update.state, changed=False)
    rto = found["rto"]
    display = work.Display(
        session.screen, Watch(update, names), "" if request.undo else f" (predicted: {human.duration(rto[0])})"
    )
    told_target = replace(target, tell=display.tell)
    try:
        restored = work.run(lambda: restore_verb.restore(told_target, request), display)
    except work.Stopped as stopped:
        session.interrupted(stopped.number)
    told = {**restored.to_dict(), "undo": f"{session.tool} undo {update.update_id}" if restored.displaced else ""}
    session.screen.lines(["", *show.results(told)] if restored.results else [])
    _conclude(session, told, request)
    return session.document(INCOMPLETE if restored.bad else DONE, **told)


def _will_be_tried(update: HostUpdate, request: restore_verb.Request, names: list[str]) -> bool:
    """Whether it makes sense to ask: what the verb is going to refuse anyway, it refuses without a question."""
    if request.undo:
        return bool(update.displaced_rounds())
    return len(names) >= len(request.names) and (request.force or update.state != "committed")


def _asked(session: Session, update: HostUpdate, request: restore_verb.Request, found: Mapping[str, Any]) -> bool:
    one = {"update_id": update.update_id, "created": update.manifest().created}
    if request.undo:
        return session.agreed(show.undo_question(one))
    return session.agreed(show.restore_question(found, one, request.names))


def _conclude(session: Session, told: Mapping[str, Any], request: restore_verb.Request) -> None:
    screen, update_id = session.screen, told["update_id"]
    if "msg" in told:
        screen.line(human.clean(told["msg"]), RED)
        screen.line(f"Then: {session.tool} {session.command} {update_id}", BOLD)
        return
    seconds = human.duration(told["seconds"])
    if told["state"] == "rolled_back" and not request.undo:
        screen.line(f"Update {update_id} is rolled back: all resources of this host are as before it, verified. "
                    f"It took {seconds}.", GREEN)  # fmt: skip
        if told["displaced"]:
            screen.line(f"If that was wrong: {session.tool} undo {update_id}")
    elif told["state"] == "undone" and request.undo:
        screen.line(f"The failed state of update {update_id} is back. It took {seconds}.", GREEN)
        screen.line(f"To roll back again: {session.tool} restore {update_id}")
    else:
        screen.line(f"What was asked for is done in {seconds}; update {update_id} is {told['state']}.", GREEN)
        if request.names or request.wave is not None:
            screen.line(f"For the rest: {session.tool} restore {update_id}")


# --- beside another process


def _alone(session: Session, update: HostUpdate, call: Callable[[], int]) -> int:
    """What `call` returns; where another process is at work on this host, nothing but how far that is."""
    store = session.open()
    holder = store.locks.current()
    if holder is None:
        try:
            return call()
        except StoreLocked as locked:  # it began while somebody was asked
            holder = store.locks.current()
            if holder is None:
                return session.refuse(locked)
    try:
        return _beside(session, store, update, holder)
    except work.Stopped as stopped:
        session.interrupted(stopped.number, "The other process goes on. Nothing was started.")


def _beside(session: Session, store: Store, update: HostUpdate, holder: Holder) -> int:
    screen = session.screen
    screen.line(f"Another process is at work on this host: {holder}.", BOLD)
    if session.options["no_wait"]:
        screen.line("Nothing was started.")
        return session.document(BUSY, busy={**vars(holder), "text": str(holder)}, update_id=update.update_id)
    screen.line("Nothing is started beside it. This is how far it is; Ctrl-C leaves it at work.")
    other = store.update(holder.update_id) if work.is_way_back(holder) else update
    names = other.manifest().names if work.is_way_back(holder) else ()
    watch = Watch(other, names)
    watch.resume()
    work.follow(store, work.Display(screen, watch, ""))
    status_ = _after_other(session, other, holder)
    return session.document(
        status_, busy={**vars(holder), "text": str(holder)}, update_id=other.update_id, state=other.state
    )


def _after_other(session: Session, other: HostUpdate, holder: Holder) -> int:
    """Say how the other process left the update that it worked on; the exit status."""
    same = work.is_way_back(holder) and other.update_id == session.update_id
    if same and holder.verb == session.command:
        state = other.state
        if state == ("undone" if holder.verb == "undo" else "rolled_back"):
            session.screen.line(f"It has ended well: update {other.update_id} is {state}.", GREEN)
            return DONE
        session.screen.line(f"It has ended, and update {other.update_id} is {state}: "
                            f"{facts.MEANING.get(state, '')}.", RED)  # fmt: skip
        session.screen.line(f"Next: {session.tool} {session.command} {other.update_id}", BOLD)
        return INCOMPLETE
    session.screen.line("It has ended. Nothing was started; type the same command again.")
    return BUSY


# --- inside


def _where(session: Session, store: Store) -> dict[str, Any]:
    return {"host": session.host, "store": store.path, "busy": facts.busy(store)}
