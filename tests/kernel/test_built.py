# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The committed kernel: the bytes that its sources give, small, and loadable by every Python and libc it is for."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import abi3info
import pytest
from elftools.elf.elffile import ELFFile

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "plugins" / "module_utils" / "kernel" / "built"
LIMIT = 200 << 10  # bytes
MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64", "ppc64le": "EM_PPC64", "s390x": "EM_S390"}
PLATFORMS = [f"{machine}-linux-{libc}" for machine in sorted(MACHINES) for libc in ("gnu", "musl")]
OLDEST_GLIBC = {"ppc64le": (2, 19)}  # the first that knew it; the others get along with 2.17
GLIBC_LIBRARIES = {"libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0"}
STABLE = {
    symbol.name
    for members in (abi3info.FUNCTIONS, abi3info.DATAS)
    for symbol, member in members.items()
    if (member.added.major, member.added.minor) <= (3, 9)
}


@pytest.fixture(params=PLATFORMS)
def platform(request: pytest.FixtureRequest) -> str:
    """Each platform in turn."""
    return request.param


@pytest.fixture
def file(platform: str) -> Path:
    """The committed file for a platform."""
    return BUILT / f"umbra_kernel.{platform}.so"


@pytest.fixture
def elf(file: Path) -> Iterator[ELFFile]:
    """The committed file, to look into."""
    with file.open("rb") as stream:
        yield ELFFile(stream)


def imported(elf: ELFFile) -> dict[str, str]:
    """What the file needs of others: names, each with the version that it asks for, or ''."""
    needed = elf.get_section_by_name(".gnu.version_r")
    versions = elf.get_section_by_name(".gnu.version")
    names = {}
    for number, symbol in enumerate(elf.get_section_by_name(".dynsym").iter_symbols()):
        if symbol.name and symbol["st_shndx"] == "SHN_UNDEF":
            index = versions.get_symbol(number)["ndx"] if versions else 0
            version = needed.get_version(index)[1].name if isinstance(index, int) and index > 1 else ""
            names[symbol.name] = version
    return names


def exported(elf: ELFFile) -> set[str]:
    """What the file offers to others."""
    symbols = elf.get_section_by_name(".dynsym").iter_symbols()
    return {symbol.name for symbol in symbols if symbol.name and symbol["st_shndx"] != "SHN_UNDEF"}


def libraries(elf: ELFFile) -> set[str]:
    """The libraries that the loader brings in with the file."""
    tags = elf.get_section_by_name(".dynamic").iter_tags()
    return {tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"}


def test_there_is_one_file_for_each_platform(script: ModuleType) -> None:
    assert sorted(path.name for path in BUILT.iterdir()) == [f"umbra_kernel.{name}.so" for name in PLATFORMS]
    assert sorted(script.TARGETS) == PLATFORMS


def test_the_requirements_pin_what_the_script_wants(script: ModuleType) -> None:
    lines = (ROOT / "requirements" / "kernel.txt").read_text().splitlines()
    assert {f"{name}=={version}" for name, version in script.PINNED.items()} <= set(lines)


def test_the_committed_bytes_are_what_the_sources_give(file: Path, rebuilt: Path) -> None:
    assert file.read_bytes() == (rebuilt / file.name).read_bytes(), "run `make kernel`, and commit what it changes"


def test_it_is_small_and_stripped(file: Path, elf: ELFFile) -> None:
    assert file.stat().st_size < LIMIT
    sections = [section.name for section in elf.iter_sections()]
    assert not [name for name in sections if name.startswith((".symtab", ".strtab", ".debug"))]


def test_it_is_for_the_machine_that_its_name_says(platform: str, elf: ELFFile) -> None:
    machine = platform.partition("-")[0]
    assert (elf["e_machine"], elf.elfclass, elf.little_endian) == (MACHINES[machine], 64, machine != "s390x")


def test_it_tells_nothing_of_where_it_was_built(file: Path) -> None:
    assert not re.findall(rb"/(?:tmp|root|home|dev|work|usr|var)/[ -~]*", file.read_bytes())


def test_nothing_but_its_entry_can_be_seen(elf: ELFFile) -> None:
    assert exported(elf) == {"PyInit_umbra_kernel"}


def test_its_memory_is_never_writable_and_executable(elf: ELFFile) -> None:
    flags = {segment["p_type"]: segment["p_flags"] for segment in elf.iter_segments() if segment["p_type"] != "PT_LOAD"}
    loads = [segment["p_flags"] for segment in elf.iter_segments("PT_LOAD")]
    assert not [flag for flag in [*loads, flags["PT_GNU_STACK"]] if flag & 3 == 3]
    assert "PT_GNU_RELRO" in flags


def test_of_python_it_needs_the_stable_abi_of_3_9(elf: ELFFile) -> None:
    names = {name for name in imported(elf) if re.match(r"_?Py", name)}
    assert names
    assert not names - STABLE


def test_the_libc_may_be_old(platform: str, elf: ELFFile) -> None:
    machine, _linux, libc = platform.split("-")
    names = {name: version for name, version in imported(elf).items() if not re.match(r"_?Py", name)}
    assert names
    if libc == "gnu":
        newest = OLDEST_GLIBC.get(machine, (2, 17))
        assert not {
            name: version
            for name, version in names.items()
            if not re.fullmatch(r"GLIBC_\d+(\.\d+)+", version)
            or tuple(map(int, version.removeprefix("GLIBC_").split("."))) > newest
        }
        assert {name for name in libraries(elf) if not name.startswith("ld")} <= GLIBC_LIBRARIES
    else:
        # musl knows no versions, and takes this name for itself, whatever its own file is called.
        assert libraries(elf) == {"libc.so"}
        stubs = (importlib.resources.files("ziglang") / "lib" / "libc" / "musl" / "libc.S").read_text()
        assert not set(names) - set(re.findall(r"^(?:\.globl|\.weak|WEAK\w*) (\w+)$", stubs, re.MULTILINE))
