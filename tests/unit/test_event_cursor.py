import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core.errors import InvalidInput
from tollgate.core.times import EARLIEST_US, LATEST_US
from tollgate.events.position import Position
from tollgate.metering.event_cursor import EventKey, EventOrder, decode_cursor, encode_cursor

KEY = EventKey(
    order=EventOrder.TIME,
    instant_us=1_795_091_445_199_877,
    position=Position(generation=1, partition=2, offset=3, index=4),
)
keys = st.builds(
    EventKey,
    order=st.sampled_from(EventOrder),
    instant_us=st.integers(EARLIEST_US, LATEST_US),
    position=st.builds(
        Position,
        generation=st.integers(0, 2**32 - 1),
        partition=st.integers(0, 2**16 - 1),
        offset=st.integers(0, 2**64 - 1),
        index=st.integers(0, 2**32 - 1),
    ),
)


def refused(text: str, order: EventOrder = EventOrder.TIME) -> str:
    with pytest.raises(InvalidInput) as raised:
        decode_cursor(text, order, "cursor")
    (fault,) = raised.value.faults
    assert fault.field == "cursor"
    return fault.code


@given(keys)
def test_names_the_same_place_again(key: EventKey) -> None:
    text = encode_cursor(key)
    assert re.fullmatch(r"[A-Za-z0-9_-]{44}", text)
    assert decode_cursor(text, key.order, "cursor") == key


@given(st.integers(0, 43), st.sampled_from("AZaz09-_+/= ~é"))
def test_one_changed_character_is_seen(at: int, character: str) -> None:
    text = encode_cursor(KEY)
    changed = text[:at] + character + text[at + 1 :]
    if changed != text:
        assert refused(changed) == "invalid_cursor"


@pytest.mark.parametrize(
    "text", ["", "x", "A" * 44, "A" * 43, "=" * 44, "é" * 44, "\ud800" * 44, "A" * 100_000]
)
def test_what_is_no_cursor(text: str) -> None:
    assert refused(text) == "invalid_cursor"


def test_another_spelling_is_no_cursor() -> None:
    text = encode_cursor(KEY)
    assert refused(text + "=") == "invalid_cursor"
    assert refused(base64.b64encode(base64.urlsafe_b64decode(text)).decode() + "\n") == (
        "invalid_cursor"
    )


def test_a_cursor_of_another_order() -> None:
    assert refused(encode_cursor(KEY), EventOrder.STORED_AT) == "cursor_of_another_order"
