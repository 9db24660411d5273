# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository of tiny rpm packages, and the dnf of this machine told to use nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from .debs import run

REPOSITORY = Path("/etc/yum.repos.d/test.repo")
LOCKS = Path("/etc/dnf/plugins/versionlock.list")
SPEC = """Name: {name}
Version: {version}
Release: 1
Summary: a test
License: none
BuildArch: noarch
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
{scripts}
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
        scripts: str = "",
    ) -> None:
        """Build one package, with a file of its own that has its version."""
        lines = [
            f"mkdir -p %{{buildroot}}{Path(path).parent}\necho '{text}' > %{{buildroot}}{path}"
            for path, text in (config or {}).items()
        ]
        paths = [f"%config(noreplace) {path}" for path in config or {}]
        spec = SPEC.format(
            name=name,
            version=version,
            fields="\n".join(fields),
            lines="\n".join(lines),
            paths="\n".join(paths),
            scripts=scripts,
        )
        (self.directory / "package.spec").write_text(spec)
        where = ("--define", f"_rpmdir {self.directory}/packages", "--define", f"_topdir {self.directory}/build")
        run("rpmbuild", "-bb", "--quiet", *where, f"{self.directory}/package.spec")

    def publish(self) -> None:
        """Make the index, and have dnf read it."""
        shutil.rmtree(self.directory / "build", ignore_errors=True)
        run("createrepo_c", "--quiet", f"{self.directory}/packages")
        REPOSITORY.parent.mkdir(exist_ok=True)
        REPOSITORY.write_text(f"[test]\nname=test\nbaseurl=file://{self.directory}/packages\ngpgcheck=0\n")
        Path("/etc/dnf/dnf.conf").write_text("[main]\ngpgcheck=0\nclean_requirements_on_remove=True\n")
        Path("/etc/dnf/plugins/local.conf").write_text("[main]\nenabled=0\n")
        run("dnf", "--quiet", "makecache")

    @staticmethod
    def vanish() -> None:
        """No repository any more, and nothing in dnf's cache."""
        REPOSITORY.unlink(missing_ok=True)
        run("dnf", "--quiet", "clean", "all")


def dnf(*words: str) -> str:
    """As a person does it."""
    return run("dnf", "--quiet", "--assumeyes", *words)


def state(prefix: str) -> dict[str, object]:
    """Everything that rpm and dnf have of the packages whose names begin with `prefix`, and what verifies badly."""
    names = sorted(name for name in run("rpm", "-qa", "--queryformat=%{NAME}\n").split() if name.startswith(prefix))
    reasons = run("dnf", "--disablerepo=*", "repoquery", "--installed", "--queryformat=%{name} %{reason}")
    return {
        "packages": sorted(run("rpm", "-qa", "--queryformat=%{NAME} %{EVR} %{ARCH}\n").splitlines()),
        "reasons": sorted(line for line in reasons.splitlines() if line.startswith(prefix)),
        "held": [line for line in LOCKS.read_text().splitlines() if line and not line.startswith("#")],
        "verify": run("rpm", "--verify", *names, check=False) if names else "",
    }


def purge() -> None:
    """Remove every rpm of the machine, which has none of its own."""
    names = run("rpm", "-qa").split()
    if names:
        run("rpm", "--erase", "--nodeps", "--noscripts", *names)
    LOCKS.write_text("")
