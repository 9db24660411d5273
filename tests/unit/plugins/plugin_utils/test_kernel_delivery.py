# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of the delivery, with the host's real half at the other end: how often a host is called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import KernelUnavailable
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import arrival, selected
from ansible_collections.umbra.rollback.plugins.plugin_utils import kernel_delivery
from ansible_collections.umbra.rollback.tests.unit.support import kernels


class Host:
    """A module on a host, without Ansible between: each call is one round trip."""

    def __init__(self, wanted: str = "auto") -> None:
        self.wanted = wanted
        self.calls: list[tuple[bool, bool, bool]] = []
        self.worked: list[str] = []

    def call(self, offer: dict[str, Any], background: bool) -> dict[str, Any]:
        """As edge.conclude does it."""
        self.calls.append((bool(offer.get("content")), bool(offer.get("only")), background))
        try:
            asked = arrival.arrive(self.wanted, offer, False, None)
        except KernelUnavailable as error:
            return {"failed": True, "msg": str(error)}
        if asked is not None:
            return {"changed": False, "kernel_wanted": asked}
        if offer.get("only"):
            return {"changed": False}
        self.worked.append(selected.NAME)
        return {"changed": True}

    def run(self, background: bool = False, built: Path = kernel_delivery.BUILT) -> dict[str, Any]:
        """As HostAction does it."""
        self.calls, self.worked = [], []
        return kernel_delivery.run(self.call, self.wanted, background, built)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of the test's own, and afterwards the kernel that was chosen before."""
    before = selected.NAME, selected.WHY, selected.native
    with kernels.safe_directory() as path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(path))
        yield path
    selected.NAME, selected.WHY, selected.native = before


ASK, SEND = (False, False, False), (True, False, False)
ASK_ALONE, SEND_ALONE, BACKGROUND = (False, True, False), (True, True, False), (False, False, True)


@pytest.mark.parametrize("wanted", ["auto", "native"])
def test_a_cold_host_is_called_twice_and_a_warm_one_once(wanted: str) -> None:
    host = Host(wanted)
    assert host.run() == {"changed": True}
    assert (host.calls, host.worked) == ([ASK, SEND], ["native"])
    assert host.run() == {"changed": True}
    assert (host.calls, host.worked) == ([ASK], ["native"])


def test_in_the_background_it_is_sent_before() -> None:
    host = Host()
    assert host.run(background=True) == {"changed": True}
    assert (host.calls, host.worked) == ([ASK_ALONE, SEND_ALONE, BACKGROUND], ["native"])
    assert host.run(background=True) == {"changed": True}
    assert (host.calls, host.worked) == ([ASK_ALONE, BACKGROUND], ["native"])


def test_pure_is_one_call() -> None:
    host = Host("pure")
    for background in (False, True):
        assert host.run(background) == {"changed": True}
        assert (host.calls, host.worked) == ([(False, False, background)], ["pure"])


def test_a_host_that_refuses_is_called_once(home: Path) -> None:
    (home / "umbra").symlink_to("/tmp")
    host = Host()
    host.run()
    assert (host.calls, host.worked) == ([ASK], ["pure"])
    demanding = Host("native")
    assert "is a symbolic link" in demanding.run()["msg"] and not demanding.worked
    assert demanding.run(background=True)["failed"] and demanding.calls == [ASK_ALONE]


def test_an_installation_without_built_files_says_so(tmp_path: Path) -> None:
    host = Host()
    for background in (False, True):
        host.run(background, tmp_path)
        assert (host.calls, host.worked) == ([(False, False, background)], ["pure"])
        assert kernel_delivery.NONE_BUILT in selected.WHY
    assert kernel_delivery.NONE_BUILT in Host("native").run(built=tmp_path)["msg"]


def test_a_file_that_changes_while_it_is_sent_is_not_used(tmp_path: Path) -> None:
    built = tmp_path / f"umbra_kernel.{kernels.PLATFORM}.so"
    built.write_bytes(kernels.content())
    host = Host()
    real = host.call

    def changing(offer: dict[str, Any], background: bool) -> dict[str, Any]:
        done = real(offer, background)
        built.write_bytes(kernels.attackers(kernels.content()))
        return done

    assert kernel_delivery.run(changing, "auto", False, tmp_path) == {"changed": True}
    assert host.worked == ["pure"] and "another SHA-256" in selected.WHY


def test_a_file_that_can_not_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / f"umbra_kernel.{kernels.PLATFORM}.so").mkdir()
    assert "can't be read: Is a directory" in kernel_delivery.offer(tmp_path)["why"]
    assert "can't be read: Is a directory" in kernel_delivery.supply(kernels.PLATFORM, tmp_path)["why"]
    assert kernel_delivery.supply("../../../etc/passwd", tmp_path) == {"why": kernel_delivery.NONE_BUILT}


def test_what_is_sent_is_small() -> None:
    assert len(kernel_delivery.supply(kernels.PLATFORM)["content"]) < 256 << 10


def test_the_controller_loads_its_own(tmp_path: Path) -> None:
    assert kernel_delivery.choose_here("native", 2)["kernel"] == "native" and selected.threads() == 2
    told = kernel_delivery.choose_here("auto", 0, tmp_path)
    assert told["kernel"] == "pure" and kernel_delivery.NONE_BUILT in told["kernel_reason"]
    with pytest.raises(KernelUnavailable):
        kernel_delivery.choose_here("native", 0, tmp_path)
