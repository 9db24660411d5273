# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry knows every provider there is, and what each of them says about itself makes sense."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.providers import base, registry
from ansible_collections.umbra.rollback.plugins.module_utils.providers.base import Provider
from ansible_collections.umbra.rollback.plugins.module_utils.resource import COMMON, Option, check_options
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.providers.conformance import context

DIRECTORY = Path(inspect.getfile(base)).parent
CAPABILITIES = {value for name, value in vars(base).items() if name.isupper() and isinstance(value, str)}


def options_of(known: type[Provider]) -> list[tuple[str, Option]]:
    return [*known.interface.options.items(), *known.interface.query_options.items()]


def test_every_provider_in_the_directory_is_registered() -> None:
    defined = {
        node.name
        for path in DIRECTORY.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and "Provider" in [getattr(one, "id", "") for one in node.bases]
    }
    assert defined - {"DryProvider"} == {known.__name__ for known in registry.PROVIDERS.values()}


def test_providers_do_not_import_each_other() -> None:
    files = {path.stem for path in DIRECTORY.glob("*.py")} - {"base", "registry", "__init__"}
    for path in DIRECTORY.glob("*.py"):
        if path.stem == "registry":
            continue
        imported = {
            node.module
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.level == 1
        }
        assert not imported & files, path.name


def test_the_registry_can_be_followed_by_who_packs_a_module() -> None:
    """What travels to a host is found in import statements, so there must be one for each provider."""
    tree = ast.parse((DIRECTORY / "registry.py").read_text())
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert {known.__name__ for known in registry.PROVIDERS.values()} <= imported


def test_an_unknown_type_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        registry.provider("nothing", context(tmp_path))


@pytest.mark.parametrize("type_", sorted(registry.PROVIDERS))
class TestEach:
    def test_it_can_be_made(self, type_: str, tmp_path: Path) -> None:
        made = registry.provider(type_, context(tmp_path))
        assert isinstance(made, Provider)
        assert made.type == type_ and registry.INTERFACES[type_] is made.interface

    def test_its_capabilities_are_known(self, type_: str) -> None:
        assert registry.PROVIDERS[type_].capabilities <= CAPABILITIES

    def test_its_options_make_sense(self, type_: str) -> None:
        known = registry.PROVIDERS[type_]
        assert not set(known.interface.options) & set(COMMON)
        for name, option in options_of(known):
            assert name.isidentifier() and name == name.lower()
            assert option.help.endswith(".") and option.help[0].isupper(), name
            assert not (option.required and option.default is not None), name

    def test_its_defaults_are_valid(self, type_: str) -> None:
        known = registry.PROVIDERS[type_]
        given = {name: option for name, option in options_of(known) if option.default is not None}
        defaults = {name: option.default for name, option in given.items()}
        assert check_options(defaults, given, type_) == defaults

    def test_it_says_what_it_is(self, type_: str) -> None:
        assert inspect.getdoc(registry.PROVIDERS[type_])
