"""What the engine says of values: a table made by hand, for numbers and for texts."""

import pytest
from clickhouse_connect.driver.client import Client

from tollgate.events.numbers import exact_copy
from tollgate.metering.aggregation import DOCUMENT
from tollgate.metering.jsonpath import parse_path
from tollgate.metering.validation import (
    Reading,
    found_from_row,
    readings_parameters,
    readings_sql,
)

TOO_MANY, NOT_A_NUMBER, UNSUPPORTED = "too_many_digits", "not_a_number", "unsupported"


def read(engine: Client, data: str, path: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """(fault, kind) of a value that must be a number, and of one that may be a text."""
    parsed = parse_path(path, "valueProperty")
    readings = (Reading(path=parsed, unique=False), Reading(path=parsed, unique=True))
    source = (
        f"SELECT 1 AS one, {DOCUMENT} AS document FROM (SELECT"
        " materialize({data:String}) AS data, materialize({data_exact:String}) AS data_exact)"
    )
    parameters = readings_parameters(readings) | {"data": data, "data_exact": exact_copy(data)}
    rows = engine.query(readings_sql(source, "one", readings), parameters=parameters).result_rows
    ((_, faults, kinds),) = rows
    number, text = found_from_row(readings, faults, kinds).values()
    return (number.fault, number.kind), (text.fault, text.kind)


@pytest.mark.parametrize(
    ("value", "number", "text"),
    [
        ("12", "", ""),
        ('"12"', "", ""),
        ("-0.5", "", ""),
        ("0", "", ""),
        ("1e3", "", ""),
        ('"1e3"', "", ""),
        ("12.50", "", ""),
        ("99999999999999999999.999999999999999999", "", ""),
        ("-99999999999999999999.999999999999999999", "", ""),
        ("0.1234567890123456789", TOO_MANY, ""),
        ('"0.1234567890123456789"', TOO_MANY, ""),
        ("100000000000000000000", TOO_MANY, ""),
        ("1e400", TOO_MANY, ""),
        ("-1e400", TOO_MANY, ""),
        ("1e-400", TOO_MANY, ""),
        ("1e20", TOO_MANY, ""),
        ('"abc"', NOT_A_NUMBER, ""),
        ('""', NOT_A_NUMBER, ""),
        ('" 12"', NOT_A_NUMBER, ""),
        ('"012"', NOT_A_NUMBER, ""),
        ('"+1"', NOT_A_NUMBER, ""),
        ('"NaN"', NOT_A_NUMBER, ""),
        ('"0x10"', NOT_A_NUMBER, ""),
        ('"null"', NOT_A_NUMBER, ""),
        ('"12\\n"', NOT_A_NUMBER, ""),
        ('"\u0661"', NOT_A_NUMBER, ""),
        ("null", "null", "null"),
        ("true", UNSUPPORTED, UNSUPPORTED),
        ("false", UNSUPPORTED, UNSUPPORTED),
        ("{}", UNSUPPORTED, UNSUPPORTED),
        ('{"v": 1}', UNSUPPORTED, UNSUPPORTED),
        ("[]", UNSUPPORTED, UNSUPPORTED),
        ("[12]", UNSUPPORTED, UNSUPPORTED),
    ],
)
def test_value_of_a_member(engine: Client, value: str, number: str, text: str) -> None:
    found = read(engine, f'{{"other": 1, "v": {value}}}', "$.v")
    assert (found[0][0], found[1][0]) == (number, text)


@pytest.mark.parametrize(
    ("data", "path", "fault"),
    [
        ("", "$.v", "missing"),
        ("{}", "$.v", "missing"),
        ('{"V": 1}', "$.v", "missing"),
        ('{"v": {"w": 1}}', "$.v.w", ""),
        ('{"v": [{"w": null}]}', "$.v[0].w", "null"),
        ('{"v": [{"w": 1}]}', "$.v[1].w", "missing"),
        ('{"v": {"w": 1}}', "$.v[0]", "missing"),
        ('{"v": 1}', "$.v.w", "missing"),
        ('{"v": null}', "$.v.w", "missing"),
        ('{"v": 1, "big": 1e400}', "$.v", ""),
        ('{"v": 1, "v": "no"}', "$.v", ""),
        ('{"v": null, "v": 1}', "$.v", "null"),
        ("", "$", "missing"),
        ('{"v": 1}', "$", UNSUPPORTED),
    ],
)
def test_where_it_stands(engine: Client, data: str, path: str, fault: str) -> None:
    number, text = read(engine, data, path)
    assert number[0] == fault
    assert text[0] == fault


def test_says_what_kind_it_is(engine: Client) -> None:
    kinds = [
        read(engine, f'{{"v": {value}}}', "$.v")[0][1] for value in ("true", "{}", "[]", "null")
    ]
    assert kinds == ["Bool", "Object", "Array", "Null"]
