# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of systemd: their files and drop-ins, whether they are enabled, and whether they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import canonical, pathset
from ..errors import SourceMissing, ValidationFailed
from ..pathset import PathSet
from ..resource import Interface, Option, Resource
from ..shadow import Claim, Shadow
from ..systemd import files
from ..systemd.manager import Manager, Unit, unit_claims
from .base import SERVICE, Change, Contents, Drift, Estimate, Outcome, Provider, Steps

METHOD = "in place"


class SystemdUnitProvider(Provider):
    """One unit, whatever there is of it: its own file and drop-ins wherever systemd looks for them, a packaged one in
    /usr/lib too; and the symlinks that enable, alias or mask it.

    Drop-ins of many units (service.d, shop-.service.d) and the links by which others hang on it (shop.service.wants)
    are not its own, nor is what a link in it leads to. data: `id`, its name without aliases; `enabled` and `active` in
    systemd's words, `sub` and `kind` (Type=); `places`, the directories of unit files; `set`, a PathSet.
    """

    type = "systemd_unit"
    capabilities = frozenset({SERVICE})
    interface = Interface(
        options={
            "unit": Option("str", "The unit with its suffix: shop.service, shop@1.service, shop.timer.", required=True),
            "scope": Option("str", "Whose manager runs it.", default="system", choices=("system", "user")),
            "timeout": Option("float", "Seconds that it may take to stop or to start.", default=120.0),
            "allow_missing": Option("bool", "That there is no such unit is a state too.", default=False),
        },
        query_options={
            "pattern": Option("str", "Units to look for, such as shop-*.service.", required=True),
            "scope": Option("str", "Whose manager runs them.", default="system", choices=("system", "user")),
        },
    )

    def query(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Loaded units and unit files that match, without aliases and templates. Raises Unsupported."""
        scope = options["scope"]
        units = Manager(self.context, f"query {options['pattern']}", scope).find(options["pattern"])
        found = [{"name": files.resource_name(unit), "unit": unit, "scope": scope} for unit in units]
        return sorted(found, key=lambda one: one["name"])

    def estimate(self, resource: Resource) -> Estimate:
        """Size of its files. Raises SourceMissing, SourceUnreadable, Unsupported."""
        manager = self._manager(resource)
        unit = manager.look(resource.options["unit"])
        _require_loaded(resource, unit)
        return pathset.estimate_paths(files.find(manager.places(), unit.id), resource.name)

    def create(self, resource: Resource, previous: Shadow | None, contents: Contents) -> Shadow:
        """Keep its files and links, and how it is. Waits a little while it starts or stops. Raises as `estimate`."""
        manager = self._manager(resource)
        unit = manager.settle(resource.options["unit"], min(10.0, resource.options["timeout"]))
        _require_loaded(resource, unit)
        return self._shadow(resource, manager, unit, contents)

    def displace(self, shadow: Shadow, contents: Contents) -> Shadow:
        """As `create`; that it is gone, or starts over and over, is a state too."""
        manager = self._manager(shadow.resource)
        return self._shadow(shadow.resource, manager, manager.look(shadow.data["id"]), contents)

    def claims(self, resource: Resource) -> Sequence[Claim]:
        """It provides its names, and uses what its directives name."""
        return unit_claims(self._manager(resource), resource.options["unit"])

    def verify(self, shadow: Shadow, contents: Contents) -> int:
        """Read every file of it. Raises StoreCorrupt, ContentMissing."""
        return pathset.verify(shadow, contents)

    def drift(self, shadow: Shadow, contents: Contents) -> Drift:
        """Its state in systemd's words, then files and links with their texts."""
        manager = self._manager(shadow.resource)
        unit = manager.look(shadow.data["id"])
        changes = []
        if unit.enabled != shadow.data["enabled"]:
            changes.append(Change("replace", f"{unit.id}: enabled", unit.enabled, shadow.data["enabled"]))
        if _differs(unit, shadow):
            changes.append(Change("replace", f"{unit.id}: active", unit.active, shadow.data["active"]))
        paths = PathSet.load(shadow.data["set"]).drift(contents, shadow.name, self._gone(shadow))
        return Drift(len(changes) + paths.total, (*changes, *paths.changes)[:100], paths.bytes)

    def stop(self, shadow: Shadow) -> bool:
        """Stop it when it runs, or tries to. Raises RestoreFailed."""
        manager = self._manager(shadow.resource)
        runs = manager.look(shadow.data["id"]).runs is not False
        if runs:
            manager.change("stop", shadow.data["id"], shadow.resource.options["timeout"])
        return runs

    def start(self, shadow: Shadow) -> None:
        """Start it when it ran when it was shadowed, and does not run. Raises RestoreFailed."""
        manager = self._manager(shadow.resource)
        if _shadowed(shadow).runs and manager.look(shadow.data["id"]).runs is not True:
            self._start(manager, shadow, "start")

    def restore(self, shadow: Shadow, contents: Contents, steps: Steps) -> Outcome:
        """Files and links back, then as much of reload, stop, start and restart as that takes.

        What ran by files that are replaced is restarted; the steps remember which run that was. Raises RestoreFailed,
        NoSpace.
        """
        manager = self._manager(shadow.resource)
        unit, before = manager.look(shadow.data["id"]), _shadowed(shadow)
        changed = 0
        if before.runs is False and unit.runs is not False:
            self.stop(shadow)  # by the definition that started it
            changed += 1
        outcome = self._restore_files(manager, shadow, unit, contents, steps)
        unit = manager.look(unit.id)
        restart = steps.done(f"restart {unit.invocation}")
        if before.runs and (restart or not unit.runs):
            self._start(manager, shadow, "restart" if restart else "start")
            changed += 1
        elif unit.active == "failed" != before.active:
            manager.change("reset-failed", unit.id, shadow.resource.options["timeout"])
        return Outcome(outcome.items + changed, outcome.bytes, METHOD)

    def validate(self, shadow: Shadow, contents: Contents) -> None:
        """Compare all, with patience for what still starts. Raises ValidationFailed."""
        manager, before = self._manager(shadow.resource), shadow.data["active"]
        patience = 0.0 if before == "activating" else shadow.resource.options["timeout"]
        unit = manager.settle(shadow.data["id"], patience)
        drift = self.drift(shadow, contents)
        if drift:
            problem = f"{_words(drift.changes[0])}{f', and {drift.total - 1} more' if drift.total > 1 else ''}"
        elif before == "active" and not unit.steady:
            problem = f"{unit.id} was active, and is {unit.active} ({unit.sub}) now and again only"
        else:
            return
        remedy = f"Look at `journalctl -u {unit.id}`, then restore again."
        raise ValidationFailed(name=shadow.name, problem=problem, remedy=remedy)

    def _restore_files(self, manager: Manager, shadow: Shadow, unit: Unit, contents: Contents, steps: Steps) -> Outcome:
        """Write what differs, and have systemd read it. What that calls for is noted before: later nothing shows it."""
        kept, gone = PathSet.load(shadow.data["set"]), self._gone(shadow)
        drift = kept.drift(contents, shadow.name, gone)
        rewritten = [change.what for change in drift.changes if change.action != "metadata"]
        if any(files.is_definition(path, unit.id) for path in rewritten):
            steps.note(f"restart {unit.invocation}")
        if drift:
            steps.note("reload")
        outcome = kept.restore(contents, shadow.name, gone)
        files.remove_empty(gone)
        if drift or steps.done("reload") or manager.look(unit.id).stale:
            manager.reload(shadow.resource.options["timeout"])
        return outcome

    def _start(self, manager: Manager, shadow: Shadow, verb: str) -> None:
        unit, timeout = shadow.data["id"], shadow.resource.options["timeout"]
        manager.change("reset-failed", unit, timeout)  # what failed too often would be refused
        manager.change(verb, unit, timeout)

    def _shadow(self, resource: Resource, manager: Manager, unit: Unit, contents: Contents) -> Shadow:
        places = manager.places()
        kept = pathset.capture_paths(files.find(places, unit.id), contents, resource.name)
        state = {"id": unit.id, "enabled": unit.enabled, "active": unit.active, "sub": unit.sub, "kind": unit.kind}
        return Shadow(
            resource=resource,
            method="copy",
            created=self.context.now(),
            seconds=0.0,
            bytes=kept.bytes,
            items=kept.items,
            stored_bytes=0,
            checksum=canonical.digest({"enabled": unit.enabled, "runs": unit.runs, "paths": kept.state}),
            roots=kept.roots,
            data={**state, "places": places, "set": kept.data},
        )

    def _manager(self, resource: Resource) -> Manager:
        return Manager(self.context, resource.name, resource.options["scope"])

    def _gone(self, shadow: Shadow) -> list[str]:
        """Paths of the unit that are there now and were not."""
        return sorted(set(files.find(shadow.data["places"], shadow.data["id"])) - set(shadow.data["set"]["paths"]))


def _words(change: Change) -> str:
    if change.before == change.after or "\n" in change.before + change.after:
        return f"{change.what} differs"
    return f"{change.what} is {change.before or 'not there'} and was {change.after or 'not there'}"


def _require_loaded(resource: Resource, unit: Unit) -> None:
    if unit.load == "not-found" and not resource.options["allow_missing"]:
        raise SourceMissing(name=resource.name, path=unit.id)


def _shadowed(shadow: Shadow) -> Unit:
    data = shadow.data
    return Unit(data["id"], "", data["enabled"], data["active"], data["sub"], data["kind"])


def _differs(unit: Unit, shadow: Shadow) -> bool:
    """Whether it runs, and did not, or the other way round. What was on its way then may be anywhere now."""
    before = _shadowed(shadow).runs
    return before is not None and unit.runs is not before
