# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives ansible-test the pip that it would otherwise download from a host of its own, from the package index.

Run it with the Python of an environment that has ansible-core. ansible-test makes an environment for each sanity test,
and begins it with a script of its cache, which installs pip; this puts such a script there, and pip's wheel beside it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import ansible_test

CACHE = Path("~/.ansible/test/cache").expanduser()
SCRIPT = """import runpy
import sys
sys.path.insert(0, {wheel!r})
sys.argv[1:] = ["install", "--quiet", "--disable-pip-version-check", "--no-index", {wheel!r}]
runpy.run_module("pip", run_name="__main__")
"""


def main() -> None:
    """Put the script and the wheel into ansible-test's cache, unless a script is there."""
    source = (Path(ansible_test.__file__).parent / "_internal" / "python_requirements.py").read_text()
    version = re.search(r"pip='([\d.]+)'", source)
    if version is None:
        raise SystemExit(
            "This ansible-test does not say which pip it wants: tests/tools/offline_pip.py has to learn from it."
        )
    script = CACHE / f"get_pip_{version[1].replace('.', '_')}.py"
    if script.exists():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "download", "--no-deps", "--dest", str(CACHE), f"pip=={version[1]}"], check=True)
    script.write_text(SCRIPT.format(wheel=str(next(CACHE.glob(f"pip-{version[1]}-*.whl")))))


if __name__ == "__main__":
    main()
