"""Request bodies: bounded while they arrive and while they are unpacked."""

import asyncio
import gzip
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core.errors import InvalidInput, TooLarge, Unsupported
from tollgate.platform.body import ClientGone, read_body

MOST = 1000


def read(
    chunks: Sequence[bytes | None], headers: dict[bytes, bytes] | None = None, most: int = MOST
) -> tuple[bytes, int]:
    """Feeds chunks (None: the client went away); gives the body and how many were asked for."""
    asked = 0

    async def receive() -> dict[str, Any]:
        nonlocal asked
        chunk, asked = chunks[asked], asked + 1
        if chunk is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": asked < len(chunks)}

    scope = {"type": "http", "headers": list((headers or {}).items())}
    try:
        return asyncio.run(read_body(scope, receive, most)), asked
    except (TooLarge, InvalidInput) as problem:
        problem.add_note(str(asked))
        raise


def unpacked(packed: bytes, most: int = MOST) -> bytes:
    return read([packed], {b"content-encoding": b"gzip"}, most)[0]


@given(st.binary(max_size=MOST), st.lists(st.integers(0, MOST), max_size=5))
def test_chunks_are_joined(body: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), MOST]
    assert read([body[a:b] for a, b in pairwise(edges)])[0] == body


def test_a_long_body_is_refused_by_its_length_before_it_is_read() -> None:
    with pytest.raises(TooLarge) as refusal:
        read([b"x" * (MOST + 1)], {b"content-length": b"1001"})
    assert refusal.value.__notes__ == ["0"]
    assert read([b"x" * MOST], {b"content-length": b"1000"})[0] == b"x" * MOST


def test_a_body_without_length_is_read_no_further_than_its_bound() -> None:
    with pytest.raises(TooLarge) as refusal:
        read([b"x" * 400] * 100)
    assert refusal.value.__notes__ == ["3"]
    with pytest.raises(TooLarge):
        read([b"x" * (MOST + 1)])


@pytest.mark.parametrize("chunks", [[None], [b"", None], [b"x", b"y", None]])
def test_a_client_that_went_away(chunks: list[bytes | None]) -> None:
    with pytest.raises(ClientGone):
        read([*chunks, b""])


@pytest.mark.parametrize("encoding", [b"", b"identity", b"Identity "])
def test_no_encoding(encoding: bytes) -> None:
    assert read([b"{}"], {b"content-encoding": encoding})[0] == b"{}"


@pytest.mark.parametrize("encoding", [b"gzip", b"GZIP", b" x-gzip "])
def test_gzip_by_any_of_its_names(encoding: bytes) -> None:
    assert read([gzip.compress(b"{}")], {b"content-encoding": encoding})[0] == b"{}"


@pytest.mark.parametrize("encoding", [b"br", b"deflate", b"gzip, gzip", b"zstd", b"\xff"])
def test_other_encodings_are_named(encoding: bytes) -> None:
    with pytest.raises(Unsupported, match=r"use gzip or none"):
        read([b"{}"], {b"content-encoding": encoding})


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3))
def test_members_are_joined(parts: list[bytes]) -> None:
    assert unpacked(b"".join(map(gzip.compress, parts))) == b"".join(parts)


def test_members_longer_than_a_piece() -> None:
    body = bytes(range(256)) * 2000
    stored = gzip.compress(body, 0)
    assert len(stored) > 3 * 65536
    assert unpacked(stored * 2, len(body) * 3) == body * 2


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_stream_that_is_cut_off(body: bytes, data: st.DataObject) -> None:
    packed = gzip.compress(body)
    with pytest.raises(InvalidInput):
        unpacked(packed[: data.draw(st.integers(0, len(packed) - 1))])


@given(st.binary(max_size=50), st.integers(0, 60), st.integers(1, 255))
def test_a_stream_that_is_damaged(body: bytes, at: int, change: int) -> None:
    packed = bytearray(gzip.compress(body, mtime=0))
    packed[at % len(packed)] ^= change
    try:
        found = unpacked(bytes(packed))
    except (InvalidInput, TooLarge):
        return
    # Name, time and system in the head of the stream change nothing.
    assert found == body


@pytest.mark.parametrize(
    "packed", [b"", b"{}", zlib.compress(b"{}"), gzip.compress(b"{}", mtime=0) + b"x"]
)
def test_what_is_no_gzip(packed: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"not gzip"):
        unpacked(packed)


@pytest.mark.parametrize("size", [MOST, MOST + 1])
def test_the_bound_of_the_unpacked(size: int) -> None:
    packed = gzip.compress(b"x" * size)
    if size <= MOST:
        assert unpacked(packed) == b"x" * size
    else:
        with pytest.raises(TooLarge):
            unpacked(packed)


def test_bombs_are_left_packed() -> None:
    bomb = gzip.compress(b"\0" * (64 << 20))
    with pytest.raises(TooLarge):
        unpacked(bomb, most=1 << 20)
    with pytest.raises(TooLarge):
        unpacked(gzip.compress(b"\0" * 600) * 2)


def test_a_swarm_of_empty_members_is_cut_short() -> None:
    """Each costs a copy of what follows: without a bound, 16 MiB of them took minutes."""
    swarm = gzip.compress(b"") * 700_000
    with pytest.raises(InvalidInput, match=r"more than 1000 members"):
        unpacked(swarm, most=16 << 20)
    assert unpacked(gzip.compress(b"") * 999 + gzip.compress(b"{}"), most=1 << 20) == b"{}"
