# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode: a provider that looks like the one it wraps, and of which nothing can write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import ProviderError
from ..resource import Interface, Resource
from ..shadow import Claim, Shadow
from .base import Contents, Drift, Estimate, Outcome, Provider, Steps

METHOD = "check"


class DryProvider(Provider):
    """What reads goes to the wrapped provider; what writes is answered from what reading tells."""

    type = METHOD
    interface = Interface({})

    def __init__(self, provider: Provider) -> None:
        super().__init__(provider.context)
        self._provider = provider
        # Of the instance here, not of the class: they are those of whatever is wrapped.
        self.type = provider.type  # type: ignore[misc]
        self.interface = provider.interface  # type: ignore[misc]
        self.capabilities = provider.capabilities  # type: ignore[misc]

    def query(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """As the wrapped provider."""
        return self._provider.query(options)

    def estimate(self, resource: Resource) -> Estimate:
        """As the wrapped provider."""
        return self._provider.estimate(resource)

    def claims(self, resource: Resource) -> Sequence[Claim]:
        """As the wrapped provider."""
        return self._provider.claims(resource)

    def create(self, resource: Resource, previous: Shadow | None, contents: Contents) -> Shadow:
        """A record of what would be copied, out of the estimate; it has no checksum. Raises what `estimate` raises."""
        return self.create_within(resource, previous, contents, lambda size: None)

    def create_within(
        self, resource: Resource, previous: Shadow | None, contents: Contents, allow: Callable[[Estimate], None]
    ) -> Shadow:
        """As `create`."""
        size = self._provider.estimate(resource)
        allow(size)
        return Shadow(resource, METHOD, self.context.now(), 0.0, size.bytes, size.items, 0, "")

    def verify(self, shadow: Shadow, contents: Contents) -> int:
        """As the wrapped provider."""
        return self._provider.verify(shadow, contents)

    def drift(self, shadow: Shadow, contents: Contents) -> Drift:
        """As the wrapped provider."""
        return self._provider.drift(shadow, contents)

    def extra_bytes(self, shadow: Shadow, contents: Contents) -> int:
        """As the wrapped provider."""
        return self._provider.extra_bytes(shadow, contents)

    def displace(self, shadow: Shadow, contents: Contents) -> Shadow:
        """The shadow without anything it stands on: nothing is kept, since nothing will be replaced."""
        now = self.context.now()
        return replace(shadow, method=METHOD, created=now, seconds=0.0, stored_bytes=0, roots=(), data={})

    def displace_compared(self, shadow: Shadow, contents: Contents) -> Shadow:
        """As `displace`."""
        return self.displace(shadow, contents)

    def let_go(self) -> None:
        """As the wrapped provider."""
        self._provider.let_go()

    def stop(self, shadow: Shadow) -> bool:
        """Never stops anything."""
        return False

    def start(self, shadow: Shadow) -> None:
        """Never starts anything."""

    def methods(self, shadow: Shadow) -> Sequence[str]:
        """As the wrapped provider."""
        return self._provider.methods(shadow)

    def restore(self, shadow: Shadow, contents: Contents, steps: Steps) -> Outcome:
        """How much would be written; all of it, when what is there is too broken to be compared."""
        try:
            found = self._provider.drift(shadow, contents)
        except ProviderError as error:
            return Outcome(max(1, shadow.items), shadow.bytes, METHOD, (str(error),))
        finally:
            self._provider.let_go()
        return Outcome(found.total, found.bytes, METHOD)

    def validate(self, shadow: Shadow, contents: Contents) -> None:
        """Nothing was restored, so there is nothing to prove."""

    def forget(self, shadow: Shadow) -> None:
        """Never releases anything."""
