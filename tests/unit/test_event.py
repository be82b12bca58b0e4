"""The two ways an event is read: what both accept gives the same bytes, and no fault slips by."""

import json
import string
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core.errors import InvalidInput
from tollgate.events.event import (
    ATTRIBUTE_LENGTH_MAX,
    DEPTH_MAX,
    Arrival,
    NeedsCare,
    decode_envelopes,
    encode_all,
    is_plain,
)
from tollgate.events.faults import event_id, has_more_events, read_event, split_batch
from tollgate.events.record import TIME_GIVEN, Encoded

RECEIVED_US = 1_767_225_600_123_456
PLAIN = {"id": "1", "source": "api", "type": "prompt", "subject": "acme"}


def arrival(body: bytes, event_bytes_max: int = 1 << 20) -> Arrival:
    return Arrival(
        namespace="default",
        received_us=RECEIVED_US,
        event_bytes_max=event_bytes_max,
    )


def fast(body: bytes) -> Encoded | None:
    """What the hot path makes of one event; None where it leaves it to the other."""
    try:
        envelopes = decode_envelopes(body, batch=False)
        (found,) = encode_all(envelopes, arrival(body), plain=is_plain(body))
        return found
    except (msgspec.DecodeError, NeedsCare, RecursionError):
        return None


def careful(body: bytes, index: int | None = None) -> Encoded | tuple[Any, ...]:
    return read_event(body, arrival(body), index)


def accepted(body: bytes) -> Encoded:
    found = careful(body)
    assert isinstance(found, Encoded), found
    return found


def columns(event: Encoded) -> list[Any]:
    found: list[Any] = json.loads(b"[" + event.line)
    return found


def refused(body: bytes, index: int | None = None) -> set[tuple[str, str]]:
    found = careful(body, index)
    assert not isinstance(found, Encoded)
    assert all(fault.index == index for fault in found)
    assert all(fault.message for fault in found)
    return {(fault.field, fault.code) for fault in found}


def event(**members: object) -> bytes:
    return json.dumps(PLAIN | members).encode()


times = st.datetimes(timezones=st.timezones()).map(lambda at: at.isoformat()) | st.sampled_from(
    ["2026-01-31T08:30:00Z", "2016-12-31T23:59:60Z", "2026-01-31t08:30:00.1234567z", "soon", ""]
)
texts = st.text(min_size=1, max_size=10) | st.sampled_from(["a", "a b", "\u00a0", "\u3000x", "é"])
payloads = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=8,
    ),
    max_size=4,
)
valid_events = st.fixed_dictionaries(
    dict.fromkeys(PLAIN, texts),
    optional={
        "specversion": st.just("1.0"),
        "time": times | st.none(),
        "datacontenttype": st.sampled_from([None, "application/json", "text/plain"]),
        "dataschema": st.none() | st.just("https://example.com/schema"),
        "data": st.none() | payloads,
    },
)


@given(valid_events, st.booleans(), st.sampled_from([None, 2]))
def test_both_ways_give_the_same_bytes(
    members: dict[str, object], ascii_only: bool, indent: int | None
) -> None:
    body = json.dumps(members, ensure_ascii=ascii_only, indent=indent)
    try:
        raw = body.encode()
    except UnicodeEncodeError:  # a lone surrogate, which never gets past the check of UTF-8
        return
    quick = fast(raw)
    if quick is not None:
        assert careful(raw) == quick


mutations: st.SearchStrategy[object] = st.sampled_from(
    [None, "", " ", 1, True, [], {}, "x" * (ATTRIBUTE_LENGTH_MAX + 1), "a\nb", "\ufdd0", "\ud800"]
)


@given(
    st.dictionaries(st.sampled_from([*PLAIN, "specversion", "time", "dataschema"]), mutations),
    st.sets(st.sampled_from(sorted(PLAIN))),
)
def test_the_hot_path_takes_nothing_that_has_a_fault(
    wrong: dict[str, object], missing: set[str]
) -> None:
    members: dict[str, object] = {k: v for k, v in PLAIN.items() if k not in missing} | wrong
    raw = json.dumps(members).encode()
    found = careful(raw)
    if not isinstance(found, Encoded):
        assert found, "refused means that something is named"
        assert fast(raw) is None
    quick = fast(raw)
    assert quick is None or quick == found


@given(st.binary(max_size=60) | st.text(string.printable, max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    careful(raw)
    fast(raw)
    with suppress(InvalidInput):
        split_batch(raw)


def test_a_line_by_hand() -> None:
    body = (
        b'{"specversion":"1.0","id":"1","source":"api","type":"prompt","subject":"acme",'
        b'"time":"2026-01-01T00:00:00.5Z","data":{"tokens": 12345678901234567890.5}}'
    )
    found = accepted(body)
    # 2026-01-01T00:00:00Z is 20454 days of 86400 s after 1970-01-01.
    assert columns(found) == [
        "default",
        "api",
        "1",
        "1767225600.500000",
        TIME_GIVEN,
        "1767225600.123456",
        found.key_hash.hex(),
        "prompt",
        "acme",
        "",
        "",
        "",
        '{"tokens": 12345678901234567890.5}',
        '{"tokens": "12345678901234567890.5"}',
    ]
    assert fast(body) == found


def test_time_left_out_is_the_server_time_and_not_content() -> None:
    given_time, left_out = accepted(event(time="2025-12-31T00:00:00Z")), accepted(event())
    assert columns(left_out)[3:5] == [columns(left_out)[5], 0]
    assert accepted(event(time=None)) == left_out
    assert columns(given_time)[7:] == columns(left_out)[7:]
    assert given_time.key_hash == left_out.key_hash


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("1969-12-31T23:59:59.999999Z", "1969-12-31 23:59:59.999999"),
        ("1900-01-01T00:00:00Z", "1900-01-01 00:00:00.000000"),
        ("1970-01-01T00:00:00Z", "0.000000"),
        ("2299-12-31T23:59:59.999999Z", "10413791999.999999"),
        ("2026-01-01T00:00:00+05:30", "1767205800.000000"),
    ],
)
def test_times_as_the_store_reads_them(text: str, column: str) -> None:
    assert columns(accepted(event(time=text)))[3] == column


def test_extensions_and_schema_are_kept_sorted() -> None:
    body = event(dataschema="https://a/s", zone="eu", attempt=2, live=True, gone=None, price=1.50)
    found = columns(accepted(body))
    assert found[10] == "https://a/s"
    assert found[11] == '{"attempt":2,"live":true,"price":1.5,"zone":"eu"}'
    again = event(zone="eu", price=1.50, live=True, attempt=2, dataschema="https://a/s")
    assert columns(accepted(again))[7:] == columns(accepted(body))[7:]


FAULTS: list[tuple[bytes, set[tuple[str, str]]]] = [
    (b"{}", {(name, "required") for name in PLAIN}),
    (event(id=None, source=None), {("id", "required"), ("source", "required")}),
    (event(id="", type=""), {("id", "empty"), ("type", "empty")}),
    (event(subject=7), {("subject", "not_a_string")}),
    (event(subject="x" * 1025), {("subject", "too_long")}),
    (event(id="a\x00b"), {("id", "forbidden_character")}),
    (event(id="\U0010ffff"), {("id", "forbidden_character")}),
    (event(id="a\ud800"), {("id", "lone_surrogate")}),
    (event(specversion="0.3"), {("specversion", "not_supported")}),
    (event(specversion=None), {("specversion", "not_supported")}),
    (event(time="yesterday"), {("time", "invalid_time")}),
    (event(time="2026-02-30T00:00:00Z"), {("time", "invalid_time")}),
    (event(time="2026-01-01T00:00:00"), {("time", "invalid_time")}),
    (event(time="2300-01-01T00:00:00Z"), {("time", "invalid_time")}),
    (event(time=1767225600), {("time", "not_a_string")}),
    (event(datacontenttype="text/plain"), {("datacontenttype", "not_supported")}),
    (event(dataschema=""), {("dataschema", "empty")}),
    (event(data=[1]), {("data", "not_an_object")}),
    (event(data="text"), {("data", "not_an_object")}),
    (event(data_base64="AAAA"), {("data_base64", "not_supported")}),
    (event(data={"a": [{"b": "\udfff"}]}), {("data.a.0.b", "lone_surrogate")}),
    (event(data={"a": 1, "\ud800": 2}), {("data.?", "lone_surrogate")}),
    (event(extension={"a": 1}), {("extension", "invalid_extension")}),
    (event(**{"bad-name": "x"}), {("bad-name", "invalid_extension_name")}),
    (event(**{f"e{n}": n for n in range(65)}), {("", "too_many_extensions")}),
    (event(id="", time="x", data=1, zone=""), {
        ("id", "empty"), ("time", "invalid_time"), ("data", "not_an_object"), ("zone", "empty"),
    }),
    (b"[]", {("", "wrong_shape")}),
    (b"null", {("", "wrong_shape")}),
    (b'{"id":', {("", "invalid_json")}),
    (b"", {("", "invalid_json")}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "faults"), FAULTS, ids=[str(b[:60]) for b, _ in FAULTS])
def test_every_fault_is_named(body: bytes, faults: set[tuple[str, str]]) -> None:
    assert refused(body) == faults
    assert fast(body) is None


@pytest.mark.parametrize(
    "members",
    [
        {"id": "x" * ATTRIBUTE_LENGTH_MAX},
        {"id": "\u00a0 \u3000"},
        {"id": "😀"},
        {"datacontenttype": "application/vnd.acme+json; charset=utf-8"},
        {"datacontenttype": "Application/JSON"},
        {"data": {}},
        {"data": None},
        {"data": {"a": "\\u", "b": "😀"}},
        {f"e{n}": n for n in range(64)},
    ],
)
def test_unusual_and_right(members: dict[str, object]) -> None:
    assert isinstance(careful(event(**members)), Encoded)


def nested(depth: int, before: str = "") -> bytes:
    """An event whose data is nested that deep, the object itself being the first level."""
    inner = "[" * (depth - 1) + "]" * (depth - 1)
    return event(data={"a": "@"}).replace(b'"@"', f'"{before}","b":{inner}'.encode())


@pytest.mark.parametrize("before", ["", "]" * 100, "[" * 100, '\\"]]]]]]]]' * 20])
def test_depth_is_bounded_whatever_strings_hold(before: str) -> None:
    right, wrong = nested(DEPTH_MAX, before), nested(DEPTH_MAX + 1, before)
    assert fast(right) == accepted(right)
    assert fast(wrong) is None
    (_, code), *more = refused(wrong)
    assert (code, more) == ("too_deep", [])


@pytest.mark.parametrize("depth", [500, 5_000, 100_000])
def test_absurd_depth(depth: int) -> None:
    body = nested(depth)
    assert fast(body) is None
    assert {code for _, code in refused(body)} <= {"too_deep", "invalid_json"}


def test_what_a_duplicate_member_hides_is_seen() -> None:
    """The engine reads the first of a name: a check of the last would miss what is stored."""
    hidden = event().replace(b"}", b',"data":{"a":"\\ud800","a":1}}')
    assert refused(hidden) == {("data.a", "lone_surrogate")}
    deep = b"[" * 70 + b"]" * 70
    body = event().replace(b"}", b',"data":{"a":' + deep + b',"a":1}}')
    assert {code for _, code in refused(body)} == {"too_deep"}
    assert fast(body) is None


def test_size_is_bounded_before_members_are_taken_apart() -> None:
    body = event(data={"a": "x" * 500})
    found = read_event(body, arrival(body, event_bytes_max=400), 3)
    assert isinstance(found, tuple)
    assert [(fault.code, fault.index) for fault in found] == [("event_too_large", 3)]
    many = b"{" + b",".join(b'"e%d":1' % n for n in range(300_000)) + b"}"
    found = read_event(many, arrival(many, event_bytes_max=400), None)
    assert isinstance(found, tuple)
    assert [fault.code for fault in found] == ["event_too_large"]


def test_a_batch_names_the_event_of_each_lone_surrogate() -> None:
    body = b"[" + event() + b"," + event(id="\ud800") + b"," + event(data={"a": "\udc00"}) + b"]"
    with pytest.raises(InvalidInput) as refusal:
        split_batch(body)
    assert [(f.index, f.field, f.code) for f in refusal.value.faults] == [
        (1, "id", "lone_surrogate"),
        (2, "data.a", "lone_surrogate"),
    ]


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"[]", 1),  # an upper bound: one item or none
        (b"[1]", 1),
        (b"[1,2,3]", 3),
        (b'[{"a":[1,2,3],"b":{"c":1}},"x,y,z]",[[],[]]]', 3),
        (b'["\\",\\\\",2]', 2),
    ],
)
def test_events_are_counted_without_being_decoded(body: bytes, count: int) -> None:
    assert not has_more_events(body, count)
    if count > 1:
        assert has_more_events(body, count - 1)


@given(st.lists(payloads, min_size=1, max_size=6))
def test_counting_agrees_with_decoding(items: list[dict[str, object]]) -> None:
    body = json.dumps(items).encode()
    assert not has_more_events(body, len(items))
    if len(items) > 1:
        assert has_more_events(body, len(items) - 1)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (event(id="é"), "é"),
        (event(id=7), ""),
        (event(id=None), ""),
        (b"{}", ""),
        (b"[", ""),
        (event(id="x" * 5000), "x" * 200),
        (event(id="[" * 9), "[" * 9),
    ],
)
def test_the_id_of_a_refused_event(raw: bytes, found: str) -> None:
    assert event_id(raw) == found
