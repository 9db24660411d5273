# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of a host while something works on it."""

from __future__ import annotations

import os
import signal
import time
from threading import Thread

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import errors
from ansible_collections.umbra.rollback.plugins.module_utils.verbs import create, info

from .conftest import Shop


def test_who_waits_is_told_what_is_done_and_how_far_it_is(shop: Shop) -> None:
    shop.shadow()
    slow = {"create": ["/bin/sh", "-ec", 'touch "$1"; sleep 30 & echo $! > "$1"; wait; exit 1', "sh", str(shop.log)]}
    shop.log.unlink(missing_ok=True)
    resources = [{"name": "dump", "type": "command", **slow, "restore": ["true"]}]
    call = Thread(target=lambda: pytest.raises(errors.ShadowFailed, create.create, shop.target("u2"), resources))
    call.start()
    try:
        while not (shop.log.exists() and shop.log.read_text().strip()):
            assert call.is_alive()
            time.sleep(0.01)
        busy = info.info(shop.target("")).busy
        assert busy.startswith(f"create of update u2 by pid {os.getpid()} on ")
        assert busy.endswith(": shadowing dump")
        with pytest.raises(errors.StoreLocked, match="shadowing dump"):
            create.create(shop.target("u3", lock_timeout=0.0), shop.resources())
    finally:
        os.kill(int(shop.log.read_text()), signal.SIGKILL)
        call.join()
    assert info.info(shop.target("")).busy == ""
