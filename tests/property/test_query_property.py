"""Queries are what a plain reading of the events says, for every aggregation, window and zone.

`reference` computes quantities in Python from the events as sent; a table by hand holds it. Events
are loaded by the real loader into the real engine.
"""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.loading import NOON_US, NewStage, Stage
from tollgate.core.clock import us_from_datetime
from tollgate.core.decimals import EXACT, divide
from tollgate.events import record
from tollgate.events.event import Arrival, Attributes, encode
from tollgate.metering.meter import Aggregation, ManagedBy, Meter
from tollgate.metering.query import QueryBounds, run_query
from tollgate.metering.question import MeterQuery
from tollgate.metering.window import Windows, WindowSize, zone
from tollgate.platform.event_log import StoredRecord
from tollgate.platform.filters import Membership

pytest_plugins = ["tests.support.stages"]
# Around the end of summer time in New York (2026-11-01 06:00 UTC) and a month's end.
START = datetime(2026, 10, 30, 22, 30, tzinfo=UTC)
SPAN_MINUTES = 4 * 24 * 60
ZONES = ("UTC", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe")
BOUNDS = QueryBounds(rows_max=100_000, seconds_max=60)
# JSON text of a value, what it counts as for numbers, and for UNIQUE_COUNT.
VALUES: tuple[tuple[str, Decimal | None, str | None], ...] = (
    ("1", Decimal(1), "1"),
    ("-2.5", Decimal("-2.5"), "-2.5"),
    ('"7"', Decimal(7), "7"),
    ("7", Decimal(7), "7"),
    ("0.1", Decimal("0.1"), "0.1"),
    ("1e3", Decimal(1000), "1000"),
    (
        "12345678901234567890.123456789012345678",
        Decimal("12345678901234567890.123456789012345678"),
        "12345678901234567890.123456789012345678",
    ),
    ("0.0000000000000000001", None, "0.0000000000000000001"),
    ("1e400", None, "1e400"),
    ('"abc"', None, "abc"),
    ("null", None, None),
    ("true", None, None),
    ("[1]", None, None),
    ("", None, None),  # no such member
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """An event: minutes and microseconds after `START`, subject, model, index into `VALUES`."""

    minute: int
    microsecond: int
    subject: str
    model: str
    value: int

    @property
    def time(self) -> datetime:
        return START + timedelta(minutes=self.minute, microseconds=self.microsecond)


events = st.lists(
    st.builds(
        Used,
        minute=st.integers(0, SPAN_MINUTES),
        microsecond=st.sampled_from((0, 1, 999_999)),
        subject=st.sampled_from(("a", "b", "")).filter(bool),
        model=st.sampled_from(("x", "y", "")),
        value=st.integers(0, len(VALUES) - 1),
    ),
    max_size=25,
)
edges = st.one_of(st.none(), st.integers(-60, SPAN_MINUTES + 60))


def load(stage: Stage, used: Sequence[Used]) -> None:
    """Loads the events, one record each, as one request each."""
    records = []
    for number, each in enumerate(used):
        arrival = Arrival(
            namespace=stage.namespace,
            received_us=NOON_US + number,
            event_bytes_max=1 << 20,
        )
        text = VALUES[each.value][0]
        data = "{" + (f'"n":{text},' if text else "") + f'"model":{json.dumps(each.model)}}}'
        attributes = Attributes(
            id=str(number),
            source="s",
            type="t",
            subject=each.subject,
            time_us=us_from_datetime(each.time),
            datacontenttype="",
            dataschema="",
            extensions="",
        )
        events = [encode(attributes, data.encode(), arrival)]
        value = record.encode_record([record.Group(stage.namespace, arrival.received_us, events)])
        records.append(StoredRecord(offset=number, appended_us=NOON_US + number, value=value))
    if records:
        stage.loader().load(records)


def meter(stage: Stage, aggregation: Aggregation) -> Meter:
    return Meter(
        id="01ARZ3NDEKTSV4RRFFQ69G5FAV",
        namespace=stage.namespace,
        slug="m",
        name="m",
        description=None,
        metadata={},
        annotations={},
        aggregation=aggregation,
        event_type="t",
        event_from=None,
        value_property=None if aggregation is Aggregation.COUNT else "$.n",
        group_by={"model": "$.model"},
        managed_by=ManagedBy.API,
        created_at=START,
        updated_at=START,
        deleted_at=None,
    )


def quantity(aggregation: Aggregation, used: Sequence[Used]) -> Decimal | None:
    """What events amount to; None if none of them counts. They stand in the order of arrival."""
    numbers = [VALUES[each.value][1] for each in used]
    values = [number for number in numbers if number is not None]
    match aggregation:
        case Aggregation.COUNT:
            return Decimal(len(used)) if used else None
        case Aggregation.UNIQUE_COUNT:
            texts = {VALUES[each.value][2] for each in used} - {None}
            return Decimal(len(texts)) if texts else None
        case Aggregation.LATEST:
            counted = [(u.time, i) for i, u in enumerate(used) if numbers[i] is not None]
            return numbers[max(counted)[1]] if counted else None
        case _:
            return numeric(aggregation, values)


def numeric(aggregation: Aggregation, values: Sequence[Decimal]) -> Decimal | None:
    """The aggregations that only look at numbers."""
    if not values:
        return None
    with localcontext(EXACT):
        total = sum(values, Decimal(0))
    ways = {
        Aggregation.SUM: total,
        Aggregation.AVG: divide(total, len(values)),
        Aggregation.MIN: min(values),
        Aggregation.MAX: max(values),
    }
    return ways[aggregation]


Group = tuple[datetime | None, str | None, str | None]


def reference(
    aggregation: Aggregation, used: Iterable[Used], asked: MeterQuery
) -> dict[Group, Decimal]:
    """Quantities by (window start, subject, model)."""
    low, high = asked.start, asked.end
    windows = asked.window and Windows(size=asked.window, zone=zone(asked.time_zone))
    groups: dict[Group, list[Used]] = {}
    for each in used:
        wanted = asked.filters.get("model")
        assert wanted is None or isinstance(wanted, Membership)
        if (
            (low is not None and each.time < low)
            or (high is not None and each.time >= high)
            or (wanted is not None and each.model not in wanted.values)
            or (asked.subjects is not None and each.subject not in asked.subjects)
        ):
            continue
        key = (
            windows.start_of(each.time) if windows else None,
            each.subject if "subject" in asked.group_by else None,
            each.model if "model" in asked.group_by else None,
        )
        groups.setdefault(key, []).append(each)
    found = {key: quantity(aggregation, group) for key, group in groups.items()}
    return {key: value for key, value in found.items() if value is not None}


def answered(stage: Stage, aggregation: Aggregation, asked: MeterQuery) -> dict[Group, Decimal]:
    """The product's answer in the reference's form."""
    rows = run_query(stage.clickhouse, meter(stage, aggregation), asked, BOUNDS)
    found: dict[Group, Decimal] = {}
    for row in rows:
        key = (row.start if asked.window else None, row.subject, row.dimensions.get("model"))
        assert key not in found
        found[key] = row.value
    return found


@st.composite
def questions(draw: st.DrawFn) -> MeterQuery:
    """Any period, window, zone, grouping and filters."""
    low, high = draw(edges), draw(edges)
    if low is not None and high is not None and low >= high:
        low, high = high, low + 1
    models = draw(st.one_of(st.none(), st.sampled_from((("x",), ("x", ""), ("z",)))))
    return MeterQuery(
        start=None if low is None else START + timedelta(minutes=low),
        end=None if high is None else START + timedelta(minutes=high),
        window=draw(st.one_of(st.none(), st.sampled_from(WindowSize))),
        time_zone=draw(st.sampled_from(ZONES)),
        subjects=draw(st.one_of(st.none(), st.just(("a",)))),
        group_by=draw(st.sampled_from(((), ("subject",), ("model",), ("subject", "model")))),
        filters={} if models is None else {"model": Membership(values=models, negated=False)},
    )


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(used=events, asked=questions())
def test_a_query_is_a_plain_reading_of_the_events(
    stages: NewStage, used: list[Used], asked: MeterQuery
) -> None:
    with stages() as stage:
        load(stage, used)
        for aggregation in Aggregation:
            expected = reference(aggregation, used, asked)
            assert answered(stage, aggregation, asked) == expected, aggregation


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(used=events, cuts=st.lists(st.integers(0, SPAN_MINUTES), min_size=1, max_size=3))
def test_parts_of_a_period_add_up(stages: NewStage, used: list[Used], cuts: list[int]) -> None:
    bounds = [START - timedelta(days=1)]
    bounds += [START + timedelta(minutes=cut) for cut in sorted(set(cuts))]
    bounds.append(START + timedelta(days=10))
    with stages() as stage:
        load(stage, used)
        for aggregation in (Aggregation.SUM, Aggregation.COUNT):
            whole = answered(
                stage, aggregation, MeterQuery(start=bounds[0], end=bounds[-1])
            ).values()
            parts = [
                value
                for low, high in itertools.pairwise(bounds)
                for value in answered(stage, aggregation, MeterQuery(start=low, end=high)).values()
            ]
            assert sum(whole, Decimal(0)) == sum(parts, Decimal(0))


def test_a_table_by_hand(stages: NewStage) -> None:
    def at(minute: int, value: str, subject: str = "a", model: str = "x") -> Used:
        index = next(i for i, each in enumerate(VALUES) if each[0] == value)
        return Used(minute=minute, microsecond=0, subject=subject, model=model, value=index)

    used = [
        at(0, "1"),  # 30 Oct 22:30 UTC
        at(10, "0.1"),
        at(20, '"7"', "b"),
        at(20, "7", "b"),
        at(30, "null"),  # 23:00 UTC, 04:30 of the 31st in Kolkata
        at(40, "true"),
        at(89, "-2.5"),  # 23:59 UTC
        at(90, "1e3", "b", "y"),  # 31 Oct 00:00 UTC
    ]
    by_hand: Mapping[Aggregation, tuple[str, str]] = {
        # over the UTC day 30 Oct, over the UTC day 31 Oct
        Aggregation.COUNT: ("7", "1"),
        Aggregation.SUM: ("12.6", "1000"),
        Aggregation.AVG: ("2.52", "1000"),
        Aggregation.MIN: ("-2.5", "1000"),
        Aggregation.MAX: ("7", "1000"),
        Aggregation.UNIQUE_COUNT: ("4", "1"),
        Aggregation.LATEST: ("-2.5", "1000"),
    }
    day = MeterQuery(window=WindowSize.DAY)
    first, second = datetime(2026, 10, 30, tzinfo=UTC), datetime(2026, 10, 31, tzinfo=UTC)
    with stages() as stage:
        load(stage, used)
        for aggregation, (one, two) in by_hand.items():
            expected = {
                (first, None, None): Decimal(one),
                (second, None, None): Decimal(two),
            }
            assert answered(stage, aggregation, day) == expected, aggregation
            assert reference(aggregation, used, day) == expected, aggregation
