"""A meters file is read whole, and each fault names its line."""

from pathlib import Path

import pytest

from tollgate.core.errors import InvalidInput
from tollgate.metering.meter import Aggregation
from tollgate.metering.meters_file import read_meters

SAMPLE = Path(__file__).parents[2] / "infra" / "meters" / "sample.yaml"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "meters.yaml"


def faults(path: Path, content: str | bytes) -> list[tuple[str, str, str]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InvalidInput) as caught:
        read_meters(path)
    prefix = str(path)
    assert all(fault.field.startswith(prefix) for fault in caught.value.faults)
    return [(f.field[len(prefix) + 1 :], f.code, f.message) for f in caught.value.faults]


def test_the_sample_shows_every_kind_of_meter_of_an_ai_api() -> None:
    meters = {each.meter.slug: each.meter for each in read_meters(SAMPLE)}
    assert meters["tokens_total"].value_property == "$.tokens"
    assert dict(meters["tokens_total"].group_by) == {"model": "$.model", "type": "$.type"}
    used = {meter.aggregation for meter in meters.values()}
    assert used == set(Aggregation) - {Aggregation.MIN}


def test_a_whole_configuration_of_openmeter_is_taken_as_it_is(path: Path) -> None:
    path.write_text(
        """\
address: 127.0.0.1:8888
postgres: {url: "postgres://localhost", autoMigrate: ent}
meters:
  - slug: api_requests_total        # a comment
    description: API Requests
    eventType: request
    aggregation: COUNT
    windowSize: MINUTE
    groupBy: {method: $.method, route: "$.route"}
  - slug: 123
    name: yes
    eventType: 1.50
    eventFrom: 2023-01-01T00:00:00Z
    aggregation: SUM
    VALUEPROPERTY: $.a['b c']
    metadata:
      since: 2020-01-01
      none: ""
notification:
  enabled: true
"""
    )
    first, second = read_meters(path)
    assert (first.meter.slug, first.meter.name) == ("api_requests_total", "api_requests_total")
    assert dict(first.meter.group_by) == {"method": "$.method", "route": "$.route"}
    assert (first.place, first.field) == (f"{path}:4", "meters[0]")
    assert (second.meter.slug, second.meter.name) == ("123", "yes")
    assert second.meter.event_type == "1.50"
    assert second.meter.event_from is not None
    assert second.meter.event_from.isoformat() == "2023-01-01T00:00:00+00:00"
    assert second.meter.value_property == "$.a['b c']"
    assert dict(second.meter.metadata) == {"since": "2020-01-01", "none": ""}


@pytest.mark.parametrize("content", ["meters: []\n", "meters:\n", "\ufeffmeters: []\n"])
def test_a_file_may_have_no_meter(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
    assert read_meters(path) == ()


def test_every_fault_of_every_meter_is_told_with_its_line(path: Path) -> None:
    found = faults(
        path,
        """\
meters:
  - slug: Bad-Slug
    eventType: request
    aggregation: COUNT
    valueProperty: $.a
  - slug: tokens
    eventype: prompt
    aggregation: MEDIAN
    groupBy:
      subject: $.s
      model: model
      model: $.m
  - slug: tokens
    eventType: prompt
    aggregation: SUM
    valueProperty: [$.tokens]
    colour: red
  - just a text
  - slug: tokens
    eventType: prompt
    aggregation: COUNT
    groupBy: {a: {b: c}}
""",
    )
    assert [(place, code) for place, code, _ in found] == [
        ("2", "invalid_slug"),
        ("6", "required"),
        ("7", "unknown_field"),
        ("8", "unknown_aggregation"),
        ("10", "reserved_dimension"),
        ("11", "invalid_json_path"),
        ("12", "duplicate_key"),
        ("13", "duplicate_slug"),
        ("16", "not_a_string"),
        ("17", "unknown_field"),
        ("18", "wrong_shape"),
        ("19", "duplicate_slug"),
        ("22", "not_a_string"),
    ]
    messages = [message for _, _, message in found]
    assert "did you mean eventType?" in messages[2]
    assert messages[7].endswith("is tokens, which meters[1] in line 6 has already")


def test_a_slug_given_twice_in_one_line_is_found(path: Path) -> None:
    one = "{slug: a, eventType: b, aggregation: COUNT}"
    assert [code for _, code, _ in faults(path, f"meters: [{one}, {one}]")] == ["duplicate_slug"]


@pytest.mark.parametrize(
    ("content", "place", "code", "words"),
    [
        ("", "1", "wrong_shape", "meters:"),
        ("- slug: a\n", "1", "wrong_shape", "meters:"),
        ("\nmetres: []\n", "1", "no_meters", "meters:"),
        ("\nmeters: 5\n", "2", "wrong_shape", "list"),
        ("a: 1\nmeters:\n\t- slug: a\n", "3", "invalid_yaml", "tabs are not allowed"),
        ("meters:\n  - slug: [a\n", "3", "invalid_yaml", "expected"),
        ("meters:\n  - slug: 'a\n", "3", "invalid_yaml", "quoted"),
        ("meters: []\n---\nmeters: []\n", "2", "invalid_yaml", "single document"),
        ("meters:\n  - slug: a\x01b\n", "2", "invalid_yaml", "#x0001"),
        ("meters:\n  - *none\n", "2", "invalid_yaml", "undefined alias"),
        (b"meters:\n\n  - slug: t\xf6kens\n", "3", "not_utf8", "0xf6"),
        (b"\xff\xfem\x00e\x00", "1", "not_utf8", "UTF-8"),
        ("[" * 100_000, "1", "too_deep", "nested"),
        (
            "meters:\n  - &m\n    <<: *m\n    slug: a\n    eventType: b\n    aggregation: COUNT\n",
            "3",
            "merge_key",
            "merge",
        ),
        ("meters:\n  - [a]: b\n", "2", "wrong_shape", "a text"),
    ],
)
def test_what_cannot_be_read_says_where_and_why(
    path: Path, content: str | bytes, place: str, code: str, words: str
) -> None:
    found = faults(path, content)[0]
    assert found[:2] == (place, code)
    assert words in found[2]


def test_a_file_that_is_missing_too_large_or_a_folder(path: Path) -> None:
    def fault(wrong: Path) -> tuple[str, str, str]:
        with pytest.raises(InvalidInput) as caught:
            read_meters(wrong)
        (found,) = caught.value.faults
        return found.field, found.code, found.message

    assert fault(path) == (str(path), "no_such_file", "does not exist")
    assert fault(path.parent) == (str(path.parent), "no_such_file", "is no file")
    path.write_bytes(b"#" * ((4 << 20) + 1))
    assert fault(path)[1] == "too_large"
