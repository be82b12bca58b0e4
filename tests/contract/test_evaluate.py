"""Entitlements evaluated on a real usage store; every figure is worked out by hand.

The last tests hold the whole way, from events to balances, to the slow way over whole hours.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Event

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.test_burn_down_property import HOURS, known_facts, rises, usages
from tests.support.evaluating import Books, expected, figures
from tests.support.limits import at, decimals, every, facts, hour, reset
from tests.support.limits import grant as named_grant
from tests.support.loading import NewStage
from tests.support.naive_burn_down import Naive, NaiveLevel
from tests.support.rollups import House
from tollgate.core.errors import InvalidInput
from tollgate.limits.evaluate import history, limits_at
from tollgate.limits.grant import Expiration, ExpirationUnit, Grant
from tollgate.limits.interval import Interval
from tollgate.limits.plan import Facts
from tollgate.limits.recurrence import Recurrence
from tollgate.limits.usage_kind import UsageKind
from tollgate.limits.usage_reader import UsageReader
from tollgate.metering.meter import Aggregation
from tollgate.metering.window import Windows, WindowSize, zone
from tollgate.platform.sql import Database, migrate

pytest_plugins = ["tests.support.stages"]
FLOW, DISTINCT, LEVEL = UsageKind
US = timedelta(microseconds=1)
BERLIN = zone("Europe/Berlin")


@pytest.fixture
def books(stages: NewStage) -> Iterator[Books]:
    with stages() as stage:
        yield Books(stage)


def given_(name: str, amount: int, begins: datetime, **more: object) -> Grant:
    values: dict[str, object] = {"created_at": begins} | more
    return Grant(id=name, amount=Decimal(amount), effective_at=begins, **values)  # type: ignore[arg-type]


def monthly(anchor: datetime, *grants: Grant, preserve: bool = False) -> Facts:
    period = Recurrence(interval=Interval(months=1), anchor=anchor, zone=BERLIN.rules)
    return Facts(
        kind=FLOW,
        usage_period=period,
        measure_usage_from=anchor,
        grants=grants,
        preserve_overage_at_reset=preserve,
    )


def test_a_month_end_on_the_calendar_of_the_zone(books: Books) -> None:
    """From January 31, 00:00 of Berlin: February 28, March 31 (summer time), April 30."""
    begin = at("2026-01-30T23:00:00")
    renewed = given_(
        "g", 100, begin, min_rollover=Decimal(100), max_rollover=Decimal(100), zone=BERLIN.rules
    )
    known = books.known(monthly(begin, renewed))
    february, march = at("2026-02-27T23:00:00"), at("2026-03-30T22:00:00")
    books.use((february - US, "10"), (february, "20.5"), (march - US, "1"), (march, "2"))
    books.use((march, "1000"), subject="stranger")
    balances = {
        february - US: expected({"g": 100}, 0, 0, 100),
        # The instant of a reset has seen the usage before it, and all that happens there.
        february: expected({"g": 100}, 0, 0, 100),
        february + US: expected({"g": "79.5"}, "20.5", 0, 100),
        march - US: expected({"g": "79.5"}, "20.5", 0, 100),
        march: expected({"g": 100}, 0, 0, 100),
        march + US: expected({"g": 98}, 2, 0, 100),
    }
    for instant, wanted in balances.items():
        assert figures(books.balance(known, instant)) == wanted, instant
    found = books.balance(known, march + US)
    assert (found.last_reset, found.next_reset) == (march, at("2026-04-29T22:00:00"))


def test_a_day_of_twenty_three_hours(books: Books) -> None:
    """A daily period of Berlin on March 29, 2026 ends an hour early."""
    begin = at("2026-03-28T23:00:00")
    period = Recurrence(interval=Interval(days=1), anchor=begin, zone=BERLIN.rules)
    one = given_("g", 10, begin, max_rollover=Decimal(10))
    known = books.known(
        Facts(kind=FLOW, usage_period=period, measure_usage_from=begin, grants=(one,))
    )
    ends = at("2026-03-29T22:00:00")
    books.use((ends - US, "3"), (ends, "4"))
    assert figures(books.balance(known, ends)) == expected({"g": 7}, 0, 0, 7)
    assert figures(books.balance(known, ends + US)) == expected({"g": 3}, 4, 0, 7)
    assert books.balance(known, ends).next_reset == at("2026-03-30T22:00:00")


def test_a_grant_that_ends_within_a_minute(books: Books) -> None:
    """An hour's grant of 09:00:30.000007."""
    begin = at("2026-05-01T00:00:00")
    mid = at("2026-05-01T09:00:30.000007")
    short = given_("short", 5, mid, expiration=Expiration(duration=ExpirationUnit.HOUR, count=1))
    long = given_("long", 100, begin, max_rollover=Decimal(100))
    known = books.known(monthly(begin, short, long))
    ends = mid + timedelta(hours=1)
    books.use((mid - US, "1"), (mid, "2"), (ends - US, "1"), (ends, "8"), (ends, "0.25"))
    for instant, wanted in {
        mid: expected({"short": 5, "long": 99}, 1, 0, 105),
        mid + US: expected({"short": 3, "long": 99}, 3, 0, 105),
        ends: expected({"long": 99}, 4, 0, 103),
        ends + US: expected({"long": "90.75"}, "12.25", 0, 103),
    }.items():
        assert figures(books.balance(known, instant)) == wanted, instant


def test_late_events_change_what_was(books: Books) -> None:
    begin = at("2026-05-01T00:00:00")
    first = given_("first", 10, begin)
    known = books.known(monthly(begin, first, preserve=True))
    books.use((begin + timedelta(days=1), "4"))
    now = begin + timedelta(days=2)
    assert figures(books.balance(known, now)) == expected({"first": 6}, 4, 0, 10)
    # Both of days that are long over; nothing was settled that cannot be told anew.
    books.use((begin + timedelta(hours=1), "5"), (begin - US, "100"))
    assert figures(books.balance(known, now)) == expected({"first": 1}, 9, 0, 10)
    books.use((begin + timedelta(hours=2), "3"))
    assert figures(books.balance(known, now)) == expected({"first": 0}, 12, 2, 10)


def test_overage_is_preserved_where_it_should_be(books: Books) -> None:
    begin, june = at("2026-04-30T22:00:00"), at("2026-05-31T22:00:00")
    renewed = given_("g", 10, begin, min_rollover=Decimal(10), max_rollover=Decimal(10))
    books.use((begin, "12.5"), (june, "1"))
    kept = books.known(monthly(begin, renewed, preserve=True))
    dropped = books.known(monthly(begin, renewed))
    assert figures(books.balance(kept, june)) == expected({"g": "7.5"}, 0, 0, 10)
    assert figures(books.balance(kept, june + US)) == expected({"g": "6.5"}, 1, 0, 10)
    assert figures(books.balance(dropped, june + US)) == expected({"g": 9}, 1, 0, 10)
    assert figures(books.balance(kept, june - US)) == expected({"g": 0}, "12.5", "2.5", 10)


def test_no_access_without_balance_unless_it_is_soft(books: Books) -> None:
    known = facts(named_grant("g", 3))
    books.use((hour(1), "3"))
    books.use((hour(1), "4"), subject="v")
    hard = books.known(known)
    soft = books.known(known, is_soft_limit=True, customer="other", subjects=("v",))
    ended = books.known(known, active_to=hour(2), customer="third", subjects=("w",))
    at_two = limits_at(books.reader, [hard, soft, ended], hour(2))
    assert [limit.has_access for limit in at_two] == [False, True, False]
    assert at_two[2].balance is None
    at_one = limits_at(books.reader, [hard, soft, ended], hour(1))
    assert [limit.has_access for limit in at_one] == [True, True, True]


def test_all_of_several_customers_in_few_queries(books: Books) -> None:
    """Each has its own subjects, periods and grants; features filter by model."""
    books.use((hour(1), "1"), (hour(5), "2"), subject="u", model="x")
    books.use((hour(5), "4"), subject="u", model="y")
    books.use((hour(2), "8"), (hour(6), "16"), subject="v", model="x")
    books.use((hour(2), "32"), subject="w", model="x")
    known = [
        books.known(facts(named_grant("a", 100)), model="x"),
        books.known(facts(named_grant("b", 100), usage_period=every(4)), model="y"),
        books.known(facts(named_grant("c", 100)), model=None),
        books.known(
            facts(named_grant("d", 100), usage_period=every(3)),
            customer="two",
            subjects=("v",),
            model="x",
        ),
        books.known(facts(named_grant("e", 100)), customer="three", subjects=("w",), model="x"),
        books.known(facts(named_grant("f", 9), kind=DISTINCT), Aggregation.UNIQUE_COUNT),
        books.known(facts(named_grant("g", 9), kind=LEVEL), Aggregation.LATEST),
        books.known(
            facts(named_grant("h", 9), kind=LEVEL),
            Aggregation.MAX,
            customer="none",
            subjects=("z",),
        ),
    ]
    found = [limit.balance for limit in limits_at(books.reader, known, hour(7))]
    usage = [None if balance is None else int(balance.usage) for balance in found]
    # x: 1 + 2. y: since hour 4. All: 7. v since hour 6: 16. w: 32.
    # A reset leaves nothing of b and d. Of u three values are distinct, and 4 came last.
    assert usage == [3, 4, 7, 16, 32, 3, 4, 0]
    assert [balance.remaining for balance in found if balance] == [97, 0, 93, 0, 68, 6, 5, 9]


def test_history_by_windows_and_by_what_changed(books: Books) -> None:
    """A grant of 10, one of 5 from hour 2 on that burns first, a reset by hand at hour 5."""
    known = books.known(
        facts(
            named_grant("a", 10, rolls=(0, 10), priority=2),
            named_grant("b", 5, 2, rolls=(0, 0), priority=1),
            usage_period=every(100),
            resets=(reset(5),),
        )
    )
    books.use(
        (hour(0) + US, "1"), (hour(2), "2"), (hour(3) - US, "1"), (hour(3), "4"), (hour(6), "1")
    )
    assert known.metering is not None
    hours = Windows(size=WindowSize.HOUR, zone=BERLIN, low=hour(1), high=hour(6) + 3 * US)
    found = history(books.reader, known.metering, hours)
    shown = [(it.start, it.end, int(it.usage), int(it.balance_at_start)) for it in found.windows]
    assert shown == [
        (hour(1), hour(2), 0, 9),
        (hour(2), hour(3), 3, 14),
        (hour(3), hour(4), 4, 11),
        (hour(4), hour(5), 0, 7),
        (hour(5), hour(6), 0, 7),
        (hour(6), hour(6) + 3 * US, 1, 7),
    ]
    segments = [
        (it.start, it.end, int(it.usage), {n: int(v) for n, v in it.burned.items()})
        for it in found.segments
    ]
    assert segments == [
        (hour(1), hour(2), 0, {}),
        (hour(2), hour(5), 7, {"b": 5, "a": 2}),
        (hour(5), hour(6) + 3 * US, 1, {"a": 1}),
    ]
    starts = [dict(it.balances_at_start) for it in found.segments]
    assert starts == [{"a": 9}, {"b": 5, "a": 9}, {"b": 0, "a": 7}]
    early = Windows(size=WindowSize.HOUR, zone=BERLIN, low=hour(-9), high=hour(0))
    with pytest.raises(InvalidInput, match="before it begins"):
        history(books.reader, known.metering, early)
    long = Windows(size=WindowSize.MINUTE, zone=BERLIN, low=hour(0), high=hour(200))
    with pytest.raises(InvalidInput, match="10000 windows"):
        history(books.reader, known.metering, long)


def test_a_level_in_history_is_what_it_is_at_the_end(books: Books) -> None:
    known = books.known(
        facts(named_grant("a", 10), kind=LEVEL, usage_period=every(3)), Aggregation.LATEST
    )
    books.use((hour(0), "4"), (hour(1), "7"), (hour(2), "3"), (hour(4), "20"))
    assert known.metering is not None
    hours = Windows(size=WindowSize.HOUR, zone=zone("UTC"), low=hour(0), high=hour(5))
    found = history(books.reader, known.metering, hours)
    assert [int(it.usage) for it in found.windows] == [4, 7, 3, 0, 20]
    assert [int(it.usage) for it in found.segments] == [3, 20]
    assert [int(it.overage) for it in found.segments] == [0, 20]


def test_from_rollups_it_is_the_same(books: Books, tmp_path: Path) -> None:
    """Days that nothing cuts come from rollups; the two days of a month's end from events too."""
    migrate(url := f"sqlite:///{tmp_path / 'control.sqlite'}")
    database = Database(url)
    house = House(books.stage.clickhouse, database)
    begin, june = at("2026-04-30T22:00:00"), at("2026-05-31T22:00:00")
    renewed = given_("g", 100, begin, min_rollover=Decimal(0), max_rollover=Decimal(90))
    known = {
        Aggregation.SUM: books.known(monthly(begin, renewed)),
        Aggregation.UNIQUE_COUNT: books.known(
            replace(monthly(begin, renewed), kind=DISTINCT), Aggregation.UNIQUE_COUNT
        ),
        Aggregation.LATEST: books.known(
            replace(monthly(begin, renewed), kind=LEVEL), Aggregation.LATEST
        ),
    }
    house.meters = [books.meter(each) for each in known]
    house.roll_up().build(Event())
    days = [begin + timedelta(days=number) for number in range(40)]
    books.use(*((day, str(number % 7)) for number, day in enumerate(days)))
    house.roll_up().build(Event())
    books.use((june - US, "0.5"), (june, "0.25"))
    books.reader = UsageReader(books.stage.clickhouse, house.reader(), 60)
    # 31 days are four weeks of 21, and 0 + 1 + 2; nine more are 3 to 6 and 0 to 4.
    sums = books.balance(known[Aggregation.SUM], june + timedelta(days=9))
    assert figures(sums) == expected({"g": 0}, "28.25", "15.75", "12.5")
    assert books.balance(known[Aggregation.SUM], june).remaining == Decimal("12.5")
    distinct = books.balance(known[Aggregation.UNIQUE_COUNT], june)
    # Zero to six and a half, eight values, are gone; what is left rolls over up to ninety.
    assert distinct.remaining == 90
    later = books.balance(known[Aggregation.UNIQUE_COUNT], june + timedelta(days=9))
    assert (later.usage, later.remaining) == decimals(8, 82)
    latest = books.balance(known[Aggregation.LATEST], june + timedelta(days=9))
    assert (latest.usage, latest.remaining) == decimals(4, 86)
    database.dispose()


@pytest.mark.parametrize(
    ("kind", "aggregation", "used"),
    [(FLOW, Aggregation.SUM, 4), (DISTINCT, Aggregation.UNIQUE_COUNT, 1)],
)
def test_more_changes_than_one_plan_takes(
    books: Books, kind: UsageKind, aggregation: Aggregation, used: int
) -> None:
    """An hourly period for 25,000 hours; what is left of the grant goes from one to the next."""
    known = books.known(
        facts(named_grant("g", 10, rolls=(0, 10)), kind=kind, usage_period=every(1)), aggregation
    )
    books.use((hour(1), "4"), (hour(12_000), "4"), (hour(24_999), "4"))
    balance = books.balance(known, hour(25_000) - US)
    assert (balance.usage, balance.remaining) == decimals(used, 10 - 3 * used if used < 4 else 0)
    assert balance.overage == (0 if used < 4 else 2)


few = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
hours_until = st.integers(0, HOURS)


@few
@given(known_facts(), usages, hours_until, st.sampled_from((timedelta(0), timedelta(minutes=59))))
def test_from_events_to_balances_it_is_what_the_slow_way_says(
    stages: NewStage, known: Facts, usage: dict[int, int], until: int, within: timedelta
) -> None:
    with stages() as stage:
        books = Books(stage)
        books.use(*((hour(it) + within, str(amount)) for it, amount in usage.items()))
        slow = Naive(known).at(until, usage)
        found = books.balance(books.known(known), hour(until))
        assert dict(found.by_grant) == {it.grant.id: it.holds for it in slow.purses}
        assert (found.usage, found.overage) == decimals(slow.usage, max(slow.uncovered, 0))
        assert found.total_available == found.remaining + slow.spent


@few
@given(known_facts(DISTINCT), st.sets(st.integers(0, HOURS - 1), max_size=8), hours_until)
def test_distinct_values_burn_where_they_are_new(
    stages: NewStage, known: Facts, used: set[int], until: int
) -> None:
    """Each hour has a value of its own twice, and one that all have."""
    with stages() as stage:
        books = Books(stage)
        books.use(*((hour(it), value) for it in sorted(used) for value in ("1", f"{it}.5")))
        balance = books.balance(books.known(known, Aggregation.UNIQUE_COUNT), hour(until))
        # The common value is new once in each period.
        watcher, new, fresh = Naive(known), {}, True
        for it in range(until):
            if it:
                fresh = fresh or watcher.ends_period(it)
            watcher.open(it)
            if it in used:
                new[it] = 2 if fresh else 1
                fresh = False
        slow = Naive(known).at(until, new)
        assert dict(balance.by_grant) == {it.grant.id: it.holds for it in slow.purses}
        assert (balance.usage, balance.overage) == decimals(slow.usage, max(slow.uncovered, 0))


@few
@given(known_facts(LEVEL), rises, hours_until)
def test_levels_are_what_they_are_now(
    stages: NewStage, known: Facts, usage: dict[int, int], until: int
) -> None:
    with stages() as stage:
        books = Books(stage)
        books.use(*((hour(it), str(amount)) for it, amount in sorted(usage.items())))
        balance = books.balance(books.known(known, Aggregation.LATEST), hour(until))
        by_grant, overage = NaiveLevel(known).at(until, usage)
        assert dict(balance.by_grant) == by_grant
        assert balance.overage == overage
