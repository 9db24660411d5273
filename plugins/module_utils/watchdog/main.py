# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watcher's command line: `umbra watch ID --store DIR --host NAME ...`, which the switch itself types."""

from __future__ import annotations

import argparse
import encodings.idna  # noqa: F401  # pylint: disable=unused-import  # loaded before an update can take it away
import sys
import time
import traceback
from collections.abc import Sequence

from .. import processes
from ..store.seal import read_key
from ..verbs import watch
from ..verbs.run import Target
from . import daemon, notify

DEFECT_PAUSE = 60.0  # seconds


def main(argv: Sequence[str]) -> int:
    """Watch until there is nothing to watch any more; the exit status."""
    arguments = _parser().parse_args(argv)
    key = read_key(arguments.store_key_file) if arguments.store_key_file else None
    target = Target(arguments.update_id, arguments.host, arguments.store, store_key=key)
    if arguments.daemon:
        daemon.detach()
    processes.name_this()
    while True:
        try:
            why = watch.watch(target, ready=daemon.close_output if arguments.daemon else None)
        except Exception as error:  # noqa: BLE001  # the edge: a switch that ends by a defect of ours brings nobody back
            notify.log(f"the watcher of {target.update_id} has a defect: {traceback.format_exc()}", notify.CRITICAL)
            sys.stderr.write(f"umbra.rollback has a defect ({type(error).__name__}: {error})\n")
            sys.stderr.flush()
            time.sleep(DEFECT_PAUSE)
            continue
        notify.log(f"the watcher of update {target.update_id} on {target.host} ends: {why}")
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("umbra watch", description="Watch an armed dead-man switch.")
    parser.add_argument("update_id")
    parser.add_argument("--store", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--store-key-file")
    parser.add_argument("--daemon", action="store_true")
    return parser
