# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the native kernel for every platform: Cython makes C of umbra_kernel.pyx, and zig compiles it with src/*.c.

Run by `make kernel`, and by hand for one platform: `build.py --only x86_64-linux-gnu --out DIRECTORY`. The same sources
give the same bytes, whatever machine, directory and Python they are built with.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILT = HERE.parents[1] / "plugins" / "module_utils" / "kernel" / "built"
# Other versions work as well, and give other bytes. requirements/kernel.txt has to say the same.
PINNED = {"Cython": "3.3.1", "ziglang": "0.17.1"}
# What zig calls our platforms, with the oldest glibc that a file has to work with.
TARGETS = {
    "aarch64-linux-gnu": "aarch64-linux-gnu.2.17",
    "aarch64-linux-musl": "aarch64-linux-musl",
    "ppc64le-linux-gnu": "powerpc64le-linux-gnu.2.19",
    "ppc64le-linux-musl": "powerpc64le-linux-musl",
    "s390x-linux-gnu": "s390x-linux-gnu.2.17",
    "s390x-linux-musl": "s390x-linux-musl",
    "x86_64-linux-gnu": "x86_64-linux-gnu.2.17",
    "x86_64-linux-musl": "x86_64-linux-musl",
}
# Else zig takes the long double of newer distributions, and with it a printf that glibc has since 2.32.
ONLY_FOR = {"ppc64le-linux-gnu": ("-mabi=ibmlongdouble",)}
# Cython includes them, and has from include/Python.h all that they would say.
EMPTY_HEADERS = ("compile.h", "frameobject.h", "pythread.h", "structmember.h", "traceback.h")
# Cython's C is a thin layer over src/, and by far the larger part: it is to be small. It defines functions that it then
# doesn't use, which would be an error as any other warning is.
BINDING = """\
#pragma GCC diagnostic ignored "-Wunused-function"
#ifdef __clang__
#pragma clang attribute push(__attribute__((minsize)), apply_to = function)
#endif
#include "umbra_kernel.c"
#ifdef __clang__
#pragma clang attribute pop
#endif
"""
# Nothing is pickled, and documentation is in the sources; the two would be a sixth of the file.
CYTHON = ("-3", "--no-docstrings", "--directive", "auto_pickle=False")
COMPILE = (
    "-std=gnu11",
    "-D_GNU_SOURCE",
    "-DNDEBUG",
    "-DPy_LIMITED_API=0x03090000",
    "-DCYTHON_LIMITED_API=1",
    "-DCYTHON_COMPRESS_STRINGS=0",  # what the running Python's zlib makes of them is no matter of the sources
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",  # as Python and its extensions are compiled
    "-ffp-contract=off",  # the pure twin rounds each product and each sum, so does every machine here
    "-pthread",
)
RELEASE = (
    "-O2",
    "-g0",
    "-fno-sanitize=undefined",  # zig's default, which wants a runtime of its own
    "-fstack-protector-strong",
    "-ffunction-sections",
    "-fdata-sections",
    "-Wl,--gc-sections",
    "-Wl,--strip-all",
    "-Wl,--build-id=none",
)
SANITIZERS = {
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
    "thread": ("-fsanitize=thread",),
}
LIBRARIES = ("-Wl,--as-needed", "-lm", "-ldl")


def run(argv: Sequence[str], cwd: Path, **more: str) -> None:
    """Run a tool where its output belongs, with nothing of the caller's settings; end with what it said if it fails."""
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0", **more}
    done = subprocess.run(
        argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout}{done.stderr}\nfailed ({done.returncode}): {' '.join(argv)}")


def check_tools(names: Sequence[str]) -> None:
    """End with a clear word when a tool is missing, or is not the version that is pinned."""
    for name in names:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise SystemExit(f"{name} is missing: run `make kernel`, or install requirements/kernel.txt.") from None
        if version != PINNED[name]:
            raise SystemExit(f"{name} is {version} here, and the kernel is built with {PINNED[name]}.")


def cythonize(work: Path) -> list[str]:
    """Make C of the binding in `work`; return all C files that make up the kernel."""
    generated = work / "umbra_kernel.c"
    # Named from its own directory: Cython writes the name into the file.
    run([sys.executable, "-m", "cython", *CYTHON, "umbra_kernel.pyx", "--output-file", str(generated)], HERE)
    binding = work / "binding.c"
    binding.write_text(BINDING)
    headers = work / "include"
    headers.mkdir()
    for name in EMPTY_HEADERS:
        (headers / name).touch()
    return [str(binding), *(str(path) for path in sorted((HERE / "src").glob("*.c")))]


def includes(work: Path) -> list[str]:
    """Where headers are found, and names for these directories that mean the same everywhere."""
    folders = [HERE / "include", HERE / "src", work / "include"]
    return [
        *(f"-I{folder}" for folder in folders),
        f"-ffile-prefix-map={HERE}=kernel",
        f"-ffile-prefix-map={work}=work",
    ]


def compile_release(target: str, sources: Sequence[str], work: Path) -> Path:
    """Compile for a platform with zig."""
    file = work / f"umbra_kernel.{target}.so"
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", TARGETS[target], "-shared"]
    cache = str(work / "zig")
    run(
        [*zig, *COMPILE, *RELEASE, *ONLY_FOR.get(target, ()), *includes(work), *sources, "-o", str(file), *LIBRARIES],
        work,
        ZIG_GLOBAL_CACHE_DIR=cache,
        ZIG_LOCAL_CACHE_DIR=cache,
    )
    return file


def compile_sanitized(sanitizer: str, sources: Sequence[str], work: Path) -> Path:
    """Compile for this machine with its own compiler, for tests: zig has no runtime of a sanitizer to preload."""
    file = work / f"umbra_kernel.{platform.machine()}-linux-gnu.so"
    compiler = [os.environ.get("CC", "cc"), "-shared", "-O1", "-g", "-fno-omit-frame-pointer"]
    run([*compiler, *SANITIZERS[sanitizer], *COMPILE, *includes(work), *sources, "-o", str(file), *LIBRARIES], work)
    return file


def put(file: Path, out: Path) -> None:
    """Give a result its place at once: processes that have loaded the old one keep it. Say how large it is."""
    new = out / f".{file.name}.new"
    shutil.copyfile(file, new)  # not its mode: a library is read, not run, and git keeps the mode
    new.replace(out / file.name)
    print(f"{file.name:40} {file.stat().st_size:8,} bytes")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """What to build, and where to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", choices=TARGETS, metavar="PLATFORM", help=", ".join(TARGETS))
    parser.add_argument("--out", type=Path, default=BUILT, help="directory of the results")
    parser.add_argument("--sanitize", choices=SANITIZERS, help="for this machine only, with its own compiler")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    """Build what the arguments ask for; nothing is put in place before all of it is there."""
    options = arguments(argv)
    check_tools(["Cython"] if options.sanitize else list(PINNED))
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="umbra-kernel-") as folder:
        work = Path(folder).resolve()
        sources = cythonize(work)
        if options.sanitize:
            files = [compile_sanitized(options.sanitize, sources, work)]
        else:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                targets = options.only or list(TARGETS)
                files = list(pool.map(lambda target: compile_release(target, sources, work), targets))
        for file in files:
            put(file, out)


if __name__ == "__main__":
    main(sys.argv[1:])
