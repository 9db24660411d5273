# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong, one class each: the docstring is the message, the code is in the operator's guide."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar


class UmbraError(Exception):
    """{problem}."""

    code: ClassVar[str] = "internal"

    def __init__(self, **facts: Any) -> None:
        """Fill the class's docstring with `facts`; every name in its braces has to be given."""
        self.facts = facts
        template = inspect.cleandoc(type(self).__doc__ or "")
        super().__init__(" ".join(template.format(**facts).split("\n")))


# --- what the user gave -------------------------------------------------------------------------------------------


class InputError(UmbraError):
    """{where}: {problem}. {remedy}"""

    code = "input"


class ResourceInvalid(InputError):
    """{where}: {problem}. {remedy}"""

    code = "resource-invalid"


class ResourcesFileInvalid(InputError):
    """{where}: {problem}. {remedy}"""

    code = "resources-file-invalid"


class UpdateIdInvalid(InputError):
    """update_id {update_id!r} is not a valid name: use 1 to 128 letters, digits, '.', '_' or '-', and begin with a
    letter or a digit."""

    code = "update-id-invalid"


class ResourceUnknown(InputError):
    """Resource {name!r} is not among the shadows of update {update_id} on {host}; it has: {known}."""

    code = "resource-unknown"


class NotShadowedHere(InputError):
    """This run has no shadows of update {update_id} for {hosts}: run shadow_create, or shadow_info for shadows of
    an earlier run, on every host before rollback_analyze."""

    code = "not-shadowed-here"


# --- the store ----------------------------------------------------------------------------------------------------


class StoreError(UmbraError):
    """The store {path} can't be used: {problem}. {remedy}"""

    code = "store"


class StoreMissing(StoreError):
    """There is no store at {path}: nothing was ever shadowed there. Check `store`, and whether its file system is
    mounted."""

    code = "store-missing"


class StoreUnsafe(StoreError):
    """The store {path} would not be safe there: {problem}, and could put another store in its place. Nothing was
    changed. Name a `store` below directories that are root's and that only root may write to, as /var/lib is."""

    code = "store-unsafe"


class StoreFormatUnknown(StoreError):
    """{path} says format {found!r}, and this release knows {known!r}: use the release of umbra.rollback that wrote
    it."""

    code = "store-format-unknown"


class StoreCorrupt(StoreError):
    """{path} is damaged: {problem}. Nothing was changed. Name `replicas` that have it, restore this file from a copy of
    the store, or leave the resource out with `resources`."""

    code = "store-corrupt"


class JournalDamaged(StoreCorrupt):
    """{path} is damaged: {problem}. So nobody knows how far the last restore came, and nothing was changed. Name
    `replicas` that have this file; without any, move it away and run again: all that is there now is set aside
    first."""

    code = "journal-damaged"


class ManifestForged(StoreCorrupt):
    """{path} was not written with this `store_key`: {problem}. Either the key is another one, or somebody edited the
    file. Nothing was changed. Give the right key, or bring the file back from a replica."""

    code = "manifest-forged"


class StoreKeyMissing(StoreError):
    """{path} was written with a `store_key`. Nothing was changed. Give that key."""

    code = "store-key-missing"


class ReplicaUnusable(StoreError):
    """The replica {path} can't be used: {problem}. {remedy}"""

    code = "replica-unusable"


class ContentMissing(StoreError):
    """Content {digest} is missing from the store {path}. Nothing was changed. Name `replicas` that have it."""

    code = "content-missing"


class StoreLocked(StoreError):
    """{path} is in use by {holder}; waited {waited:.0f} s. Wait for it to end, or look at that process, then run
    again."""

    code = "store-locked"


class NoSpace(StoreError):
    """{where} has {free} bytes free, and {what} needs {needed}. Free some space, or name another `store`; nothing
    was changed."""

    code = "no-space"


class ManifestMissing(StoreError):
    """Update {update_id} was never shadowed on {host} (no manifest in {path}); known updates: {known}."""

    code = "manifest-missing"


class ManifestExists(StoreError):
    """Update {update_id} was already shadowed on {host} at {created}, with other resources, and is still open.
    Commit it, roll it back, or choose another update_id; the shadows are kept as they are."""

    code = "manifest-exists"


class StateRefused(StoreError):
    """Update {update_id} on {host} is {state}, so it can't be {verb}. {remedy}"""

    code = "state-refused"


class WatchdogFired(StoreError):
    """The dead-man switch of {host} fired at {when}, because {why}; update {update_id} is {state} there, so it can't
    be {verb}. {remedy}"""

    code = "watchdog-fired"


class WatchdogNotArmed(StoreError):
    """No dead-man switch is armed for update {update_id} on {host}, so there is no deadline to extend. Arm it with
    `state: armed`."""

    code = "watchdog-not-armed"


class WatchdogNotStarted(StoreError):
    """The dead-man switch of update {update_id} on {host} could not be started: {problem}. Nothing is armed; mend it
    and arm again, or go on without (guard_deadline: 0)."""

    code = "watchdog-not-started"


class Survivor(UmbraError):
    """Update {update_id} still runs on {host} and can't be ended: {left}. Nothing was changed. End it by hand (a
    process in state D waits for a disk or a mount), then run again."""

    code = "survivor"


# --- the kernel ---------------------------------------------------------------------------------------------------


class NoScratch(UmbraError):
    """No private directory can be made in {path} ({problem}). Nothing was changed. Free space there, or have TMPDIR
    name another directory."""

    code = "no-scratch"


class KernelUnavailable(UmbraError):
    """The native kernel was asked for (kernel: native) and can't be used on this host: {problem}. Set `kernel: auto`
    to go on with the pure one, which does the same, slower."""

    code = "kernel-unavailable"


# --- resources and providers --------------------------------------------------------------------------------------


class ProviderError(UmbraError):
    """{name}: {problem}. {remedy}"""

    code = "provider"


class Unsupported(ProviderError):
    """{name}: {problem}. {remedy}"""

    code = "unsupported"


class ToolMissing(ProviderError):
    """{name}: the program or library {tool} is not on this host. Install {package}."""

    code = "tool-missing"


class SourceMissing(ProviderError):
    """{name}: {path} does not exist. Correct the path, or set `allow_missing: true` when the update is to create
    it."""

    code = "source-missing"


class SourceUnreadable(ProviderError):
    """{name}: {path} can't be read: {problem}. Run with `become: true`, or exclude it."""

    code = "source-unreadable"


class ShadowFailed(ProviderError):
    """{name}: could not be shadowed: {problem}. {remedy}"""

    code = "shadow-failed"


class Unstable(ProviderError):
    """{name}: {path} changed while it was read, {attempts} times. Stop what writes to it, exclude it, or set
    `allow_unstable: true` to take it as it is."""

    code = "unstable"


class RestoreFailed(ProviderError):
    """{name}: could not be restored: {problem}. {remedy}"""

    code = "restore-failed"


class ChangedSinceKept(RestoreFailed):
    """{name}: could not be restored: {path}: {problem}. Stop what writes there; move it away, or remove it, and run
    again."""

    code = "changed-since-kept"


class ChangedBeforeRestore(ChangedSinceKept):
    """{name}: could not be restored: {path}: {problem}. Stop what writes there; move it away, or remove it, and run
    again."""

    code = "changed-before-restore"


class ValidationFailed(ProviderError):
    """{name}: is not as its shadow says: {problem}. {remedy}"""

    code = "validation-failed"


class CommandFailed(ProviderError):
    """{name}: `{command}` ended with {status}: {output}."""

    code = "command-failed"
