"""The watch finds what usage, time, late events and new rules change, and loses nothing."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.notifications import NS, Account, MemoryBalances, MemoryResets, Office
from tests.support.reservations import StandingClock
from tollgate.core.errors import Transient
from tollgate.core.ids import new_ulid
from tollgate.notify.balance import Balance
from tollgate.notify.channel import parse_channel
from tollgate.notify.rule import FeatureName, parse_rule
from tollgate.notify.watch import Balances, Resets, Watch
from tollgate.platform.sql import Database

CALLS = FeatureName(id=new_ulid(), key="calls")


@pytest.fixture
def standing() -> StandingClock:
    clock = StandingClock()
    clock.instant = at(3, 10)
    return clock


@pytest.fixture
def office(database: Database, standing: StandingClock) -> Office:
    return Office(database, standing)


def at(month: int, day: int) -> datetime:
    return datetime(2026, month, day, tzinfo=UTC)


def watch(office: Office, balances: Balances, resets: Resets | None = None) -> int:
    made = Watch(
        office.rules,
        office.watches,
        balances,
        resets or MemoryResets(),
        office.reporter,
        office.clock,
    )
    return made.run(threading.Event())


def test_usage_is_found_and_told_once(office: Office) -> None:
    account = Account("one", granted=100)
    quiet = Account("two", granted=100)
    balances = MemoryBalances([account, quiet])
    office.rule(office.channel(), levels=[("usage_percentage", 50), ("usage_percentage", 100)])
    assert watch(office, balances) == 0
    balances.use(account, at(3, 9), 60)
    assert watch(office, balances) == 1
    assert watch(office, balances) == 0
    balances.use(account, at(3, 10), 40)
    assert watch(office, balances) == 1
    # All was looked at once, then only what had moved.
    assert [count for _, _, count in balances.looks] == [2, 1, 0, 1]


def test_time_alone_is_found(office: Office, standing: StandingClock) -> None:
    expiring = Account("one", granted=100, expires=at(3, 20))
    balances = MemoryBalances([expiring])
    office.rule(office.channel(), levels=[("balance_value", 0)])
    balances.use(expiring, at(3, 9), 10)
    assert watch(office, balances) == 0
    standing.instant = at(3, 19)
    assert watch(office, balances) == 0
    # The grant is gone, so nothing remains; nobody used anything.
    standing.instant = at(3, 20)
    assert watch(office, balances) == 1


def test_a_period_that_ended_is_looked_at_to_its_end(
    office: Office, standing: StandingClock
) -> None:
    account = Account("one", granted=100)
    balances = MemoryBalances([account])
    office.rule(office.channel(), levels=[("usage_value", 100)])
    assert watch(office, balances) == 0
    # The last hour of March, found in April.
    balances.use(account, at(3, 31), 100)
    standing.instant = at(4, 1)
    assert watch(office, balances) == 1
    balances.use(account, at(4, 1), 100)
    assert watch(office, balances) == 1
    starts = [event.payload.count('"usage":100') for event in office.told()]
    assert starts == [1, 1]


def test_a_late_event_tells_of_its_own_period(office: Office, standing: StandingClock) -> None:
    account = Account("one", granted=100)
    balances = MemoryBalances([account])
    office.rule(office.channel(), levels=[("usage_value", 100)])
    balances.use(account, at(3, 9), 60)
    assert watch(office, balances) == 0
    standing.instant = at(4, 9)
    assert watch(office, balances) == 0
    balances.use(account, at(3, 30), 40)
    assert watch(office, balances) == 1
    balances.use(account, at(3, 30), 40)
    assert watch(office, balances) == 0


def test_a_new_rule_sees_what_was_there_before(office: Office) -> None:
    account = Account("one", granted=100)
    balances = MemoryBalances([account])
    channel = office.channel()
    balances.use(account, at(3, 9), 60)
    office.rule(channel, levels=[("usage_value", 100)])
    assert watch(office, balances) == 0
    second = office.rule(channel, levels=[("usage_value", 50)])
    assert watch(office, balances) == 1
    assert office.told()[0].rule == second


def test_only_what_some_rule_is_about_is_looked_at(office: Office) -> None:
    channel = office.channel()
    balances = MemoryBalances([Account("one", granted=1)])
    assert watch(office, balances) == 0
    assert balances.looks == []
    office.rule(channel, features=[CALLS])
    watch(office, balances)
    office.rule(channel)
    watch(office, balances)
    assert balances.looks == [(frozenset({CALLS}), "", 0), (None, "", 1)]


class Meddling(MemoryBalances):
    """Something happens while it is looked at."""

    meddle: Any = None

    def look(self, *arguments: Any) -> Any:
        found = super().look(*arguments)
        meddle, self.meddle = self.meddle, None
        if meddle is not None:
            meddle()
        return found


def test_a_rule_that_comes_during_a_look_loses_nothing(office: Office) -> None:
    account = Account("one", granted=100)
    balances = Meddling([account])
    channel = office.channel()
    office.rule(channel, levels=[("usage_value", 100)])
    balances.use(account, at(3, 9), 60)
    balances.meddle = lambda: office.rule(channel, levels=[("usage_value", 50)])
    # The reports are made with the rules of their moment; the mark stays in any case.
    told = watch(office, balances)
    assert office.watches.get(NS).mark == ""
    assert told + watch(office, balances) == 1
    assert office.watches.get(NS).mark != ""


def test_a_failure_leaves_the_mark(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account("one", granted=100)
    balances = MemoryBalances([account])
    office.rule(office.channel(), levels=[("usage_value", 50)])
    assert watch(office, balances) == 0
    balances.use(account, at(3, 9), 60)
    report = office.reporter.report_balances

    def away(_balances: list[Balance]) -> Any:
        raise Transient("SQL is away")

    monkeypatch.setattr(office.reporter, "report_balances", away)
    with pytest.raises(Transient):
        watch(office, balances)
    monkeypatch.setattr(office.reporter, "report_balances", report)
    assert watch(office, balances) == 1


def test_a_house_that_fails_holds_up_no_other(office: Office) -> None:
    account = Account("one", granted=100)
    balances = MemoryBalances([account])
    office.rule(office.channel(), levels=[("usage_value", 50)])
    balances.use(account, at(3, 9), 60)

    class OneAway:
        def look(self, namespace: str, *rest: Any) -> Any:
            if namespace != NS:
                raise Transient(f"the usage of {namespace} is away")
            return balances.look(namespace, *rest)

    # Before ours, and after it.
    for namespace in ("aaa", "zzz"):
        wanted = {"type": "WEBHOOK", "name": "n", "url": "https://example.com"}
        channel = office.channels.create(namespace, parse_channel(wanted))
        members = {"type": "entitlements.balance.threshold", "name": "r"}
        levels = {"thresholds": [{"type": "usage_value", "value": 1}], "channels": [channel.id]}
        office.rules.create(namespace, parse_rule(members | levels))
    with pytest.raises(Transient, match="zzz"):
        watch(office, OneAway())
    assert len(office.told()) == 1
    assert office.watches.get(NS).mark != ""
    assert office.watches.get("aaa").mark == ""


def test_a_feature_that_counts_what_is_told_comes_to_an_end(office: Office) -> None:
    """What is told is usage too, and may reach a level: each link uses up a level for good."""
    spark, counting = Account("one", granted=100), Account("two", granted=100)
    balances = MemoryBalances([spark, counting])
    levels = [("usage_value", n) for n in range(1, 11)]
    rules = [office.rule(office.channel(), levels=levels) for _ in range(2)]
    balances.use(spark, at(3, 9), 1)
    told = total = watch(office, balances)
    while told:
        balances.use(counting, office.clock.now(), told)
        told = watch(office, balances)
        total += told
    # One each of the spark; then all levels of what counts, of both rules, and no more.
    assert total == len(rules) * (1 + len(levels))
    balances.use(counting, office.clock.now(), 100)
    assert watch(office, balances) == 0


def test_resets_are_told_from_where_the_last_look_ended(
    office: Office, standing: StandingClock
) -> None:
    resets = MemoryResets()
    began = standing.now()
    office.rule(office.channel(), type="entitlements.reset")
    standing.instant = at(3, 12)
    resets.reset("one", at(3, 11))
    resets.reset("before", at(3, 9))
    assert watch(office, MemoryBalances(), resets) == 1
    standing.instant = at(3, 13)
    resets.reset("two", at(3, 5), happened_at=at(3, 13))
    assert watch(office, MemoryBalances(), resets) == 1
    assert resets.looks == [began - timedelta(microseconds=1), at(3, 12)]
    assert office.watches.get(NS).resets_at == at(3, 13)


def test_a_look_at_resets_that_fails_is_made_again_and_holds_up_no_levels(
    office: Office, standing: StandingClock
) -> None:
    class Away(MemoryResets):
        def resets(self, *arguments: Any) -> Any:
            yield from super().resets(*arguments)
            raise Transient("usage is away")

    account = Account("one", granted=100)
    balances = MemoryBalances([account])
    balances.use(account, at(3, 9), 60)
    office.rule(office.channel(), type="entitlements.reset")
    office.rule(office.channel(), levels=[("usage_value", 50)])
    standing.instant = at(3, 12)
    away, back = Away(), MemoryResets()
    for each in (away, back):
        each.reset("one", at(3, 11))
    with pytest.raises(Transient):
        watch(office, balances, away)
    assert [event.kind for event in office.told()] == ["entitlements.balance.threshold"]
    assert office.watches.get(NS).resets_at is None
    assert watch(office, balances, back) == 1
    assert watch(office, balances, back) == 0


def test_two_watches_at_once_tell_once(office: Office, database: Database) -> None:
    account = Account("one", granted=100)
    balances = Meddling([account])
    office.rule(office.channel(), levels=[("usage_value", 50)])
    balances.use(account, at(3, 9), 60)
    other = Office(database, office.clock)
    balances.meddle = lambda: watch(other, balances)
    assert watch(office, balances) == 0
    assert len(office.told()) == 1
