# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's half of the delivery: found, asked for, taken, or the reason why the pure twin runs."""

from __future__ import annotations

import base64
import os
import platform
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import KernelUnavailable
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import arrival, cache, selected
from ansible_collections.umbra.rollback.tests.unit.support import kernels

OFFER = {"sha256": {kernels.PLATFORM: kernels.digest(kernels.content())}, "content": None, "why": "", "only": False}
ASKED = {"platform": kernels.PLATFORM}
FILE = cache.name(kernels.PLATFORM, kernels.digest(kernels.content()))


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


SENT = {**OFFER, "content": packed(kernels.content())}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of the test's own, and afterwards the kernel that was chosen before."""
    before = selected.NAME, selected.WHY, selected.native
    with kernels.safe_directory() as path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(path / "cache"))
        yield path
    selected.NAME, selected.WHY, selected.native = before


def arrive(offer: dict[str, Any], wanted: str = "auto", check_mode: bool = False, tmp: object = None) -> Any:
    selected.choose("pure", None, None)
    return arrival.arrive(wanted, offer, check_mode, str(tmp) if tmp else None)


def test_it_is_asked_for_taken_and_found(home: Path) -> None:
    for wanted in ("auto", "native"):
        assert arrive(OFFER, wanted) == ASKED
        assert selected.NAME == "pure" and not list(home.iterdir()), "asking changed something"
    kept = home / "cache" / "umbra" / FILE
    for offer in (SENT, OFFER):
        assert arrive(offer) is None
        assert selected.NAME == "native"
        assert selected.WHY.startswith(f"{kept} has the SHA-256 ")


def test_check_mode_uses_what_is_there_and_brings_nothing(home: Path) -> None:
    assert arrive(OFFER, check_mode=True) is None
    assert selected.NAME == "pure" and arrival.CHECK_MODE in selected.WHY and not list(home.iterdir())
    with pytest.raises(KernelUnavailable, match="check mode brings nothing"):
        arrive(OFFER, "native", check_mode=True)
    arrive(SENT)
    assert arrive(OFFER, check_mode=True) is None and selected.NAME == "native"


def test_pure_looks_nowhere(home: Path) -> None:
    (home / "cache").symlink_to("/tmp")
    assert arrive(OFFER, "pure") is None
    assert selected.WHY == "It was asked for (kernel: pure)."


# the offer, and why the pure twin runs
NOT_TO_BE_HAD = [
    ({}, "no file of it was offered to this host"),
    ({"sha256": {}, "why": "this installation has none"}, "this installation has none"),
    ({"sha256": {"vax-linux-gnu": "0" * 64}}, f"this release has none for {kernels.PLATFORM}"),
    ({**OFFER, "why": "it can't be sent"}, "it can't be sent"),
    ({**OFFER, "content": "!"}, "can't be unpacked"),
    ({**OFFER, "content": packed(b"")[:-8]}, "can't be unpacked"),
    ({**OFFER, "content": base64.b64encode(b"not zlib").decode()}, "can't be unpacked"),
    ({**OFFER, "content": packed(kernels.content()[:-1])}, "has another SHA-256"),
    ({**OFFER, "content": packed(kernels.attackers(kernels.content()))}, "has another SHA-256"),
]


@pytest.mark.parametrize(("offer", "why"), NOT_TO_BE_HAD)
def test_what_can_not_be_had_is_said(home: Path, offer: dict[str, Any], why: str) -> None:
    assert arrive(offer) is None
    assert selected.NAME == "pure" and why in selected.WHY
    with pytest.raises(KernelUnavailable, match=why):
        arrive(offer, "native")
    assert not list(home.iterdir())


def test_a_damaged_file_is_asked_for_again_and_replaced(home: Path) -> None:
    arrive(SENT)
    kept = home / "cache" / "umbra" / FILE
    for damaged in (kernels.content()[:5000], kernels.attackers(kernels.content()), b""):
        kept.write_bytes(damaged)
        assert arrive(OFFER) == ASKED and selected.NAME == "pure"
        assert arrive(SENT) is None and selected.NAME == "native"
        assert kept.read_bytes() == kernels.content()


@pytest.mark.parametrize("offer", [OFFER, SENT])
def test_what_is_hostile_is_refused_and_nothing_else_is_tried(home: Path, offer: dict[str, Any]) -> None:
    (home / "elsewhere").mkdir(mode=0o700)
    (home / "cache").mkdir(mode=0o700)
    (home / "cache" / "umbra").symlink_to(home / "elsewhere")
    assert arrive(offer, tmp=home / "tmp") is None
    assert selected.NAME == "pure" and "is a symbolic link, so that nothing is" in selected.WHY
    with pytest.raises(KernelUnavailable, match="is a symbolic link"):
        arrive(offer, "native", tmp=home / "tmp")
    assert not list((home / "elsewhere").iterdir()) and not (home / "tmp").exists()


def test_without_a_home_it_is_kept_beside_ansibles_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc stands in for a read-only home: nobody can make a directory there."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/self")
    tmp = home / "tmp"
    assert arrive(OFFER, tmp=tmp) == ASKED
    assert arrive(SENT, tmp=tmp) is None and selected.NAME == "native"
    assert (tmp / "umbra" / FILE).is_file()
    assert arrive(OFFER, tmp=tmp) is None and selected.NAME == "native"


def test_a_place_that_is_not_needed_does_not_matter(home: Path, tmp_path: Path) -> None:
    """tmp_path, as many an ansible_remote_tmp, is below a directory that everybody can write."""
    assert arrive(OFFER, tmp=tmp_path) == ASKED
    assert arrive(SENT, tmp=tmp_path) is None and selected.NAME == "native"
    assert arrive(OFFER, tmp=tmp_path) is None and selected.NAME == "native"
    assert not list(tmp_path.iterdir())


def test_with_no_place_at_all_nothing_is_sent_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standing in for a user whom nothing belongs to: os.access says so."""
    monkeypatch.setattr(os, "access", lambda *dummy, **others: False)
    assert arrive(OFFER) is None
    assert selected.NAME == "pure" and "this user has no place to keep it: " in selected.WHY


def test_a_disk_that_is_full_does_not_keep_it_from_being_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename that fails stands in for it."""

    def full(*dummy: object, **others: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    assert arrive(SENT) is None
    assert selected.NAME == "native" and "sent for this task alone" in selected.WHY


# system, machine, 64 bits, C library: the platform, or why there is none
PLATFORMS = [
    ("linux", "x86_64", True, "gnu", "x86_64-linux-gnu", ""),
    ("linux", "aarch64", True, "musl", "aarch64-linux-musl", ""),
    ("linux", "ppc64le", True, "gnu", "ppc64le-linux-gnu", ""),
    ("linux", "s390x", True, "musl", "s390x-linux-musl", ""),
    ("linux", "riscv64", True, "gnu", None, "there is none for the architecture riscv64"),
    ("linux", "ppc64", True, "gnu", None, "there is none for the architecture ppc64"),
    ("linux", "", True, "gnu", None, "there is none for the architecture of this host"),
    ("linux", "x86_64", False, "gnu", None, "this Python is one of 32 bits"),
    ("linux", "x86_64", True, None, None, "neither glibc nor musl"),
    ("darwin", "arm64", True, None, None, "there is none for darwin"),
]


@pytest.mark.parametrize(("system", "machine", "wide", "libc", "named", "why"), PLATFORMS)
def test_platforms(system: str, machine: str, wide: bool, libc: str | None, named: str | None, why: str) -> None:
    found, reason = arrival.platform_of(system, machine, wide, libc)
    assert found == named and why in reason and bool(reason) == (named is None)


def test_an_unknown_architecture_is_pure_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for a machine that is not here."""
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert arrive(OFFER) is None
    assert selected.WHY == "The native kernel is not used: there is none for the architecture riscv64."
    with pytest.raises(KernelUnavailable, match="riscv64"):
        arrive(OFFER, "native")
