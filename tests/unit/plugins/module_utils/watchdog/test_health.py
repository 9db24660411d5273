# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples of health from real servers, and telling real listeners."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.context import Context
from ansible_collections.umbra.rollback.plugins.module_utils.watchdog import health, notify
from ansible_collections.umbra.rollback.plugins.module_utils.watchdog.armed import Check, Hook

CONTEXT = Context("u1", "h", "/")


class Web(HTTPServer):
    """Answers with the statuses that are left, the last one for ever; remembers what it was sent."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.statuses, self.bodies = list(statuses), list[bytes]()
        self.url = f"http://127.0.0.1:{self.server_port}/health"


class Answer(BaseHTTPRequestHandler):
    """One answer."""

    server: Web

    def do_GET(self) -> None:
        """The next status."""
        statuses = self.server.statuses
        self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def do_POST(self) -> None:
        """The same, and remember."""
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.do_GET()

    def log_message(self, *dummy: object) -> None:
        """Nothing."""


@contextmanager
def serving(*statuses: int) -> Iterator[Web]:
    """A web server on loopback."""
    with Web(*statuses) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


HTTP = [(200, (), ""), (302, (), ""), (500, (), "answered with status 500"), (404, (404,), ""), (200, (204,), "200")]


@pytest.mark.parametrize(("status", "good", "bad"), HTTP)
def test_http(status: int, good: tuple[int, ...], bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # a proxy would not say how the server is
    with serving(status) as server:
        found = health.sample(Check("shop", "http", (server.url,), status=good), CONTEXT)
    assert found.endswith(bad) and bool(found) == bool(bad)


def test_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        check = Check("shop", "tcp", (f"127.0.0.1:{server.getsockname()[1]}",))
        assert health.sample(check, CONTEXT) == ""
    assert "refused" in health.sample(check, CONTEXT)


COMMANDS = [(("/bin/true",), ""), (("/bin/false",), "ended with 1: no output"), (("/nowhere",), "not on this host")]


@pytest.mark.parametrize(("argv", "bad"), COMMANDS)
def test_command(argv: tuple[str, ...], bad: str) -> None:
    found = health.sample(Check("shop", "command", argv), CONTEXT)
    assert bad in found and bool(found) == bool(bad)


def test_a_command_that_hangs_has_failed() -> None:
    assert "killed after" in health.sample(Check("shop", "command", ("/bin/sleep", "60"), timeout=0.1), CONTEXT)


def test_a_webhook_is_told_again_until_it_listens() -> None:
    with serving(500, 503, 200) as server:
        hooks = notify.Hooks([Hook((), server.url, backoff=0.01), Hook((), server.url, events=("failed",))], CONTEXT)
        hooks.tell("fired", {"host": "web1"})
        while hooks.busy():
            time.sleep(0.01)
    assert [json.loads(body) for body in server.bodies] == [{"host": "web1", "event": "fired"}] * 3


def test_the_system_s_log_gets_a_line_and_a_missing_or_full_one_stops_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    notify.log("nobody is there", path=path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as logger:
        logger.bind(path)
        notify.log("fired: no commit", notify.CRITICAL, path)
        assert logger.recv(1000).decode() == f"<26>umbra-watchdog[{os.getpid()}]: fired: no commit"
        for dummy in range(2000):
            notify.log("x" * 1000, path=path)
