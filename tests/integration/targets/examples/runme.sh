#!/usr/bin/env bash
# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Every EXAMPLE of every module is run as it is documented, with only the paths moved below a directory of the test.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${OUTPUT_DIR:-}" ]; then
    OUTPUT_DIR=$(mktemp -d)
    trap 'rm -rf "$OUTPUT_DIR"' EXIT
fi
work=$OUTPUT_DIR/examples
mkdir -p "$work"
python3 "$here/make_plays.py" "$work"
cd "$work"
ansible-playbook -i localhost, plays.yml
