# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back on one host: verify everything, stop what depends, keep the failed state, restore wave by wave,
validate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from .. import version
from ..effort.exert import LOW, TIERS, Effort, exerted
from ..errors import ChangedBeforeRestore, InputError, ResourceUnknown, StateRefused, StoreError, UmbraError
from ..kernel import selected
from ..kernel.selected import NATIVE, PURE
from ..plan import Plan, Step, host_plan
from ..providers.base import CHANGE, SERVICE, Drift, Outcome, Provider
from ..shadow import Manifest, Shadow
from ..store import safety
from . import diff, hold, survivors, switch
from .attempts import Attempt, Attempts
from .outcome import FAILED, RESTORED, UNCHANGED, UNTOUCHED, WOULD, Restored, Result
from .rounds import Round
from .run import Module, Target, Work, looking, working

T = TypeVar("T")
WORKERS = 4
LOOKED_MOST = 1_000_000  # items of which is known, between comparing and keeping, how they were
KEPT_AGAIN = 3  # so often a failed state that goes on changing is kept anew


@dataclass(frozen=True)
class Request:
    """What to bring back. `names` empty: everything; `wave` None: all waves, 0: only verify, stop and set aside, n:
    that one.

    A resource that fails is tried `max_attempts` times in all, `retry_delay` seconds after the first, then twice that.
    `undo` goes back to what the last restores displaced, or, with `round`, to what that one did. `unmet` are resources
    (host:name) of other hosts that failed. `force` restores an update that was committed.
    """

    names: tuple[str, ...] = ()
    wave: int | None = None
    max_attempts: int = 3
    retry_delay: float = 0.0
    undo: bool = False
    round: int | None = None
    force: bool = False
    unmet: tuple[str, ...] = ()


def from_module(target: Target, module: Module) -> dict[str, Any]:
    """The verb as module umbra.rollback.shadow_restore calls it."""
    params = module.params
    request = Request(
        names=tuple(params["resources"]),
        wave=params["wave"],
        max_attempts=params["max_attempts"],
        retry_delay=params["retry_delay"],
        undo=params["undo"],
        round=params["round"],
        force=params["force"],
        unmet=tuple(params["unmet"]),
    )
    restored = (check if module.check_mode else restore)(target, request)
    result = switch.credit(target.open().update(target.update_id), restored.to_dict())
    return {**result, "diff": diff.of(restored.drifts)} if module._diff else result


def restore(target: Target, request: Request) -> Restored:
    """Bring the resources back; one that fails is in the result, and does not stop those that don't need it.

    Raises StateRefused, ManifestMissing, ResourceUnknown, StoreLocked, and StoreCorrupt or ContentMissing when a shadow
    that is needed is damaged: then nothing was changed.
    """
    verb = "undo" if request.undo else "restore"
    with working(target, verb, saves=False, give_back=hold.release) as work:
        return bring_back(work, request, target.plan)


def bring_back(work: Work, request: Request, plan: Plan | None = None) -> Restored:
    """As `restore`, for who holds the host's lock already; `plan` is kept. Once all is back, a dead-man switch has
    nothing to do.
    """
    job = _Restore(work, request)  # it refuses what makes no sense, before anything is given back
    hold.release(work.update)  # from here on there is room, where the update has left none
    if plan is not None:
        work.update.save_plan(plan)
    restored = job.run()
    if restored.state in ("rolled_back", "undone"):
        switch.stand_down(work, work.update, f"the update is {restored.state.replace('_', ' ')}")
    return restored


def check(target: Target, request: Request) -> Restored:
    """What `restore` would change, resource by resource; all is read, nothing is written.

    Raises what `restore` does.
    """
    begun = time.monotonic()
    with looking(target) as work:
        job = _Restore(work, request)
        job.verify()
        job.steps = [step for step in job.steps if request.wave in (None, step.wave)]
        drifts = job.compare()
        results = tuple(
            Result(
                s.name, job.shadows[s.name].type, s.wave, WOULD, items=drifts[s.name].total, bytes=drifts[s.name].bytes
            )
            if drifts[s.name]
            else Result(s.name, job.shadows[s.name].type, s.wave, UNCHANGED)
            for s in job.steps
        )
        seconds = time.monotonic() - begun
        update = work.update
        return Restored(
            update.update_id,
            update.host,
            work.store.path,
            update.state,
            results,
            job.plan.waves,
            seconds,
            drifts=drifts,
            notes=(*job.notes, *work.replicas.troubles),
            repaired=tuple(work.repair.done),
        )


class _Restore:
    """One call of restore: the round it works in, its shadows, and the steps it is to take."""

    def __init__(self, work: Work, request: Request) -> None:
        self.work, self.request, self.update = work, request, work.update
        self._refuse_state()
        self.round = Round(self.update, request.undo, request.round)
        self.manifest = self._manifest()
        self.plan = self._plan()
        wanted = self._wanted()
        secrets = self.update.secrets()
        self.shadows = {s.name: work.with_secrets(s, secrets) for s in self.manifest.shadows}
        self.steps = [step for step in self.plan.steps if step.name in wanted]
        self.notes = self._unsafe()
        self.ended: list[dict[str, Any]] = []
        self.drifts: dict[str, Drift] = {}
        self._keeping = threading.Lock()  # for what follows: the manifest of the failed state
        self._kept_before: Manifest | None = None
        self._looked: dict[str, Provider] = {}  # what has compared a resource, and may go on with that to keep it
        self._tiers = hold.tiers(self.update)
        self._ended = threading.Event()  # somebody stopped this run: no further attempts

    # --- what is asked for

    def _refuse_state(self) -> None:
        state = self.update.state
        if state == "missing":
            self.update.manifest()  # raises ManifestMissing, which names the updates that are there
        if self.request.round is not None and not self.request.undo:
            raise InputError(
                where="round", problem="it chooses what to undo", remedy="Give `undo: true` with it, or leave it out."
            )
        if state == "committed" and not self.request.force:
            raise self._refused("rolled back", "All written since would be set aside; give `force: true` to do it.")

    def _unsafe(self) -> list[str]:
        """A note, where others could have exchanged the store: to refuse now would take the way back away."""
        path = self.work.store.path
        with suppress(OSError):  # it is but a note
            if problem := safety.look(path):
                return [f"The store {path} is not safe: {problem}, and could have put another in its place."]
        return []

    def _refused(self, verb: str, remedy: str) -> StateRefused:
        update = self.update
        return StateRefused(update_id=update.update_id, host=update.host, state=update.state, verb=verb, remedy=remedy)

    def _manifest(self) -> Manifest:
        if not self.request.undo:
            return self.update.manifest()
        manifest = self.round.failed_state()
        if manifest is None and self.request.round is not None:
            known = ", ".join(map(str, self.update.displaced_rounds())) or "none"
            raise self._refused(
                "undone", f"Round {self.request.round} has set nothing aside that is kept; those that have: {known}."
            )
        if manifest is None:
            raise self._refused("undone", "No restore has set anything aside, so there is nothing to bring back.")
        return manifest

    def _plan(self) -> Plan:
        names = set(self.manifest.names)
        plan = self.work.plan
        if plan is None or not names <= {step.name for step in plan.steps}:
            plan = host_plan(self.update.update_id, self.update.host, self.manifest.shadows)
        return replace(plan, steps=tuple(step for step in plan.steps if step.name in names))

    def _wanted(self) -> set[str]:
        known = self.manifest.names
        for name in self.request.names:
            if name not in known:
                update = self.update
                raise ResourceUnknown(name=name, update_id=update.update_id, host=update.host, known=", ".join(known))
        return set(self.request.names or known)

    # --- in order

    def run(self) -> Restored:
        """All waves, or the one that was asked for; the failed state is kept before the first change."""
        begun = time.monotonic()
        wave, was = self.request.wave, self.update.state
        if not (wave and self.round.prepared([step.name for step in self.steps])):
            with exerted(Effort(max(self._tiers.values(), key=TIERS.index, default=LOW))):
                try:
                    self._prepare()
                finally:
                    self._let_go()
        before = self.round.results if wave else {}
        numbers = range(1, self.plan.waves + 1) if wave is None else range(wave, wave + 1)
        done: dict[str, Result] = {}
        for number in numbers:
            done.update(self._wave(number, {**before, **done}))
        self._learn(done.values())
        if wave is None or wave >= self.plan.waves:
            self._end()
        if wave is None and was == self.update.state == "rolled_back" and not self.round.drifted:
            self.notes.append(f"Update {self.update.update_id} was rolled back already, and nothing has changed since.")
        return self._restored(tuple(done.values()), time.monotonic() - begun)

    def _prepare(self) -> None:
        """Everything that has to be true before the first change is made."""
        self.verify()
        if not self.request.undo:
            self._end_survivors()
        self.drifts = self.compare()
        drifted = {name for name, drift in self.drifts.items() if drift} | self.round.drifted
        stops = self._to_stop(drifted)
        names = [step.name for step in self.steps]
        self.round.begin(names, sorted(drifted & set(names)), [shadow.name for shadow in stops])
        changing = [self.shadows[name] for name in names if name in drifted]
        services = [shadow for shadow in changing if self._is_service(shadow)]
        undisplaced = self._displace(services)  # the state of a service is what it is while it runs
        if stops:
            self._let_go()  # a service that stops writes what it still has
        self._stop(stops)
        undisplaced.update(self._displace([shadow for shadow in changing if shadow not in services]))
        self.round.prepare(undisplaced)

    def _let_go(self) -> None:
        """Nobody goes on with what was found when all was compared."""
        for provider in self._looked.values():
            provider.let_go()
        self._looked.clear()

    def _end_survivors(self) -> None:
        """End what still runs of the update. Raises Survivor when that can't be."""
        update = self.update
        self.work.context.progress.phase("ending what still runs of the update")
        one, problem = switch.readable(update)
        if problem:
            self.notes.append(f"What the dead-man switch is armed with can't be read: {problem}")
        try:
            found = survivors.end(update.update_id, update.host, one, self.work.store.path)
        except FileNotFoundError:
            self.notes.append("There is no /proc, so it is not known whether anything of the update still runs.")
            return
        self.ended = [one.to_dict() for one in found]
        if found:
            update.journal.append("survivors-ended", processes=self.ended)

    def verify(self) -> None:
        """Read every shadow that is needed against its checksums; what is damaged is taken from a replica.

        Raises StoreCorrupt, ContentMissing.
        """
        for step in self.steps:
            shadow = self.shadows[step.name]
            self.work.context.progress.phase(f"verifying the shadow of {shadow.name}")
            try:
                self._provider(shadow).verify(shadow, self.work.contents)
            except StoreError:
                if not self.work.replicas.paths:
                    raise
                self._mend(shadow)
        self.notes += [repaired.text for repaired in self.work.repair.done]

    def _mend(self, shadow: Shadow) -> None:
        self.work.context.progress.phase(f"mending the shadow of {shadow.name} from a replica")
        self.work.repair.contents(shadow.name, shadow.roots)
        if not self.work.dry:
            self._provider(shadow).verify(shadow, self.work.contents)

    def compare(self) -> dict[str, Drift]:
        """What differs, by name. What is too broken to be compared counts as different."""
        found = _parallel(self._drift, [self.shadows[step.name] for step in self.steps])
        return {step.name: drift for step, drift in zip(self.steps, found)}

    def _drift(self, shadow: Shadow) -> Drift:
        self.work.context.progress.phase(f"comparing {shadow.name} with its shadow")
        provider = self._provider(shadow)
        try:
            drift = provider.drift(shadow, self.work.contents)
            few = sum(one.items for one in self.manifest.shadows) <= LOOKED_MOST
            if drift and few and not self.work.dry:
                self._looked[shadow.name] = provider
            return drift
        except (UmbraError, OSError) as error:
            self.notes.append(f"{shadow.name} can't be compared with its shadow, so it counts as changed: {error}")
            return Drift(1)
        finally:
            if shadow.name not in self._looked:
                provider.let_go()

    # --- services that need what is restored

    def _provider(self, shadow: Shadow) -> Provider:
        return self.work.provider(shadow.type)

    def _is_service(self, shadow: Shadow) -> bool:
        return SERVICE in self._provider(shadow).capabilities

    def _to_stop(self, drifted: set[str]) -> list[Shadow]:
        """Services that need something that will change, here or on another host; those that need most come first."""
        affected = self.plan.dependents(sorted(drifted)) | {s.name for s in self.plan.steps if s.needs_remote}
        names = [step.name for step in reversed(self.plan.steps) if step.name in affected]
        return [self.shadows[name] for name in names if self._is_service(self.shadows[name])]

    def _stop(self, services: Iterable[Shadow]) -> None:
        for shadow in services:
            try:
                self._provider(shadow).stop(shadow)
            except (UmbraError, OSError) as error:
                self.notes.append(f"{shadow.name} was not stopped while what it needs is restored: {error}")

    def _start_others(self, results: Mapping[str, Result]) -> None:
        """Start what was stopped and is not itself restored, unless what it needs failed."""
        for name in reversed(self.round.stopped):
            if name in results:
                continue
            step = self.plan.step(name)
            if bad := [need for need in (step.needs if step else ()) if need in results and not results[need].ok]:
                self.notes.append(f"{name} is left stopped, because {', '.join(bad)} failed.")
                continue
            try:
                self._provider(self.shadows[name]).start(self.shadows[name])
            except (UmbraError, OSError) as error:
                self.notes.append(f"{name} was stopped for the restore and could not be started again: {error}")

    # --- what is set aside

    def _displace(self, shadows: Sequence[Shadow]) -> dict[str, str]:
        """Keep the failed state of `shadows`, and publish it; the names of those that can't be kept, with the
        reason."""
        before = self.update.displaced(self.round.number)
        have = before.shadows if before else ()
        new = [shadow for shadow in shadows if shadow.name not in {one.name for one in have}]
        if not new:
            return {}
        kept = _parallel(self._keep, new)
        shadows_kept = (*have, *(one for one in kept if isinstance(one, Shadow)))
        manifest = Manifest(self.update.update_id, self.update.host, time.time(), shadows_kept, version.ENGINE)
        self.update.save_displaced(self.round.number, manifest)
        return {shadow.name: one for shadow, one in zip(new, kept) if isinstance(one, str)}

    def _kept(self, name: str) -> Shadow | None:
        """The shadow of the failed state of a resource."""
        with self._keeping:
            if self._kept_before is None:
                self._kept_before = self.update.displaced(self.round.number)
            shadows = self._kept_before.shadows if self._kept_before else ()
        return next((one for one in shadows if one.name == name), None)

    def _keep_again(self, shadow: Shadow) -> bool:
        """Keep the failed state as it is now, and whether that was done: not when it is partly restored already, for
        then what was kept is the better one, and the resource stays as it is."""
        if self.round.steps(shadow.name, None).done(CHANGE):
            return False
        kept = self._keep(shadow)
        if isinstance(kept, str):
            return False
        with self._keeping:
            manifest = self.update.displaced(self.round.number)
            if manifest is None:
                return False
            shadows = tuple(kept if one.name == shadow.name else one for one in manifest.shadows)
            try:
                self.update.save_displaced(self.round.number, replace(manifest, shadows=shadows))
            except (UmbraError, OSError) as error:
                self.notes.append(f"The failed state of {shadow.name} could not be kept anew: {error}")
                return False
            self._kept_before = replace(manifest, shadows=shadows)
            return True

    def _keep(self, shadow: Shadow) -> Shadow | str:
        self.work.context.progress.phase(f"keeping the failed state of {shadow.name}")
        begun = time.monotonic()
        compared, contents = self._looked.pop(shadow.name, None), self.work.contents
        try:
            if compared is not None:
                kept = compared.displace_compared(shadow, contents)
            else:
                kept = self._provider(shadow).displace(shadow, contents)
        except (UmbraError, OSError) as error:
            return f"its failed state could not be kept, so it was left alone: {error}"
        public = next(one.resource for one in self.manifest.shadows if one.name == shadow.name)
        return replace(kept, resource=public, seconds=time.monotonic() - begun)

    # --- waves

    def _wave(self, number: int, before: Mapping[str, Result]) -> dict[str, Result]:
        done: dict[str, Result] = {}
        ready: list[Step] = []
        for step in (step for step in self.steps if step.wave == number):
            settled = self._settled(step, before)
            if settled is None:
                ready.append(step)
            else:
                done[step.name] = settled
        done.update({result.name: result for result in self._all(ready)})
        for result in done.values():
            self.round.end_one(result)
        return done

    def _settled(self, step: Step, before: Mapping[str, Result]) -> Result | None:
        """The result of a resource that is not to be touched, or None."""
        result = Result(step.name, self.shadows[step.name].type, step.wave, UNTOUCHED)
        if reason := self.round.undisplaced.get(step.name):
            return replace(result, action=FAILED, reason=reason)
        bad = [need for need in step.needs if need in before and not before[need].ok]
        bad += [need for need in step.needs_remote if need in self.request.unmet]
        if bad:
            stopped = "; it was stopped, and is left so" if step.name in self.round.stopped else ""
            return replace(result, reason=f"it needs {', '.join(bad)}{stopped}")
        if step.name not in self.round.drifted and step.name not in self.round.stopped:
            return replace(result, action=UNCHANGED, validation="ok")
        return None

    def _all(self, steps: Sequence[Step]) -> list[Result]:
        with ThreadPoolExecutor(max_workers=min(WORKERS, max(1, len(steps)))) as pool:
            going = [pool.submit(self._one, step) for step in steps]
            try:
                return [one.result() for one in going]
            except BaseException:
                self._ended.set()
                raise

    def _one(self, step: Step) -> Result:
        """Restore and validate one resource; each further attempt is given more than the one before."""
        shadow, most, again = self.shadows[step.name], max(1, self.request.max_attempts), KEPT_AGAIN
        attempts = Attempts(most, self.request.retry_delay, self._tiers.get(step.name, LOW), self._methods(shadow))
        begun = time.monotonic()
        while (attempt := attempts.next()) and self._wait(step, attempt, attempts):
            with exerted(attempt.effort) as granted:
                attempts.began(attempt, granted)
                try:
                    outcome = self._try(step, attempt)
                except (UmbraError, OSError) as error:
                    free = bool(again) and isinstance(error, ChangedBeforeRestore) and self._keep_again(shadow)
                    again -= free
                    attempts.failed(attempt, str(error), free)
                    continue
            changed = bool(outcome.items) or step.name in self.round.stopped
            return Result(
                step.name, shadow.type, step.wave, RESTORED if changed else UNCHANGED, attempt.number, outcome.items,
                outcome.bytes, time.monotonic() - begun, "ok", outcome.method, attempts.escalations, outcome.notes,
            )  # fmt: skip
        return Result(
            step.name, shadow.type, step.wave, FAILED, len(attempts.failures), 0, 0, time.monotonic() - begun, "failed",
            "", attempts.escalations, (), attempts.why,
        )  # fmt: skip

    def _methods(self, shadow: Shadow) -> Sequence[str]:
        methods = self._provider(shadow).methods(shadow)
        return (NATIVE, PURE) if len(methods) == 1 and selected.kernel() else methods

    def _wait(self, step: Step, attempt: Attempt, attempts: Attempts) -> bool:
        """Say what comes, and wait for it; whether it still is to come."""
        if attempt.number > 1:
            of = f"attempt {attempt.number} of {attempts.of} for {step.name}"
            pause = f" in {attempt.wait:g} s" if attempt.wait else ""
            self.work.context.progress.phase(f"{of}{pause}: {attempt.words}")
        return not self._ended.wait(attempt.wait)

    def _try(self, step: Step, attempt: Attempt) -> Outcome:
        """Restore and validate. Raises UmbraError, OSError."""
        shadow, contents = self.shadows[step.name], self.work.contents
        context = replace(self.work.context, patience=attempt.effort.patience, method=attempt.method)
        provider = replace(self.work, context=context).provider(shadow.type)
        where = f"{shadow.name}, wave {step.wave} of {self.plan.waves}"
        if attempt.number > 1:
            where += f", attempt {attempt.number}"
        with selected.without() if attempt.method == PURE else nullcontext():
            context.progress.phase(f"restoring {where}")
            outcome = provider.restore(shadow, contents, self.round.steps(step.name, self._kept(step.name)))
            context.progress.phase(f"validating {where}")
            provider.validate(shadow, contents)
        return outcome

    # --- the end

    def _end(self) -> None:
        results = self.round.results
        self._start_others(results)
        partial = not set(self.manifest.names) <= set(results)
        self.round.end(ok=all(result.ok for result in results.values()), partial=partial)
        self.work.replicas.follow(self.update)

    def _learn(self, results: Iterable[Result]) -> None:
        history = self.work.store.history()
        for result in results:
            if result.attempts:
                history.append(self._lesson(result))

    def _lesson(self, result: Result) -> dict[str, Any]:
        shadow = self.shadows[result.name]
        return {
            "time": time.time(),
            "verb": "restore",
            "update_id": self.update.update_id,
            "name": result.name,
            "type": result.type,
            "method": result.method or shadow.method,
            "bytes": shadow.bytes,
            "items": shadow.items,
            "seconds": result.seconds,
            "ok": result.ok,
            "changed": result.action == RESTORED,
            "attempts": result.attempts,
        }

    def _restored(self, results: tuple[Result, ...], seconds: float) -> Restored:
        update = self.update
        displaced = update.displaced_path(self.round.number) if self.round.number in update.displaced_rounds() else None
        stopped = self.round.stopped
        return Restored(
            update.update_id, update.host, self.work.store.path, update.state, results, self.plan.waves, seconds,
            displaced, self.drifts, stopped, (*self.notes, *self.work.replicas.troubles), self.round.number,
            self.request.undo, tuple(self.work.repair.done), tuple(self.ended),
        )  # fmt: skip


def _parallel(call: Callable[[Any], T], items: Sequence[Any]) -> list[T]:
    with ThreadPoolExecutor(max_workers=min(WORKERS, max(1, len(items)))) as pool:
        return list(pool.map(call, items))
