"""Plain events, put together without an encoder, are what the careful path makes of them."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tollgate.events.event import Arrival, NeedsCare, decode_envelopes, encode_all, is_plain
from tollgate.events.faults import read_event
from tollgate.events.record import Encoded

ARRIVAL = Arrival(namespace="default", received_us=1_767_225_600_123_456, event_bytes_max=1 << 20)
PRINTABLE = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters='"\\'),
    min_size=1,
    max_size=12,
)
TIMES = st.sampled_from(
    [
        None,
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00.123Z",
        "2026-01-01T00:00:00.12Z",
        "2026-01-01T00:00:00.123456Z",
        "2026-01-01T00:00:00.1234567Z",
        "2026-01-01T00:00:00.999+01:00",
        "2026-01-01 00:00:00.123Z",
        "2026-01-01T00:00:60Z",
        "2026-01-01t00:00:00z",
        "1969-12-31T23:59:59.999Z",
        "1970-01-01T00:00:00.001Z",
        "2299-12-31T23:59:59.999Z",
        "2026-01-01T00:00:00.12aZ",
        "2026-01-01T00:00:00.Z",
        "2026-02-30T00:00:00Z",
        "2026-01-01T00:00:00",
        "2026",
    ]
)


MICROSECONDS = st.builds(
    "2026-01-01T00:00:{:02}.{:06}Z".format, st.integers(0, 3), st.integers(0, 999_999)
)
ODD_TOGETHER = st.sampled_from(
    [
        # Of the length, and with the stops, of two times that are written alike.
        ("2026-01-01T00:00:00.12345Z", "2026-01-01T00:00:00.1234567Z"),
        ("2026-01-01T00:00:00.123Z", "2026-01-01T00:00:00.1234567+00Z"),
        ("2026-01-01T00:00:00.12345aZ", "2026-01-01T00:00:00.123456z"),
        ("2026-01-01T00:00:00.123456Z", "2026-01-01T00:00:60.123456Z"),
        ("2026-01-01T00:00:00,123456Z", "2026-01-01 00:00:00.123456Z"),
        (None, "2026-01-01T00:00:00.123456Z"),
    ]
)
PAYLOADS: st.SearchStrategy[Any] = st.sampled_from(
    [
        {},
        {"a": "b"},
        {"a": {"b": [[1], {}]}},
        None,
        [],
        '{"a":' * 63 + "{}" + "}" * 63,
        '{"a":' * 64 + "{}" + "}" * 64,
    ]
)


@given(
    st.lists(
        st.tuples(
            PRINTABLE, PRINTABLE, TIMES, st.dictionaries(PRINTABLE, st.integers(-9, 9) | PRINTABLE)
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_plain_body_gives_what_the_careful_path_gives(
    events: list[tuple[str, str, str | None, dict[str, Any]]],
) -> None:
    check(
        [
            {"id": i, "source": s, "type": "t", "subject": s, "data": d}
            | ({"time": t} if t else {})
            for i, s, t, d in events
        ]
    )


@given(
    st.lists(MICROSECONDS, min_size=7, max_size=20),
    st.just(()) | ODD_TOGETHER,
    st.lists(PAYLOADS, min_size=1, max_size=2),
    st.integers(0, 22),
)
def test_many_events_that_are_written_alike_are_read_one_by_one_if_one_is_not(
    times: list[str | None], odd: tuple[str | None, ...], payloads: list[Any], place: int
) -> None:
    times[place:place] = odd
    common = {"source": "s", "type": "t", "subject": "u"}
    members = [
        common | {"id": str(n), "data": {"n": n}} | ({"time": t} if t else {})
        for n, t in enumerate(times)
    ]
    for member, payload in zip(members, payloads, strict=False):
        member["data"] = json.loads(payload) if isinstance(payload, str) else payload
    check(members)


def check(members: list[dict[str, Any]]) -> None:
    """Both ways, which must agree."""
    body = json.dumps(members, separators=(",", ":")).encode()
    assert is_plain(body)
    careful = [read_event(json.dumps(m).encode(), ARRIVAL, None) for m in members]
    try:
        fast = encode_all(decode_envelopes(body, batch=True), ARRIVAL, plain=True)
    except NeedsCare:
        assert not all(isinstance(each, Encoded) for each in careful)
        return
    # Spaces in `data` are as sent: only the columns before it, and its value, are to be the same.
    for quick, slow in zip(fast, careful, strict=True):
        assert isinstance(slow, Encoded)
        quick_columns, slow_columns = json.loads(b"[" + quick.line), json.loads(b"[" + slow.line)
        assert quick.key_hash == slow.key_hash
        assert quick_columns[:12] == slow_columns[:12]
        assert json.loads(quick_columns[12] or "null") == json.loads(slow_columns[12] or "null")
