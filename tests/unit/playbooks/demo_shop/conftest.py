# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A shop of release 1 in a directory of its own, made by the demo's own scripts, all of them run as processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DEMO = Path(__file__).resolve().parents[4] / "playbooks" / "demo_shop"
# Loopback has to be asked directly, whatever proxy this machine sets.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def run(script: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run one of the demo's scripts as the playbook does."""
    argv = [sys.executable, "-B", str(script), *map(str, arguments)]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


def tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script of playbooks/demo_shop/tools."""
    return run(DEMO / "tools" / f"{name}.py", *arguments)


@dataclass(frozen=True)
class Shop:
    """A shop's home, and the port that is its."""

    home: Path
    port: int

    def install(self, version: str) -> None:
        """Unpack release 2 over release 1, and write the configuration that the playbook has templates for."""
        with tarfile.open(self.home / "releases" / f"shop-{version}.tar.gz") as archive:
            if hasattr(tarfile, "fully_trusted_filter"):  # Python 3.9.17 and later; it was made a moment ago, by us
                archive.extraction_filter = staticmethod(tarfile.fully_trusted_filter)
            archive.extractall(self.home)
        text = f"[shop]\nformat = 2\ntitle = Test\nport = {self.port}\n"
        (self.home / "etc" / "shop.ini").write_text(text)
        for region in (self.home / "etc" / "regions").glob("[!d]*.ini"):
            region.write_text(region.read_text().replace("format = 1", "format = 2"))

    def control(self, verb: str) -> subprocess.CompletedProcess[str]:
        """shopctl."""
        return tool("shopctl", self.home, verb)

    def program(self, verb: str) -> subprocess.CompletedProcess[str]:
        """A verb of the release that is installed."""
        return run(self.home / "app" / "shop.py", verb, self.home)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an answer over HTTP."""
        try:
            with DIRECT.open(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def health(self) -> tuple[int, dict[str, Any]]:
        """What the health check says."""
        status, body = self.get("/healthz")
        return status, json.loads(body)


@pytest.fixture(scope="session")
def first_shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Release 1, installed, as the demo's scripts make it. Only to be copied."""
    home = tmp_path_factory.mktemp("demo") / "shop"
    built = tool("build", home)
    assert built.returncode == 0, built.stderr
    return Shop(home, json.loads(built.stdout)["port"])


@pytest.fixture
def shop(first_shop: Shop, tmp_path: Path) -> Iterator[Shop]:
    """Release 1, installed and not started; stopped at the end."""
    shop = Shop(tmp_path / "shop", first_shop.port)
    shutil.copytree(first_shop.home, shop.home, symlinks=True)
    yield shop
    stopped = shop.control("stop")
    assert stopped.returncode == 0, stopped.stderr
