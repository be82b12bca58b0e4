"""A period cut at any instants says in one statement what each stretch says when asked alone."""

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.test_query_property import BOUNDS
from tests.property.test_rollup_property import (
    FACTS,
    MORE,
    SPAN_MINUTES,
    START,
    Teller,
    answers,
    database,
    house_of,
    meters,
    steps,
)
from tests.support.loading import NewStage
from tests.support.rollups import House
from tollgate.customers.attribution import Attribution
from tollgate.metering.meter import Aggregation, Meter
from tollgate.metering.query import run_query
from tollgate.metering.question import MeterQuery, Stretches
from tollgate.platform.filters import Membership
from tollgate.platform.sql import Database

__all__ = ["database"]
pytest_plugins = ["tests.support.stages"]
NEVER = threading.Event()
MICROSECOND = timedelta(microseconds=1)
instants = st.lists(
    st.builds(
        lambda minute, us: START + timedelta(minutes=minute, microseconds=us),
        st.one_of(st.sampled_from((0, 1, 90, 1530, 2970)), st.integers(-90, SPAN_MINUTES + 90)),
        st.sampled_from((0, 0, 1, 30_000_000, 59_999_999)),
    ),
    min_size=2,
    max_size=9,
    unique=True,
).map(sorted)
# A subject's; a customer's who got it within a minute of the first day, and lost it on the third.
WHOSE: list[dict[str, object]] = [
    {"subjects": ("a",)},
    {
        "customers": ("acme",),
        "attributions": (
            Attribution(
                customer_id="acme",
                subject_key="a",
                begins_at=START + timedelta(minutes=89, seconds=30),
                ends_at=START + timedelta(minutes=2970),
            ),
            Attribution(
                customer_id="acme", subject_key="b", begins_at=START + timedelta(minutes=1)
            ),
        ),
    },
]


def cut(
    bounds: Sequence[datetime], restarts: Sequence[datetime] = (), **more: object
) -> MeterQuery:
    stretches = Stretches(bounds=tuple(bounds), restarts=tuple(restarts))
    given_: dict[str, object] = {"start": bounds[0], "end": bounds[-1], "stretches": stretches}
    return MeterQuery(**given_ | more)  # type: ignore[arg-type]


def alone(
    house: House, of: Meter, start: datetime, end: datetime, whose: Mapping[str, object]
) -> Decimal:
    """What the meter says of a stretch; nothing there is 0."""
    asked = MeterQuery(start=start, end=end, **whose)  # type: ignore[arg-type]
    rows = run_query(house.clickhouse, of, asked, BOUNDS)
    nothing = of.aggregation in (Aggregation.COUNT, Aggregation.UNIQUE_COUNT)
    return rows[0].value if rows else Decimal(0) if nothing else Decimal(-999)


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=steps,
    bounds=instants,
    of=st.lists(st.sampled_from(Aggregation), min_size=2, max_size=2, unique=True),
    whose=st.sampled_from(WHOSE),
)
def test_stretches_say_what_each_says_alone(
    stages: NewStage,
    database: Database,
    steps: list[object],
    bounds: list[datetime],
    of: list[Aggregation],
    whose: dict[str, object],
) -> None:
    with stages() as stage:
        house = House(stage.clickhouse, database)
        house.meters = meters(stage, {*of, Aggregation.UNIQUE_COUNT})
        house.roll_up().build(NEVER)
        teller = Teller(stage)
        for step in [*steps, 3]:
            if isinstance(step, list):
                teller.load(step)
            elif isinstance(step, int):
                house.roll_up(events_max=step).build(NEVER)
        for each in house.meters:
            asked = cut(bounds, (), **whose)
            found, expected = answers(house, each, asked)
            assert found.rows == expected.rows, each.aggregation
            by_start = {row.start: row for row in found.rows}
            for start, end in pairwise(bounds):
                row, value = by_start.get(start), alone(house, each, start, end, whose)
                assert row is None or row.end == end
                assert (row.value if row else value) == value
                assert row is not None or value in (0, -999)
            if each.aggregation is Aggregation.UNIQUE_COUNT:
                restarts = bounds[:-1:2]
                found, expected = answers(house, each, cut(bounds, restarts, **whose))
                assert found.rows == expected.rows
                new = {row.start: row.value for row in found.rows}
                for end in bounds[1:]:
                    since = max(restart for restart in restarts if restart < end)
                    seen = [new.get(it, Decimal(0)) for it in bounds if since <= it < end]
                    assert sum(seen) == alone(house, each, since, end, whose)


def test_a_cut_between_two_microseconds(stages: NewStage, database: Database) -> None:
    """Values by minute: 0: 1, 1: 0.1, 90: -2.5 (b), 91: 1000, 1531: 1000, 2970: 7 (b)."""
    with stages() as stage:
        house = house_of(stage, database, Aggregation.SUM, Aggregation.UNIQUE_COUNT)
        teller = Teller(stage)
        teller.load(FACTS)
        house.roll_up().build(NEVER)
        teller.load(MORE[:1])
        last = START + timedelta(minutes=1531)
        bounds = [
            START,
            START + timedelta(minutes=1),
            last,
            last + MICROSECOND,
            START + timedelta(days=9),
        ]
        total, distinct = house.meters
        sums = answers(house, total, cut(bounds, group_by=("subject",)))[0].rows
        assert [(bounds.index(row.start), row.subject, row.value) for row in sums] == [
            (0, "a", 1),
            (1, "a", Decimal("1000.1")),
            (1, "b", Decimal("-2.5")),
            (2, "a", 1000),
            (3, "b", 7),
        ]
        none = cut(bounds, filters={"model": Membership(values=("y",), negated=False)})
        assert answers(house, total, none)[0].rows == ()
        # 1e3 has come before in stretch 1, unless stretch 2 begins anew.
        for restarts, expected in (
            (bounds[:1], [(0, 1), (1, 3), (3, 1)]),
            ([bounds[0], bounds[2]], [(0, 1), (1, 3), (2, 1), (3, 1)]),
        ):
            found = answers(house, distinct, cut(bounds, restarts))[0].rows
            assert [(bounds.index(row.start), int(row.value)) for row in found] == expected
