"""Rollups say what events say, whatever was loaded, corrected, built, merged or cut off, and when.

The truth is the same query on events alone, which `test_query_property` holds to a plain reading.
"""

import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.test_query_property import BOUNDS, VALUES, meter
from tests.support.loading import NOON_US, Correct, NewStage, Sent, Stage
from tests.support.rollups import House
from tollgate.core.clock import us_from_datetime
from tollgate.metering.filters import Filter, Match, Membership, Presence
from tollgate.metering.meter import Aggregation, Meter
from tollgate.metering.query import Answer, answer_query
from tollgate.metering.question import MeterQuery
from tollgate.metering.window import WindowSize
from tollgate.platform.event_log import StoredRecord
from tollgate.platform.sql import Database, migrate

pytest_plugins = ["tests.support.stages"]
# Around the end of summer time in New York (2026-11-01 06:00 UTC) and a month's end.
START = datetime(2026, 10, 30, 22, 30, tzinfo=UTC)
SPAN_MINUTES = 4 * 24 * 60
ZONES = ("UTC", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe")
# JSON text of a dimension; "": no such member.
MODELS = ("", '"x"', '"y"', '""', "7", "null", "true", '["x"]')


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """An event, or what is said of one later.

    Attributes:
        key: number of the event's id; again: a duplicate.
        action: None: the event itself.
    """

    key: int
    minute: int
    microsecond: int
    subject: str
    model: str
    value: int
    action: str | None


facts = st.builds(
    Fact,
    key=st.integers(0, 15),
    # Few minutes of few days, so that windows hold several.
    minute=st.sampled_from((0, 1, 29, 89, 90, 91, 1530, 1531, 2000, 2970, SPAN_MINUTES)),
    microsecond=st.sampled_from((0, 1, 59_999_999)),
    subject=st.sampled_from(("a", "b")),
    model=st.sampled_from(MODELS),
    value=st.integers(0, len(VALUES) - 1),
    action=st.sampled_from((None, None, None, None, "void", "amend")),
)
# What happens, in order: a batch is loaded (a list), rollups are built in slices of about so many
# events (a number), or merged ("").
steps = st.lists(
    st.one_of(st.lists(facts, min_size=1, max_size=8), st.integers(1, 9), st.just("")),
    min_size=2,
    max_size=9,
)
minutes = st.one_of(
    st.none(),
    st.sampled_from((0, 1, 30, 90, 91, 1530, 2970)),
    st.integers(-60, SPAN_MINUTES + 60),
)


class Teller:
    """Loads facts, one record each."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._loader = stage.loader()
        self._offset = 0

    def load(self, batch: Sequence[Fact]) -> None:
        # A batch of the loader holds events or corrections.
        for _, group in itertools.groupby(batch, lambda fact: fact.action is None):
            self._loader.load([self._record(fact) for fact in group])

    def _record(self, fact: Fact) -> StoredRecord:
        self._offset += 1
        # Clocks of logs may be set back.
        appended_us = NOON_US + (self._offset * 7 % 5) * 60_000_000
        at = START + timedelta(minutes=fact.minute, microseconds=fact.microsecond)
        text = VALUES[fact.value][0]
        members = [f'"n":{text}'] if text else []
        members += [f'"model":{fact.model}'] if fact.model else []
        event = Sent(
            id=str(fact.key),
            data=f"{{{','.join(members)}}}",
            time_us=us_from_datetime(at),
            subject=fact.subject,
        )
        if fact.action is None:
            return self._stage.record(self._offset, appended_us, event)
        amends = event if fact.action == "amend" else None
        correction = Correct(id=event.id, amends=amends, correction=f"c{self._offset}")
        return self._stage.corrections(self._offset, appended_us, correction)


@st.composite
def questions(draw: st.DrawFn) -> MeterQuery:
    """Any period, window, zone, grouping and filters."""
    low, high = draw(minutes), draw(minutes)
    second = draw(st.sampled_from((0, 0, 30)))
    if low is not None and high is not None and low >= high:
        low, high = high, low + 1
    model: Filter | None = draw(
        st.sampled_from(
            (
                None,
                None,
                Membership(values=("x", ""), negated=False),
                Membership(values=("x",), negated=True),
                Match(pattern="%x%", ignore_case=False, negated=False),
                Presence(present=False),
            )
        )
    )
    return MeterQuery(
        start=None if low is None else START + timedelta(minutes=low, seconds=second),
        end=None if high is None else START + timedelta(minutes=high, seconds=second),
        window=draw(st.one_of(st.none(), st.sampled_from(WindowSize))),
        time_zone=draw(st.sampled_from(ZONES)),
        subjects=draw(st.sampled_from((None, None, ("a",)))),
        group_by=draw(st.sampled_from(((), (), ("subject",), ("model",), ("model", "subject")))),
        filters={} if model is None else {"model": model},
    )


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path_factory.mktemp('sql') / 'control.sqlite'}"
    migrate(url)
    database = Database(url)
    yield database
    database.dispose()


def meters(stage: Stage, aggregations: Iterable[Aggregation]) -> list[Meter]:
    """One of each aggregation."""
    return [
        replace(meter(stage, each), id=f"{stage.namespace}-{each}", slug=each.lower())
        for each in aggregations
    ]


def answers(house: House, of: Meter, asked: MeterQuery) -> tuple[Answer, Answer]:
    """With rollups, and from events alone."""
    return (
        answer_query(house.clickhouse, of, asked, BOUNDS, house.reader()),
        answer_query(house.clickhouse, of, asked, BOUNDS),
    )


used = {"cells": 0, "events": 0}


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=steps,
    asked=st.lists(questions(), min_size=3, max_size=3),
    of=st.lists(st.sampled_from(Aggregation), min_size=2, max_size=2, unique=True),
)
def test_rollups_say_what_events_say(
    stages: NewStage,
    database: Database,
    steps: list[object],
    asked: list[MeterQuery],
    of: list[Aggregation],
) -> None:
    never = threading.Event()
    with stages() as stage:
        house = House(stage.clickhouse, database)
        house.meters = meters(stage, of)
        house.roll_up().build(never)  # past what other tests have loaded
        teller = Teller(stage)
        for step in [*steps, 3]:
            match step:
                case list():
                    teller.load(step)
                case int():
                    house.roll_up(events_max=step).build(never)
                case _:
                    house.roll_up(first_tier_cells=1 << 40).compact(never)
        for each in house.meters:
            for question in asked:
                found, expected = answers(house, each, question)
                assert found.rows == expected.rows, (each.aggregation, question, found.source)
                used["cells" if found.source and found.source.tiling.tiles else "events"] += 1
