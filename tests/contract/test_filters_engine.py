"""The store decides as Python does whether a filter holds, for texts, absence and times."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate.core.times import EARLIEST, LATEST
from tollgate.platform.filters import (
    And,
    Comparison,
    Filter,
    Match,
    Membership,
    Operator,
    Or,
    Parameters,
    Presence,
    contains,
    to_sql,
)

MICROSECOND = timedelta(microseconds=1)
ORDER: dict[Operator, Callable[[int], bool]] = {
    Operator.EQUAL: lambda order: order == 0,
    Operator.NOT_EQUAL: lambda order: order != 0,
    Operator.GREATER: lambda order: order > 0,
    Operator.GREATER_OR_EQUAL: lambda order: order >= 0,
    Operator.LESS: lambda order: order < 0,
    Operator.LESS_OR_EQUAL: lambda order: order <= 0,
}


def holds(asked: Filter, value: str | datetime | None) -> bool:
    """The reference."""
    text = "" if value is None else value
    match asked:
        case Comparison(operator=operator, value=other):
            return ORDER[operator](compare(text, other))
        case Membership(values=values, negated=negated):
            return (text in values) != negated
        case Match(pattern=pattern, ignore_case=ignore_case, negated=negated):
            flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
            return bool(re.fullmatch(expression(pattern), str(text), flags)) != negated
        case Presence(present=present):
            return (value is not None) == present
        case And(filters=filters):
            return all(holds(inner, value) for inner in filters)
        case Or(filters=filters):
            return any(holds(inner, value) for inner in filters)


def compare(one: str | datetime, other: str | datetime) -> int:
    match one, other:
        case str(), str():
            return (one > other) - (one < other)
        case datetime(), datetime():
            return (one > other) - (one < other)
        case _:
            raise AssertionError(f"{one!r} and {other!r} do not compare")


def expression(pattern: str) -> str:
    """A LIKE pattern as a regular expression."""
    return re.sub(
        r"\\[%_\\]|.",
        lambda found: (
            {"%": ".*", "_": "."}.get(found[0])
            or re.escape(found[0][1:] if len(found[0]) == 2 else found[0])
        ),
        pattern,
        flags=re.DOTALL,
    )


texts = st.text(st.sampled_from("aAbBéÉжЖ模😀%_\\'\" \n\t\0{}:"), max_size=6) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=4
)
patterns = st.text(st.sampled_from("aAbéÉ%%%_\\'.*[\n"), max_size=6).filter(
    lambda pattern: (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 0
)
# Beyond these letters what ignoring case means differs between libraries.
plain_texts = st.text(st.sampled_from("aAbBéÉжЖ模😀%_\\'.*[ \n"), max_size=6)

leaves = st.one_of(
    st.builds(Comparison, operator=st.sampled_from(Operator), value=texts),
    st.builds(Membership, values=st.lists(texts, max_size=4).map(tuple), negated=st.booleans()),
    st.builds(Match, pattern=patterns, ignore_case=st.booleans(), negated=st.booleans()),
    st.builds(contains, plain_texts, negated=st.booleans()),
    st.builds(Presence, present=st.booleans()),
)
trees = st.recursive(
    leaves,
    lambda inner: st.builds(
        lambda join, filters: join(filters=tuple(filters)),
        st.sampled_from([And, Or]),
        st.lists(inner, max_size=3),
    ),
    max_leaves=6,
)


def ask(engine: Client, asked: Filter, kind: str, values: list[object]) -> list[bool]:
    parameters = Parameters()
    nullable = kind.startswith("Nullable")
    condition = to_sql(asked, "value", parameters, nullable=nullable)
    rows = engine.query(
        f"SELECT {condition} FROM"
        f" (SELECT arrayJoin(arrayEnumerate(materialize({{rows:Array({kind})}}) AS rows)) AS row,"
        " rows[row] AS value) ORDER BY row",
        parameters={"rows": values, **parameters.values},
    ).result_rows
    return [bool(row[0]) for row in rows]


@given(trees, st.lists(st.none() | plain_texts, min_size=1, max_size=8))
@settings(max_examples=250, deadline=timedelta(seconds=2))
def test_texts_and_absence(engine: Client, asked: Filter, values: list[str | None]) -> None:
    expected = [holds(asked, value) for value in values]
    assert ask(engine, asked, "Nullable(String)", list(values)) == expected


@given(trees, st.lists(plain_texts, min_size=1, max_size=8))
@settings(max_examples=100, deadline=timedelta(seconds=2))
def test_texts_that_are_never_absent(engine: Client, asked: Filter, values: list[str]) -> None:
    expected = [holds(asked, value) for value in values]
    assert ask(engine, asked, "String", list(values)) == expected


instants = st.integers(0, (LATEST - EARLIEST) // MICROSECOND).map(
    lambda after: EARLIEST + after * MICROSECOND
)
times = st.lists(
    st.builds(Comparison, operator=st.sampled_from(Operator), value=instants), max_size=4
).map(lambda filters: Or(filters=tuple(filters)))


@given(times, instants, st.integers(-1, 1))
@settings(max_examples=60, deadline=timedelta(seconds=2))
def test_times(engine: Client, asked: Or, other: datetime, nudge: int) -> None:
    near = [
        inner.value + nudge * MICROSECOND
        for inner in asked.filters
        if isinstance(inner, Comparison) and isinstance(inner.value, datetime)
    ]
    values = [other, *near]
    shown: list[object] = [
        value.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds") for value in values
    ]
    assert ask(engine, asked, "DateTime64(6, 'UTC')", shown) == [
        holds(asked, value) for value in values
    ]


@pytest.mark.parametrize(
    "text", ["\u0130", "\u0131", "ß", "ẞ", "\u017f", "\u212a", "\u0345", "\0", "ǅ", "\U0010ffff"]
)
def test_letters_with_odd_cases_find_at_least_themselves(engine: Client, text: str) -> None:
    values: list[object] = [text, f"x{text}y", "x"]
    assert ask(engine, contains(text), "String", values) == [True, True, False]


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("gpt-4%", "gpt-4o", True),
        ("gpt-4", "gpt-4o", False),
        ("gpt_4", "gpt-4", True),
        ("gpt\\_4", "gpt-4", False),
        ("gpt\\_4", "gpt_4", True),
        ("100\\%", "100%", True),
        ("a\\b", "a\\b", True),
        ("a\\\\b", "a\\b", True),
        ("%", "", True),
        ("_", "é", True),
        ("a.c", "abc", False),
        ("a%c", "a\nc", True),
    ],
)
def test_patterns_by_hand(engine: Client, pattern: str, text: str, expected: bool) -> None:
    asked = Match(pattern=pattern, ignore_case=False, negated=False)
    assert ask(engine, asked, "String", [text]) == [expected]
