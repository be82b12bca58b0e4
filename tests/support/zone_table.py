"""Offset changes read straight from the compiled zone files, RFC 9636: a check on what we probe."""

import struct
from importlib import resources

_HEADER = struct.Struct(">4s1s15x6l")


def offset_changes(name: str) -> list[tuple[int, int, int]]:
    """(instant, offset before, offset from then on) in seconds, as far as the file lists them."""
    data = resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()
    magic, version, utc, standard, leaps, times, types, letters = _HEADER.unpack_from(data)
    assert magic == b"TZif"
    assert version >= b"2"
    # The first block has 32-bit times; the second, which follows, has 64-bit ones.
    second = _HEADER.size + times * 5 + types * 6 + letters + leaps * 8 + standard + utc
    *_, times, types, _letters = _HEADER.unpack_from(data, second)
    start = second + _HEADER.size
    instants = struct.unpack_from(f">{times}q", data, start)
    indexes = struct.unpack_from(f">{times}B", data, start + times * 8)
    offsets = [
        struct.unpack_from(">lBB", data, start + times * 9 + index * 6)[0] for index in range(types)
    ]
    changes = []
    before = offsets[0]
    for instant, index in zip(instants, indexes, strict=True):
        if offsets[index] != before:
            changes.append((instant, before, offsets[index]))
        before = offsets[index]
    return changes
