# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One JSON text for one value."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils import canonical

# Golden: checksums in stores that exist depend on these bytes.
TEXTS = [
    ({}, b"{}"),
    ({"b": 1, "a": [1, 2.5, None, True]}, b'{"a":[1,2.5,null,true],"b":1}'),
    ({"b": {"d": 0, "c": 0}}, b'{"b":{"c":0,"d":0}}'),
    ((1, 2), b"[1,2]"),
    ("größe\n\u2028\udcff", b'"gr\\u00f6\\u00dfe\\n\\u2028\\udcff"'),
    (1e100, b"1e+100"),
    (0.1, b"0.1"),
]


@pytest.mark.parametrize("value, text", TEXTS)
def test_a_value_has_one_text(value: Any, text: bytes) -> None:
    assert canonical.dumps(value) == text
    assert canonical.digest(value) == hashlib.sha256(text).hexdigest()
    assert canonical.dumps(json.loads(text)) == text


def test_the_order_of_keys_does_not_matter() -> None:
    assert canonical.digest({"a": 1, "b": 2}) == canonical.digest({"b": 2, "a": 1})
    assert canonical.digest([1, 2]) != canonical.digest([2, 1])


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object()])
def test_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical.dumps(value)
