"""Filters: what each dialect reads, what it refuses and where, and the SQL."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tollgate.core.errors import InvalidInput
from tollgate.platform.filter_dialects import (
    parse_datetime_field,
    parse_filter_id_exact,
    parse_filter_string,
    parse_filter_time,
    parse_query_filter,
    parse_query_filter_map_item,
    parse_string_exact_field,
    parse_string_field,
    parse_ulid_field,
)
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

Parse = Callable[[object, str], Filter]

EQ, NE, GT, GE, LT, LE = Operator
ULID = "01G65Z755AFWAKHE12NY0CQ9FH"
NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)


def compare(operator: Operator, value: str | datetime) -> Comparison:
    return Comparison(operator=operator, value=value)


def one_of(*values: str, negated: bool = False) -> Membership:
    return Membership(values=values, negated=negated)


def match(pattern: str, *, ignore_case: bool = False, negated: bool = False) -> Match:
    return Match(pattern=pattern, ignore_case=ignore_case, negated=negated)


READ: list[tuple[Parse, object, Filter]] = [
    (parse_filter_string, {"$eq": "a"}, compare(EQ, "a")),
    (parse_filter_string, {"$ne": ""}, compare(NE, "")),
    (parse_filter_string, {"$in": ["a", "b"]}, one_of("a", "b")),
    (parse_filter_string, {"$in": []}, one_of()),
    (parse_filter_string, {"$nin": ["a"]}, one_of("a", negated=True)),
    (parse_filter_string, {"$like": "a%"}, match("a%")),
    (parse_filter_string, {"$nlike": "a\\\\"}, match("a\\\\", negated=True)),
    (parse_filter_string, {"$ilike": "_"}, match("_", ignore_case=True)),
    (parse_filter_string, {"$nilike": "_"}, match("_", ignore_case=True, negated=True)),
    (
        parse_filter_string,
        {"$gt": "a", "$gte": "b", "$lt": "c", "$lte": "d", "$eq": None, "$and": None},
        And(filters=(compare(GT, "a"), compare(GE, "b"), compare(LT, "c"), compare(LE, "d"))),
    ),
    (parse_filter_string, {}, And(filters=())),
    (parse_filter_string, {"$or": []}, Or(filters=())),
    (
        parse_filter_string,
        {"$or": [{"$eq": "a"}, {"$and": [{"$gt": "b"}, {}]}]},
        Or(filters=(compare(EQ, "a"), And(filters=(compare(GT, "b"), And(filters=()))))),
    ),
    (
        parse_filter_time,
        {"$gte": "2024-01-01T01:00:00+01:00", "$or": [{"$lt": "2024-01-01T00:00:00Z"}]},
        And(filters=(compare(GE, NEW_YEAR), Or(filters=(compare(LT, NEW_YEAR),)))),
    ),
    (parse_filter_id_exact, {"$in": [ULID.lower()]}, one_of(ULID)),
    (parse_string_field, "a,b", compare(EQ, "a,b")),
    (parse_string_field, {"eq": "a"}, compare(EQ, "a")),
    (parse_string_field, {"neq": "a"}, compare(NE, "a")),
    (parse_string_field, {"contains": "5%_\\"}, match("%5\\%\\_\\\\%", ignore_case=True)),
    (
        parse_string_field,
        {"ocontains": " a ,,b%"},
        Or(filters=(match("%a%", ignore_case=True), match("%b\\%%", ignore_case=True))),
    ),
    (parse_string_field, {"oeq": "a, b ,"}, one_of("a", "b")),
    (
        parse_string_field,
        {"gt": "a", "lte": "b"},
        And(filters=(compare(GT, "a"), compare(LE, "b"))),
    ),
    (parse_string_field, {"exists": "true"}, Presence(present=True)),
    (parse_string_field, {"exists": "false"}, Presence(present=False)),
    (parse_string_exact_field, {"oeq": "a"}, one_of("a")),
    (parse_ulid_field, ULID.lower(), compare(EQ, ULID)),
    (parse_ulid_field, {"oeq": f"{ULID},{ULID}"}, one_of(ULID, ULID)),
    (parse_datetime_field, "2024-01-01T00:00:00Z", compare(EQ, NEW_YEAR)),
    (parse_datetime_field, {"lt": "2024-01-01T00:00:00Z"}, compare(LT, NEW_YEAR)),
    (parse_query_filter, {}, And(filters=())),
    (parse_query_filter, {"in": ["a"]}, one_of("a")),
    (parse_query_filter, {"nin": ["a"]}, one_of("a", negated=True)),
    (parse_query_filter, {"ncontains": "a"}, match("%a%", ignore_case=True, negated=True)),
    (
        parse_query_filter,
        {"and": [{"eq": "a"}, {"or": [{"neq": "b"}]}]},
        And(filters=(compare(EQ, "a"), Or(filters=(compare(NE, "b"),)))),
    ),
    (parse_query_filter_map_item, {"exists": True}, Presence(present=True)),
    (parse_query_filter_map_item, {"exists": False}, Presence(present=False)),
]


@pytest.mark.parametrize(("parse", "value", "expected"), READ)
def test_reads(parse: Parse, value: object, expected: Filter) -> None:
    assert parse(value, "filter") == expected


def nested(depth: int) -> object:
    value: object = {"$eq": "a"}
    for _ in range(depth - 1):
        value = {"$and": [value]}
    return value


REFUSED: list[tuple[Parse, object, list[tuple[str, str]]]] = [
    (parse_filter_string, "a", [("f", "wrong_type")]),
    (parse_filter_string, None, [("f", "wrong_type")]),
    (parse_filter_string, [], [("f", "wrong_type")]),
    (parse_filter_string, {"eq": "a"}, [("f.eq", "unknown_operator")]),
    (parse_filter_string, {"$eq": 1}, [("f.$eq", "wrong_type")]),
    (parse_filter_string, {"$eq": ["a"]}, [("f.$eq", "wrong_type")]),
    (parse_filter_string, {"$in": "a"}, [("f.$in", "wrong_type")]),
    (parse_filter_string, {"$in": ["a", None, True]},
     [("f.$in[1]", "wrong_type"), ("f.$in[2]", "wrong_type")]),
    (parse_filter_string, {"$in": ["a"] * 1001}, [("f.$in", "too_many_values")]),
    (parse_filter_string, {"$in": ["a"] * 600, "$nin": ["a"] * 600},
     [("f.$nin[400]", "too_large")]),
    (parse_filter_string, {"$eq": "a" * 1025}, [("f.$eq", "too_long")]),
    (parse_filter_string, {"$eq": "\ud800"}, [("f.$eq", "invalid_text")]),
    (parse_filter_string, {"$like": "a\\"}, [("f.$like", "invalid_pattern")]),
    (parse_filter_string, {"$nilike": "a\\\\\\"}, [("f.$nilike", "invalid_pattern")]),
    (parse_filter_string, {"$and": {"$eq": "a"}}, [("f.$and", "wrong_type")]),
    (parse_filter_string, {"$and": ["a", {"$or": [{"$x": "b"}]}], "$gt": 5},
     [("f.$and[0]", "wrong_type"), ("f.$and[1].$or[0].$x", "unknown_operator"),
      ("f.$gt", "wrong_type")]),
    (parse_filter_string, nested(9), [("f" + ".$and[0]" * 8, "too_deep")]),
    (parse_filter_string, {"$or": [{"$eq": "a"}] * 100}, [("f.$or[99].$eq", "too_large")]),
    (parse_filter_string, {"x" * 500: "a"}, [("f." + "x" * 64, "unknown_operator")]),
    (parse_filter_time, {"$gte": "yesterday"}, [("f.$gte", "invalid_time")]),
    (parse_filter_time, {"$gte": 5}, [("f.$gte", "wrong_type")]),
    (parse_filter_time, {"$eq": "2024-01-01T00:00:00Z"}, [("f.$eq", "unknown_operator")]),
    (parse_filter_id_exact, {"$in": ["x"]}, [("f.$in[0]", "invalid_ulid")]),
    (parse_string_field, {"like": "a"}, [("f[like]", "unknown_operator")]),
    (parse_string_field, {"eq": {"x": "y"}}, [("f[eq]", "wrong_type")]),
    (parse_string_field, {"oeq": " , "}, [("f[oeq]", "empty_list")]),
    (parse_string_field, {"ocontains": "a," * 51}, [("f[ocontains]", "too_many_values")]),
    (parse_string_field, {"exists": "maybe"}, [("f[exists]", "wrong_type")]),
    (parse_string_field, "a" * 1025, [("f", "too_long")]),
    (parse_string_exact_field, {"contains": "a"}, [("f[contains]", "unknown_operator")]),
    (parse_ulid_field, {"oeq": f"{ULID},x"}, [("f[oeq]", "invalid_ulid")]),
    (parse_ulid_field, "", [("f", "invalid_ulid")]),
    (parse_datetime_field, {"gt": "2024-01-01"}, [("f[gt]", "invalid_time")]),
    (parse_query_filter, {"eq": "a", "neq": "b"}, [("f", "conflicting_operators")]),
    (parse_query_filter, {"eq": None}, [("f.eq", "wrong_type")]),
    (parse_query_filter, {"in": []}, [("f.in", "empty_list")]),
    (parse_query_filter, {"in": ["a"] * 101}, [("f.in", "too_many_values")]),
    (parse_query_filter, {"and": []}, [("f.and", "empty_list")]),
    (parse_query_filter, {"or": [{"eq": "a"}] * 11}, [("f.or", "too_many_values")]),
    (parse_query_filter, {"exists": True}, [("f.exists", "unknown_operator")]),
    (parse_query_filter_map_item, {"exists": "true"}, [("f.exists", "wrong_type")]),
    (parse_query_filter_map_item, {"and": [{"exists": True}]},
     [("f.and[0].exists", "unknown_operator")]),
]  # fmt: skip


@pytest.mark.parametrize(("parse", "value", "faults"), REFUSED)
def test_refuses_with_every_fault_at_its_path(
    parse: Parse, value: object, faults: list[tuple[str, str]]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(value, "f")
    assert [(fault.field, fault.code) for fault in caught.value.faults] == faults


def test_the_bounds_themselves_are_allowed() -> None:
    deepest = parse_filter_string(nested(8), "f")
    for _ in range(7):
        assert isinstance(deepest, And)
        (deepest,) = deepest.filters
    assert deepest == compare(EQ, "a")
    widest = Or(filters=(compare(EQ, "a"),) * 99)
    assert parse_filter_string({"$or": [{"$eq": "a"}] * 99}, "f") == widest
    many = ["a" * 1024] * 1000
    assert parse_filter_string({"$in": many}, "f") == one_of(*many)
    assert parse_query_filter({"in": ["a"] * 100}, "f") == one_of(*["a"] * 100)
    assert parse_string_field({"oeq": "a," * 50}, "f") == one_of(*["a"] * 50)


def test_sql_binds_every_value() -> None:
    parameters = Parameters("f")
    asked = Or(
        filters=(
            compare(EQ, "'; DROP TABLE events --"),
            And(filters=(one_of("a", "b", negated=True), match("x%", ignore_case=True))),
            contains("50%", negated=True),
            Presence(present=False),
        )
    )
    assert to_sql(asked, "subject", parameters) == (
        "(subject = {f_0:String}"
        " OR (subject NOT IN {f_1:Array(String)} AND subject ILIKE {f_2:String})"
        " OR subject NOT ILIKE {f_3:String}"
        " OR subject IS NULL)"
    )
    assert parameters.values == {
        "f_0": "'; DROP TABLE events --",
        "f_1": ["a", "b"],
        "f_2": "x%",
        "f_3": "%50\\%%",
    }


def test_sql_of_times_keeps_microseconds_and_of_nothing_is_constant() -> None:
    parameters = Parameters()
    instant = datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    assert to_sql(compare(GE, instant), "time", parameters) == (
        "time >= {filter_0:DateTime64(6, 'UTC')}"
    )
    assert parameters.values == {"filter_0": "2024-01-01 00:00:00.000001"}
    assert to_sql(And(filters=()), "time", parameters) == "true"
    assert to_sql(Or(filters=()), "time", parameters) == "false"


def test_sql_of_a_nullable_column_compares_absence_as_the_empty_text() -> None:
    parameters = Parameters()
    asked = And(filters=(compare(NE, "a"), Presence(present=True)))
    assert to_sql(asked, "model", parameters, nullable=True) == (
        "(ifNull(model, '') != {filter_0:String} AND model IS NOT NULL)"
    )
