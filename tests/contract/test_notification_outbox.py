"""Deliveries that are due: claimed by one, given back, taken over, asked for again."""

from datetime import timedelta

import pytest

from tests.contract.test_notification_stores import at_once
from tests.support.notifications import NS, Office, balance
from tests.support.reservations import StandingClock
from tollgate.core.errors import InvalidInput, NotFound
from tollgate.core.ids import new_ulid
from tollgate.notify.channel import Channel, parse_channel
from tollgate.notify.delivery import ATTEMPTS_KEPT, Attempt, Delivery, State, judge
from tollgate.notify.outbox_store import IN_FLIGHT_OF_CHANNEL_MAX, LEASE, Claim
from tollgate.notify.rule import parse_rule
from tollgate.platform.sql import Database


@pytest.fixture
def standing() -> StandingClock:
    return StandingClock()


@pytest.fixture
def office(database: Database, standing: StandingClock) -> Office:
    return Office(database, standing)


def tell(office: Office, count: int = 1, first: int = 0) -> list[str]:
    """Writes so many events."""
    balances = [balance(100, entitlement_id=f"e{first + n}") for n in range(count)]
    return list(office.reporter.report_balances(balances))


def ended(office: Office, claim: Claim, status: int) -> bool:
    """Writes down an attempt with this answer."""
    now = office.clock.now()
    attempt = Attempt(url="u", status=status, body="", error="", duration_ms=1, at=now)
    return office.outbox.end(claim, attempt, judge(attempt, claim.tries, now, 0))


def delivery(office: Office, event_id: str, channel: Channel) -> Delivery:
    found = office.events.get(NS, event_id).deliveries
    return next(each for each in found if each.channel_id == channel.id)


def test_a_delivery_is_claimed_once_and_ends(office: Office, standing: StandingClock) -> None:
    channel = office.channel()
    office.rule(channel)
    (event_id,) = tell(office)
    (claim,) = office.outbox.claim(10)
    assert (claim.event_id, claim.channel, claim.tries) == (event_id, channel, 0)
    assert claim.payload == office.events.get(NS, event_id).payload
    assert office.outbox.claim(10) == ()
    assert delivery(office, event_id, channel).state is State.SENDING
    assert (office.outbox.next_due(), office.outbox.waiting()) == (None, 1)
    assert ended(office, claim, 200)
    done = delivery(office, event_id, channel)
    assert (done.state, done.next_attempt) == (State.SUCCESS, None)
    assert [each.status for each in done.attempts] == [200]
    standing.move(days=9)
    assert (office.outbox.claim(10), office.outbox.waiting()) == ((), 0)


def test_a_failure_is_tried_again_until_the_last(office: Office, standing: StandingClock) -> None:
    channel = office.channel()
    office.rule(channel)
    (event_id,) = tell(office)
    due = None
    for tries in range(10):
        (claim,) = office.outbox.claim(10)
        assert claim.tries == tries
        assert ended(office, claim, 500)
        due = office.outbox.next_due()
        if due is not None:
            standing.instant = due - timedelta(microseconds=1)
            assert office.outbox.claim(10) == ()
            standing.instant = due
    failed = delivery(office, event_id, channel)
    assert (failed.state, failed.next_attempt, due) == (State.FAILED, None, None)
    assert len(failed.attempts) == 10
    assert "last attempt" in failed.reason


def test_a_lease_that_ends_is_taken_over(office: Office, standing: StandingClock) -> None:
    channel = office.channel()
    office.rule(channel)
    (event_id,) = tell(office)
    (dead,) = office.outbox.claim(10)
    standing.instant += LEASE - timedelta(microseconds=1)
    assert office.outbox.claim(10) == ()
    standing.instant += timedelta(microseconds=1)
    assert office.outbox.next_due() == dead.leased_until - LEASE
    (second,) = office.outbox.claim(10)
    assert (second.event_id, second.lease != dead.lease) == (event_id, True)
    # The first wakes up: what it says counts no more.
    assert not ended(office, dead, 500)
    assert delivery(office, event_id, channel).attempts == ()
    assert ended(office, second, 200)
    assert delivery(office, event_id, channel).state is State.SUCCESS


def test_two_workers_never_have_the_same(office: Office, database: Database) -> None:
    for _ in range(4):
        office.rule(office.channel())
    tell(office, 10)
    workers = [Office(database, office.clock) for _ in range(4)]
    claims = [each for some in at_once(4, lambda n: workers[n].outbox.claim(12)) for each in some]
    names = {(each.event_id, each.channel.id) for each in claims}
    assert len(names) == len(claims) > 0


def test_a_channel_has_few_under_way(office: Office) -> None:
    slow, quick = office.channel(), office.channel()
    office.rule(slow)
    tell(office, 20)
    office.rule(quick)
    tell(office, 2, first=100)
    claims = office.outbox.claim(100)
    of_slow = [each for each in claims if each.channel == slow]
    assert len(of_slow) == IN_FLIGHT_OF_CHANNEL_MAX
    assert len([each for each in claims if each.channel == quick]) == 2
    assert office.outbox.claim(100) == ()
    assert ended(office, of_slow[0], 200)
    assert [each.channel for each in office.outbox.claim(100)] == [slow]


def test_what_waits_for_a_channel_that_is_off_fails(office: Office) -> None:
    channel, other = office.channel(), office.channel()
    rule = office.rule(channel, other)
    (event_id,) = tell(office)
    members = {"type": "WEBHOOK", "name": "n", "url": channel.url, "disabled": True}
    office.channels.replace(NS, channel.id, parse_channel(members))
    office.rules.delete(NS, rule.id)
    office.channels.delete(NS, other.id)
    assert office.outbox.claim(10) == ()
    for each, reason in ((channel, "disabled"), (other, "deleted")):
        found = delivery(office, event_id, each)
        assert (found.state, found.next_attempt) == (State.FAILED, None)
        assert reason in found.reason


def test_a_receiver_that_is_gone_disables_its_channel(office: Office) -> None:
    channel = office.channel()
    office.rule(channel)
    (event_id,) = tell(office)
    (claim,) = office.outbox.claim(1)
    assert ended(office, claim, 410)
    gone = office.channels.get(NS, channel.id)
    assert (gone.disabled, gone.disabled_reason) == (True, "the receiver answered 410 Gone")
    assert delivery(office, event_id, channel).state is State.FAILED
    assert office.events.get(NS, tell(office, first=1)[0]).deliveries == ()
    # Enabled again, it is as any other; and what it was disabled for is no more.
    members = {"type": "WEBHOOK", "name": "n", "url": channel.url}
    back = office.channels.replace(NS, channel.id, parse_channel(members))
    assert (back.disabled, back.disabled_reason) == (False, None)


def test_a_url_that_changed_is_not_blamed(office: Office) -> None:
    channel = office.channel()
    office.rule(channel)
    tell(office)
    (claim,) = office.outbox.claim(1)
    members = {"type": "WEBHOOK", "name": "n", "url": "https://example.com/other"}
    office.channels.replace(NS, channel.id, parse_channel(members))
    assert ended(office, claim, 410)
    assert not office.channels.get(NS, channel.id).disabled


def test_an_event_is_sent_again(office: Office, standing: StandingClock) -> None:
    channel, other = office.channel(), office.channel()
    rule = office.rule(channel)
    (event_id,) = tell(office)
    (claim,) = office.outbox.claim(1)
    ended(office, claim, 200)
    assert office.outbox.resend(NS, event_id.lower(), [channel.id.lower()]) == 1
    asked = delivery(office, event_id, channel)
    assert (asked.state, asked.next_attempt) == (State.RESENDING, standing.now())
    (again,) = office.outbox.claim(1)
    assert (again.event_id, again.payload, again.tries) == (event_id, claim.payload, 0)
    ended(office, again, 500)
    found = delivery(office, event_id, channel)
    assert (found.state, [each.status for each in found.attempts]) == (State.SENDING, [200, 500])
    # A channel that came to the rule later may have it too.
    for refused in ([other.id], [new_ulid()]):
        with pytest.raises(InvalidInput):
            office.outbox.resend(NS, event_id, refused)
    members: dict[str, object] = {"name": "r", "channels": [channel.id, other.id]}
    levels = {"thresholds": [{"type": "usage_value", "value": 1}]}
    office.rules.replace(NS, rule.id, parse_rule(members | levels | {"type": rule.kind.value}))
    assert office.outbox.resend(NS, event_id, []) == 2
    assert delivery(office, event_id, other).state is State.RESENDING
    for namespace, name in (("other", event_id), (NS, new_ulid())):
        with pytest.raises(NotFound):
            office.outbox.resend(namespace, name, [])


def test_what_is_asked_for_while_it_is_sent_is_sent_once_more(office: Office) -> None:
    channel = office.channel()
    office.rule(channel)
    (event_id,) = tell(office)
    (claim,) = office.outbox.claim(1)
    office.outbox.resend(NS, event_id, [])
    # Not at the same time.
    assert office.outbox.claim(1) == ()
    assert ended(office, claim, 200)
    assert delivery(office, event_id, channel).state is State.RESENDING
    (again,) = office.outbox.claim(1)
    assert ended(office, again, 200)
    found = delivery(office, event_id, channel)
    assert (found.state, len(found.attempts)) == (State.SUCCESS, 2)


def test_the_last_attempts_are_kept(office: Office) -> None:
    channel = office.channel()
    office.rule(channel)
    (event_id,) = tell(office)
    for number in range(ATTEMPTS_KEPT + 2):
        office.outbox.resend(NS, event_id, [])
        (claim,) = office.outbox.claim(1)
        ended(office, claim, 200 + number)
    statuses = [each.status for each in delivery(office, event_id, channel).attempts]
    assert statuses == list(range(202, 202 + ATTEMPTS_KEPT))
