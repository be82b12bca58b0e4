"""A balance that is kept by adding says what folding all usage from the beginning says."""

from collections.abc import Mapping
from decimal import Decimal
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tests.property.test_burn_down_property import HOURS, burn, known_facts, usages
from tests.support.limits import decimals, every, facts, grant, hour
from tollgate.limits.plan import Facts, plan
from tollgate.limits.running_balance import RunningBalance, begin, phase_start

Usage = Mapping[int, int]


def quantities(known: Facts, until_hour: int, usage: Usage) -> tuple[list[Decimal], Decimal]:
    """Of each phase before the one that an hour is in, and of that one."""
    start = phase_start(known, hour(until_hour))
    before = [
        Decimal(sum(n for at, n in usage.items() if each.start <= hour(at) < each.end))
        for each in plan(known, start).intervals()
    ]
    return before, Decimal(sum(n for at, n in usage.items() if hour(at) >= start))


def started(known: Facts, now: int, usage: Usage) -> RunningBalance:
    before, present = quantities(known, now, usage)
    return begin(known, phase_start(known, hour(now)), before, present)


@given(known_facts(), usages, st.integers(0, HOURS - 1), st.integers(0, 2**32))
def test_added_is_folded(known: Facts, usage: dict[int, int], first: int, seed: int) -> None:
    random = Random(seed)
    arrives = {at: max(at + 1, first + random.randrange(6)) for at in usage}
    seen = {at: n for at, n in usage.items() if arrives[at] <= first}
    running = started(known, first, seen)
    for now in range(first, HOURS):
        for at, n in usage.items():
            if arrives[at] == now and at not in seen:
                seen[at] = n
                if not running.add(hour(at), hour(at + 1), Decimal(n)):
                    running = started(known, now, seen)
        found, expected = running.balance(hour(now)), burn(known, seen, now).balance
        assert found == expected
        assert running.valid_until > hour(now)


def test_usage_that_comes_early_waits_for_its_phase() -> None:
    known = facts(grant("a", 10, rolls=(10, 10)), usage_period=every(10), preserve_overage=False)
    running = started(known, 3, {1: 4})
    assert running.add(hour(12), hour(12), Decimal(3))
    assert running.has_early_usage
    assert running.balance(hour(5)).remaining == 6
    assert running.balance(hour(13)).remaining == 7
    assert not running.has_early_usage


def test_what_spans_two_phases_has_to_be_read() -> None:
    known = facts(grant("a", 10, 5), grant("b", 10), usage_period=every(10))
    running = started(known, 3, {})
    assert not running.add(hour(4), hour(6), Decimal(3))
    assert running.balance(hour(3)).remaining == 10
    assert running.balance(hour(7)).by_grant == dict(zip("ba", decimals(10, 10), strict=True))
    assert not running.add(hour(-1), hour(0), Decimal(3))
