# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the demo's shop as it was before the update: release 1 installed, rows in its database, later ones as archives.

Usage: build.py HOME        It prints, as JSON, the TCP port that the shop uses.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import shopctl

TOOLS = Path(__file__).resolve().parent
SOURCES = TOOLS.parent / "releases"
# Version: the directories it is made of (later ones win), the format of its configuration, when it was made.
RELEASES = {
    "1.0.0": (("v1",), 1, 1768204800),
    "2.0.0": (("v2",), 2, 1772438400),
    "2.0.1": (("v2", "v2_fixed"), 2, 1772442000),
}
MARKER = ".umbra-demo"
COUNTRIES = "at be bg ch cz de dk ee es fi fr gr hr hu ie it lt lu lv nl no pl pt se"
ZONES = 12
REGIONS = {"alps": "CHF", "baltic": "EUR", "iberia": "EUR", "nordic": "SEK"}
GIVEN = "Ada Alan Barbara Claude Donald Edsger Frances Grace Hedy Joan John Karen Ken Leslie Margaret Radia Tim"
FAMILY = "Backus Dijkstra Hamilton Hopper Johnson Kernighan Knuth Lamarr Lamport Liskov Perlman Ritchie Turing"
CITIES = "Aarhus Basel Delft Graz Lyon Malmö Porto Tartu Turin Zagreb"
THINGS = "Anchor Basket Candle Drum Easel Funnel Globe Hammer Inkwell Kettle Ladder Mirror Needle Oar Pulley"
SCHEMA = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL UNIQUE, city TEXT NOT NULL);
CREATE TABLE products (id INTEGER PRIMARY KEY, sku TEXT NOT NULL UNIQUE, title TEXT NOT NULL,
  price_cents INTEGER NOT NULL);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers,
  product_id INTEGER NOT NULL REFERENCES products, quantity INTEGER NOT NULL, placed_at TEXT NOT NULL);
PRAGMA user_version = 1;
"""


def empty_home(home: Path) -> None:
    """Make `home` empty: only when it is missing, or empty, or an earlier demo made it."""
    if home.is_dir() and any(home.iterdir()):
        if not (home / MARKER).is_file():
            sys.exit(f"{home} holds something that no demo made: name another shop_home.")
        shopctl.stop(home)
        shutil.rmtree(home)
    for name in ("", "bin", "data", "feeds", "releases", "run"):
        (home / name).mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    (home / MARKER).touch()
    for name in ("shopctl.py", "evidence.py"):
        shutil.copy(TOOLS / name, home / "bin")


def files(layers: tuple[str, ...], format_: int) -> Iterator[tuple[str, bytes, int]]:
    """Path, contents and mode of every file in a release."""
    yield "app/shop.py", (SOURCES / "shop.py").read_bytes(), 0o644
    found: dict[str, Path] = {}
    for layer in layers:
        found.update({str(p.relative_to(SOURCES / layer)): p for p in (SOURCES / layer).rglob("*") if p.is_file()})
    for name, path in sorted(found.items()):
        yield f"app/{name}", path.read_bytes(), 0o644
    yield "etc/payment.ini", f"[payment]\nformat = {format_}\nmethods = invoice, card\n".encode(), 0o600
    for country in COUNTRIES.split():
        for zone in range(1, ZONES + 1):
            cents = 290 + 35 * zone + (60 if format_ > 1 else 0)
            text = f"[zone]\nformat = {format_}\ncountry = {country}\nzone = {zone}\nup_to_5_kg_cents = {cents}\n"
            yield f"etc/shipping/{country}/zone-{zone:02}.ini", text.encode(), 0o640


def release(version: str, target: Path) -> None:
    """Write the archive of one release."""
    layers, format_, made = RELEASES[version]
    seen: set[str] = set()
    with tarfile.open(target, "w:gz") as archive:
        for name, data, mode in files(layers, format_):
            for parent in reversed(Path(name).parents[:-1]):
                if str(parent) not in seen:
                    seen.add(str(parent))
                    archive.addfile(_member(str(parent), 0o755, made, tarfile.DIRTYPE))
            member = _member(name, mode, made, tarfile.REGTYPE)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def _member(name: str, mode: int, made: int, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = kind, mode, made
    member.uid, member.gid = os.getuid(), os.getgid()  # as root, tar would apply them
    return member


def fill(path: Path) -> None:
    """Make the database of release 1: the same rows each time."""
    dice = random.Random(2026)
    given, family, cities, things = (words.split() for words in (GIVEN, FAMILY, CITIES, THINGS))
    customers = [
        (n, f"{dice.choice(given)} {dice.choice(family)}", f"c{n}@example.org", dice.choice(cities))
        for n in range(1, 1201)
    ]
    products = [(n, f"SKU-{n:04}", f"{dice.choice(things)} no. {n}", dice.randrange(100, 20000)) for n in range(1, 241)]
    orders = [
        (
            n,
            dice.randrange(1, 1201),
            dice.randrange(1, 241),
            dice.randrange(1, 6),
            f"2026-02-{n % 28 + 1:02} {n % 24:02}:00",
        )
        for n in range(1, 4001)
    ]
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(SCHEMA)
        database.executemany("INSERT INTO customers VALUES (?, ?, ?, ?)", customers)
        database.executemany("INSERT INTO products VALUES (?, ?, ?, ?)", products)
        database.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", orders)
        database.commit()


def install(home: Path, version: str, port: int) -> None:
    """Unpack the first release, write its configuration and its feeds."""
    with tarfile.open(home / "releases" / f"shop-{version}.tar.gz") as archive:
        if hasattr(tarfile, "fully_trusted_filter"):  # Python 3.9.17 and later; it was made a moment ago, by us
            archive.extraction_filter = staticmethod(tarfile.fully_trusted_filter)
        archive.extractall(home)
    regions = home / "etc" / "regions"
    regions.mkdir()
    for name, currency in REGIONS.items():
        (regions / f"{name}.ini").write_text(f"[region]\nformat = 1\nname = {name}\ncurrency = {currency}\n")
    (regions / "default.ini").symlink_to("alps.ini")
    (home / "etc" / "shop.ini").write_text(f"[shop]\nformat = 1\ntitle = The Shadow Shop\nport = {port}\n")
    subprocess.run([sys.executable, "-B", str(home / "app" / "shop.py"), "feeds", str(home)], check=True)


def free_port() -> int:
    """A TCP port on loopback that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(arguments: list[str]) -> None:
    """See the usage in this file's first lines."""
    if len(arguments) != 1:
        sys.exit(__doc__)
    home = Path(arguments[0])
    if not home.is_absolute():
        sys.exit(f"shop_home has to be an absolute path, and {home} is not.")
    empty_home(home)
    for version in RELEASES:
        release(version, home / "releases" / f"shop-{version}.tar.gz")
    fill(home / "data" / "shop.db")
    port = free_port()
    install(home, next(iter(RELEASES)), port)
    print(json.dumps({"port": port}))


if __name__ == "__main__":
    main(sys.argv[1:])
