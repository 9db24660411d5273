# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A world of packages: this host's real dpkg and apt, which see nothing but a tiny Debian below the world.

It is mounted over the places that they use, where only this test process sees it (see `leave_the_host`).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

from ansible_collections.umbra.rollback.tests.faults.worlds import World
from ansible_collections.umbra.rollback.tests.unit.plugins.module_utils.tree.trees import unmount
from ansible_collections.umbra.rollback.tests.unit.support.debs import Debs, run

CLONE_NEWNS = 0x20000
PLACES = {
    "etc": "/etc",
    "share": "/usr/share",
    "dpkg": "/var/lib/dpkg",
    "apt": "/var/lib/apt",
    "cache": "/var/cache/apt",
    "log": "/var/log",
}
NEEDED = ("alternatives", "group", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "nsswitch.conf", "passwd")  # of /etc
MADE = """etc/apt/apt.conf.d etc/apt/preferences.d etc/dpkg dpkg/info dpkg/updates dpkg/triggers apt/lists/partial
cache/archives/partial"""
NEW = "/etc/shop/new.conf"
APT = """APT::Sandbox::User "root";
pkgCacheFile::Generate "true";
"""
LISTED = "${Package} ${Version} ${db:Status-Want} ${db:Status-Status} ${db:Status-Eflag}\\n${Conffiles}\\n"


def leave_the_host() -> None:
    """Give this process mounts of its own: whatever it mounts is gone when it ends, however it does."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "no mount namespace of its own; this needs root")
    run("mount", "--make-rprivate", "/")


class PackageWorld(World):
    """A shop whose next version brings one package, takes another along, and changes its configuration."""

    costly = True
    ballast = 0  # bytes of a file that each version of the shop has

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._mounted: list[str] = []

    def build(self) -> None:
        repository = self._publish()
        for name in PLACES:
            (self.live / name).mkdir()
        for name in NEEDED:
            source = Path("/etc", name)
            if source.is_dir():
                shutil.copytree(source, self.live / "etc" / name, symlinks=True)
            elif source.exists():
                shutil.copy(source, self.live / "etc" / name)
        for path in MADE.split():
            (self.live / path).mkdir(parents=True)
        shutil.copytree("/usr/share/dpkg", self.live / "share/dpkg")
        (self.live / "dpkg/status").touch()
        (self.live / "etc/apt/apt.conf").write_text(APT)
        (self.live / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{repository.directory} ./\n")
        self._mount()
        run("apt-get", "update")
        self._install("base", "shop=1")

    def update(self) -> None:
        two = "shop 2" not in self._listed()
        self._install("shop=2" if two else "shop=3")
        Path("/etc/shop/main.conf").write_text(f"edited at {time.time()}\n")

    @property
    def resource(self) -> dict[str, Any]:
        return {"type": "package", "packages": ["shop"], "timeout": 30.0}

    def state(self) -> object:
        tops = [Path("/etc/shop"), *Path("/usr/share").glob("shop*")]
        files = {path: _told(path) for top in tops for path in top.rglob("*") if path.is_file()}
        return self._listed(), run("apt-mark", "showauto"), files

    def wreck(self) -> None:
        names = run("dpkg-query", "--show", "--showformat=${Package} ", "shop*").split()
        run("dpkg", "--purge", "--force-all", *names)

    def go_back(self) -> None:
        self.close()
        super().go_back()
        self._mount()

    def close(self) -> None:
        while self._mounted:
            unmount(Path(self._mounted[-1]))
            self._mounted.pop()

    # --- what it is made of

    def _publish(self) -> Debs:
        """Three versions of the shop, as a repository."""
        made = Debs(self.root / "debs")
        main = {number: {"/etc/shop/main.conf": f"version {number}\n"} for number in "123"}
        data = {n: {"/usr/share/shop/data": os.urandom(self.ballast // 2).hex()} for n in "123"}
        size = {"Installed-Size": str(self.ballast // 1024 + 1)}
        archives = [
            made.add("shop", "1", {**size, "Depends": "shop-old"}, main["1"], data["1"]),
            made.add("shop", "2", {**size, "Depends": "shop-extra", "Conflicts": "shop-old"}, main["2"], data["2"]),
            made.add("shop", "3", {**size, "Depends": "shop-extra"}, {**main["3"], NEW: "new\n"}, data["3"]),
            made.add("base", "1"),
            made.add("shop-old", "1"),
            made.add("shop-extra", "1", config={"/etc/shop/extra.conf": "extra\n"}),
        ]
        (made.directory / "Packages").write_text("\n".join(map(_indexed, archives)))
        return made

    def _mount(self) -> None:
        for name, place in PLACES.items():
            run("mount", "--bind", str(self.live / name), place)
            self._mounted.append(place)

    def _install(self, *words: str) -> None:
        run("apt-get", "-y", "-o", "Dpkg::Options::=--force-confold", "install", *words)

    def _listed(self) -> str:
        return run("dpkg-query", "--show", f"--showformat={LISTED}", check=False)


def _indexed(archive: Path) -> str:
    """What an index of a repository has of an archive."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    place = f"Filename: ./{archive.name}\nSize: {archive.stat().st_size}\nSHA256: {digest}\n"
    return run("dpkg-deb", "--field", str(archive)) + place


def _told(path: Path) -> tuple[object, ...]:
    st = path.stat()
    return st.st_mode, st.st_uid, st.st_mtime_ns, path.read_text()
