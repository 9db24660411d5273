# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the update does on a host whose directory is the argument: it migrates the database and the configuration."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

root = Path(sys.argv[1])
with sqlite3.connect(root / "shop.db") as connection:
    connection.execute("create table prices (id integer, price integer)")
    connection.execute("delete from orders where what = 'tea'")
connection.close()
(root / "etc" / "shop.conf").write_text("version = 2\n")
(root / "etc" / "conf.d" / "new.conf").write_text("new = 1\n")
(root / "etc" / "conf.d" / "3.conf").unlink()
(root / "etc" / "current").unlink()
