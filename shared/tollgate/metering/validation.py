"""Why an event does not count: its faults, as its namespace's live meters see it.

Computed when events are listed, against the meters of that moment: a meter that is made later makes
the fault go away. The engine reads the values, by the same expressions as meter queries.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tollgate.core.times import format_instant
from tollgate.metering.aggregation import Value, fault_sql, number_sql
from tollgate.metering.jsonpath import JsonPath
from tollgate.metering.meter import Aggregation, Meter

READINGS_MAX = 64
"""How many values one query reads of each event; more meters take more queries."""

_KINDS = {"Bool": "a boolean", "Object": "an object", "Array": "an array"}
_FAULTS = {
    "missing": ("value_missing", "is missing"),
    "null": ("value_null", "is null"),
    "unsupported": ("value_of_unsupported_type", "is {kind}; only numbers count"),
    "not_a_number": (
        "value_not_a_number",
        "is a text that is not a number; one counts only if it is written like 12.5",
    ),
    "too_many_digits": (
        "value_has_too_many_digits",
        "has more digits than can be counted exactly: at most 20 before and 18 after the point",
    ),
}
_UNIQUE_UNSUPPORTED = "is {kind}; only texts and numbers count"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFault:
    """One reason why an event, or one meter's value of it, does not count.

    Attributes:
        code: stable, snake case.
        message: for people.
        attributes: what it is about: `event_type`, `meter`, `value_property`, `event_from`.
    """

    code: str
    message: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a value, shared by all meters that read it so.

    Attributes:
        path: where the value stands.
        unique: texts count too.
    """

    path: JsonPath
    unique: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the engine says of one value: '' or a code of `fault_sql`, and the JSON type."""

    fault: str
    kind: str


def readings_of(meters: Iterable[Meter]) -> tuple[Reading, ...]:
    """All that has to be read to judge events for these meters; COUNT reads nothing."""
    found = (reading_of(meter) for meter in meters)
    return tuple(dict.fromkeys(reading for reading in found if reading is not None))


def reading_of(meter: Meter) -> Reading | None:
    """How a meter reads its value; None for COUNT."""
    path = meter.value_path()
    if path is None:
        return None
    return Reading(path=path, unique=meter.aggregation is Aggregation.UNIQUE_COUNT)


def readings_sql(source: str, columns: str, readings: Sequence[Reading]) -> str:
    """SQL that adds to the rows of `source` what `found_from_row` reads.

    Args:
        source: trusted SELECT with the columns named and `document`.
        columns: trusted names of the columns to keep, with commas between them.
        readings: at most `READINGS_MAX`; bind `readings_parameters` of the same.

    Returns:
        a SELECT of the columns, then `faults` and `kinds`, one text per reading.
    """
    if not readings:
        return f"SELECT {columns}, emptyArrayString(), emptyArrayString() FROM ({source})"
    texts, kinds, presents = [], [], []
    for value, reading in zip(_values(readings), readings, strict=True):
        texts.append(value.sql())
        kinds.append(f"toString({reading.path.call('JSONType', 'document', value.prefix)})")
        presents.append(reading.path.call("JSONHas", "document", value.prefix))
    uniques = ", ".join("1" if reading.unique else "0" for reading in readings)
    return (
        f"SELECT {columns}, arrayMap((text, number, kind, present, texts_too) ->"
        f" if(texts_too, {fault_sql(unique=True)}, {fault_sql(unique=False)}),"
        f" texts, numbers, kinds, presents, [{uniques}]) AS faults, kinds"
        f" FROM (SELECT *, arrayMap(text -> {number_sql('text')}, texts) AS numbers"
        f" FROM (SELECT {columns}, [{', '.join(texts)}] AS texts, [{', '.join(kinds)}] AS kinds,"
        f" [{', '.join(presents)}] AS presents FROM ({source})))"
    )


def readings_parameters(readings: Sequence[Reading]) -> dict[str, object]:
    """What `readings_sql` binds."""
    found: dict[str, object] = {}
    for value in _values(readings):
        found |= value.parameters()
    return found


def found_from_row(
    readings: Sequence[Reading], faults: Sequence[str], kinds: Sequence[str]
) -> dict[Reading, Found]:
    """What one row of `readings_sql` says."""
    return {
        reading: Found(fault=fault, kind=kind)
        for reading, fault, kind in zip(readings, faults, kinds, strict=True)
    }


def _values(readings: Sequence[Reading]) -> list[Value]:
    # SUM stands for every aggregation that takes numbers only: all read values alike.
    return [
        Value(
            aggregation=Aggregation.UNIQUE_COUNT if reading.unique else Aggregation.SUM,
            path=reading.path,
            prefix=f"reading_{number}",
        )
        for number, reading in enumerate(readings)
    ]


def event_faults(
    event_type: str, time: datetime, meters: Sequence[Meter], found: Mapping[Reading, Found]
) -> tuple[EventFault, ...]:
    """Every reason why an event does not count.

    Args:
        event_type: of the event.
        time: of the event.
        meters: all live meters of that type, in the order in which their faults are told.
        found: what the engine says of each of the meters' readings.

    Returns:
        Nothing if every meter counts it. That it came before a meter's `eventFrom` is only told
        when no other meter counts it: a new meter is no fault of old events.
    """
    if not meters:
        message = f"no meter found for event type: {event_type}"
        attributes = {"event_type": event_type}
        return (EventFault(code="meter_not_found", message=message, attributes=attributes),)
    faults: list[EventFault] = []
    before: list[EventFault] = []
    counted = False
    for meter in meters:
        if meter.event_from is not None and time < meter.event_from:
            before.append(_before(meter, meter.event_from))
            continue
        fault = _value_fault(meter, found)
        if fault is None:
            counted = True
        else:
            faults.append(fault)
    return tuple(faults if counted else faults + before)


def _before(meter: Meter, event_from: datetime) -> EventFault:
    shown = format_instant(event_from)
    return EventFault(
        code="event_before_meter",
        message=f"meter {meter.slug} counts events from {shown} on, and this one is earlier",
        attributes={"meter": meter.slug, "event_from": shown},
    )


def _value_fault(meter: Meter, found: Mapping[Reading, Found]) -> EventFault | None:
    reading = reading_of(meter)
    if reading is None or not found[reading].fault:
        return None
    said = found[reading]
    code, message = _FAULTS[said.fault]
    if reading.unique and said.fault == "unsupported":
        message = _UNIQUE_UNSUPPORTED
    shown = message.format(kind=_KINDS.get(said.kind, said.kind))
    return EventFault(
        code=code,
        message=f"meter {meter.slug}: {meter.value_property} {shown}",
        attributes={"meter": meter.slug, "value_property": meter.value_property or ""},
    )
