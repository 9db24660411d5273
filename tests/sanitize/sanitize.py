# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the native kernel with a sanitizer, and runs a program with it: sanitize.py address|thread PROGRAM [ARG...].

Whatever is reported is a failure, also by a child that nobody asks how it ended. Before that, a bug of our own is to be
found (awake.c): a sanitizer that is asleep would find nothing either.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "extensions" / "kernel" / "build.py"
# What has to be loaded before Python. UBSan comes with the first.
RUNTIMES = {"address": ("libasan.so", "libubsan.so"), "thread": ("libtsan.so",)}
FLAGS = {"address": "-fsanitize=address,undefined", "thread": "-fsanitize=thread"}


def settings(kind: str, folder: Path, reports: Path) -> dict[str, str]:
    """The environment of a program that uses the kernel in `folder`; reports become files whose names begin so."""
    common = f"log_path={reports}:print_stacktrace=1"
    environment = {
        "LD_PRELOAD": " ".join(map(_runtime, RUNTIMES[kind])),
        # Python lets go of nothing when it ends. That malloc has no memory is for the program to decide, as everywhere.
        "ASAN_OPTIONS": f"{common}:detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": f"{common}:halt_on_error=1",
        # Tests fork, which it does not like to see where there are threads.
        "TSAN_OPTIONS": f"{common}:die_after_fork=0:suppressions={HERE / 'thread.supp'}",
        "UMBRA_TEST_KERNEL": str(folder / f"umbra_kernel.{platform.machine()}-linux-gnu.so"),
    }
    if kind == "address":
        environment["PYTHONMALLOC"] = "malloc"  # so that the ends of Python's objects are known
    return environment


def _runtime(name: str) -> str:
    found = subprocess.run(["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def build(kind: str, folder: Path) -> None:
    """Build the kernel into `folder`."""
    environment = {**os.environ, "CC": "gcc"}
    subprocess.run([sys.executable, str(BUILD), "--sanitize", kind, "--out", str(folder)], check=True, env=environment)


def run(argv: list[str], kind: str, folder: Path, reports: Path) -> tuple[int, str]:
    """How a program ended, and what was reported."""
    environment: Mapping[str, str] = {**os.environ, **settings(kind, folder, reports)}
    status = subprocess.run(argv, env=environment, check=False).returncode
    found = sorted(reports.parent.glob(f"{reports.name}*"))
    return status, "\n".join(path.read_text(errors="replace") for path in found)


def check_awake(kind: str, folder: Path, reports: Path) -> None:
    """End when the bug of awake.c is not found."""
    library = folder / "awake.so"
    command = ["gcc", FLAGS[kind], "-g", "-shared", "-fPIC", "-pthread", str(HERE / "awake.c"), "-o", str(library)]
    subprocess.run(command, check=True)
    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).awake()"
    _status, report = run([sys.executable, "-c", code, str(library)], kind, folder, reports)
    if "awake.c" not in report:
        raise SystemExit(f"The sanitizer ({kind}) does not find what it should: {report or 'it reports nothing'}")


def main(arguments: list[str]) -> int:
    """Do what the arguments say; see this file's first line."""
    kind, *argv = arguments or [""]
    if kind not in RUNTIMES or not argv:
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory(prefix="umbra-sanitize-") as path:
        folder, reports = Path(path), Path(path) / "reports"
        folder.chmod(0o711)
        reports.mkdir()
        reports.chmod(0o1777)  # tests have children of other users
        build(kind, folder)
        check_awake(kind, folder, reports / "awake")
        status, report = run(argv, kind, folder, reports / "report")
    if report:
        print(report)
        print(f"The sanitizer ({kind}) has something to report: see above.", flush=True)
    return status or bool(report)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
