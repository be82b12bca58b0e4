"""Channels, rules, events and reports in SQL."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from threading import Barrier
from typing import Any

import pytest

from tests.support.notifications import APRIL, NS, TOKENS, Office, balance
from tests.support.reservations import StandingClock
from tollgate.core.errors import Conflict, InvalidInput, NotFound
from tollgate.core.ids import new_ulid
from tollgate.customers.store import SubjectStore
from tollgate.customers.subject import parse_subjects
from tollgate.limits.feature import parse_feature
from tollgate.limits.feature_store import FeatureStore
from tollgate.notify.balance import Balance, EntitlementReset, InvoiceChange
from tollgate.notify.channel import Channel, parse_channel
from tollgate.notify.channel_store import ChannelListing, Order
from tollgate.notify.delivery import State
from tollgate.notify.rule import FeatureName, Kind, Rule, parse_rule
from tollgate.notify.rule_store import RuleListing
from tollgate.platform.sql import Database

CALLS = FeatureName(id=new_ulid(), key="calls")


@pytest.fixture
def standing() -> StandingClock:
    return StandingClock()


@pytest.fixture
def office(database: Database, standing: StandingClock) -> Office:
    return Office(database, standing)


def levels_told(office: Office) -> list[tuple[str, str, str]]:
    """Entitlement, type and value of each level that was told, digit for digit."""
    found = []
    for event in office.told():
        data = json.loads(event.payload, parse_float=Decimal)["data"]
        threshold = data["threshold"]
        found.append((data["entitlement"]["id"], threshold["type"], str(threshold["value"])))
    return sorted(found)


def changed(channel: Channel, **more: Any) -> Any:
    members = {"type": "WEBHOOK", "name": channel.name, "url": channel.url} | more
    return parse_channel(members)


def test_a_channel_is_made_replaced_and_deleted(office: Office, standing: StandingClock) -> None:
    made = office.channel(metadata={"a": "b"}, customHeaders={"X-Key": "k"})
    assert office.channels.get(NS, made.id.lower()) == made
    assert made.secret.startswith("whsec_")
    assert (made.previous_secret, made.disabled) == (None, False)
    standing.move(seconds=1)
    same = changed(made, metadata={"a": "b"}, customHeaders={"X-Key": "k"})
    assert office.channels.replace(NS, made.id, same) == made
    moved = office.channels.replace(NS, made.id, changed(made, name="other", disabled=True))
    assert (moved.name, moved.disabled, moved.headers, moved.secret) == (
        "other",
        True,
        {},
        made.secret,
    )
    assert moved.updated_at == made.updated_at + timedelta(seconds=1)
    for refused in (office.channels.get, office.channels.delete):
        with pytest.raises(NotFound):
            refused("other", made.id)
    office.channels.delete(NS, made.id)
    with pytest.raises(NotFound):
        office.channels.get(NS, made.id)
    with pytest.raises(NotFound):
        office.channels.replace(NS, made.id, same)


def test_a_secret_that_rotates_signs_with_the_one_before(
    office: Office, standing: StandingClock
) -> None:
    made = office.channel()
    secret = "whsec_" + "A" * 32
    after = office.channels.replace(NS, made.id, changed(made, signingSecret=secret))
    assert after.secrets_at(standing.now()) == (secret, made.secret)
    # Said again it is no change: the one before stays.
    assert office.channels.replace(NS, made.id, changed(made, signingSecret=secret)) == after
    standing.move(hours=24)
    assert after.secrets_at(standing.now()) == (secret,)


def test_channels_are_listed(office: Office, standing: StandingClock) -> None:
    made = []
    for number in range(4):
        made.append(office.channel(disabled=number == 1))
        standing.move(seconds=1)
    office.channels.delete(NS, made[2].id)

    def listed(**query: Any) -> tuple[list[int], int]:
        found, total = office.channels.list(NS, ChannelListing(**query))
        ids = [each.id for each in made]
        return [ids.index(each.id) for each in found], total

    assert listed() == ([0, 3], 2)
    assert listed(include_disabled=True) == ([0, 1, 3], 3)
    assert listed(include_deleted=True, include_disabled=True) == ([0, 1, 2, 3], 4)
    assert listed(descending=True, order=Order.CREATED_AT) == ([3, 0], 2)
    assert listed(page=2, page_size=1, order=Order.KIND) == ([3], 2)
    assert office.channels.list("other", ChannelListing()) == ((), 0)


def rule_input(rule: Rule, **more: Any) -> Any:
    members = {
        "type": rule.kind.value,
        "name": rule.name,
        "channels": list(rule.channels),
        "thresholds": [{"type": each.type.value, "value": each.value} for each in rule.levels],
    }
    return parse_rule(members | more)


def test_a_rule_is_made_replaced_and_deleted(office: Office, standing: StandingClock) -> None:
    first, second = office.channel(), office.channel()
    exact = "0.000000000000000001"
    made = office.rule(second, first, levels=[("NUMBER", exact)], features=[TOKENS, CALLS])
    assert made.channels == (second.id, first.id)
    assert made.features == (TOKENS, CALLS)
    assert [each.value for each in made.levels] == [Decimal(exact)]
    assert office.rules.get(NS, made.id.lower()) == made
    standing.move(seconds=1)
    assert office.rules.replace(NS, made.id, rule_input(made), made.features) == made
    moved = office.rules.replace(NS, made.id, rule_input(made, channels=[first.id]), [CALLS])
    assert (moved.channels, moved.features) == ((first.id,), (CALLS,))
    assert moved.updated_at > made.updated_at
    with pytest.raises(InvalidInput, match="cannot change"):
        office.rules.replace(NS, made.id, rule_input(made, type="entitlements.reset"))
    with pytest.raises(InvalidInput) as unknown:
        office.rules.replace(NS, made.id, rule_input(made, channels=[first.id, new_ulid()]))
    assert [fault.field for fault in unknown.value.faults] == ["channels.1"]
    # A refusal changes nothing.
    assert office.rules.get(NS, made.id) == moved
    with pytest.raises(NotFound):
        office.rules.get("other", made.id)
    office.rules.delete(NS, made.id)
    with pytest.raises(NotFound):
        office.rules.get(NS, made.id)


def test_a_channel_of_another_house_is_unknown(office: Office) -> None:
    made = office.channel()
    wanted = {"type": "invoice.created", "name": "r", "channels": [made.id]}
    with pytest.raises(InvalidInput):
        office.rules.create("other", parse_rule(wanted))


def test_a_channel_in_use_stays(office: Office) -> None:
    channel = office.channel()
    rule = office.rule(channel)
    with pytest.raises(Conflict, match=rule.id):
        office.channels.delete(NS, channel.id)
    office.rules.delete(NS, rule.id)
    office.channels.delete(NS, channel.id)
    with pytest.raises(InvalidInput):
        office.rule(channel)


def test_rules_are_listed(office: Office) -> None:
    one, two = office.channel(), office.channel()
    made = [
        office.rule(one, features=[TOKENS]),
        office.rule(two, features=[CALLS], disabled=True),
        office.rule(one, two, type="entitlements.reset"),
    ]

    def listed(**query: Any) -> list[int]:
        found, _ = office.rules.list(NS, RuleListing(**query))
        return [[rule.id for rule in made].index(each.id) for each in found]

    assert listed() == [0, 2]
    assert listed(include_disabled=True, descending=True) == [2, 1, 0]
    assert listed(order=Order.KIND, include_disabled=True) == [0, 1, 2]
    assert listed(channels=(two.id.lower(),), include_disabled=True) == [1, 2]
    assert listed(features=("tokens", "none")) == [0]
    assert listed(features=(CALLS.id.lower(),), include_disabled=True) == [1]
    assert office.rules.namespaces(Kind.BALANCE_THRESHOLD) == (NS,)
    assert office.rules.namespaces(Kind.INVOICE_CREATED) == ()


def test_each_level_is_told_once_in_a_period(office: Office) -> None:
    office.rule(office.channel(), levels=[("usage_percentage", n) for n in (50, 75, 100)])
    assert office.reporter.report_balance(balance(49)) == ()
    assert len(office.reporter.report_balance(balance(80))) == 2
    # Down, and up again: what was told was told.
    assert office.reporter.report_balance(balance(10)) == ()
    assert office.reporter.report_balance(balance(80)) == ()
    assert len(office.reporter.report_balance(balance("100.5"))) == 1
    of_first = [("entitlement-1", "usage_percentage", n) for n in ("100", "50", "75")]
    assert levels_told(office) == of_first
    # Another entitlement, and another period, are other things to tell.
    assert len(office.reporter.report_balance(balance(60, entitlement_id="second"))) == 1
    assert len(office.reporter.report_balance(balance(60, period_start=APRIL))) == 1
    assert len(office.told()) == 5


def test_a_level_under_its_older_name_is_the_same(office: Office) -> None:
    channel = office.channel()
    rule = office.rule(channel, levels=[("PERCENT", 50)])
    assert len(office.reporter.report_balance(balance(50))) == 1
    newer = [{"type": "usage_percentage", "value": Decimal("50.0")}]
    office.rules.replace(NS, rule.id, rule_input(rule, thresholds=newer))
    assert office.reporter.report_balance(balance(50)) == ()
    # Of another rule it is told.
    office.rule(channel, levels=[("PERCENT", 50)])
    assert len(office.reporter.report_balance(balance(50))) == 1


def test_only_rules_in_force_of_the_feature_tell(office: Office) -> None:
    channel = office.channel()
    office.rule(channel, features=[CALLS])
    office.rule(channel, disabled=True)
    office.rules.delete(NS, office.rule(channel).id)
    assert office.reporter.report_balance(balance(200)) == ()
    assert office.reporter.report_balances([]) == ()
    named = office.rule(channel, features=[FeatureName(id=new_ulid(), key="tokens")])
    (event_id,) = office.reporter.report_balance(balance(200))
    assert office.events.get(NS, event_id).rule == named


def test_an_event_goes_to_the_channels_that_are_there(office: Office) -> None:
    there, off = office.channel(), office.channel(disabled=True)
    office.rule(there, off)
    (event_id,) = office.reporter.report_balance(balance(100))
    event = office.events.get(NS, event_id.lower())
    assert [(each.channel_id, each.state) for each in event.deliveries] == [
        (there.id, State.PENDING)
    ]
    assert event.deliveries[0].next_attempt == event.created_at


def test_a_payload_tells_what_is_known(
    office: Office, database: Database, standing: StandingClock
) -> None:
    feature = FeatureStore(database, standing).create(
        NS, parse_feature({"key": "calls", "name": "Calls"})
    )
    SubjectStore(database, standing).upsert(NS, parse_subjects([{"key": "ada"}]))
    office.rule(office.channel(), levels=[("balance_value", "0.5")])
    exact = "12345678901234567890.123456789012345678"
    of_calls = balance(exact, exact, feature=FeatureName(id=feature.id, key="calls"))
    (event_id,) = office.reporter.report_balance(of_calls)
    event = office.events.get(NS, event_id)
    assert f'"usage":{exact}' in event.payload
    payload = json.loads(event.payload)
    assert (payload["id"], payload["type"]) == (event_id, "entitlements.balance.threshold")
    data = payload["data"]
    assert data["feature"]["name"] == "Calls"
    assert data["subject"]["key"] == "ada"
    assert data["value"]["hasAccess"] is False
    assert data["threshold"] == {"value": 0.5, "type": "balance_value"}
    assert "customer" not in data
    for query in ({"features": ("calls",)}, {"features": (feature.id.lower(),)}):
        assert [each.id for each in office.told(**query)] == [event_id]
    for subject in ("ada", data["subject"]["id"]):
        assert [each.id for each in office.told(subjects=(subject,))] == [event_id]
    assert office.told(features=("tokens",)) == office.told(subjects=("bob",)) == ()


def test_events_are_listed(office: Office, standing: StandingClock) -> None:
    one, two = office.channel(), office.channel()
    rules = [office.rule(one), office.rule(two)]
    for number in range(3):
        office.reporter.report_balance(balance(100, entitlement_id=f"e{number}"))
        standing.move(seconds=1)
    start = standing.now() - timedelta(seconds=3)
    assert len(office.told()) == 6
    assert len(office.told(rules=(rules[0].id,))) == 3
    assert len(office.told(channels=(two.id.lower(),))) == 3
    between = office.told(begin=start + timedelta(seconds=1), end=start + timedelta(seconds=2))
    assert {each.created_at for each in between} == {start + timedelta(seconds=1)}
    ids = [each.id for each in office.told()]
    assert [each.id for each in office.told(descending=True, page=2, page_size=2)] == [
        ids[3],
        ids[2],
    ]
    with pytest.raises(NotFound):
        office.events.get("other", ids[0])


def test_resets_and_invoices_are_told_once(office: Office) -> None:
    channel = office.channel()
    office.rule(channel, type="entitlements.reset", features=[TOKENS])
    office.rule(channel, type="invoice.updated")

    def report(begun: Balance) -> int:
        reset = EntitlementReset(balance=begun, happened_at=office.clock.now())
        return len(office.reporter.report_resets([reset]))

    assert office.reporter.report_resets([]) == ()
    assert report(balance()) == 1
    assert report(balance(5)) == 0
    assert report(balance(period_start=APRIL)) == 1
    assert report(balance(feature=CALLS)) == 0

    def change(name: str, kind: Kind = Kind.INVOICE_UPDATED) -> InvoiceChange:
        return InvoiceChange(
            namespace=NS,
            kind=kind,
            invoice_id="i",
            change=name,
            invoice={"id": "i", "total": "1.50"},
        )

    assert len(office.reporter.report_invoice(change("2"))) == 1
    assert office.reporter.report_invoice(change("2")) == ()
    assert len(office.reporter.report_invoice(change("3"))) == 1
    assert office.reporter.report_invoice(change("1", Kind.INVOICE_CREATED)) == ()
    last = json.loads(office.told()[-1].payload)
    assert (last["type"], last["data"]["total"]) == ("invoice.updated", "1.50")


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Does the same so many times, all beginning at one moment."""
    barrier = Barrier(count)

    def begin(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def test_who_finds_the_same_at_once_tells_it_once(office: Office) -> None:
    office.rule(office.channel(), levels=[("usage_value", n) for n in range(1, 11)])
    # Each finds the levels by another balance, in another order of entitlements.
    some = [balance(50, entitlement_id=f"e{n}") for n in range(3)]
    orders = [some, some[::-1], some[1:] + some[:1], some]
    written = at_once(4, lambda number: office.reporter.report_balances(orders[number]))
    assert sum(map(len, written)) == 30
    assert len({each for ids in written for each in ids}) == 30
    assert len(office.told()) == 30
    assert all(len(each.deliveries) == 1 for each in office.told())
