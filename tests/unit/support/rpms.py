# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository of tiny rpm packages, and the dnf of this machine told to use nothing else."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from .debs import run

REPOSITORY = Path("/etc/yum.repos.d/test.repo")
LOCKS = Path("/etc/dnf/plugins/versionlock.list")
CACHE = Path("/var/cache/dnf")
PLUGINS = Path("/usr/lib/python3/dist-packages/dnf-plugins")
# What dnf and rpm know, and the files of our packages.
STATE = ("/var/lib/rpm", "/var/lib/dnf", "/etc/shop", *(f"/usr/share/{name}" for name in ("shop", "shop-old")))
SPEC = """%global debug_package %{{nil}}
Name: {name}
Version: {version}
Release: 1
Summary: a test
License: none
AutoReqProv: no
{fields}
%description
a test
%install
mkdir -p %{{buildroot}}/usr/share/{name}
echo {version} > %{{buildroot}}/usr/share/{name}/version
{lines}
%files
/usr/share/{name}
{paths}
{more}
"""


class Rpms:
    """Packages in a directory. Call `publish` when all are added."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "packages").mkdir(parents=True, exist_ok=True)

    def add(
        self,
        name: str,
        version: str,
        fields: Sequence[str] = (),
        config: Mapping[str, str] | None = None,
        more: str = "",
        native: bool = False,
        directive: str = "%config(noreplace)",
    ) -> None:
        """Build one package, with a file of its own that has its version; `more` is the end of its spec."""
        lines = [
            f"mkdir -p %{{buildroot}}{Path(path).parent}\necho '{text}' > %{{buildroot}}{path}"
            for path, text in (config or {}).items()
        ]
        spec = SPEC.format(
            name=name,
            version=version,
            fields="\n".join((*fields, *(["BuildArch: noarch"] * (not native)))),
            lines="\n".join(lines),
            paths="\n".join(f"{directive} {path}" for path in config or {}),
            more=more,
        )
        (self.directory / "package.spec").write_text(spec)
        where = ("--define", f"_rpmdir {self.directory}/packages", "--define", f"_topdir {self.directory}/build")
        run("rpmbuild", "-bb", "--quiet", *where, f"{self.directory}/package.spec")

    def path(self, package: str) -> Path:
        """The archive of a package of no architecture, as name-version."""
        return self.directory / "packages/noarch" / f"{package}-1.noarch.rpm"

    def cache(self, *packages: str) -> Path:
        """Have archives in dnf's cache, as its option keepcache leaves them there; the path of the last one."""
        directory = CACHE / "test-0/packages"
        directory.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy(self.path(package), directory)) for package in packages][-1]

    def publish(self) -> None:
        """Make the index, and have dnf read it. dnf gets no plugin but those that we call: that saves it time."""
        shutil.rmtree(self.directory / "build", ignore_errors=True)
        run("createrepo_c", "--quiet", f"{self.directory}/packages")
        REPOSITORY.parent.mkdir(exist_ok=True)
        REPOSITORY.write_text(f"[test]\nname=test\nbaseurl=file://{self.directory}/packages\ngpgcheck=0\n")
        (self.directory / "plugins").mkdir()
        for name in ("download.py", "versionlock.py"):
            (self.directory / "plugins" / name).symlink_to(PLUGINS / name)
        options = f"gpgcheck=0\nreleasever=1\nclean_requirements_on_remove=True\npluginpath={self.directory}/plugins\n"
        Path("/etc/dnf/dnf.conf").write_text(f"[main]\n{options}")
        run("dnf", "--quiet", "makecache")

    def vanish(self, and_cache: bool = True) -> None:
        """The repository can't be reached any more, and nothing of it is in dnf's cache."""
        (self.directory / "packages").rename(self.directory / "away")
        if and_cache:
            empty_cache()

    def come(self) -> None:
        """It can be reached."""
        if (self.directory / "away").exists():
            (self.directory / "away").rename(self.directory / "packages")


def dnf(*words: str, check: bool = True) -> str:
    """As a person does it."""
    return run("dnf", "--quiet", "--assumeyes", *words, check=check)


def empty_cache() -> None:
    """No archives in dnf's cache."""
    for path in CACHE.glob("*/packages"):
        shutil.rmtree(path)


def state() -> dict[str, object]:
    """Everything that rpm and dnf have of packages, and what verifies badly. There are none but ours."""
    packages = sorted(run("rpm", "-qa", "--queryformat=%{NAME} %{EVR} %{ARCH}\n").splitlines())
    names = [line.split()[0] for line in packages]
    return {
        "packages": packages,
        "reasons": _reasons(),
        "held": sorted(line for line in LOCKS.read_text().splitlines() if line and not line.startswith("#")),
        "verify": run("rpm", "--verify", *names, check=False) if names else "",
    }


def _reasons() -> list[str]:
    """Out of dnf's own library, which answers before the program has started."""
    base = importlib.import_module("dnf").Base()
    try:
        base.fill_sack(load_system_repo=True, load_available_repos=False)
        return sorted(f"{package} {package.reason}" for package in base.sack.query().installed())
    finally:
        base.close()


def save(directory: Path) -> None:
    """Copy all that is of dnf, rpm and our packages: `load` puts it back in no time."""
    for path in (*map(Path, STATE), LOCKS):
        copy = directory / path.relative_to("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, copy, symlinks=True)
        elif path.exists():
            shutil.copy2(path, copy)


def load(directory: Path) -> None:
    """Have what `save` saved, and no other package."""
    for path in (*map(Path, STATE), *Path("/usr/share").glob("shop*")):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(directory, "/", symlinks=True, dirs_exist_ok=True)
