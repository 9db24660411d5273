# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packs and their indexes: the bytes, the search, and every way in which they can be damaged."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from ansible_collections.umbra.rollback.plugins.module_utils.errors import StoreCorrupt, StoreFormatUnknown
from ansible_collections.umbra.rollback.plugins.module_utils.store import packs
from ansible_collections.umbra.rollback.plugins.module_utils.store.packs import Pack, Packs, Place
from ansible_collections.umbra.rollback.plugins.module_utils.store.temporaries import Temporaries
from ansible_collections.umbra.rollback.plugins.module_utils.store.writer import PackWriter

from .helpers import flip


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@pytest.fixture
def temporaries(tmp_path: Path) -> Temporaries:
    return Temporaries(str(tmp_path / "tmp"), "web1")


def write(temporaries: Temporaries, directory: Path, *contents: bytes) -> str:
    writer = PackWriter(temporaries)
    for data in contents:
        writer.add(sha(data), data)
    return writer.publish(str(directory))


def only(directory: Path) -> Pack:
    (pack,) = Packs(str(directory)).all()
    return pack


def test_the_bytes_are_as_the_format_says(tmp_path: Path, temporaries: Temporaries) -> None:
    """Golden: a reader of docs/store_format.md would write exactly this. SHA-256 of b is before that of a."""
    name = write(temporaries, tmp_path / "packs", b"a", b"bb")
    first, second = sha(b"bb"), sha(b"a")
    assert first < second
    body = b"umbraidx" + bytes.fromhex("0000000000000001" + "0000000000000002") + first + second
    body += bytes.fromhex("0000000000000001" + "0000000000000002" + "0000000000000000" + "0000000000000001")
    index = body + sha(body)
    assert (tmp_path / f"packs/{name}.idx").read_bytes() == index
    assert name == hashlib.sha256(index).hexdigest()
    assert (tmp_path / f"packs/{name}.pack").read_bytes() == b"abb"
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("count", [1, 2, 3, 1000])
def test_everything_is_found_and_nothing_else(tmp_path: Path, temporaries: Temporaries, count: int) -> None:
    contents = [b"%d" % number for number in range(count)]
    write(temporaries, tmp_path / "packs", *contents)
    found = Packs(str(tmp_path / "packs"))
    for data in contents:
        pack, place = found.find(sha(data)) or (None, None)
        assert pack and place and pack.read(place) == data
    assert found.find(sha(b"none")) is None
    assert found.find(bytes(32)) is None
    assert found.find(b"\xff" * 32) is None


def test_equal_prefixes_are_told_apart(tmp_path: Path, temporaries: Temporaries) -> None:
    """Digests that share 8 bytes never occur by chance, so these are made up."""
    writer = PackWriter(temporaries)
    digests = [b"samesame" + bytes([number]) * 24 for number in range(5)]
    for number, digest in enumerate(digests):
        writer.add(digest, b"%d" % number)
    writer.publish(str(tmp_path / "packs"))
    found = Packs(str(tmp_path / "packs"))
    for number, digest in enumerate(digests):
        pack, place = found.find(digest) or (None, None)
        assert pack and place and pack.read(place) == b"%d" % number
    assert found.find(b"samesame" + b"\x07" * 24) is None


@pytest.mark.parametrize("few", [1, 500])
def test_locate_gives_places_in_order(tmp_path: Path, temporaries: Temporaries, few: int) -> None:
    contents = [b"%d" % number for number in range(1000)]
    write(temporaries, tmp_path / "packs", *contents[:600])
    write(temporaries, tmp_path / "packs", *contents[600:])
    wanted = {sha(data) for data in contents[:: 1000 // few]}
    rows = [row for _pack, part in Packs(str(tmp_path / "packs")).locate(wanted | {sha(b"none")}) for row in part]
    assert {digest for _place, digest in rows} == wanted
    for _pack, part in Packs(str(tmp_path / "packs")).locate(wanted):
        assert part == sorted(part)


def test_more_packs_than_are_kept_open(tmp_path: Path, temporaries: Temporaries) -> None:
    contents = [b"%d" % number for number in range(packs.OPEN_MOST + 10)]
    for data in contents:
        write(temporaries, tmp_path / "packs", data)
    found = Packs(str(tmp_path / "packs"))
    descriptors = len(os.listdir("/proc/self/fd"))
    for data in contents + contents[::-1]:
        pack, place = found.find(sha(data)) or (None, None)
        assert pack and place and pack.read(place) == data
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2 * packs.OPEN_MOST
    found.forget()
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_an_open_pack_can_be_read(temporaries: Temporaries) -> None:
    writer = PackWriter(temporaries)
    contents = [os.urandom(100_000) for dummy in range(30)]
    for data in contents:
        writer.add(sha(data), data)
    for data in contents:
        assert writer.get(sha(data)) == data
    assert writer.size == 3_000_000
    writer.close()


def test_a_publish_that_failed_can_be_repeated(
    tmp_path: Path, temporaries: Temporaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = PackWriter(temporaries)
    writer.add(sha(b"one"), b"one")
    rename = os.rename

    def refuse(source: str, target: str) -> None:
        if target.endswith(".idx"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refuse)
        with pytest.raises(OSError):
            writer.publish(str(tmp_path / "packs"))
    writer.add(sha(b"two"), b"two")
    name = writer.publish(str(tmp_path / "packs"))
    assert sorted(os.listdir(tmp_path / "packs")) == [f"{name}.idx", f"{name}.pack"]
    only(tmp_path / "packs").check()


def test_every_bit_of_an_index_counts(tmp_path: Path, temporaries: Temporaries) -> None:
    name = write(temporaries, tmp_path / "packs", b"a", b"bb")
    index = tmp_path / f"packs/{name}.idx"
    good = index.read_bytes()
    for offset in range(len(good)):
        flip(index, offset, offset % 8)
        with pytest.raises((StoreCorrupt, StoreFormatUnknown), match=str(index)):
            only(tmp_path / "packs").check()
        index.write_bytes(good)
    only(tmp_path / "packs").check()


def test_an_unknown_version_is_refused(tmp_path: Path, temporaries: Temporaries) -> None:
    name = write(temporaries, tmp_path / "packs", b"a")
    index = tmp_path / f"packs/{name}.idx"
    data = index.read_bytes()
    body = data[:8] + (2).to_bytes(8, "big") + data[16:-32]
    index.unlink()
    data = body + sha(body)
    new = tmp_path / f"packs/{hashlib.sha256(data).hexdigest()}.idx"
    new.write_bytes(data)
    (tmp_path / f"packs/{name}.pack").rename(new.with_suffix(".pack"))
    with pytest.raises(StoreFormatUnknown, match="umbra index 2"):
        only(tmp_path / "packs").check()


CUTS = [0, 5, 23, 24, 100, -1]


@pytest.mark.parametrize("length", CUTS)
def test_a_cut_index_is_damage_and_hides_nothing_of_others(
    tmp_path: Path, temporaries: Temporaries, length: int
) -> None:
    name = write(temporaries, tmp_path / "packs", b"a", b"bb")
    write(temporaries, tmp_path / "packs", b"other")
    index = tmp_path / f"packs/{name}.idx"
    index.write_bytes(index.read_bytes()[:length])
    found = Packs(str(tmp_path / "packs"))
    assert found.find(sha(b"a")) is None
    assert found.find(sha(b"other"))
    assert str(index) in str(found.damage())


def test_a_cut_pack_is_damage(tmp_path: Path, temporaries: Temporaries) -> None:
    name = write(temporaries, tmp_path / "packs", b"a", b"bb")
    pack = tmp_path / f"packs/{name}.pack"
    pack.write_bytes(b"ab")
    found = Packs(str(tmp_path / "packs"))
    assert found.find(sha(b"bb")) is None
    assert str(pack) in str(found.damage())
    with pytest.raises(StoreCorrupt, match="ends before byte 9"):
        found.all()[0].read(Place(0, 9))


def test_a_lost_pack_is_damage(tmp_path: Path, temporaries: Temporaries) -> None:
    name = write(temporaries, tmp_path / "packs", b"a")
    pack = tmp_path / f"packs/{name}.pack"
    pack.unlink()
    found = Packs(str(tmp_path / "packs"))
    assert found.find(sha(b"a")) is None
    assert f"{pack} is damaged: it is missing" in str(found.damage())


def test_a_pack_without_an_index_is_not_there(tmp_path: Path, temporaries: Temporaries) -> None:
    name = write(temporaries, tmp_path / "packs", b"a")
    (tmp_path / f"packs/{name}.idx").unlink()
    assert Packs(str(tmp_path / "packs")).all() == []
