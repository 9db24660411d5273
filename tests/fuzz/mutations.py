# Copyright (c) 2026 The umbra.rollback authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Damage: what bad disks, bad memory and bad people make of a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

NUMBERS = (0, 1, 127, 128, 255, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 10**20 - 1)
PIECES = (
    *(
        b"\0",
        b"\n",
        b" ",
        b"  ",
        b".",
        b"..",
        b"/",
        b"%",
        b"%00",
        b"%2E",
        b"%41",
        b"\xff",
        b"\x7f",
        b"\t",
        b"\r\n",
        b"-",
    ),
    *(
        b"null",
        b"true",
        b"1e999",
        b"NaN",
        b"-1",
        b"{}",
        b"[]",
        b'""',
        b'"\\ud800"',
        b"9" * 5000,
        b"[" * 100_000,
        b"[" * 900 + b"]" * 900,
    ),
)
_DIGITS = re.compile(rb"\d+")

Mutation = Callable[[Random, bytes, Sequence[bytes]], bytes]


def mutate(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """`data` with one to four things done to it."""
    for _number in range(random.choice((1, 1, 2, 4))):
        data = random.choice(MUTATIONS)(random, data, corpus)
    return data


def _span(random: Random, data: bytes) -> tuple[int, int]:
    """Begin and end of a part; most are short."""
    begin = random.randrange(len(data) + 1)
    return begin, min(len(data), begin + random.choice((0, 1, 2, 8, 32, 48, 1000)))


def _flip(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _truncate(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    return data[: random.choice((random.randrange(len(data) + 1), max(0, len(data) - random.randrange(70))))]


def _remove(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    begin, end = _span(random, data)
    return data[:begin] + data[end:]


def _repeat(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    begin, end = _span(random, data)
    return data[:end] + data[begin:end] * random.choice((1, 2, 50)) + data[end:]


def _insert(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    begin, end = _span(random, data)
    return data[:begin] + random.choice(PIECES) + data[random.choice((begin, end)) :]


def _splice(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    other = random.choice(corpus)
    begin, end = _span(random, other)
    at, after = _span(random, data)
    return data[:at] + random.choice((other[begin:end], other[begin:])) + data[after:]


def _number(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """Another number in place of one that is written in digits."""
    found = list(_DIGITS.finditer(data))
    if not found:
        return data
    match = random.choice(found)
    number = random.choice(NUMBERS)
    text = random.choice((f"{number}", f"-{number}", f"0{number}", f"+{number}", f"{number:o}")).encode()
    return data[: match.start()] + text + data[match.end() :]


def _binary(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """Another number in place of one of 8 bytes."""
    if len(data) < 8:
        return data
    at = random.randrange(len(data) // 8) * 8
    return data[:at] + random.choice(NUMBERS[:-1]).to_bytes(8, "big") + data[at + 8 :]


def _lines(random: Random, data: bytes, _corpus: Sequence[bytes]) -> bytes:
    """A line twice, gone, or elsewhere; or a part of one in another."""
    lines = data.split(b"\n")
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    choice = random.randrange(5)
    if choice == 0:
        lines.insert(one, lines[one])
    elif choice == 1:
        lines.insert(other, lines[one])
    elif choice == 2:
        del lines[one]
    elif choice == 3:
        lines[one], lines[other] = lines[other], lines[one]
    else:
        fields, others = lines[one].split(b" "), lines[other].split(b" ")
        fields[random.randrange(len(fields))] = random.choice(others)
        lines[one] = b" ".join(fields)
    return b"\n".join(lines)


MUTATIONS: tuple[Mutation, ...] = (_flip, _truncate, _remove, _repeat, _insert, _splice, _number, _binary, _lines)
