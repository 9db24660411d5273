# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads damaged files of every format for a while; run by `make fuzz`, with a kernel that finds its own mistakes.

Ends at the first one that is not refused as it should be, with its number; `--only TARGET --first NUMBER --count 1` is
that one again. The input is in the directory `--keep`, whatever becomes of the process.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from formats import TARGETS, Target
from mutations import mutate

HANGS = 30  # seconds that one input may take


def one(target: Target, name: str, seed: int, number: int, keep: Path) -> None:
    """Damage something, keep it, and see what is made of it."""
    random = Random(f"{seed} {name} {number}")
    data = mutate(random, random.choice(target.corpus), target.corpus)
    (keep / f"{name}.input").write_bytes(data)
    faulthandler.dump_traceback_later(HANGS, exit=True)
    try:
        target.check(data)
    except BaseException:
        print(
            f"{name}: input {number} of seed {seed} is not read as it should be; it is {keep / name}.input", flush=True
        )
        raise
    finally:
        faulthandler.cancel_dump_traceback_later()


def fuzz(options: argparse.Namespace) -> None:
    """All chosen targets in turns, until the time is over or all is counted."""
    names = options.only or list(TARGETS)
    with tempfile.TemporaryDirectory(prefix="umbra-fuzz-", dir=options.place) as folder:
        targets = {}
        for name in names:
            place = Path(folder) / name
            place.mkdir()
            targets[name] = TARGETS[name](place)
        for target in targets.values():
            for good in target.corpus:
                target.check(good)
        begin, number = time.monotonic(), options.first
        while time.monotonic() - begin < options.seconds and number - options.first != options.count:
            for name, target in targets.items():
                one(target, name, options.seed, number, options.keep)
            number += 1
    print(f"{number - options.first} inputs for each of {', '.join(names)}: all were read alike, or refused.")


def main(arguments: list[str]) -> None:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="for how long (60)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="other seeds, other damage (the time)")
    parser.add_argument("--only", action="append", choices=TARGETS, metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--first", type=int, default=0, help="number of the first input (0)")
    parser.add_argument("--count", type=int, default=-1, help="how many inputs at most (no limit)")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()), help="where the last input is kept")
    parser.add_argument("--place", type=Path, help="where stores and trees are made")
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    options.keep.mkdir(parents=True, exist_ok=True)
    fuzz(options)


if __name__ == "__main__":
    main(sys.argv[1:])
