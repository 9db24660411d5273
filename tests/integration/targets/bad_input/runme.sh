#!/usr/bin/env bash
# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Bad input gets one sentence and an exit status other than 0, and `find` before and after is equal.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${OUTPUT_DIR:-}" ]; then
    OUTPUT_DIR=$(mktemp -d)
    trap 'rm -rf "$OUTPUT_DIR"' EXIT
fi
work=$OUTPUT_DIR/bad_input
mkdir -p "$work/root/tree" "$work/run/vars"
echo content >"$work/root/tree/file"
echo 'not: a list' >"$work/run/vars/not-a-list.yml"
printf -- '- name: [unclosed\n' >"$work/run/vars/broken.yml"
cp "$here/cases.yml" "$here/case.yml" "$work/run/"
look() { find "$work/root" -printf '%p %i %y %m %s %T@ %C@\n' | sort; }
look >"$work/before"
cd "$work/run"
ansible-playbook -i localhost, -e work="$work" cases.yml
look >"$work/after"
diff "$work/before" "$work/after"

# an exit status other than 0, and one sentence, for the person who runs it
if ANSIBLE_CALLBACK_RESULT_FORMAT=json ansible localhost -i localhost, -c local \
    -e ansible_python_interpreter="$(command -v python3)" \
    -m umbra.rollback.shadow_restore -a "update_id=never-made store=$work/root/store" >"$work/out" 2>&1; then
    echo "a restore of nothing ended well" >&2
    exit 1
fi
grep -q 'There is no store at' "$work/out"
if grep -q Traceback "$work/out"; then
    cat "$work/out" >&2
    exit 1
fi
look >"$work/after"
diff "$work/before" "$work/after"
