# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tool's file: what is in it, that it is the same for the same, when it is written, and how it finds a Python."""

from __future__ import annotations

import ast
import hashlib
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import errors
from ansible_collections.umbra.rollback.plugins.module_utils.emergency import build
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import arrival
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.tree.trees import mounted
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.verbs.conftest import Shop
from ansible_collections.umbra.rollback.tests.unit.support.twins import using

from .conftest import KERNEL, PYTHON, Tool

ENGINE = Path(build.__file__).parents[1]
HERE = arrival.platform_here()[0]
PARTS = build.Parts((PYTHON,), {f"{HERE}.{hashlib.sha256(KERNEL).hexdigest()}": KERNEL})


@pytest.fixture
def store(shop: Shop) -> str:
    """A store with one update."""
    shop.shadow()
    return str(shop.store)


def parts(store: str) -> build.Parts:
    """What the file in the store is made of."""
    return build._parts(Path(store, build.NAME).read_bytes())


# --- what is in it


def imports(path: Path) -> Iterator[Path]:
    """The files of the engine that the file `path` imports, by Python's own parser."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for one in [base, *(base / alias.name for alias in node.names)]:
                yield from (found for found in (one.with_suffix(".py"), one / "__init__.py") if found.is_file())


def test_it_has_exactly_the_files_that_the_command_line_imports() -> None:
    pending, found = [ENGINE / "emergency/cli.py"], set[Path]()
    while pending:
        path = pending.pop()
        above = [parent / "__init__.py" for parent in path.parents if parent.is_relative_to(ENGINE)]
        new = [one for one in (path, *above) if one not in found]
        found.update(new)
        pending += [one for each in new for one in imports(each) if one not in found]
    expected = {str(path.relative_to(ENGINE)): path.read_bytes() for path in found}
    assert build.sources() == expected
    assert {"verbs/restore.py", "providers/package.py", "kernel/load.py"} < set(expected)


def test_equal_parts_give_equal_bytes_whoever_builds(store: str) -> None:
    """From the installed engine, and from the archive itself, as a module's payload is one."""
    path = build.write(store, KERNEL, [PYTHON])
    data = build.build(PARTS)
    assert Path(path).read_bytes() == data
    code = (
        f"import sys; sys.path.insert(0, {path!r}); from umbra_rollback.emergency import build; "
        "import umbra_rollback.verbs; data = open(sys.argv[1], 'rb').read(); "
        "assert build.__loader__.archive == sys.argv[1]; assert build.build(build._parts(data)) == data"
    )
    subprocess.run([sys.executable, "-I", "-c", code, path], check=True, timeout=60)


def test_only_the_archive_is_loaded_and_all_of_it_at_once(tool: Tool) -> None:
    """Another create may put another file in its place while it works, so that nothing may be read from it later."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import umbra_rollback.emergency.cli; "
        "ours = {name: m for name, m in sys.modules.items() if name.startswith('umbra_rollback')}; "
        "print(len(ours)); assert all(m.__loader__.archive == sys.argv[1] for m in ours.values())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, tool.path], check=True, timeout=60, capture_output=True, text=True
    )
    assert int(done.stdout) == len(build.sources())


# --- when it is written


def test_it_is_closed_to_others_and_written_only_when_it_differs(store: str) -> None:
    path = Path(build.write(store, KERNEL, [PYTHON]))
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    before = path.stat()
    assert build.write(store, KERNEL, [PYTHON]) == str(path)
    assert build.write(store, None, []) == str(path)
    assert path.stat().st_ino == before.st_ino and path.stat().st_ctime_ns == before.st_ctime_ns
    path.chmod(0o600)
    build.write(store, KERNEL, [PYTHON])
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert not os.listdir(os.path.join(store, "tmp"))


def test_what_hosts_that_share_the_store_need_stays_in_it(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build.write(store, b"their kernel", ["/opt/theirs/python3"])
    monkeypatch.setattr(arrival, "platform_here", lambda: ("sparc-linux-gnu", ""))
    build.write(store, b"another", ["/opt/sparc/python3"])
    build.write(store, b"a newer one", ["/opt/theirs/python3"])
    digests = {hashlib.sha256(content).hexdigest() for content in (b"their kernel", b"a newer one")}
    assert {key.rpartition(".")[2] for key in parts(store).kernels} == digests
    assert parts(store).pythons == ("/opt/sparc/python3", "/opt/theirs/python3")


def test_a_name_that_a_shell_would_read_is_left_out(store: str) -> None:
    path = build.write(store, None, ["/opt/it's/python", "/opt/new\nline", "relative", "/opt/a b $(touch x)/python"])
    assert parts(store).pythons == ("/opt/a b $(touch x)/python",)
    done = subprocess.run(["/bin/sh", path, "--version"], check=False, capture_output=True, timeout=60, cwd=store)
    assert done.returncode == 0 and not os.path.exists(os.path.join(store, "x"))


@pytest.mark.parametrize("damage", [b"", b"#!/bin/sh\n", b"\0" * 100, None])
def test_one_that_is_damaged_is_made_anew(store: str, damage: bytes | None) -> None:
    path = Path(build.write(store, KERNEL, [PYTHON]))
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2] if damage is None else damage)
    build.write(store, KERNEL, [PYTHON])
    assert path.read_bytes() == good


def test_a_full_disk_is_a_warning_and_the_old_one_stays(store: str) -> None:
    path = Path(build.write(store, None, ["/usr/bin/python3"]))
    with mounted(Path(store, "tmp"), "-t", "tmpfs", "-o", "size=64k", "none"):
        with pytest.raises(errors.NoSpace, match="the emergency tool"):
            build.write(store, None, [PYTHON])
        assert not os.listdir(os.path.join(store, "tmp"))
        none, (warning,) = build.leave(store)
    assert none is None and warning.startswith("The emergency tool could not be left in the store: The store ")
    assert build._parts(path.read_bytes()).pythons == ("/usr/bin/python3",)


def test_a_process_leaves_its_own_kernel_and_python(store: str) -> None:
    with using("native"):
        path, warnings = build.leave(store)
    assert path == os.path.join(store, "umbra") and not warnings
    with using("pure"):  # what is there already is not taken away
        assert build.leave(store) == (path, ())
    assert parts(store) == build.Parts((sys.executable,), PARTS.kernels)


# --- how it finds a Python


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_the_first_python_that_works_runs_it(shop: Shop, tmp_path: Path) -> None:
    shop.shadow()
    good = script(tmp_path / "good python", f'echo "good $1 $2 $3" >> {tmp_path}/ran; exec {PYTHON} "$@"')
    broken = [str(tmp_path / "gone"), script(tmp_path / "broken", "exit 1"), script(tmp_path / "bad", "kill -SEGV $$")]
    tool = Tool(shop, None, *broken, good)
    assert "umbra.rollback" in tool.say("--version")
    assert (tmp_path / "ran").read_text() == "good -I -S -c\ngood -I -S -B\n"


def test_none_that_works_is_a_sentence(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "PYTHONS", ("python3",))
    shop.shadow()
    tool = Tool(shop, None, str(tmp_path / "gone"))
    said = tool.say("restore", "u1", env={"PATH": ""}, status=2)
    assert said == f"{tool.path}: none of the Pythons that it knows works here. Find one, 3.9 or newer, and type: " + (
        f"python3 {tool.path} restore u1\n"
    )


def test_any_python_runs_it_by_itself(tool: Tool) -> None:
    said = tool.say("status", prefix=[sys.executable])
    assert "Update u1 is open" in said


def test_an_old_python_is_told_so(tool: Tool) -> None:
    """Stands in for a Python 3.8 and older: its number; that they can read the file is seen from its grammar."""
    code = "import runpy, sys; sys.version_info = (3, 8, 1); sys.argv[0] = sys.argv.pop(); runpy.run_path(sys.argv[0])"
    done = subprocess.run(
        [sys.executable, "-c", code, tool.path], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "umbra needs Python 3.9 or newer, and this is 3.8: run it with another python3.\n"
    ast.parse(zipfile.ZipFile(tool.path).read("__main__.py"), feature_version=(3, 4))


# --- its kernel


def test_it_runs_the_kernel_that_it_carries(tool: Tool) -> None:
    assert f"kernel: native. {tool.path} has it" in tool.say("--version")


def test_without_a_kernel_it_does_the_same_slower(shop: Shop) -> None:
    before = shop.state()
    shop.shadow()
    shop.update()
    tool = Tool(shop, None)
    assert "kernel: pure. The native kernel is not used: " in tool.say("--version")
    assert "rolled back" in tool.say("restore", "u1")
    assert shop.state() == before


def test_a_kernel_with_another_checksum_is_not_loaded(tool: Tool) -> None:
    parts_ = build.Parts((PYTHON,), {f"{HERE}.{'0' * 64}": KERNEL})
    Path(tool.path).write_bytes(build.build(parts_))
    assert "does not have the SHA-256 that its name says" in tool.say("--version")
    assert "The native kernel was asked for" in tool.say("--version", "--kernel", "native", status=2)
