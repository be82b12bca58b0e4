"""The store finds the value that a path names, and none where it names none."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate.metering.jsonpath import JsonPath, parse_path

type_names = {dict: "Object", list: "Array", str: "String", bool: "Bool", type(None): "Null"}

WEIRD_KEYS = [
    "", "a", "b", "0", "1", "-1", "a.b", "a b", "'", '"', "\\", "\\'", '\\"', "\n", "\t", "\0",
    "é", "e\u0301", "模型", "😀", "$", "*", "..", "[0]", "{x:String}", "%", "_", "?", "--", "\x7f",
]  # fmt: skip
keys = st.sampled_from(WEIRD_KEYS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | keys | st.just(0.5) | st.just(-1.25)
)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=15,
)

ABSENT = object()


def pick(document: object, segments: Sequence[str | int]) -> object:
    """The reference: what a path names in a document."""
    for segment in segments:
        match document, segment:
            case dict(), str() if segment in document:
                document = document[segment]
            case list(), int() if segment < len(document):
                document = document[segment]
            case _:
                return ABSENT
    return document


def all_paths(document: object) -> list[tuple[str | int, ...]]:
    match document:
        case dict():
            steps: Mapping[str | int, object] = dict(document)
        case list():
            steps = dict(enumerate(document))
        case _:
            return [()]
    below = [(step, *rest) for step, inner in steps.items() for rest in all_paths(inner)]
    return [(), *below]


@st.composite
def document_and_path(draw: st.DrawFn) -> tuple[object, JsonPath]:
    """A path that exists, or one that went astray at some segment."""
    document = draw(documents)
    segments = list(draw(st.sampled_from(all_paths(document))))
    if draw(st.booleans()):
        astray = draw(keys | st.integers(0, 5))
        segments.insert(draw(st.integers(0, len(segments))), astray)
    return document, JsonPath(segments=tuple(segments))


def extract(engine: Client, text: str, path: JsonPath) -> tuple[str, str]:
    found = engine.query(
        f"SELECT {path.call('JSONType', 'data', 'v')}, {path.call('JSONExtractRaw', 'data', 'v')}"
        " FROM (SELECT materialize({document:String}) AS data)",
        parameters={"document": text, **path.parameters("v")},
    ).result_rows
    return found[0][0], found[0][1]


@given(document_and_path(), st.booleans())
@settings(max_examples=300, deadline=timedelta(seconds=2))
def test_finds_what_the_path_names(
    engine: Client, case: tuple[object, JsonPath], escape: bool
) -> None:
    document, path = case
    kind, raw = extract(engine, json.dumps(document, ensure_ascii=escape), path)
    expected = pick(document, path.segments)
    if expected is ABSENT:
        assert (kind, raw) == ("Null", "")
    else:
        assert json.loads(raw) == expected
        assert kind == type_names.get(type(expected), kind)


@pytest.mark.parametrize(
    ("document", "path", "raw"),
    [
        ('{"a": 1}', "$[0]", ""),
        ('{"a": {"b": 1}}', "$.a[0]", ""),
        ('{"0": 1}', "$[0]", ""),
        ('{"0": 1}', "$.0", "1"),
        ('["x", "y"]', "$[0]", '"x"'),
        ('["x", "y"]', "$[2]", ""),
        ('["x", "y"]', "$.0", ""),
        ('[[1, 2], {"a": [3]}]', "$[1].a[0]", "3"),
        ('[{"b": [3]}, {"a": [4]}]', "$[0].a[0]", ""),
        ('{"a": 1, "a": 2}', "$.a", "1"),
        ('{"a\\u0062": 1}', "$.ab", "1"),
        ('{"a": null}', "$.a", "null"),
        ("5", "$", "5"),
        ("5", "$[0]", ""),
        ("", "$.a", ""),
        ("", "$[0]", ""),
    ],
)
def test_hand_made_cases(engine: Client, document: str, path: str, raw: str) -> None:
    assert extract(engine, document, parse_path(path, "valueProperty"))[1] == raw
