# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract of a provider: what it promises to every verb. One file per resource type implements it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from ..context import Context
from ..resource import Interface, Resource
from ..shadow import Claim, Shadow

# Capabilities, as data: what a verb may ask of a provider.
INCREMENTAL = "incremental"  # create uses the previous generation
LIVE = "live"  # create is consistent while the resource is in use
SWAP = "swap"  # restore is a rename once prestaged
POINT_IN_TIME = "point_in_time"
NEEDS_ROOT = "needs_root"
SERVICE = "service"  # it runs: stop and start mean something

CHANGE = "change"  # the step of a restore that changes something


class Contents(Protocol):
    """The store's contents as a provider sees them. A digest is the SHA-256 of a content, 64 hexadecimal digits.

    Every read is checked against its digest. Safe to use from several threads.
    """

    def has(self, digest: str) -> bool:
        """Whether the content is there (its bytes are not read)."""

    def put(self, data: bytes) -> str:
        """Keep `data`, and return its digest. Raises NoSpace, StoreError."""

    def put_fd(self, fd: int) -> tuple[str, int]:
        """Keep what can be read from `fd` from offset 0 to its end (holes kept); return digest and size. As `put`."""

    def get(self, digest: str) -> bytes:
        """The content, checked. Raises ContentMissing, StoreCorrupt."""

    def copy_to(self, digest: str, fd: int, sparse: bool = False) -> int:
        """Write the content to `fd` from offset 0, checked; return its size. With `sparse`, blocks of zeros become
        holes.

        Raises ContentMissing, StoreCorrupt; OSError of writing to `fd`.
        """

    def size(self, digest: str) -> int:
        """Size in bytes. Raises ContentMissing."""

    def verify(self, digests: Iterable[str]) -> int:
        """Read every content and check it; return how many bytes.

        Raises ContentMissing, StoreCorrupt for the first bad one.
        """

    @property
    def new_bytes(self) -> int:
        """How many bytes this object has added to the store so far."""


class Steps(Protocol):
    """The journal as a provider sees it while it restores one resource: what is noted there survives kill -9."""

    def done(self, step: str) -> bool:
        """Whether `step` of this restore was noted before (by this run, or by one that was killed)."""

    def note(self, step: str, **facts: Any) -> None:
        """Write `step` down; it is on disk when this returns."""

    @property
    def kept(self) -> Shadow | None:
        """The shadow of the state that this restore displaces (what `displace` gave), if there is one."""


@dataclass(frozen=True)
class Estimate:
    """How big a resource is, without copying it."""

    bytes: int
    items: int


@dataclass(frozen=True)
class Change:
    """One thing that a restore would change. `action` is create, replace, remove or metadata; `what` is for people.

    `before` (live) and `after` (shadow) are short texts, or empty; text contents may be given where they are small.
    """

    action: str
    what: str
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class Drift:
    """What differs now from the shadow: `total` changes of `items` in all, the first ones (at most 100) spelled out."""

    total: int
    changes: tuple[Change, ...] = ()
    bytes: int = 0

    def __bool__(self) -> bool:
        return self.total > 0


@dataclass(frozen=True)
class Outcome:
    """What a restore did: how many items and bytes it wrote (0: it was as its shadow says already), and how."""

    items: int
    bytes: int
    method: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lease:
    """What prestaging holds for one resource: asked for, in effect, and refused with the reason, by kind."""

    name: str
    tier: str
    asked: Mapping[str, Any] = field(default_factory=dict)
    effective: Mapping[str, Any] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


class Provider(ABC):
    """The code that knows one type of resource. Stateless but for `context`; methods may run in several threads.

    Every method raises ProviderError (or a subclass) for what it can't do, StoreError for what the store can't, never
    anything else: an OSError is turned into one of them, with the path. A message is one sentence with what to do.
    """

    type: ClassVar[str]
    interface: ClassVar[Interface]
    capabilities: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, context: Context) -> None:
        self.context = context

    def query(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The resources found now: each a dict of `name` and this type's options, sorted by name. Reads only."""
        raise LookupError(f"type {self.type} has no query")  # the parser refuses such a query first

    @abstractmethod
    def estimate(self, resource: Resource) -> Estimate:
        """How big `resource` is. Reads only. Raises SourceMissing, SourceUnreadable, Unsupported, ToolMissing:
        whatever `create` would refuse before it copies is refused here already."""

    @abstractmethod
    def create(self, resource: Resource, previous: Shadow | None, contents: Contents) -> Shadow:
        """Copy `resource` into `contents`, and return the record; the resource is not changed.

        `previous` is the last shadow of the same resource, or None; its contents may be gone. A failure leaves
        nothing but contents that garbage collection takes. May be repeated. `seconds` and `stored_bytes` of the
        record are set by the verb.
        """

    def create_within(
        self, resource: Resource, previous: Shadow | None, contents: Contents, allow: Callable[[Estimate], None]
    ) -> Shadow:
        """As `create`; `allow` is told how big the resource is before anything is kept, and refuses by raising.

        For a type that finds that out by looking at all of what it copies: it looks once for both.
        """
        allow(self.estimate(resource))
        return self.create(resource, previous, contents)

    def claims(self, resource: Resource) -> Sequence[Claim]:
        """What the resource provides and uses. Reads only."""
        return ()

    def verify(self, shadow: Shadow, contents: Contents) -> int:
        """Read the shadow back against its checksums; return how many bytes. Raises StoreCorrupt, ContentMissing."""
        return contents.verify(root.digest for root in shadow.roots)

    @abstractmethod
    def drift(self, shadow: Shadow, contents: Contents) -> Drift:
        """What differs now between the live resource and `shadow`; changes nothing."""

    def extra_bytes(self, shadow: Shadow, contents: Contents) -> int:
        """How many bytes a restore of `shadow` takes for a while at most, beside the failed state that it keeps.

        A copy out of the store, and what is made of that beside what is there, is what a type needs that can't say it
        better. Reads only. Raises StoreError.
        """
        return 2 * shadow.bytes

    def displace(self, shadow: Shadow, contents: Contents) -> Shadow:
        """A shadow of the state that a restore of `shadow` is about to replace, however broken: `restore` of it undoes.

        Runs before anything is changed. Raises ShadowFailed when that state can't be kept; then the resource isn't
        restored.
        """
        return self.create(shadow.resource, shadow, contents)

    def displace_compared(self, shadow: Shadow, contents: Contents) -> Shadow:
        """As `displace`, just after `drift` of the same object for the same shadow: it may go on with what that found.

        What comes or changes in between is to be found by `restore`: ChangedBeforeRestore.
        """
        return self.displace(shadow, contents)

    def let_go(self) -> None:  # noqa: B027  # most hold nothing
        """Let go of what `drift` found, as nobody will go on with it. May be repeated."""

    def stop(self, shadow: Shadow) -> bool:
        """Stop the resource, if it runs; whether it ran.

        Called before what it depends on is restored. May be repeated.
        """
        return False

    def start(self, shadow: Shadow) -> None:  # noqa: B027  # nothing to start is a sound default
        """Start again what `stop` stopped, when the resource itself isn't restored.

        May be repeated. Raises RestoreFailed.
        """

    def methods(self, shadow: Shadow) -> Sequence[str]:
        """The ways in which `restore` can bring `shadow` back, the best first; `context.method` says which one to take.

        Each leads to the same state. An attempt that follows one that failed takes the next way; where there is but
        one, it is done by the other twin of the kernel.
        """
        return ("",)

    @abstractmethod
    def restore(self, shadow: Shadow, contents: Contents, steps: Steps) -> Outcome:
        """Make the live resource equal to `shadow`, and running if it ran then; leave what is equal already untouched.

        Idempotent; killed at any moment and called again (same shadow, same steps), it completes. Raises RestoreFailed,
        StoreCorrupt, NoSpace; ChangedBeforeRestore for what would be lost, as `displace` has not seen it. A provider
        that raises this notes the step CHANGE before its first change: until then, `displace` may be called again.
        """

    @abstractmethod
    def validate(self, shadow: Shadow, contents: Contents) -> None:
        """Prove that the live resource equals `shadow` and works. Raises ValidationFailed."""

    def forget(self, shadow: Shadow) -> None:  # noqa: B027  # nothing to release is a sound default
        """The shadow is about to be dropped: release what it holds outside the store. May be repeated."""
