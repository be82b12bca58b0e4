"""The log's record: a layout by hand, what comes back, and every way to be corrupt."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from tollgate.events.record import (
    CHECKSUM,
    EVENT_BYTES,
    PREAMBLE,
    RECORD_BYTES,
    REQUEST_BYTES,
    VERSION,
    CorruptRecord,
    Encoded,
    Group,
    UnknownVersion,
    decode_record,
    encode_record,
)


def encoded(line: bytes) -> Encoded:
    return Encoded(key_hash=b"K" * 16, line=line)


def test_the_layout_by_hand() -> None:
    record = encode_record([Group("né", -1, [encoded(b"x]\n"), encoded(b"y]\n")])])
    body = (
        b"\x01\x00"  # one namespace
        b"\x03\x00n\xc3\xa9"  # of three bytes
        b"\x01\x00\x00\x00"  # one request
        + b"\xff" * 8  # received a microsecond before 1970
        + b"\x02\x00\x00\x00"  # two events
        + b"\x00\x00"  # of namespace 0
        + bytes(2)
        + b"K" * 32
        + b"0,x]\n1,y]\n"
    )  # fmt: skip
    head = b"TG\x02\x00" + b"\x02\x00\x00\x00"
    assert record == head + struct.pack("<Q", xxh3_64_intdigest(head + body)) + body


_lines = st.binary(max_size=20).map(lambda text: text.replace(b"\n", b"") + b"\n")
_groups = st.lists(
    st.builds(
        Group,
        st.sampled_from(["a", "b", "ü", "default"]),
        st.integers(-(2**63), 2**63 - 1),
        st.lists(_lines.map(encoded), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=5,
)


@given(_groups)
def test_what_goes_in_comes_out_in_order(groups: list[Group]) -> None:
    data = encode_record(groups)
    record = decode_record(data)
    flat = [event for group in groups for event in group.events]
    assert record.count == len(flat)
    assert record.lines == b"".join(b"%d," % i + event.line for i, event in enumerate(flat))
    assert bytes(record.keys) == b"".join(event.key_hash for event in flat)
    assert len(set(record.namespaces)) == len(record.namespaces)
    found = [(record.namespaces[name], us, count) for us, count, name in record.requests]
    assert found == [(g.namespace, g.received_us, len(g.events)) for g in groups]
    assert len(data) <= RECORD_BYTES + sum(group.size for group in groups)


def test_a_record_of_many_events_counts_them_all() -> None:
    record = decode_record(encode_record([Group("a", 0, [encoded(b"x\n")] * 3000)]))
    assert record.lines.splitlines() == [b"%d,x" % index for index in range(3000)]


def test_what_an_event_takes() -> None:
    group = Group("a", 0, [encoded(b"four")])
    assert group.size == REQUEST_BYTES + EVENT_BYTES + 4


GOOD = encode_record([Group("default", 1, [encoded(b"one]\n"), encoded(b"two]\n")])])


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_any_byte_that_changes_is_noticed(at: int, change: int) -> None:
    spoiled = bytearray(GOOD)
    spoiled[at] ^= change
    with pytest.raises(CorruptRecord):
        decode_record(bytes(spoiled))


@given(st.integers(0, len(GOOD) - 1))
def test_any_cut_is_noticed(length: int) -> None:
    with pytest.raises(CorruptRecord):
        decode_record(GOOD[:length])


def sealed(body: bytes, count: int = 1, version: int = VERSION) -> bytes:
    """A record whose checksum fits whatever the body is."""
    head = PREAMBLE.pack(b"TG", version, 0, count)
    return head + CHECKSUM.pack(xxh3_64_intdigest(head + body)) + body


NAMED = b"\x01\x00\x01\x00a"
ONE = b"\x01\x00\x00\x00" + struct.pack("<qIH2x", 0, 1, 0)


@pytest.mark.parametrize(
    "data",
    [
        sealed(b""),
        sealed(b"\x01"),
        sealed(b"\x01\x00\xff"),
        sealed(b"\x01\x00\x02\x00\xff\xff" + bytes(64)),
        sealed(NAMED + b"\xff\xff\xff\xff"),
        sealed(NAMED + ONE + bytes(15)),
        sealed(NAMED + ONE + bytes(16), count=0),
        sealed(NAMED + ONE + bytes(32) + b"x\ny\n", count=2),
        sealed(NAMED + ONE + bytes(16) + b"x\ny\n"),
        sealed(NAMED + ONE + bytes(16) + b"x\ny"),
        sealed(NAMED + ONE + bytes(16)),
        sealed(b"\x00\x00" + ONE + bytes(16) + b"x\n"),
    ],
    ids=[
        "empty",
        "half",
        "no length",
        "not UTF-8",
        "too many requests",
        "short key",
        "no events",
        "more events than requests have",
        "more lines than events",
        "a line that does not end",
        "no lines",
        "no such namespace",
    ],
)
def test_a_body_that_does_not_hold_what_it_says(data: bytes) -> None:
    with pytest.raises(CorruptRecord) as caught:
        decode_record(data)
    assert caught.value.code == "lengths"


def test_a_later_version_is_no_fault_of_the_record() -> None:
    with pytest.raises(UnknownVersion, match="version 9"):
        decode_record(sealed(b"whatever it holds", version=9))
