# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""shopctl starts and stops, returns when that is so, and says what went wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Shop, tool


def pid(shop: Shop) -> int:
    return int((shop.home / "run" / "shop.pid").read_text())


def test_it_answers_as_soon_as_start_returns_and_never_after_stop(shop: Shop) -> None:
    assert shop.control("status").returncode == 3
    assert shop.control("start").returncode == 0
    assert shop.get("/healthz")[0] == 200
    status = shop.control("status")
    assert (status.returncode, status.stdout) == (0, f"running, process {pid(shop)}\n")
    assert shop.control("stop").stdout == "stopped\n"
    with pytest.raises(OSError):
        shop.get("/healthz")


def test_start_and_stop_twice_are_fine_and_restart_is_another_process(shop: Shop) -> None:
    assert shop.control("stop").returncode == 0
    shop.control("start")
    first = pid(shop)
    assert shop.control("start").returncode == 0
    assert pid(shop) == first
    assert shop.control("restart").returncode == 0
    assert pid(shop) != first


def test_the_file_of_a_killed_shop_misleads_nobody(shop: Shop) -> None:
    shop.control("start")
    os.kill(pid(shop), signal.SIGKILL)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as somebody:
        (shop.home / "run" / "shop.pid").write_text(f"{somebody.pid}\n")  # the number is another process's by now
        assert shop.control("stop").returncode == 0
        assert somebody.poll() is None
        somebody.communicate(b"\n")
    assert shop.control("start").returncode == 0


def test_a_shop_that_can_not_start_leaves_its_last_words(shop: Shop) -> None:
    (shop.home / "etc" / "shop.ini").unlink()
    started = shop.control("start")
    assert started.returncode == 2
    assert "does not start" in started.stderr
    assert "shop.ini" in started.stderr
    assert shop.control("status").returncode == 3


@pytest.mark.parametrize("arguments", [(), ("/nowhere",), ("/nowhere", "explode")])
def test_usage(arguments: tuple[str, ...]) -> None:
    done = tool("shopctl", *arguments)
    assert done.returncode == 1
    assert "Usage" in done.stderr


def test_a_kept_state_is_told_from_another_and_comes_back(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setenv("UMBRA_SHADOW", str(kept))
    shop.control("start")
    assert shop.control("keep").returncode == 0
    assert (shop.control("drift").returncode, shop.control("drift").stdout) == (0, "")
    (shop.home / "etc" / "payment.ini").write_text("no section\n")
    assert shop.control("drift").stdout == "well: True when it was kept, False now\n"
    shop.control("stop")
    stopped = shop.control("drift")
    assert stopped.returncode == 1
    assert "runs: True when it was kept, False now" in stopped.stdout
    assert shop.control("restore").returncode == 0
    assert shop.control("status").returncode == 0


def test_a_shop_that_was_stopped_is_stopped_again(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMBRA_SHADOW", str(tmp_path))
    assert shop.control("keep").returncode == 0
    shop.control("start")
    assert shop.control("drift").returncode == 1
    shop.control("restore")
    assert shop.control("drift").returncode == 0
    assert shop.control("status").returncode == 3
