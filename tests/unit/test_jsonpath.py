"""JSONPath: spellings and their segments by hand, faults with their place, and the SQL."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core.errors import InvalidInput
from tollgate.metering.jsonpath import DEPTH_MAX, POSITION_MAX, JsonPath, parse_path

READ = [
    ("$", ()),
    ("$.tokens", ("tokens",)),
    ("$.usage.total_tokens", ("usage", "total_tokens")),
    ("$.total-tokens", ("total-tokens",)),
    ("$.größe.模型", ("größe", "模型")),
    ("$.0", ("0",)),
    ("$.007.1e5", ("007", "1e5")),
    ("$._", ("_",)),
    ('$."a b"', ("a b",)),
    ('$."a.b".c', ("a.b", "c")),
    ("$['a']", ("a",)),
    ('$["a"]["b"]', ("a", "b")),
    ("$['it\\'s']", ("it's",)),
    ("$['say \"hi\"']", ('say "hi"',)),
    ('$["it\'s"]', ("it's",)),
    ('$["\\\\\\/\\b\\f\\n\\r\\t\\""]', ('\\/\b\f\n\r\t"',)),
    ('$["\\u00e9\\ud83d\\ude00\\u0000"]', ("é😀\0",)),
    ("$['']", ("",)),
    ('$.""', ("",)),
    ("$['0']", ("0",)),
    ("$['$']['*']['..']", ("$", "*", "..")),
    ("$[0]", (0,)),
    ("$.items[10].price", ("items", 10, "price")),
    ("$[0][1][2]", (0, 1, 2)),
    ("$[ 'a' ][ 3 ]", ("a", 3)),
    (f"$[{POSITION_MAX}]", (POSITION_MAX,)),
    ("$" + ".a" * DEPTH_MAX, ("a",) * DEPTH_MAX),
    ("$." + "a" * 1022, ("a" * 1022,)),
]

REFUSED = [
    ("", "must start with $", 0),
    ("tokens", "must start with $", 0),
    (" $.a", "must start with $", 0),
    ("@.a", "must start with $", 0),
    ("$a", "expected . or [, found 'a'", 1),
    ("$.", "a member name is missing", 2),
    ("$.a.", "a member name is missing", 4),
    ("$..a", "descendants (..) are not supported; spell out the way", 2),
    ("$.a..b", "descendants (..) are not supported; spell out the way", 4),
    ("$.*", "wildcards are not supported; name one member or position", 2),
    ("$[*]", "wildcards are not supported; name one member or position", 2),
    ("$[?(@.a == 1)]", "filters are not supported; name one member or position", 2),
    ("$[0:2]", "slices are not supported; name one position", 3),
    ("$[:2]", "slices are not supported; name one position", 2),
    ("$['a','b']", "lists are not supported; name one member or position", 5),
    ("$[(@.length)]", "expressions are not supported; name one member or position", 2),
    ("$[-1]", "negative positions are not supported; count from the start, from 0", 2),
    ("$[00]", "positions are written without leading zeros", 3),
    ("$[٣]", "expected a position or a name in quotes", 2),
    ("$[1.5]", "expected ]", 3),
    (f"$[{POSITION_MAX + 1}]", f"positions end at {POSITION_MAX}", 2),
    ("$[]", "expected a position or a name in quotes", 2),
    ("$[a]", "expected a position or a name in quotes", 2),
    ("$[", "expected a position or a name in quotes", 2),
    ("$[0", "expected ]", 3),
    ("$['a'", "expected ]", 5),
    ("$['a", "the quote is not closed", 2),
    ('$."a', "the quote is not closed", 2),
    ("$['a\\'", "the quote is not closed", 2),
    ("$['a\"]", "the quote is not closed", 2),
    ("$['a\nb']", "control characters must be escaped", 4),
    ('$["\\x41"]', "unknown escape \\x", 4),
    ('$["\\', "unknown escape \\", 4),
    ('$["\\u12"]', "\\u takes four hexadecimal digits", 5),
    ('$["\\ud800"]', "lone surrogates are not text", 9),
    ('$["\\udc00\\ud800"]', "lone surrogates are not text", 9),
    ("$.\ud800", "lone surrogates are not text", 2),
    ("$.a b", "expected . or [, found ' '", 3),
    ("$.a'b", 'expected . or [, found "\'"', 3),
    ("$.a);DROP", "expected . or [, found ')'", 3),
    ("$. a", "' ' cannot begin a name; put the name in quotes", 2),
    ("$" + ".a" * (DEPTH_MAX + 1), f"more than {DEPTH_MAX} segments", 2 * DEPTH_MAX + 3),
    ("$." + "a" * 1023, "longer than 1024 characters", 1024),
]


@pytest.mark.parametrize(("text", "segments"), READ)
def test_reads(text: str, segments: tuple[str | int, ...]) -> None:
    assert parse_path(text, "valueProperty") == JsonPath(segments=segments)


@pytest.mark.parametrize(("text", "message", "offset"), REFUSED)
def test_refuses_and_says_what_and_where(text: str, message: str, offset: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_path(text, "groupBy.model")
    (fault,) = caught.value.faults
    assert (fault.field, fault.code) == ("groupBy.model", "invalid_json_path")
    assert fault.message == f"is not a usable JSONPath: {message} (at offset {offset})"


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
segment_lists = st.lists(names | st.integers(0, POSITION_MAX), max_size=8)


@given(segment_lists)
def test_what_is_spelled_is_read_back(segments: list[str | int]) -> None:
    path = JsonPath(segments=tuple(segments))
    assert parse_path(path.spelling(), "valueProperty") == path


@given(st.text(st.sampled_from("$.['\"]\\0129a-*? ué\n:,"), max_size=30).map("$".__add__))
def test_any_text_is_a_path_or_invalid_input(text: str) -> None:
    try:
        path = parse_path(text, "valueProperty")
    except InvalidInput:
        return
    assert parse_path(path.spelling(), "valueProperty") == path


def test_names_are_bound_and_positions_count_from_one() -> None:
    path = parse_path("$.items[0]['a\\'); DROP TABLE x --']", "valueProperty")
    assert path.arguments("value") == (
        ", {value_0:String}, 1, {value_2:String}",
        {"value_0": "items", "value_2": "a'); DROP TABLE x --"},
    )


def test_the_whole_document_takes_no_arguments() -> None:
    path = parse_path("$", "valueProperty")
    assert path.arguments("value") == ("", {})
    assert path.call("JSONExtractRaw", "data", "value") == "JSONExtractRaw(data)"


def test_a_path_without_positions_is_not_guarded() -> None:
    path = parse_path("$.a.b", "valueProperty")
    assert path.document("data", "value") == "data"
    assert path.call("JSONType", "data", "v") == "JSONType(data, {v_0:String}, {v_1:String})"


def test_every_position_is_guarded_by_the_type_of_its_parent() -> None:
    path = parse_path("$[2].a[0]", "valueProperty")
    assert path.document("data", "v") == (
        "if(JSONType(data) = 'Array' AND JSONType(data, 3, {v_1:String}) = 'Array', data, '')"
    )
