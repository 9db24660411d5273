# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the ratios have to be: how many times faster than each peer a job is, at least, in medians of one run."""

from __future__ import annotations

from collections.abc import Mapping

MEMORY = 256 << 20  # bytes that the engine's process may take at most
# Of tar's bytes by ours: equal within a thousandth, since a store's directories are counted and tar's is one file.
AS_TAR = 0.999
REFLINKS = ("xfs", "btrfs")

Wanted = Mapping[str, Mapping[str, float]]  # job -> peer -> ratio

W1: Wanted = {
    "first": {"cp": 3.5, "rsync": 5, "rsync-link": 5, "git": 10, "restic": 5.5, "borg": 8.5},
    # git keeps neither owners nor times, so there is less for it to look at
    "unchanged": {"cp": 2.3, "rsync": 3.7, "rsync-link": 40, "git": 1, "restic": 20, "borg": 25},
    "changed": {"cp": 2.2, "rsync": 3.5, "rsync-link": 35, "git": 1, "restic": 17, "borg": 22},
    "full": {"cp": 2.1, "rsync": 2.9, "git": 3.5, "restic": 4.8, "borg": 5.2},
    "drift": {"rsync": 3.8, "git": 1.9},
    "scan": {"find": 2},
    "verify": {"sha256sum": 2.5, "hashlib": 1.4},
}
# At most 1.5 times what cp takes: the digest is computed while the bytes are copied.
W2: Wanted = {"first": {"cp": 1 / 1.5, "rsync": 1.5, "restic": 2, "borg": 2}}
NOT_SLOWER = 1.0
# With reflinks nothing is copied, and what is left is hashing: as fast as a program that only hashes, within a tenth.
ONLY_HASHING = {("first", "verify", "hashlib"): 0.9}


def ratio(work: str, job: str, peer: str, fs: str) -> float | None:
    """How many times faster than `peer` the job has to be; None where nothing is demanded."""
    if work == "W3":
        return NOT_SLOWER
    if work == "W2" and fs in REFLINKS:
        return None
    return {"W1": W1, "W2": W2}[work].get(job, {}).get(peer)
