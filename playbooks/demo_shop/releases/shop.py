# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's web shop: what a release sells, and what it asks of its database, is in the files beside this one.

Usage: shop.py serve HOME READY_FD | shop.py migrate HOME | shop.py feeds HOME
"""

from __future__ import annotations

import configparser
import csv
import fcntl
import json
import os
import signal
import socketserver
import sqlite3
import string
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

APP = Path(__file__).resolve().parent


def read_ini(path: Path) -> configparser.ConfigParser:
    """A configuration file, or OSError or configparser.Error."""
    parser = configparser.ConfigParser(interpolation=None)
    with path.open(encoding="utf-8") as text:
        parser.read_file(text)
    return parser


class Shop:
    """One release at work in one home: app/ (this release), etc/ (configuration), data/shop.db, feeds/ and run/."""

    def __init__(self, home: Path) -> None:
        """Read the release's own description and the main configuration file."""
        self.home = home
        release = read_ini(APP / "release.ini")["release"]
        self.version, self.schema = release["version"], int(release["schema"])
        self.settings = read_ini(home / "etc" / "shop.ini")["shop"]
        self.queries = {path.stem: path.read_text(encoding="utf-8") for path in sorted(APP.glob("sql/*.sql"))}

    def database(self) -> sqlite3.Connection:
        """A connection of its own for each thread."""
        connection = sqlite3.connect(self.home / "data" / "shop.db", timeout=10, isolation_level=None)
        connection.row_factory = sqlite3.Row
        return connection

    def rows(self, query: str) -> list[dict[str, Any]]:
        """What one of the release's queries finds. Raises sqlite3.Error."""
        with closing(self.database()) as database:
            return [dict(row) for row in database.execute(self.queries[query])]

    def problems(self) -> Iterator[str]:
        """What keeps this release from working with the database and the configuration that are there."""
        with closing(self.database()) as database:
            (schema,) = database.execute("PRAGMA user_version").fetchone()
            if schema != self.schema:
                yield f"the database has schema {schema}, and release {self.version} is for {self.schema}"
        for name in self.queries:
            try:
                self.rows(name)
            except sqlite3.Error as error:
                yield f"sql/{name}.sql: {error}"
        for path in sorted(self.home.glob("etc/**/*.ini")):
            try:
                parser = read_ini(path)
            except (OSError, configparser.Error) as error:
                yield f"{path.name}: {error}"
                continue
            wrong = [section for section in parser.sections() if parser.getint(section, "format") != self.schema]
            if wrong:
                yield f"{path.name}: [{wrong[0]}] is not of format {self.schema}"

    def page(self) -> str:
        """The front page."""
        template = string.Template((APP / "pages" / "index.html").read_text(encoding="utf-8"))
        return template.substitute(
            title=self.settings["title"], version=self.version, products=len(self.rows("products"))
        )

    def migrate(self) -> None:
        """Bring the schema to what this release is for, one migration after the other, each whole or not at all."""
        with closing(self.database()) as database:
            (schema,) = database.execute("PRAGMA user_version").fetchone()
            for number in range(schema + 1, self.schema + 1):
                change = (APP / "migrations" / f"{number}.sql").read_text(encoding="utf-8")
                database.executescript(f"BEGIN IMMEDIATE;\n{change}\nPRAGMA user_version = {number};\nCOMMIT;")

    def write_feeds(self) -> None:
        """Write feeds/NAME.csv for each query feed_NAME: what other shops fetch."""
        for name in (name for name in self.queries if name.startswith("feed_")):
            rows = self.rows(name)
            target = self.home / "feeds" / f"{name[5:]}.csv"
            with target.with_suffix(".new").open("w", encoding="utf-8", newline="") as out:
                writer = csv.DictWriter(out, rows[0].keys())
                writer.writeheader()
                writer.writerows(rows)
            target.with_suffix(".new").replace(target)


class Server(ThreadingHTTPServer):
    """Listens on loopback only."""

    def __init__(self, shop: Shop) -> None:
        """Bind the port of the configuration."""
        self.shop = shop
        super().__init__(("127.0.0.1", int(shop.settings["port"])), Handler)

    def server_bind(self) -> None:
        """As the base, without asking a resolver for our name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]


class Handler(BaseHTTPRequestHandler):
    """/ is the front page, /healthz the health check, /api/NAME the rows of sql/NAME.sql."""

    server: Server

    def do_GET(self) -> None:
        """Answer, and never with a traceback."""
        shop = self.server.shop
        name = self.path.rpartition("/")[2]
        try:
            if self.path == "/":
                self.answer(200, "text/html", shop.page())
            elif self.path == "/healthz":
                problems = list(shop.problems())
                body = {"version": shop.version, "ok": not problems, "problems": problems}
                self.answer(500 if problems else 200, "application/json", json.dumps(body))
            elif self.path == f"/api/{name}" and name in shop.queries:
                self.answer(200, "application/json", json.dumps(shop.rows(name)))
            else:
                self.answer(404, "text/plain", "not here\n")
        except (OSError, sqlite3.Error) as error:
            self.answer(500, "text/plain", f"{error}\n")

    def answer(self, status: int, kind: str, body: str) -> None:
        """Send a whole answer."""
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def serve(home: Path, ready: int) -> None:
    """Serve until SIGTERM. Says "ready" into the descriptor `ready`; a lock on run/shop.pid tells that it lives."""
    pid_file = os.open(home / "run" / "shop.pid", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(pid_file, fcntl.LOCK_EX)  # waits: who asks whether we run holds it for a moment
    shop = Shop(home)
    with Server(shop) as server, closing(shop.database()) as database:
        database.execute("PRAGMA user_version").fetchone()  # held open, as a real shop's pool does
        # shutdown() waits for serve_forever(), which the handler has interrupted: it needs a thread of its own.
        signal.signal(signal.SIGTERM, lambda *args: threading.Thread(target=server.shutdown).start())
        os.ftruncate(pid_file, 0)
        os.pwrite(pid_file, f"{os.getpid()}\n".encode(), 0)
        os.write(ready, b"ready")
        os.close(ready)
        server.serve_forever(poll_interval=0.05)


def main(arguments: list[str]) -> None:
    """See the usage in this file's first lines."""
    what, home = arguments[0], Path(arguments[1])
    if what == "serve":
        serve(home, int(arguments[2]))
    elif what == "migrate":
        Shop(home).migrate()
    elif what == "feeds":
        Shop(home).write_feeds()
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
