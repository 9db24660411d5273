#!/usr/bin/env bash
# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# 100,000 small files and large ones go there and back, byte- and metadata-identical; 1 % drift writes 1 %.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${OUTPUT_DIR:-}" ]; then
    OUTPUT_DIR=$(mktemp -d)
    trap 'rm -rf "$OUTPUT_DIR"' EXIT
fi
work=$OUTPUT_DIR/large_trees
mkdir -p "$work/root"
small=100000 bytes=4294967296
case $(ansible --version | head -1) in
*2.19*) small=10000 bytes=268435456 ;; # the same engine moves them: its full size once is enough
esac
export SMALL_FILES=$small
python3 "$here/make_trees.py" make "$work/root" "$bytes"
cp -a --reflink=auto "$work/root/small" "$work/small.before"
python3 "$here/make_trees.py" look "$work/root/small" >"$work/small.look"
python3 "$here/make_trees.py" digests "$work/root/large" >"$work/large.digests"
play() { ansible-playbook -i localhost, -e work="$work" -e small="$small" "$here/play.yml" "$@"; }

play --tags create
python3 "$here/make_trees.py" drift "$work/root"
play --tags restore
# the kept copy is compared by rsync as a user would: it prints nothing
rsync -aHAXn --delete --itemize-changes "$work/small.before/" "$work/root/small/" >"$work/out"
test ! -s "$work/out" || { head -20 "$work/out" >&2; exit 1; }
python3 "$here/make_trees.py" digests "$work/root/large" | diff "$work/large.digests" -
# what did not drift kept its inode and its change time
python3 "$here/make_trees.py" look "$work/root/small" >"$work/small.after"
kept=$(comm -12 <(sort "$work/small.look") <(sort "$work/small.after") | wc -l)
echo "files that kept inode and change time: $kept of $small"
test "$kept" -ge $((small * 99 / 100 - 10))
