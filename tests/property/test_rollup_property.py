"""Rollups say what events say, whatever was loaded, corrected, built, merged or cut off, and when.

The truth is the same query on events alone, which `test_query_property` holds to a plain reading.
"""

import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.test_query_property import BOUNDS, VALUES, meter
from tests.support.loading import NOON_US, Correct, NewStage, Sent, Stage
from tests.support.migrated import migrated_sqlite
from tests.support.rollups import House
from tollgate.core.clock import us_from_datetime
from tollgate.core.errors import Conflict
from tollgate.events.position import Token
from tollgate.metering.explain import reads_of
from tollgate.metering.meter import Aggregation, Meter
from tollgate.metering.query import Answer, answer_query
from tollgate.metering.question import MeterQuery
from tollgate.metering.rollup import digest_of
from tollgate.metering.rollup_reader import stored_rows
from tollgate.metering.window import WindowSize
from tollgate.platform.clickhouse import DATABASE
from tollgate.platform.event_log import StoredRecord
from tollgate.platform.filters import Filter, Match, Membership, Presence
from tollgate.platform.sql import Database

pytest_plugins = ["tests.support.stages"]
# Around the end of summer time in New York (2026-11-01 06:00 UTC) and a month's end.
START = datetime(2026, 10, 30, 22, 30, tzinfo=UTC)
SPAN_MINUTES = 4 * 24 * 60
ZONES = ("UTC", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe")
NEVER = threading.Event()
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
    path = tmp_path_factory.mktemp("sql") / "control.sqlite"
    path.write_bytes(migrated_sqlite())
    yield (database := Database(f"sqlite:///{path}"))
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
    with stages() as stage:
        house = House(stage.clickhouse, database)
        house.meters = meters(stage, of)
        house.roll_up().build(NEVER)  # past what other tests have loaded
        teller = Teller(stage)
        for step in [*steps, 3]:
            match step:
                case list():
                    teller.load(step)
                case int():
                    house.roll_up(events_max=step).build(NEVER)
                case _:
                    house.roll_up(first_tier_cells=1 << 40).compact(NEVER)
        for each in house.meters:
            for question in asked:
                found, expected = answers(house, each, question)
                assert found.rows == expected.rows, (each.aggregation, question, found.source)


def at(minute: int, value: str = "1", subject: str = "a", action: str | None = None) -> Fact:
    """An event of its own for each minute; `action` is on that of the same minute."""
    index = next(i for i, each in enumerate(VALUES) if each[0] == value)
    return Fact(
        key=minute,
        minute=minute,
        microsecond=0,
        subject=subject,
        model='"x"',
        value=index,
        action=action,
    )


BY_SUBJECT = MeterQuery(group_by=("subject",))
FACTS = [at(0), at(1, "0.1"), at(90, "-2.5", "b"), at(1531, "1e3"), at(2970, "7", "b")]
MORE = [at(91, "1e3"), at(90, action="void"), at(1531, "1", "b", action="amend")]


class Killed(Exception):
    """The process ends here."""


class Deadly:
    """Stores that end the process at their n-th change, before or after it."""

    def __init__(self, house: House, change: int, *, after: bool) -> None:
        self.left, self._after = change, after
        self.clickhouse = self._deadly(house.clickhouse, "command")
        self.store = self._deadly(house.store, "begin", "advance", "replace", "keep", "forget")

    def _deadly(self, inner: Any, *names: str) -> Any:
        outer = self

        class Wrapped:
            def __getattr__(self, name: str) -> Any:
                found = getattr(inner, name)
                return outer.counted(found) if name in names else found

        return Wrapped()

    def counted(self, work: Any) -> Any:
        def run(*arguments: Any, **more: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not self._after:
                raise Killed
            found = work(*arguments, **more)
            if self.left == 0:
                raise Killed
            return found

        return run


def house_of(stage: Stage, database: Database, *of: Aggregation) -> House:
    house = House(stage.clickhouse, database)
    house.meters = meters(stage, of or (Aggregation.SUM, Aggregation.LATEST))
    house.roll_up().build(NEVER)
    return house


def require_exact(house: House, asked: MeterQuery = BY_SUBJECT, *, from_cells: bool = True) -> None:
    """What rollups say is what events say, and it does come from rollups."""
    for each in house.meters:
        found, expected = answers(house, each, asked)
        assert found.rows == expected.rows
        assert bool(found.source and found.source.tiling.tiles) == from_cells


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_change(stages: NewStage, database: Database, after: bool) -> None:
    with stages() as stage:
        house = house_of(stage, database, Aggregation.SUM)
        teller = Teller(stage)
        for fact in FACTS:
            teller.load([fact])
            house.roll_up().build(NEVER)
        teller.load(MORE)
        change, ended = 0, False
        while not ended:
            change += 1
            deadly = Deadly(house, change, after=after)
            dying = house.roll_up(first_tier_cells=1 << 40, stores=deadly)
            try:
                dying.build(NEVER)
                dying.compact(NEVER)
                dying.drop()
                ended = True
            except Killed:
                require_exact(house)
        assert change >= 6
        require_exact(house)
        # An hour later nothing is left of what was given up.
        house.clock.us += 2 * 3_600_000_000
        house.roll_up().drop()
        house.clock.us += 1
        house.roll_up().drop()
        live = {each.id for each in house.store.live()}
        assert stored_rows(stage.clickhouse).keys() == {s.id for s in house.store.live() if s.cells}
        assert house.store.known() == live


def test_two_at_once(stages: NewStage, database: Database) -> None:
    """Both have written the same cells; the second is refused, and nothing counts twice."""
    with stages() as stage:
        house = house_of(stage, database)
        Teller(stage).load(FACTS)
        slow = house.roll_up()
        name = slow._store.advance

        def late(*arguments: Any, **more: Any) -> None:
            house.roll_up().build(NEVER)
            name(*arguments, **more)

        slow._store = Overlaid(house.store, advance=late)  # type: ignore[assignment]
        with pytest.raises(Conflict):
            slow.build(NEVER)
        require_exact(house)


class Overlaid:
    """Another object, but for some members."""

    def __init__(self, inner: object, **members: Any) -> None:
        self._inner = inner
        self.__dict__.update(members)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_a_manifest_of_another_store_is_not_believed(stages: NewStage, database: Database) -> None:
    """As after a backup of SQL alone, or of ClickHouse alone, is restored."""
    with stages() as stage:
        house = house_of(stage, database)
        teller = Teller(stage)
        teller.load(FACTS)
        house.roll_up().build(NEVER)
        require_exact(house)
        (segment,) = house.store.live()
        stage.clickhouse.command(f"ALTER TABLE {DATABASE}.rollup_cells DROP PARTITION {segment.id}")
        require_exact(house, from_cells=False)
        house.roll_up().build(NEVER)
        require_exact(house)
        # Nor one that ends where the ledger has no record.
        beyond = Token(generation=stage.log.generation, offsets={0: 10_000})
        house.store.advance(house.store.definitions(), beyond, None, ready=True)
        require_exact(house, from_cells=False)
        house.roll_up().build(NEVER)
        teller.load(MORE)
        require_exact(house)


def test_what_a_meter_was_before_is_dropped(stages: NewStage, database: Database) -> None:
    with stages() as stage:
        house = house_of(stage, database)
        Teller(stage).load(FACTS)
        house.roll_up().build(NEVER)
        changed = replace(house.meters[0], group_by={"kind": "$.kind"})
        house.meters = [changed]
        require_exact(house, from_cells=False)
        house.roll_up().build(NEVER)
        require_exact(house)
        house.meters = []
        house.roll_up().build(NEVER)
        house.clock.us += 1
        house.roll_up().drop()
        assert house.store.live() == ()
        assert house.store.definitions() == ()


def test_rollups_are_read_once_they_have_come_as_far_as_the_ledger(
    stages: NewStage, database: Database
) -> None:
    with stages() as stage:
        house = house_of(stage, database, Aggregation.SUM)
        teller = Teller(stage)
        teller.load(FACTS)
        late = replace(house.meters[0], id="late", event_type="t")
        house.meters.append(late)
        part = house.roll_up(events_max=3)
        house.store.keep([(m.namespace, m.id, digest_of(m)) for m in house.meters])
        part.build(threading.Event())
        require_exact(house)
        teller.load(MORE)
        for each in house.meters:
            found, expected = answers(house, each, BY_SUBJECT)
            assert found.rows == expected.rows
            kinds = [(read.source, read.why) for read in reads_of(BY_SUBJECT, found.source)]
            assert kinds == [("rollup", "whole"), ("events", "corrected"), ("events", "beyond")]
