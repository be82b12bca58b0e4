"""The log's record: a layout by hand, what comes back, and every way to be corrupt."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from tollgate.events.record import (
    ENTRY,
    PREAMBLE,
    TIME_GIVEN,
    CorruptRecord,
    Encoded,
    decode_record,
    encode_record,
)


def encoded(line: bytes, **members: int) -> Encoded:
    return Encoded(
        key_hash=b"K" * 16,
        content_hash=b"C" * 16,
        time_us=members.get("time_us", 5),
        received_us=members.get("received_us", 6),
        flags=members.get("flags", 0),
        key_length=members.get("key_length", 1),
        line=line,
    )


def test_the_layout_by_hand() -> None:
    record = encode_record([("né", [encoded(b"x]\n", time_us=-1, flags=TIME_GIVEN)])])
    body = (
        b"\x01\x00"  # one namespace
        b"\x03\x00n\xc3\xa9"  # of three bytes
        + b"K" * 16
        + b"C" * 16
        + b"\xff" * 8  # event time -1
        + b"\x06" + bytes(7)  # received
        + b"\x03\x00\x00\x00"  # length of the line
        + b"\x01\x00\x00\x00"  # length of its key part
        + b"\x00\x00"  # namespace 0
        + b"\x01\x00"  # the client gave the time
        + bytes(4)
        + b"x]\n"
    )  # fmt: skip
    head = b"TG\x01\x00" + b"\x01\x00\x00\x00" + struct.pack("<Q", xxh3_64_intdigest(body))
    assert record == head + body


def test_sizes_are_those_of_the_layout() -> None:
    assert (PREAMBLE.size, ENTRY.size) == (16, 64)
    assert encoded(b"four").size == 68


_groups = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "ü", "default"]),
        st.lists(st.binary(min_size=1, max_size=20).map(encoded), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=5,
)


@given(_groups)
def test_what_goes_in_comes_out_in_order(groups: list[tuple[str, list[Encoded]]]) -> None:
    record = decode_record(encode_record(groups))
    flat = [(name, event) for name, events in groups for event in events]
    assert record.count == len(flat)
    assert bytes(record.lines) == b"".join(event.line for _, event in flat)
    assert len(set(record.namespaces)) == len(record.namespaces)
    for (name, event), entry in zip(flat, ENTRY.iter_unpack(record.entries), strict=True):
        assert entry[:4] == (event.key_hash, event.content_hash, event.time_us, event.received_us)
        assert entry[4:6] == (len(event.line), event.key_length)
        assert record.namespaces[entry[6]] == name
        assert entry[7] == event.flags


GOOD = encode_record([("default", [encoded(b"one]\n"), encoded(b"two]\n")])])


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_any_byte_that_changes_is_noticed(at: int, change: int) -> None:
    """But for the two bytes that nothing reads: flags, and what the version does not use."""
    spoiled = bytearray(GOOD)
    spoiled[at] ^= change
    try:
        record = decode_record(bytes(spoiled))
    except CorruptRecord:
        return
    # The preamble is not under the checksum: its flags byte is not used by version 1, and another
    # number of events is caught where the lines' lengths are added up.
    assert at == 3 or (4 <= at < 8 and record.count != 2)


@given(st.integers(0, len(GOOD) - 1))
def test_any_cut_is_noticed(length: int) -> None:
    with pytest.raises(CorruptRecord):
        decode_record(GOOD[:length])


def sealed(body: bytes, count: int = 1) -> bytes:
    """A record whose checksum fits whatever the body is."""
    return PREAMBLE.pack(b"TG", 1, 0, count, xxh3_64_intdigest(body)) + body


@pytest.mark.parametrize(
    "data",
    [
        sealed(b""),
        sealed(b"\x01"),
        sealed(b"\x01\x00\xff"),
        sealed(b"\x01\x00\x02\x00\xff\xff" + bytes(64)),
        sealed(b"\x00\x00" + bytes(63)),
        sealed(b"\x00\x00", count=0),
        sealed(b"\x00\x00" + bytes(64), count=2),
    ],
    ids=["empty", "half", "no length", "not UTF-8", "short entry", "no events", "too few entries"],
)
def test_a_body_that_does_not_hold_what_it_says(data: bytes) -> None:
    with pytest.raises(CorruptRecord) as caught:
        decode_record(data)
    assert caught.value.code == "lengths"
