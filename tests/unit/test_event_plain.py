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
    members = [
        {"id": i, "source": s, "type": "t", "subject": s, "data": d} | ({"time": t} if t else {})
        for i, s, t, d in events
    ]
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
        assert json.loads(quick_columns[12]) == json.loads(slow_columns[12])
