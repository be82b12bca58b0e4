"""Bracketed query parameters, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core.errors import InvalidInput
from tollgate.platform.deep_object import KEYS_MAX, DeepObject, parse_deep_objects

NAMES = ("filter", "page")


def test_reads_nested_objects_and_leaves_other_parameters_alone() -> None:
    pairs = [
        ("filter[subject]", "customer-1"),
        ("filter[time][gte]", "2024-01-01T00:00:00Z"),
        ("filter[time][lt]", "2024-02-01T00:00:00Z"),
        ("filter[labels][team][eq]", "a"),
        ("filter[labels.env][eq]", "prod"),
        ("page[size]", "50"),
        ("page[after]", ""),
        ("sort", "time desc"),
        ("sort", "id"),
        ("filters[x]", "y"),
        ("[filter]", "z"),
    ]
    assert parse_deep_objects(pairs, NAMES) == {
        "filter": {
            "subject": "customer-1",
            "time": {"gte": "2024-01-01T00:00:00Z", "lt": "2024-02-01T00:00:00Z"},
            "labels": {"team": {"eq": "a"}},
            "labels.env": {"eq": "prod"},
        },
        "page": {"size": "50", "after": ""},
    }


def test_a_name_that_was_not_sent_is_absent() -> None:
    assert parse_deep_objects([("page[size]", "1")], NAMES) == {"page": {"size": "1"}}
    assert parse_deep_objects([], NAMES) == {}


@pytest.mark.parametrize(
    "parameter",
    ["filter", "filter[", "filter[]", "filter[a", "filter[a]b", "filter[a]]", "filter[[a]]",
     "filter[a][]", "filter[a][b", "filter[a].b", "filter[a][b][c][d]",
     "filter[" + "k" * 257 + "]"],
)  # fmt: skip
def test_malformed_parameters_are_faults(parameter: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_deep_objects([("page[size]", "1"), (parameter, "x")], NAMES)
    (fault,) = caught.value.faults
    assert fault.code == "malformed_parameter"
    assert fault.field == (parameter if len(parameter) <= 100 else parameter[:100] + "…")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("filter[a]", "filter[a]"),
        ("filter[a][eq]", "filter[a][eq]"),
        ("filter[a]", "filter[a][eq]"),
        ("filter[a][eq]", "filter[a]"),
        ("filter[a][b][c]", "filter[a][b]"),
    ],
)
def test_nothing_comes_twice(first: str, second: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_deep_objects([(first, "1"), (second, "2")], NAMES)
    assert [(fault.field, fault.code) for fault in caught.value.faults] == [
        (second, "repeated_parameter")
    ]


def test_all_faults_at_once_and_a_bound_on_their_number() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_deep_objects([("filter", "1"), ("page[", "2")], NAMES)
    assert [fault.field for fault in caught.value.faults] == ["filter", "page["]
    many = [(f"filter[k{number}]", "v") for number in range(KEYS_MAX + 50)]
    assert len(parse_deep_objects(many[:KEYS_MAX], NAMES)["filter"]) == KEYS_MAX
    with pytest.raises(InvalidInput) as caught:
        parse_deep_objects(many, NAMES)
    assert [fault.code for fault in caught.value.faults] == ["too_many_parameters"]


keys = st.text(st.characters(exclude_characters="[]", exclude_categories=["Cs"]), min_size=1)
objects = st.dictionaries(
    keys,
    st.text() | st.dictionaries(keys, st.text(), min_size=1, max_size=3),
    min_size=1,
    max_size=5,
)


@given(objects)
def test_what_is_written_is_read_back(expected: DeepObject) -> None:
    pairs = []
    for key, value in expected.items():
        if isinstance(value, str):
            pairs.append((f"filter[{key}]", value))
        else:
            pairs += [(f"filter[{key}][{inner}]", str(text)) for inner, text in value.items()]
    assert parse_deep_objects(pairs, NAMES) == {"filter": expected}
