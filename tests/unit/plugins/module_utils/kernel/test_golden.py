# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that were not made here, and values that must never change, with both twins."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.kernel import hashing, load, selected
from ansible_collections.umbra.rollback.plugins.module_utils.tree.capture import capture
from ansible_collections.umbra.rollback.plugins.module_utils.tree.scan import TreeOptions
from ansible_collections.umbra.rollback.tests.unit.support.contents import MemoryContents
from ansible_collections.umbra.rollback.tests.unit.support.twins import TWINS, using

# NIST: the examples of FIPS 180-4, and short messages of the Cryptographic Algorithm Validation Program.
VECTORS = {
    b"": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    b"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq": (
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    ),
    b"\xd3": "28969cdfa74a12c82f3bad960b0b000aca2ac329deea5c2328ebc6f2ba9802c1",
    b"a" * 1_000_000: "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
}


@pytest.fixture(params=["libcrypto", "instructions", "portable"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The native kernel with each way to hash; by instructions only where this processor has them."""
    with using("native"):
        found: Any = selected.kernel()
        if request.param == "libcrypto":
            assert found.hashing() == "libcrypto"
        else:
            found.use_own(request.param == "instructions")
            assert found.hashing() in (("sha-ni", "portable") if request.param == "instructions" else ("portable",))
        yield found
        load.share_libcrypto(found)
        assert found.hashing() == "libcrypto"


def hashed(kernel: Any, data: bytes) -> str:
    """By the native kernel."""
    fd = os.memfd_create("data")
    try:
        os.write(fd, data)
        digest, size, refused = kernel.stream(fd, -1, -1, len(data))
        assert (size, refused) == (len(data), 0)
        return bytes(digest).hex()
    finally:
        os.close(fd)


def test_values_of_nist(kernel: Any) -> None:
    assert {data: hashed(kernel, data) for data in VECTORS} == VECTORS


def test_every_length_around_the_blocks(kernel: Any) -> None:
    data = random.Random(5).randbytes(300)
    for size in range(len(data)):
        assert hashed(kernel, data[:size]) == hashlib.sha256(data[:size]).hexdigest()


def test_values_of_nist_in_the_pure_twin(tmp_path: Path) -> None:
    for data, digest in VECTORS.items():
        path = tmp_path / "data"
        path.write_bytes(data)
        with path.open("rb") as file:
            assert hashing.sha256_fd(file.fileno()) == (digest, len(data))


@pytest.mark.parametrize("name", TWINS)
def test_a_tree_has_the_listing_it_always_had(tmp_path: Path, name: str) -> None:
    """Stores hold listings of old releases: were their bytes to change, every tree would count as changed once."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "a b%.conf").write_bytes(b"port = 80\n")
    (root / "etc" / "now").symlink_to("a b%.conf")
    for path, mode in ((root / "etc" / "a b%.conf", 0o640), (root / "etc", 0o755), (root, 0o711)):
        path.chmod(mode)
    for path in (root / "etc" / "a b%.conf", root / "etc" / "now", root / "etc", root):
        os.utime(path, ns=(7, 1_700_000_000_123_456_789), follow_symlinks=False)
    contents = MemoryContents()
    with using(name):
        captured = capture(os.fsencode(root), contents, TreeOptions())
    owner = f"{os.getuid()} {os.getgid()} 1700000000123456789"
    assert contents.get(captured.tree).decode() == (
        "umbra-tree 1\n"
        f"d 711 {owner} .\n"
        f"d 755 {owner} etc\n"
        f"f 640 {owner} etc/a%20b%25.conf 10 01ea9bc79534a121a5064df3ce29bd12954dd9356c182bbee81013a15185ee1c 0\n"
        f"l 777 {owner} etc/now a%20b%25.conf\n"
    )
    if os.getuid() == os.getgid() == 0:
        assert captured.tree == "e6cff3661a6319ad93a06cf132404909fe528d1ac987c0ed07f214572044836c"
