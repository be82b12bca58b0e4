from datetime import UTC, datetime, timedelta

from tests.support.control_plane import meter_input
from tollgate.metering.meter import ManagedBy, Meter
from tollgate.metering.validation import Found, event_faults, reading_of, readings_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
GOOD = Found(fault="", kind="Int64")


def meter(slug: str, **members: object) -> Meter:
    wanted = meter_input(slug, **members)
    return Meter(
        id=slug,
        namespace="acme",
        slug=wanted.slug,
        name=wanted.name,
        description=None,
        metadata={},
        annotations={},
        aggregation=wanted.aggregation,
        event_type=wanted.event_type,
        event_from=wanted.event_from,
        value_property=wanted.value_property,
        group_by={},
        managed_by=ManagedBy.API,
        created_at=NOON,
        updated_at=NOON,
        deleted_at=None,
    )


SUM = meter("tokens")
COUNT = meter("prompts", aggregation="COUNT", valueProperty=None)
LATER = meter("later", aggregation="COUNT", valueProperty=None, eventFrom="2026-03-01T12:00:00Z")
UNIQUE = meter("models", aggregation="UNIQUE_COUNT", valueProperty="$.model")


def told(*meters: Meter, time: datetime = NOON, **found: Found) -> list[tuple[str, str]]:
    by_slug = {m.slug: reading_of(m) for m in meters}
    readings = {r: found.get(slug, GOOD) for slug, r in by_slug.items() if r is not None}
    return [(f.code, f.message) for f in event_faults("prompt", time, meters, readings)]


def test_no_meter() -> None:
    assert told() == [("meter_not_found", "no meter found for event type: prompt")]
    assert event_faults("prompt", NOON, (), {})[0].attributes == {"event_type": "prompt"}


def test_a_counted_event_has_no_faults() -> None:
    assert told(SUM, COUNT, UNIQUE) == []


def test_each_meter_says_what_is_wrong_with_its_value() -> None:
    missing = Found(fault="missing", kind="Null")
    boolean = Found(fault="unsupported", kind="Bool")
    assert told(SUM, COUNT, UNIQUE, tokens=missing, models=boolean) == [
        ("value_missing", "meter tokens: $.tokens is missing"),
        (
            "value_of_unsupported_type",
            "meter models: $.model is a boolean; only texts and numbers count",
        ),
    ]


def test_every_code_of_the_engine_has_words() -> None:
    codes = {
        "null": "value_null",
        "unsupported": "value_of_unsupported_type",
        "not_a_number": "value_not_a_number",
        "too_many_digits": "value_has_too_many_digits",
    }
    for fault, code in codes.items():
        ((found, message),) = told(SUM, tokens=Found(fault=fault, kind="Object"))
        assert found == code
        assert "{" not in message


def test_a_meter_that_starts_later_is_told_only_where_none_counts() -> None:
    before = NOON - timedelta(microseconds=1)
    assert told(LATER, time=NOON) == []
    assert told(LATER, time=before) == [
        (
            "event_before_meter",
            "meter later counts events from 2026-03-01T12:00:00Z on, and this one is earlier",
        )
    ]
    assert told(COUNT, LATER, time=before) == []
    null = Found(fault="null", kind="Null")
    assert [code for code, _ in told(SUM, LATER, time=before, tokens=null)] == [
        "value_null",
        "event_before_meter",
    ]


def test_meters_that_read_alike_share_a_reading() -> None:
    same = meter("average", aggregation="AVG", valueProperty='$["tokens"]')
    unique = meter("different", aggregation="UNIQUE_COUNT")
    assert len(readings_of([SUM, same, COUNT, unique, UNIQUE])) == 3
