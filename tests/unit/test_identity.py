"""Who an event is, and when two say the same."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.events.identity import key_hash, key_prefix, partition_of, same_json

names = st.text(min_size=1, max_size=8)
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)
    )
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


def hashed(namespace: str, source: str, event_id: str) -> bytes:
    return key_hash(key_prefix(namespace), source, event_id)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (("n", "a-b", "c"), ("n", "a", "b-c")),
        (("n", "a", ":1:b"), ("n", "a:1", ":b")),
        (("n", "1:a", "b"), ("n", "1", "a:b")),
        (("n1", "a", "b"), ("n", "1a", "b")),
        (("n", "", "ab"), ("n", "ab", "")),
        (("n", "a", "b"), ("n", "b", "a")),
        (("n", "a", "b"), ("n", "a", "B")),
        (("n", "é", "b"), ("n", "e\u0301", "b")),
    ],
)
def test_keys_that_a_separator_would_mix_up(
    left: tuple[str, str, str], right: tuple[str, str, str]
) -> None:
    assert hashed(*left) != hashed(*right)


@given(st.tuples(names, names, names), st.tuples(names, names, names))
def test_equal_keys_and_only_they_share_a_hash(
    left: tuple[str, str, str], right: tuple[str, str, str]
) -> None:
    assert (hashed(*left) == hashed(*right)) is (left == right)


@given(names, names, st.integers(0, 8))
def test_moving_the_border_between_source_and_id_is_another_key(
    source: str, event_id: str, by: int
) -> None:
    joined = source + event_id
    moved = joined[:by], joined[by:]
    assert (hashed("n", *moved) == hashed("n", source, event_id)) is (moved == (source, event_id))


def test_hashes_are_what_was_stored_before() -> None:
    """A change here would count every stored event a second time."""
    assert hashed("default", "api", "1").hex() == KEY


KEY = "4d97e0cf50294ab75d1621bf3449f6c3"


def test_a_partition_owns_a_key() -> None:
    owners = [partition_of(hashed("n", "s", str(i)), 4) for i in range(400)]
    assert set(owners) == {0, 1, 2, 3}
    assert owners == [partition_of(hashed("n", "s", str(i)), 4) for i in range(400)]


SAME = [
    ("", "null"),
    ("{}", "{ }"),
    ('{"a":1,"b":2}', '{"b":2,"a":1}'),
    ('{"a":1}', '{"a":1.0}'),
    ('{"a":100}', '{"a":1e2}'),
    ('{"a":-0}', '{"a":0}'),
    ('{"a":"\\u00e9"}', '{"a":"é"}'),
    ('{"a":1,"a":2}', '{"a":1}'),
    ('{"a":1e-99999999999999999999}', '{ "a":1e-99999999999999999999}'),
    ('{"a":123456789012345678.1234567890123456780}', '{"a":123456789012345678.123456789012345678}'),
]
DIFFERENT = [
    ("", "{}"),
    ('{"a":1}', '{"a":"1"}'),
    ('{"a":1}', '{"a":true}'),
    ('{"a":0}', '{"a":false}'),
    ('{"a":null}', "{}"),
    ('{"a":null}', '{"a":0}'),
    ('{"a":[1,2]}', '{"a":[2,1]}'),
    ('{"a":[1]}', '{"a":[1,1]}'),
    ('{"a":{}}', '{"a":[]}'),
    ('{"a":1,"a":2}', '{"a":2}'),
    ('{"a":"é"}', '{"a":"e\u0301"}'),
    ('{"a":9007199254740993}', '{"a":9007199254740992}'),
    ('{"a":1e-99999999999999999999}', '{"a":1e-99999999999999999998}'),
    ('{"a":1e-99999999999999999999}', '{"a":"1e-99999999999999999999"}'),
    ('{"a":1e999999}', '{"a":1e999998}'),
]


@pytest.mark.parametrize(("left", "right"), SAME)
def test_same_values(left: str, right: str) -> None:
    assert same_json(left, right)
    assert same_json(right, left)


@pytest.mark.parametrize(("left", "right"), DIFFERENT)
def test_different_values(left: str, right: str) -> None:
    assert not same_json(left, right)
    assert not same_json(right, left)


@given(values)
def test_order_and_space_say_nothing(value: object) -> None:
    def turned(part: object) -> object:
        if isinstance(part, dict):
            return {k: turned(part[k]) for k in reversed(part)}
        return [turned(item) for item in part] if isinstance(part, list) else part

    assert same_json(json.dumps(value), json.dumps(turned(value), indent=2, ensure_ascii=False))


@given(values, values)
def test_sameness_has_two_sides(left: object, right: object) -> None:
    texts = json.dumps(left), json.dumps(right)
    assert same_json(*texts) is same_json(*reversed(texts))
    if texts[0] == texts[1]:
        assert same_json(*texts)


@given(values)
def test_wrapped_differently_is_different(value: object) -> None:
    assert not same_json(json.dumps({"a": value}), json.dumps({"a": [value]}))
    assert not same_json(json.dumps({"a": value}), json.dumps({"b": value}))
