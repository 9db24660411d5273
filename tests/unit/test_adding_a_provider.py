# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider and the test that docs/adding_a_provider.md shows are what it says: they pass the conformance suite."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.providers import registry

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding_a_provider.md"
PROVIDER, TEST = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)

_shown: dict[str, Any] = {"__name__": "motd", "__package__": registry.__package__}
exec(compile(PROVIDER, f"{PAGE} (provider)", "exec"), _shown)
exec(compile(TEST, f"{PAGE} (test)", "exec"), _shown)

TestMotd = _shown["TestMotd"]


@pytest.fixture(autouse=True)
def one_line_in_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = _shown["MotdProvider"]
    monkeypatch.setattr(registry, "PROVIDERS", {**registry.PROVIDERS, "motd": provider})
    monkeypatch.setattr(registry, "INTERFACES", {**registry.INTERFACES, "motd": provider.interface})
