"""Usage by customer is a plain reading of who had which subject when, whatever moved, and when.

Subjects are moved between customers by the real store, events are loaded by the real loader,
rollups are built; the truth is a dictionary kept by hand beside it.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.test_query_property import (
    BOUNDS,
    SPAN_MINUTES,
    START,
    ZONES,
    Used,
    edges,
    events,
    load,
    meter,
    quantity,
)
from tests.support.loading import NewStage, SetClock
from tests.support.migrated import migrated_sqlite
from tests.support.rollups import House
from tollgate.core.clock import us_from_datetime
from tollgate.customers.customer import parse_customer
from tollgate.customers.customer_store import CustomerStore
from tollgate.metering import ownership
from tollgate.metering.meter import Aggregation
from tollgate.metering.query import Answer, answer_query
from tollgate.metering.question import CUSTOMER, MeterQuery
from tollgate.metering.window import Windows, WindowSize, zone
from tollgate.platform.filters import Membership
from tollgate.platform.sql import Database

pytest_plugins = ["tests.support.stages"]
NEVER = threading.Event()
NAMES = ("one", "two")
PHASES_MAX = (100, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """From an instant on a subject is a customer's; None: nobody's."""

    minute: int
    microsecond: int
    subject: str
    owner: str | None

    @property
    def instant(self) -> datetime:
        return START + timedelta(minutes=self.minute, microseconds=self.microsecond)


moves = st.lists(
    st.builds(
        Move,
        minute=st.sampled_from((-600, 0, 90, 91, 1530, 1531, 2000, SPAN_MINUTES + 30)),
        microsecond=st.sampled_from((0, 1, 30_000_000)),
        subject=st.sampled_from(("a", "b")),
        owner=st.sampled_from((*NAMES, None)),
    ),
    max_size=8,
)


class Truth:
    """Who had which subject when, kept as plainly as can be."""

    def __init__(self) -> None:
        self._changes: dict[str, list[tuple[datetime | None, str | None]]] = {}

    def move(self, move: Move) -> None:
        changes = self._changes.setdefault(move.subject, [])
        if changes or move.owner is not None:
            changes.append((move.instant if changes else None, move.owner))

    def owner(self, subject: str, instant: datetime) -> str | None:
        found = None
        for since, owner in self._changes.get(subject, []):
            if since is None or since <= instant:
                found = owner
        return found


class Mover:
    """Moves subjects as the API does: two replacements, or one."""

    def __init__(self, database: Database, namespace: str) -> None:
        self._clock = SetClock(us_from_datetime(START - timedelta(days=30)))
        self._namespace = namespace
        self.store = CustomerStore(database, self._clock)
        self.subjects: dict[str, set[str]] = {name: set() for name in NAMES}
        self.ids = {
            name: self.store.create(namespace, parse_customer({"name": name, "key": name})).id
            for name in NAMES
        }

    def move(self, move: Move) -> None:
        self._clock.us = us_from_datetime(move.instant)
        for name, subjects in self.subjects.items():
            if move.subject in subjects and name != move.owner:
                subjects.remove(move.subject)
                self._replace(name)
        if move.owner is not None and move.subject not in self.subjects[move.owner]:
            self.subjects[move.owner].add(move.subject)
            self._replace(move.owner)

    def _replace(self, name: str) -> None:
        usage = {"usageAttribution": {"subjectKeys": sorted(self.subjects[name])}}
        wanted = parse_customer({"name": name, "key": name, **usage})
        self.store.replace(self._namespace, self.ids[name], lambda _: wanted)


@st.composite
def questions(draw: st.DrawFn) -> MeterQuery:
    """Any period, window, zone and filters, by customer or of some."""
    low, high = draw(edges), draw(edges)
    if low is not None and high is not None and low >= high:
        low, high = high, low + 1
    models = draw(st.one_of(st.none(), st.sampled_from((("x",), ("x", "")))))
    return MeterQuery(
        start=None if low is None else START + timedelta(minutes=low),
        end=None if high is None else START + timedelta(minutes=high),
        window=draw(st.one_of(st.none(), st.sampled_from(WindowSize))),
        time_zone=draw(st.sampled_from(ZONES)),
        subjects=draw(st.one_of(st.none(), st.just(("a",)))),
        group_by=draw(st.sampled_from(((CUSTOMER,), (CUSTOMER, "subject"), ("model",), ()))),
        filters={} if models is None else {"model": Membership(values=models, negated=False)},
        # By name; the test knows the ids.
        customers=draw(st.sampled_from((None, ("one",), ("two",), NAMES))),
    )


@contextmanager
def written_with(phases_max: int) -> Iterator[None]:
    """Questions with more changes than that are written in the other way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ownership, "_PHASES_MAX", phases_max)
        yield


Key = tuple[datetime | None, str | None, str | None, str | None]


def plain_reading(
    aggregation: Aggregation, used: Sequence[Used], asked: MeterQuery, truth: Truth
) -> dict[Key, Decimal]:
    """Quantities by window, customer, subject and model."""
    windows = asked.window and Windows(size=asked.window, zone=zone(asked.time_zone))
    models = asked.filters.get("model")
    assert models is None or isinstance(models, Membership)
    groups: dict[Key, list[Used]] = {}
    for each in used:
        owner = truth.owner(each.subject, each.time)
        if (
            (asked.start is None or asked.start <= each.time)
            and (asked.end is None or each.time < asked.end)
            and (asked.subjects is None or each.subject in asked.subjects)
            and (models is None or each.model in models.values)
            and (asked.customers is None or owner in asked.customers)
        ):
            key = (
                windows.start_of(each.time) if windows else None,
                owner if CUSTOMER in asked.group_by else None,
                each.subject if "subject" in asked.group_by else None,
                each.model if "model" in asked.group_by else None,
            )
            groups.setdefault(key, []).append(each)
    found = {key: quantity(aggregation, group) for key, group in groups.items()}
    return {key: value for key, value in found.items() if value is not None}


def read(answer: Answer, asked: MeterQuery, names: Mapping[str, str]) -> dict[Key, Decimal]:
    """The product's answer in the same form."""
    found: dict[Key, Decimal] = {}
    for row in answer.rows:
        customer = None if row.customer_id is None else names[row.customer_id]
        start = row.start if asked.window else None
        key = (start, customer, row.subject, row.dimensions.get("model"))
        assert key not in found
        found[key] = row.value
    return found


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    path = tmp_path_factory.mktemp("sql") / "control.sqlite"
    path.write_bytes(migrated_sqlite())
    database = Database(f"sqlite:///{path}")
    yield database
    database.dispose()


def with_rows(asked: MeterQuery, mover: Mover, namespace: str) -> MeterQuery:
    """As `attribution_reader.py` makes it of a request."""
    store = mover.store.attributions
    if asked.customers is not None:
        ids = tuple(mover.ids[name] for name in asked.customers)
        found = store.of_customers(namespace, ids, asked.start, asked.end)
        rows = tuple(row for each in found.values() for row in each)
        return replace(asked, customers=ids, attributions=rows)
    everything = store.of_all(namespace, asked.start, asked.end, 1000)
    assert everything is not None
    return replace(asked, attributions=everything if CUSTOMER in asked.group_by else ())


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    used=events,
    moved=moves,
    asked=st.lists(questions(), min_size=4, max_size=4),
    way=st.tuples(
        st.lists(st.sampled_from(Aggregation), min_size=3, max_size=3, unique=True),
        st.sampled_from(PHASES_MAX),
    ),
)
def test_usage_by_customer_is_a_plain_reading(
    stages: NewStage,
    database: Database,
    used: list[Used],
    moved: list[Move],
    asked: list[MeterQuery],
    way: tuple[list[Aggregation], int],
) -> None:
    truth, (of, phases_max) = Truth(), way
    with stages() as stage, written_with(phases_max):
        mover = Mover(database, stage.namespace)
        for move in sorted(moved, key=lambda move: move.instant):
            truth.move(move)
            mover.move(move)
        names = {customer: name for name, customer in mover.ids.items()}
        house = House(stage.clickhouse, database)
        meters = [
            replace(meter(stage, each), id=f"{stage.namespace}-{each}", slug=each.lower())
            for each in of
        ]
        house.meters = meters
        load(stage, used)
        house.roll_up().build(NEVER)
        for each in meters:
            for question in asked:
                expected = plain_reading(each.aggregation, used, question, truth)
                whole = with_rows(question, mover, stage.namespace)
                events_only = answer_query(stage.clickhouse, each, whole, BOUNDS)
                by_rollup = answer_query(stage.clickhouse, each, whole, BOUNDS, house.reader())
                assert read(events_only, question, names) == expected, each.aggregation
                assert by_rollup.rows == events_only.rows, (each.aggregation, by_rollup.source)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(used=events, moved=moves)
def test_customers_and_nobody_add_up_to_all(
    stages: NewStage, database: Database, used: list[Used], moved: list[Move]
) -> None:
    with stages() as stage:
        mover = Mover(database, stage.namespace)
        for move in sorted(moved, key=lambda move: move.instant):
            mover.move(move)
        load(stage, used)
        counting = meter(stage, Aggregation.COUNT)
        whole = with_rows(MeterQuery(group_by=(CUSTOMER,)), mover, stage.namespace)
        parts = answer_query(stage.clickhouse, counting, whole, BOUNDS).rows
        (*all_of_it,) = answer_query(stage.clickhouse, counting, MeterQuery(), BOUNDS).rows
        assert sum(row.value for row in parts) == sum(row.value for row in all_of_it) == len(used)


@pytest.mark.parametrize("phases_max", PHASES_MAX)
@pytest.mark.parametrize("start", [None, START - timedelta(minutes=30)])
def test_a_table_by_hand(
    stages: NewStage, database: Database, start: datetime | None, phases_max: int
) -> None:
    """`a` is one's at first, two's from 00:00:30 of the second day on; `b` is nobody's later."""
    moved = [
        Move(minute=0, microsecond=0, subject="a", owner="one"),
        Move(minute=0, microsecond=0, subject="b", owner="two"),
        Move(minute=90, microsecond=30_000_000, subject="a", owner="two"),
        Move(minute=2000, microsecond=0, subject="b", owner=None),
    ]
    used = [
        Used(minute=minute, microsecond=microsecond, subject=subject, model="x", value=value)
        for minute, microsecond, subject, value in (
            (0, 0, "a", 0),  # 1, one's
            (90, 0, "a", 3),  # 7, one's, in the same minute as the change
            (90, 29_999_999, "a", 4),  # 0.1, one's
            (90, 30_000_000, "a", 5),  # 1000, two's
            (91, 0, "b", 3),  # 7, two's
            (2000, 0, "b", 1),  # -2.5, nobody's
            (SPAN_MINUTES, 0, "b", 1),  # the same once more
        )
    ]
    by_hand: Mapping[Aggregation, tuple[str, str, str]] = {
        Aggregation.SUM: ("8.1", "1007", "-5"),
        Aggregation.COUNT: ("3", "2", "2"),
        Aggregation.UNIQUE_COUNT: ("3", "2", "1"),
        Aggregation.MIN: ("0.1", "7", "-2.5"),
        Aggregation.MAX: ("7", "1000", "-2.5"),
        Aggregation.LATEST: ("0.1", "7", "-2.5"),
        Aggregation.AVG: ("2.7", "503.5", "-2.5"),
    }
    with stages() as stage, written_with(phases_max):
        mover = Mover(database, stage.namespace)
        for move in moved:
            mover.move(move)
        load(stage, used)
        house = House(stage.clickhouse, database)
        house.meters = [
            replace(meter(stage, each), id=f"{stage.namespace}-{each}", slug=each.lower())
            for each in by_hand
        ]
        house.roll_up().build(NEVER)
        asked = with_rows(MeterQuery(start=start, group_by=(CUSTOMER,)), mover, stage.namespace)
        for each in house.meters:
            answer = answer_query(stage.clickhouse, each, asked, BOUNDS, house.reader())
            found = {row.customer_id: row.value for row in answer.rows}
            owners = (mover.ids["one"], mover.ids["two"], None)
            values = map(Decimal, by_hand[each.aggregation])
            assert found == dict(zip(owners, values, strict=True)), each.aggregation
            assert answer.source is not None
