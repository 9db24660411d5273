# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stages of `make test`: the commands that check the staged copy of the collection."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from environments import Environment
from stages import Stage

ENGINE_TESTS = "tests/unit/plugins/module_utils"
SCRIPTS = ("tools", "bench", "sanitize", "fuzz")


@dataclass(frozen=True)
class Machine:
    """What the stages run with: an environment for each line of ansible-core (the first is .venv), one for the linters,
    one for each Python that the engine supports, one that builds the native kernel."""

    controllers: dict[str, Environment]
    checks: Environment
    engines: tuple[Environment, ...]
    kernel: Environment

    @property
    def main(self) -> Environment:
        """The user's environment: .venv."""
        return next(iter(self.controllers.values()))


@dataclass(frozen=True)
class Checks:
    """Makes the stages. `build` is the directory that holds ansible_collections/umbra/rollback, the staged copy."""

    machine: Machine
    build: Path
    pytest_arguments: tuple[str, ...] = ()

    @property
    def staged(self) -> Path:
        """The copy of the collection."""
        return self.build / "ansible_collections" / "umbra" / "rollback"

    def all(self) -> list[Stage]:
        """All stages, in the order in which to begin them: those first that take long."""
        real = (self._integration, self._guests, self._faults)
        makers = (*real, self._linters, self._sanity, self._kernel, self._sanitize, self._unit, self._demo)
        return [stage for maker in makers for stage in maker()]

    def named(self, words: list[str]) -> list[Stage]:
        """The stages that have one of these names, or one as the beginning of theirs ('unit' has all of 'unit-...')."""
        stages = self.all()
        chosen = [one for one in stages if any(f"{one.name}-".startswith(f"{word}-") for word in words)]
        unknown = [word for word in words if not any(f"{one.name}-".startswith(f"{word}-") for one in chosen)]
        if unknown:
            raise SystemExit(f"No such stage: {', '.join(unknown)}. There are: {', '.join(one.name for one in stages)}")
        return chosen

    def _linters(self) -> Iterator[Stage]:
        yield self._linter("lint", ("ruff", "check", "."), ("ruff", "format", "--check", "."))
        yield self._mypy()
        yield self._linter("ansible-lint", ("ansible-lint", "--offline", "--nocolor", "--profile", "production"))
        docs = ("antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs=self", ".")
        yield self._linter("docs", docs, ("antsibull-changelog", "lint"))
        yield self._linter("license", ("reuse", "lint"))

    def _mypy(self) -> Stage:
        config = ("mypy", "--config-file", str(self.staged / "pyproject.toml"))
        plugins = self.staged.relative_to(self.build) / "plugins"
        tests = Path(__file__).parents[1]
        scripts = [path for folder in SCRIPTS for path in sorted((tests / folder).glob("*.py"))]
        tools = [str(self.staged / "tests" / path.relative_to(tests)) for path in scripts]
        tools.append(str(self.staged / "extensions" / "kernel" / "build.py"))
        stage = self._linter(
            "mypy",
            (*config, "--strict", "--python-version", "3.10", f"{plugins}/module_utils"),
            (*config, "--strict", f"{plugins}/plugin_utils"),
            (*config, f"{plugins}/action", f"{plugins}/modules"),
            (*config, "--strict", *tools),
        )
        # Seen from here a file of the collection has the name that others import it by.
        return replace(stage, cwd=self.build)

    def _linter(self, name: str, *commands: tuple[str, ...]) -> Stage:
        tools = self.machine.checks
        environment = {
            "PATH": f"{tools.path / 'bin'}:{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(self.build),
            "MYPYPATH": ":".join(map(str, (self.build, *(self.staged / "tests" / folder for folder in SCRIPTS)))),
            "MYPY_CACHE_DIR": str(self.build / "mypy"),
            "RUFF_CACHE_DIR": str(self.build / "ruff"),
            "RUFF_OUTPUT_FORMAT": "concise",
        }
        absolute = tuple((tools.program(program), *rest) for program, *rest in commands)
        return Stage(name, absolute, self.staged, tools, environment=environment)

    def _kernel(self) -> Iterator[Stage]:
        """The committed kernel is what its sources give, and fit for every host."""
        tool = self.machine.kernel
        root = Path(__file__).parents[2]
        binding = [str(path.relative_to(root)) for path in sorted((root / "extensions" / "kernel").glob("*.px?"))]
        lint = (tool.program("cython-lint"), "--max-line-length", "120", *binding)
        tests = (tool.program("python"), "-m", "pytest", *self.pytest_arguments, "tests/kernel")
        environment = {
            "PATH": f"{tool.path / 'bin'}:{os.environ['PATH']}",  # cython-lint calls pycodestyle by name
            "PYTHONPYCACHEPREFIX": str(self.build / "pycache"),
        }
        yield Stage("kernel", (lint, tests), self.staged, tool, environment=environment)

    def _sanitize(self) -> Iterator[Stage]:
        """The kernel's own tests, and damaged files, with a kernel that finds its own mistakes."""
        tool = self.machine.kernel
        pytest = (tool.program("python"), "-m", "pytest", "-m", "native", *self.pytest_arguments)
        tree, kernel = f"{ENGINE_TESTS}/tree", f"{ENGINE_TESTS}/kernel"
        store = [f"{ENGINE_TESTS}/store/test_{name}.py" for name in ("objects", "writer")]
        threads = [f"{tree}/test_{name}.py" for name in ("twins", "capture", "scan")]
        yield self.sanitized(
            "sanitize",
            ("thread", *pytest, *threads, *store, kernel),
            ("address", *pytest, tree, *store, kernel),
            ("address", *self.fuzz("--seed", "1", "--seconds", "10")),
        )

    def fuzz(self, *arguments: str) -> tuple[str, ...]:
        """The command that reads damaged files; see tests/fuzz."""
        script = str(self.staged / "tests" / "fuzz" / "fuzz.py")
        return (self.machine.kernel.program("python"), script, "--keep", str(self.build / "fuzz"), *arguments)

    def sanitized(self, name: str, *commands: tuple[str, ...]) -> Stage:
        """A stage of commands that begin with the name of a sanitizer; see tests/sanitize."""
        tool = self.machine.kernel
        script = str(self.staged / "tests" / "sanitize" / "sanitize.py")
        environment = {"PYTHONPATH": str(self.build), "PYTHONPYCACHEPREFIX": str(self.build / "pycache")}
        absolute = tuple((tool.program("python"), script, *command) for command in commands)
        return Stage(name, absolute, self.staged, tool, environment=environment)

    def _faults(self) -> Iterator[Stage]:
        """Every verb is killed at many of its calls, and refused some; see tests/faults."""
        # A test of many points takes longer than one that hangs, and the tracer has a watchdog of its own.
        yield self._pytest("faults", self.machine.engines[0], "-o", "faulthandler_timeout=0", "tests/faults")

    def _guests(self) -> Iterator[Stage]:
        """Playbooks over SSH, against Debian guests and hosts on a network of their own; see tests/testbed."""
        tool = self.machine.main
        # A boot takes longer than what hangs elsewhere; every wait in these tests has an end of its own.
        stage = self._pytest("guests", tool, "-o", "faulthandler_timeout=0", "tests/guests")
        # With arguments it may be asked for many runs.
        yield replace(stage, with_collection=True, limit=6 * 3600 if self.pytest_arguments else 2700)

    def _unit(self) -> Iterator[Stage]:
        newest = self.machine.engines[0]
        for tool in self.machine.engines:
            # What runs in the test machine runs with that machine's own Python, and the native kernel is the same file
            # for all: every Python loads it, and one is enough for what it does.
            here = () if tool is newest else ("-m", "not machine and not native")
            yield self._pytest(f"unit-python{tool.python.minor}", tool, ENGINE_TESTS, *here)
        for line, tool in self.machine.controllers.items():
            yield self._pytest(f"unit-core{line}", tool, "tests/unit", f"--ignore={ENGINE_TESTS}")

    def _pytest(self, name: str, tool: Environment, *arguments: str) -> Stage:
        environment = {
            "PYTHONPATH": str(self.build),
            "PYTHONPYCACHEPREFIX": str(self.build / "pycache"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.build),
        }
        command = (tool.program("python"), "-m", "pytest", *self.pytest_arguments, *arguments)
        return Stage(name, (command,), self.staged, tool, environment=environment, limit=1800)

    def _sanity(self) -> Iterator[Stage]:
        # ansible-test tries every python3.N on PATH, and a shim for a version that isn't active ends it.
        folders = [folder for folder in os.get_exec_path() if Path(folder).name != "shims"]
        folders[:0] = [str(Path(tool.python.path).parent) for tool in self.machine.engines]
        for line, tool in self.machine.controllers.items():
            yield Stage(
                f"sanity-core{line}",
                (
                    (tool.program("python"), str(self.staged / "tests" / "tools" / "offline_pip.py")),
                    (tool.program("ansible-test"), "sanity", "--local", "--color", "no", "--truncate", "0"),
                ),
                self.staged,
                tool,
                environment={"PATH": os.pathsep.join(folders)},
                turn="sanity",
                telling="ERROR|FATAL",
            )

    def _integration(self) -> Iterator[Stage]:
        runner = str(self.staged / "tests" / "integration" / "run")
        for line, tool in self.machine.controllers.items():
            command = (tool.program("python"), runner, "--python-venv", str(tool.path))
            yield self._real(f"integration-core{line}", tool, self.staged, command)

    def _demo(self) -> Iterator[Stage]:
        tool = self.machine.main
        failing = (tool.program("ansible-playbook"), "umbra.rollback.demo")
        yield self._real("demo", tool, self.build, failing, (*failing, "-e", "shop_version_ok=true"))

    @staticmethod
    def _real(name: str, tool: Environment, cwd: Path, *commands: tuple[str, ...]) -> Stage:
        """A stage that plays real playbooks of the installed collection; they share the machine, so one at a time."""
        return Stage(name, commands, cwd, tool, with_collection=True, turn="real", limit=2700)
