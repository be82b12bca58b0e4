"""Segments, plans and snapshots, worked out with pen and paper."""

from datetime import datetime, timedelta
from decimal import Decimal
from itertools import permutations

import pytest

from tests.support.limits import (
    ZERO,
    burn_down,
    decimals,
    every,
    facts,
    grant,
    hour,
    reset,
)
from tollgate.core.errors import Conflict, InvalidInput, TooLarge
from tollgate.limits.burn_down import End, EndReason, run
from tollgate.limits.period import Period
from tollgate.limits.plan import plan
from tollgate.limits.usage_kind import UsageKind

DISTINCT, LEVEL = UsageKind.DISTINCT, UsageKind.LEVEL


@pytest.mark.parametrize(
    ("until", "last", "following"),
    [(0, 0, 10), (3, 0, 10), (4, 4, 10), (10, 10, 20), (12, 10, 20), (13, 13, 23), (22, 13, 23)],
)
def test_last_and_next_reset(until: int, last: int, following: int) -> None:
    known = facts(
        usage_period=every(10, anchor=-20), resets=(reset(4), reset(13, retain_anchor=False))
    )
    balance = burn_down(known, {}, until).balance
    assert (balance.last_reset, balance.next_reset) == (hour(last), hour(following))


def test_a_reset_where_usage_is_first_measured_only_moves_the_anchor() -> None:
    known = facts(
        grant("a", 10), usage_period=every(10, anchor=3), resets=(reset(0, retain_anchor=False),)
    )
    balance = burn_down(known, {}, 5).balance
    assert balance.remaining == 10
    assert balance.next_reset == hour(10)


def test_instants_keep_their_microseconds() -> None:
    instant = timedelta(microseconds=1)
    known = facts(grant("a", 10, 0, 5))
    planned = plan(known, hour(5) + instant)
    assert planned.intervals() == [
        Period(start=hour(0), end=hour(5)),
        Period(start=hour(5), end=hour(5) + instant),
    ]
    found = run(planned, [Decimal(3), Decimal(2)])
    assert (found.balance.remaining, found.balance.overage) == decimals(0, 2)


def test_segments_say_what_burned_and_why_they_end() -> None:
    known = facts(
        grant("a", 10, 0, 8, rolls=(0, 10)),
        grant("b", 10, 3, priority=2, recurrence=every(5)),
        grant("c", 10, 3, priority=3, voided_at=hour(10)),
        usage_period=every(10),
        resets=(reset(6),),
    )
    segments = burn_down(known, {1: 4, 4: 8, 9: 1, 11: 30, 12: -1}, 13, cuts=(12,)).segments
    shown: list[object] = [
        (
            (it.start, it.end),
            *(dict(it.balances_at_start), dict(it.burned), dict(it.balances_at_end)),
            (it.usage, it.overage_at_start, it.overage),
            [f"{end.reason} {end.grant_id or ''}".strip() for end in it.ends],
        )
        for it in segments
    ]

    def row(start: int, end: int) -> tuple[datetime, datetime]:
        return hour(start), hour(end)

    assert shown == [
        (row(0, 3), {"a": 10}, {"a": 4}, {"a": 6}, (4, 0, 0), ["GRANT_START b", "GRANT_START c"]),
        (
            row(3, 5),
            *({"a": 6, "b": 10, "c": 10}, {"a": 6, "b": 2}, {"a": 0, "b": 8, "c": 10}),
            (8, 0, 0),
            ["RECURRENCE b"],
        ),
        (
            row(5, 6),
            *({"a": 0, "b": 10, "c": 10}, {}, {"a": 0, "b": 10, "c": 10}),
            (0, 0, 0),
            ["RESET"],
        ),
        (
            row(6, 8),
            *({"a": 0, "b": 0, "c": 0}, {}, {"a": 0, "b": 0, "c": 0}),
            (0, 0, 0),
            ["GRANT_EXPIRY a"],
        ),
        (
            row(8, 10),
            *({"b": 0, "c": 0}, {}, {"b": 0, "c": 0}),
            (1, 0, 1),
            ["GRANT_VOID c", "PERIOD_END", "RECURRENCE b"],
        ),
        (row(10, 12), {"b": 10}, {"b": 10}, {"b": 0}, (30, 0, 20), ["CUT"]),
        (row(12, 13), {"b": 0}, {}, {"b": 0}, (-1, 20, 19), ["CUT"]),
    ]


def test_a_segment_burns_the_overage_it_was_handed() -> None:
    first, second = burn_down(facts(grant("a", 10, 5)), {1: 3, 6: 4}, 7).segments
    assert (first.overage_at_start, first.usage, first.overage) == decimals(0, 3, 3)
    assert first.ends == (End(EndReason.GRANT_START, "a"),)
    assert (second.overage_at_start, second.usage, second.overage) == decimals(3, 4, 0)
    assert second.balances_at_start == {"a": 10}
    assert second.burned == {"a": 7}


def test_distinct_counts_are_asked_for_since_the_period_began() -> None:
    known = facts(
        grant("a", 10, rolls=(10, 10)), grant("b", 5, 3), kind=DISTINCT, usage_period=every(10)
    )
    planned = plan(known, hour(15), cuts=[hour(12)])
    assert planned.intervals() == [
        Period(start=hour(0), end=hour(3)),
        Period(start=hour(0), end=hour(10)),
        Period(start=hour(10), end=hour(12)),
        Period(start=hour(10), end=hour(15)),
    ]
    # Seven in all, four of them by hour 3; then three, and none more.
    found = run(planned, [Decimal(4), Decimal(7), Decimal(3), Decimal(3)])
    assert [segment.usage for segment in found.segments] == [4, 3, 3, 0]
    assert (found.balance.usage, found.balance.remaining) == decimals(3, 7)


def test_a_level_is_asked_for_since_the_period_began() -> None:
    planned = plan(facts(grant("a", 5, 3), kind=LEVEL), hour(8))
    assert planned.intervals() == [
        Period(start=hour(0), end=hour(3)),
        Period(start=hour(0), end=hour(8)),
    ]


def test_a_flow_is_asked_for_by_phase() -> None:
    planned = plan(facts(grant("a", 5, 3)), hour(8), cuts=[hour(-1), hour(0), hour(8), hour(9)])
    assert planned.intervals() == [
        Period(start=hour(0), end=hour(3)),
        Period(start=hour(3), end=hour(8)),
    ]


def test_no_time_is_no_phase() -> None:
    planned = plan(facts(grant("a", 5)), hour(0))
    assert planned.phases == ()
    found = run(planned, [])
    assert found.segments == ()
    assert found.balance.remaining == 5


def test_as_many_quantities_as_phases() -> None:
    with pytest.raises(ValueError, match="argument"):
        run(plan(facts(), hour(1)), [])
    with pytest.raises(ValueError, match="argument"):
        run(plan(facts(), hour(1)), [ZERO, ZERO])


def test_the_order_of_facts_does_not_matter() -> None:
    grants = (grant("a", 3, priority=2), grant("b", 3), grant("c", 3, 5), grant("d", 3, 5))
    resets = (reset(6), reset(6, retain_anchor=False), reset(9))
    usage: dict[int, str | int] = {1: 2, 6: 5, 10: 4}
    results = {
        repr(burn_down(facts(*mixed, resets=some, usage_period=every(7)), usage, 20))
        for mixed in permutations(grants)
        for some in permutations(resets)
    }
    assert len(results) == 1


def test_going_on_from_a_snapshot() -> None:
    known = facts(grant("a", 10), grant("b", 10, 5), usage_period=every(20))
    usage: dict[int, str | int] = {1: 12, 6: 3}
    snapshot = burn_down(known, usage, 5).snapshot
    later = burn_down(known, usage, 8, snapshot=snapshot)
    whole = burn_down(known, usage, 8)
    assert later.balance == whole.balance
    assert later.snapshot == whole.snapshot
    assert later.segments == whole.segments[1:]


def test_a_snapshot_is_current_until_a_fact_takes_effect_at_it_or_before() -> None:
    snapshot = burn_down(facts(), {}, 5).snapshot
    assert [snapshot.is_current(hour(it)) for it in (4, 5, 6)] == [False, False, True]


def test_a_snapshot_that_other_grants_made_is_refused() -> None:
    snapshot = burn_down(facts(grant("a", 10)), {}, 5).snapshot
    for known in (facts(), facts(grant("b", 10)), facts(grant("a", 10), grant("b", 1, 5))):
        with pytest.raises(Conflict, match="out of date"):
            plan(known, hour(8), snapshot=snapshot)
    plan(facts(grant("a", 10), grant("b", 1, 6)), hour(8), snapshot=snapshot)


def test_times_and_facts_that_are_refused() -> None:
    with pytest.raises(InvalidInput):
        plan(facts(), hour(-1))
    with pytest.raises(InvalidInput):
        plan(facts(), hour(4), snapshot=burn_down(facts(), {}, 5).snapshot)
    with pytest.raises(InvalidInput):
        facts(resets=(reset(-1),))
    with pytest.raises(Conflict):
        facts(grant("a", 1), grant("a", 2))


def test_too_many_boundaries_are_refused() -> None:
    with pytest.raises(TooLarge):
        plan(facts(usage_period=every(1)), hour(20_001))
    assert len(plan(facts(usage_period=every(1)), hour(20_000)).phases) == 20_000
