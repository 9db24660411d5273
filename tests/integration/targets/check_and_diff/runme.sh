#!/usr/bin/env bash
# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# --check --diff of a restore shows what would change and touches nothing; the real one then does that; secrets stay out.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${OUTPUT_DIR:-}" ]; then
    OUTPUT_DIR=$(mktemp -d)
    trap 'rm -rf "$OUTPUT_DIR"' EXIT
fi
work=$OUTPUT_DIR/check_and_diff
mkdir -p "$work/root/tree/sub"
for n in $(seq 150); do echo "line $n" >"$work/root/tree/sub/$n.conf"; done
printf 'version = 1\ncolour = blue\n' >"$work/root/tree/main.conf"
sqlite3 "$work/root/shop.db" 'create table orders (id integer); insert into orders values (1), (2);'
look() { find "$work/root" -printf '%p %i %y %m %s %T@ %C@\n' | sort; }
play() {
    ansible-playbook -i localhost, -e work="$work" "$here/play.yml" "$@" >"$work/out" 2>&1 || {
        cat "$work/out" >&2
        return 1
    }
}

# check mode of the shadow: nothing is made
look >"$work/before"
play --tags create --check
look | diff "$work/before" -

play --tags create -vvv
if grep -q 't0p-s3cret' "$work/out"; then
    echo "the secret is in the output" >&2
    exit 1
fi
cp -a "$work/root/tree" "$work/tree.before"
printf 'version = 2\ncolour = blue\n' >"$work/root/tree/main.conf"
rm "$work/root/tree/sub/7.conf"
echo new >"$work/root/tree/added.conf"
sqlite3 "$work/root/shop.db" 'delete from orders'

look >"$work/before"
play --tags restore --check --diff
look | diff "$work/before" -
for expected in '-version = 2' '+version = 1' 'added.conf' '7.conf' 'orders'; do
    grep -qF -- "$expected" "$work/out" || { echo "the diff lacks: $expected" >&2; cat "$work/out" >&2; exit 1; }
done

play --tags restore --diff
diff -r "$work/tree.before" "$work/root/tree"
[ "$(sqlite3 "$work/root/shop.db" 'select count(*) from orders')" = 2 ]
