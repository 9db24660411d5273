# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our Python.h says what Python's own says; here a compiler compares them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

OURS = Path(__file__).resolve().parents[2] / "extensions" / "kernel" / "include"
THEIRS = Path(sysconfig.get_path("include"))
NEEDED = """
#include <Python.h>
#include <compile.h>
#include <frameobject.h>
#include <pythread.h>
#include <structmember.h>
"""
MEMBERS = {
    "PyObject": "ob_refcnt ob_type",
    "PyVarObject": "ob_base ob_size",
    "PyMethodDef": "ml_name ml_meth ml_flags ml_doc",
    "PyGetSetDef": "name get set doc closure",
    "PyMemberDef": "name type offset flags doc",
    "PyModuleDef_Base": "m_init m_index m_copy",
    "PyModuleDef_Slot": "slot value",
    "PyModuleDef": "m_base m_name m_doc m_size m_methods m_slots m_traverse m_clear m_free",
    "PyType_Slot": "slot pfunc",
    "PyType_Spec": "name basicsize itemsize flags slots",
}
# These name the version, or what we compile for.
OF_OUR_OWN = re.compile(r"PY_\w*VERSION\w*|HAVE_LONG_LONG|WITH_THREAD|Py_TPFLAGS_(DEFAULT|READY)")


def compile_probe(folder: Path, text: str, *options: str) -> bytes:
    """Compile C with the limited API of 3.9, warnings being errors; return the object file."""
    probe, output = folder / "probe.c", folder / "probe.o"
    probe.write_text(text)
    zig = [sys.executable, "-m", "ziglang", "cc", "-c", "-g0", "-std=gnu11", "-Werror", "-Wno-deprecated-declarations"]
    limited = ["-D_GNU_SOURCE", "-DPy_LIMITED_API=0x03090000"]
    argv = [*zig, *limited, *options, str(probe), "-o", str(output)]
    cache = {"ZIG_GLOBAL_CACHE_DIR": str(folder / "zig"), "ZIG_LOCAL_CACHE_DIR": str(folder / "zig")}
    done = subprocess.run(argv, env={**os.environ, **cache}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output.read_bytes()


@pytest.fixture(autouse=True)
def _headers() -> None:
    assert (THEIRS / "Python.h").is_file(), f"this Python's headers are missing (python3-dev): {THEIRS}"


def test_declarations_agree(tmp_path: Path) -> None:
    """A function that is declared again has to be declared the same."""
    declarations = (OURS / "stable_abi.h").read_text()
    names = sorted(set(re.findall(r"\b_?Py\w+(?=\()", declarations)))
    assert len(names) > 300
    (tmp_path / "ours.h").write_text(declarations)
    undo = "\n".join(f"#undef {name}" for name in names)  # some are macros there that come down to another function
    compile_probe(tmp_path, f'{NEEDED}{undo}\n#include "ours.h"\n', f"-I{THEIRS}")


def test_numbers_and_layouts_agree(tmp_path: Path) -> None:
    """The same values, laid down with our headers and with theirs, are the same object file."""
    text = (OURS / "Python.h").read_text() + (OURS / "slots.h").read_text()
    macros = re.findall(r"^#define ((?:Py|PY|METH|T|READONLY|WAIT|NOWAIT)\w*) [(0-9].*$", text, re.MULTILINE)
    values = [name for name in macros if not OF_OUR_OWN.fullmatch(name)]
    assert len(values) > 130
    for struct, members in MEMBERS.items():
        values += [f"sizeof({struct})", *(f"offsetof({struct}, {member})" for member in members.split())]
    values += ["sizeof(Py_ssize_t)", "sizeof(Py_hash_t)", "sizeof(Py_UCS4)", "sizeof(PyGILState_STATE)"]
    values += ["PY_LOCK_FAILURE", "PY_LOCK_ACQUIRED", "PY_LOCK_INTR", "PyGILState_LOCKED", "PyGILState_UNLOCKED"]
    probe = f"{NEEDED}\nconst long values[] = {{\n" + ",\n".join(f"(long)({value})" for value in values) + "\n};\n"
    empty = tmp_path / "empty"
    empty.mkdir()
    for name in re.findall(r"<(\w+\.h)>", NEEDED)[1:]:
        (empty / name).touch()
    ours = compile_probe(tmp_path, probe, f"-I{OURS}", f"-I{empty}")
    assert ours == compile_probe(tmp_path, probe, f"-I{THEIRS}")
