"""What holds for every burn-down; and that the engine says what the slow way says."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tests.support.limits import ZERO, burn_down, decimals, every, facts, hour, reset
from tests.support.limits import grant as named_grant
from tests.support.naive_burn_down import Naive, NaiveLevel
from tollgate.limits.burn_down import BurnDown, EndReason, Segment
from tollgate.limits.entitlement import MeteredEntitlement
from tollgate.limits.entitlement_record import usage_period_at
from tollgate.limits.grant import Grant
from tollgate.limits.plan import Facts
from tollgate.limits.usage_kind import UsageKind

HOURS = 40
FLOW, DISTINCT, LEVEL = UsageKind

hours = st.integers(0, HOURS)
amounts = st.integers(0, 15)


@st.composite
def grants(draw: st.DrawFn) -> tuple[Grant, ...]:
    made = []
    for name in "abcde"[: draw(st.integers(0, 5))]:
        begins = draw(st.integers(-5, HOURS))
        voided = draw(st.none() | hours)
        recurs = draw(st.none() | st.tuples(st.integers(1, 12), st.integers(-9, 9)))
        made.append(
            named_grant(
                name,
                draw(st.integers(1, 12)),
                begins,
                draw(st.none() | st.integers(1, 30)),
                (draw(amounts), draw(amounts)),
                priority=draw(st.integers(1, 3)),
                created_at=hour(draw(st.integers(0, 2))),
                recurrence=None if recurs is None else every(recurs[0], recurs[1]),
                voided_at=None if voided is None else hour(voided),
            )
        )
    return tuple(made)


resets = st.builds(
    reset, hours, retain_anchor=st.booleans(), preserve_overage=st.none() | st.booleans()
)


@st.composite
def known_facts(draw: st.DrawFn, kind: UsageKind = FLOW) -> Facts:
    return facts(
        *draw(grants()),
        kind=kind,
        usage_period=every(draw(st.integers(3, 30)), draw(st.integers(-9, 9))),
        resets=tuple(draw(st.lists(resets, max_size=3))),
        preserve_overage=draw(st.booleans()),
    )


usages = st.dictionaries(st.integers(0, HOURS - 1), st.integers(-12, 25), max_size=12)
rises = st.dictionaries(st.integers(0, HOURS - 1), st.integers(0, 25), max_size=12)
Usage = dict[int, int]


def burn(known: Facts, usage: Usage, until: int, cuts: Sequence[int] = ()) -> BurnDown:
    return burn_down(known, usage, until, cuts=tuple(cuts))


def is_reset(segment: Segment) -> bool:
    return any(end.reason in {EndReason.RESET, EndReason.PERIOD_END} for end in segment.ends)


def merged(segments: Sequence[Segment]) -> list[Segment]:
    """Segments as if there had been no cuts."""
    found: list[Segment] = []
    for segment in segments:
        if found and all(end.reason is EndReason.CUT for end in found[-1].ends):
            before = found.pop()
            found.append(
                replace(
                    segment,
                    start=before.start,
                    usage=before.usage + segment.usage,
                    balances_at_start=before.balances_at_start,
                    burned=added(before.burned, segment.burned),
                    overage_at_start=before.overage_at_start,
                )
            )
        else:
            found.append(segment)
    return found


def added(one: Mapping[str, Decimal], other: Mapping[str, Decimal]) -> dict[str, Decimal]:
    names = {*one, *other}
    sums = {name: one.get(name, ZERO) + other.get(name, ZERO) for name in names}
    return {name: amount for name, amount in sums.items() if amount}


@given(known_facts(), usages, hours)
def test_it_is_what_the_slow_way_says(known: Facts, usage: Usage, until: int) -> None:
    slow = Naive(known).at(until, usage)
    found = burn(known, usage, until).balance
    assert dict(found.by_grant) == {it.grant.id: it.holds for it in slow.purses}
    assert (found.usage, found.overage) == decimals(slow.usage, max(slow.uncovered, 0))
    assert found.total_available == found.remaining + slow.spent


@given(known_facts(DISTINCT), rises, hours)
def test_distinct_counts_burn_like_a_flow_of_what_is_new(
    known: Facts, usage: Usage, until: int
) -> None:
    found = burn(known, usage, until)
    flow = burn(replace(known, kind=FLOW), usage, until)
    assert (found.balance, found.segments) == (flow.balance, flow.segments)


@given(known_facts(LEVEL), rises, hours)
def test_a_level_is_what_the_slow_way_says(known: Facts, usage: Usage, until: int) -> None:
    by_grant, overage = NaiveLevel(known).at(until, usage)
    found = burn(known, usage, until).balance
    assert dict(found.by_grant) == by_grant
    assert found.overage == overage
    assert found.total_available == found.remaining + found.usage - found.overage


@given(known_facts() | known_facts(DISTINCT), usages, hours)
def test_burned_and_overage_are_usage(known: Facts, usage: Usage, until: int) -> None:
    found = burn(known, usage, until)
    in_period = ZERO
    for segment in found.segments:
        burned = sum(segment.burned.values(), ZERO)
        assert segment.overage_at_start + segment.usage == burned + segment.overage
        assert segment.balances_at_end == {
            name: amount - segment.burned.get(name, ZERO)
            for name, amount in segment.balances_at_start.items()
        }
        assert all(segment.burned.values())
        assert all(amount >= 0 for amount in segment.balances_at_end.values())
        in_period = ZERO if is_reset(segment) else in_period + segment.usage
    balance = found.balance
    assert balance.usage == in_period
    assert balance.remaining == sum(balance.by_grant.values(), ZERO)
    assert balance.last_reset <= balance.at < balance.next_reset


@given(known_facts(), usages, hours)
def test_a_reset_keeps_and_drops_what_it_says(known: Facts, usage: Usage, until: int) -> None:
    segments = burn(known, usage, until).segments
    by_id = {grant.id: grant for grant in known.grants}
    for before, after in pairwise(segments):
        if not is_reset(before):
            continue
        topped_up = {it.grant_id for it in before.ends if it.reason is EndReason.RECURRENCE}
        for name, amount in after.balances_at_start.items():
            if name in before.balances_at_end and name not in topped_up:
                grant = by_id[name]
                low, high = grant.min_rollover, grant.max_rollover
                assert amount == min(high, max(before.balances_at_end[name], low))
        assert after.overage_at_start in {ZERO, max(before.overage, ZERO)}
        automatic = any(end.reason is EndReason.PERIOD_END for end in before.ends)
        if automatic:
            kept = known.preserve_overage_at_reset
            assert after.overage_at_start == (max(before.overage, ZERO) if kept else ZERO)


@given(st.sampled_from(UsageKind).flatmap(known_facts), rises, hours, st.lists(hours, max_size=5))
def test_further_cuts_change_nothing(
    known: Facts, usage: Usage, until: int, cuts: list[int]
) -> None:
    whole, cut = burn(known, usage, until), burn(known, usage, until, cuts)
    assert cut.balance == whole.balance
    assert cut.snapshot == whole.snapshot
    if known.kind is not LEVEL:
        assert merged(cut.segments) == list(whole.segments)


@given(known_facts(), usages, hours, st.lists(hours, max_size=5))
def test_further_cuts_change_nothing_where_usage_is_given_back(
    known: Facts, usage: Usage, until: int, cuts: list[int]
) -> None:
    whole, cut = burn(known, usage, until), burn(known, usage, until, cuts)
    assert (cut.balance, cut.snapshot) == (whole.balance, whole.snapshot)
    assert merged(cut.segments) == list(whole.segments)


@given(st.sampled_from(UsageKind).flatmap(known_facts), usages, hours, st.lists(hours, max_size=4))
def test_going_on_from_any_snapshots_changes_nothing(
    known: Facts, usage: Usage, until: int, stops: list[int]
) -> None:
    whole = burn(known, usage, until, stops)
    part = burn(known, usage, 0)
    segments: list[Segment] = []
    for stop in (*sorted({it for it in stops if it < until}), until):
        part = burn_down(known, usage, stop, snapshot=part.snapshot)
        segments += part.segments
    assert segments == list(whole.segments)
    assert (part.balance, part.snapshot) == (whole.balance, whole.snapshot)


@given(known_facts(), usages, hours, st.randoms())
def test_the_order_of_facts_does_not_matter(
    known: Facts, usage: Usage, until: int, chance: Random
) -> None:
    mixed = replace(
        known,
        grants=tuple(chance.sample(known.grants, len(known.grants))),
        resets=tuple(chance.sample(known.resets, len(known.resets))),
    )
    assert burn(mixed, usage, until) == burn(known, usage, until)


@given(known_facts(), hours)
def test_the_usage_period_needs_no_usage(known: Facts, until: int) -> None:
    """What is told from resets and the calendar alone is what the fold finds."""
    definition = MeteredEntitlement(
        id="e",
        customer_id="c",
        feature_key="f",
        created_at=hour(0),
        active_from=hour(0),
        usage_period=known.usage_period,
        measure_usage_from=known.measure_usage_from,
    )
    balance = burn(known, {}, until).balance
    period, recurrence = usage_period_at(definition, known.resets, hour(until))
    assert (period.start, period.end) == (balance.last_reset, balance.next_reset)
    assert recurrence.period_at(hour(until)).end == period.end
