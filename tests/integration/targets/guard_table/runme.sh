#!/usr/bin/env bash
# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# What the guard makes of each thing that can happen, in each scope and with each strategy.
set -euo pipefail
cd "$(dirname "$0")"
export PYTHONPATH=../../support
exec python3 -B cases.py "$@"
