"""Pages of events against a sort in Python, over rows that stand twice and share their instants."""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from tests.support.control_plane import START, SteppingClock, meter_input
from tests.support.engine import EnginePlace
from tollgate.core.clock import us_from_datetime
from tollgate.events.position import Position
from tollgate.events.rows import instant_text
from tollgate.metering.event_cursor import EventOrder
from tollgate.metering.events_list import EventField, EventPage, EventQuery, list_events
from tollgate.metering.store import MeterStore
from tollgate.metering.validation import READINGS_MAX
from tollgate.platform.clickhouse import ClickHouse
from tollgate.platform.clickhouse_schema import migrate_clickhouse
from tollgate.platform.filters import Comparison, Operator

Key = tuple[int, Position]
COLUMNS = (
    *("log_generation", "log_partition", "log_offset", "log_index", "appended_at", "namespace"),
    *("source", "id", "time", "time_given", "received_at", "type", "subject", "data"),
    "stored_at",
)
COUNT = 120
NAMESPACE = "listed"


class Stored:
    """Rows in the events table of this process, and what must be listed of them."""

    def __init__(self, clickhouse: ClickHouse, namespace: str) -> None:
        self.clickhouse = clickhouse
        self.namespace = namespace
        self.keys: dict[EventOrder, dict[Key, str]] = {order: {} for order in EventOrder}

    def write(self, number: int, *, stored_us: int) -> list[object]:
        """One row; the same number gives the same row, but for when it was stored."""
        draw = random.Random(number)
        at = Position(
            generation=draw.randint(1, 2), partition=draw.randint(0, 1), offset=number, index=1
        )
        time_us = us_from_datetime(START + timedelta(microseconds=draw.randint(0, 5)))
        received_us = us_from_datetime(START + timedelta(hours=1, microseconds=draw.randint(0, 3)))
        name = f"e{number}"
        for order, instant in zip(EventOrder, (time_us, received_us, stored_us), strict=True):
            known = self.keys[order]
            for key in [key for key, value in known.items() if value == name]:
                del known[key]
            known[instant, at] = name
        return [
            *(at.generation, at.partition, at.offset, at.index),
            instant_text(received_us),
            *(self.namespace, "service", name, instant_text(time_us), 1, instant_text(received_us)),
            *(draw.choice(["prompt", "request"]), draw.choice("xyz"), f'{{"n": {number}}}'),
            instant_text(stored_us),
        ]

    def insert(self, numbers: list[int], *, stored_us: int) -> None:
        rows = [self.write(number, stored_us=stored_us) for number in numbers]
        body = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        self.clickhouse.insert("events", COLUMNS, body)

    def expected(self, order: EventOrder) -> list[str]:
        return [name for _, name in sorted(self.keys[order].items())]


@pytest.fixture(scope="module")
def clickhouse(engine_place: EnginePlace) -> Iterator[ClickHouse]:
    with ClickHouse(path=engine_place.path, url=engine_place.url) as opened:
        migrate_clickhouse(opened)
        opened.command("SYSTEM STOP MERGES tollgate.events")
        yield opened
        opened.command("SYSTEM START MERGES tollgate.events")


@pytest.fixture(scope="module")
def stored(clickhouse: ClickHouse) -> Stored:
    found = Stored(clickhouse, NAMESPACE)
    first = us_from_datetime(START) + 10_000_000
    for batch in range(4):
        numbers = list(range(batch * COUNT // 4, (batch + 1) * COUNT // 4))
        found.insert(numbers, stored_us=first + batch % 3)
    # A loader that died before it knew that its insert was done writes all of it again, twice.
    for again in range(2):
        found.insert(list(range(COUNT // 4)), stored_us=first + 10 + again)
    Stored(clickhouse, "other").insert(list(range(COUNT)), stored_us=first)
    return found


def walk(stored: Stored, meters: MeterStore, asked: EventQuery, limit: int) -> Iterator[EventPage]:
    after, more = None, True
    while more:
        page = list_events(stored.clickhouse, meters, replace(asked, after=after, limit=limit), 60)
        yield page
        after, more = page.events[-1].key, page.more


@pytest.mark.parametrize("limit", [1, 7, 100])
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("order", list(EventOrder))
def test_pages_are_the_whole_list_cut_up(
    stored: Stored, meters: MeterStore, order: EventOrder, descending: bool, limit: int
) -> None:
    asked = EventQuery(namespace=NAMESPACE, order=order, descending=descending)
    expected = stored.expected(order)
    if limit == 1:
        # One by one is slow; the first and the last stand for all.
        asked = EventQuery(
            namespace=NAMESPACE,
            order=order,
            descending=descending,
            filters=((EventField.ID, Comparison(operator=Operator.LESS, value="e11")),),
        )
        expected = [name for name in expected if name < "e11"]
    if descending:
        expected.reverse()
    found = [e.id for page in walk(stored, meters, asked, limit) for e in page.events]
    assert found == expected


def test_what_precedes_a_page_in_either_direction(stored: Stored, meters: MeterStore) -> None:
    for order in EventOrder:
        for descending in (False, True):
            asked = EventQuery(namespace=NAMESPACE, order=order, descending=descending, limit=50)
            first = list_events(stored.clickhouse, meters, asked, 60)
            fifth = first.events[4].key
            before = EventQuery(
                namespace=NAMESPACE, order=order, descending=descending, before=fifth, limit=3
            )
            page = list_events(stored.clickhouse, meters, before, 60)
            assert [e.id for e in page.events] == [e.id for e in first.events[1:4]]
            assert page.more


def test_a_row_that_stands_twice_shows_when_it_was_stored_last(
    stored: Stored, meters: MeterStore
) -> None:
    shown = {
        event.id: event.stored_us
        for page in walk(stored, meters, EventQuery(namespace=NAMESPACE), 100)
        for event in page.events
    }
    assert shown == {
        name: instant for (instant, _), name in stored.keys[EventOrder.STORED_AT].items()
    }
    last = max(shown.values())
    newest = Comparison(
        operator=Operator.EQUAL, value=START + timedelta(seconds=10, microseconds=11)
    )
    assert us_from_datetime(START + timedelta(seconds=10, microseconds=11)) == last
    asked = EventQuery(namespace=NAMESPACE, filters=((EventField.STORED_AT, newest),))
    page = list_events(stored.clickhouse, meters, asked, 60)
    assert {event.id for event in page.events} == {f"e{n}" for n in range(COUNT // 4)}


def test_more_meters_than_one_query_reads(
    stored: Stored, meters: MeterStore, clock: SteppingClock
) -> None:
    count = READINGS_MAX + 3
    for number in range(count):
        meters.create(NAMESPACE, meter_input(f"meter_{number}", valueProperty=f"$.n{number}"))
    meters.create(NAMESPACE, meter_input("counted", valueProperty="$.n"))
    page = list_events(stored.clickhouse, meters, EventQuery(namespace=NAMESPACE, limit=5), 60)
    for event in page.events:
        codes = [fault.code for fault in event.faults]
        if event.type == "prompt":
            assert codes == ["value_missing"] * count
        else:
            assert codes == ["meter_not_found"]
    assert {event.type for event in page.events} == {"prompt", "request"}
