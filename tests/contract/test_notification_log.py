"""What is told is an event of the log too: appended at least once, counted once, waited for."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.loading import Interruptible, Stage, load_all
from tests.support.notifications import NS, TOKENS, Office, balance
from tests.support.reservations import StandingClock
from tests.support.stages import new_generation
from tollgate.core.errors import Transient
from tollgate.core.ids import new_ulid
from tollgate.customers.customer import parse_customer
from tollgate.customers.customer_store import CustomerStore
from tollgate.events.append import append_events
from tollgate.metering.events_list import EventField, EventQuery, ListedEvent, list_events
from tollgate.metering.store import MeterStore
from tollgate.notify.append import Appended, LogAppender, open_log_appender
from tollgate.notify.cloud_event import cloud_event
from tollgate.notify.event_store import EventStore
from tollgate.notify.log_outbox_store import AGAIN, LEASE, LogOutboxStore
from tollgate.notify.rule import Kind
from tollgate.notify.sample import sample_event
from tollgate.platform.disk import Disk
from tollgate.platform.filters import Comparison, Operator
from tollgate.platform.parts import Parts, open_log
from tollgate.platform.segment_log import SegmentLog
from tollgate.platform.segment_state import new_state, write_state
from tollgate.platform.settings import Settings
from tollgate.platform.sql import Database

pytest_plugins = ["tests.support.stages"]


@pytest.fixture
def standing() -> StandingClock:
    return StandingClock()


@pytest.fixture
def office(database: Database, standing: StandingClock) -> Office:
    return Office(database, standing)


@pytest.fixture
def parts(
    database: Database, database_url: str, tmp_path: Path, standing: StandingClock
) -> Iterator[Parts]:
    del database  # is migrated
    settings = Settings(data=tmp_path, database_url=database_url)
    settings.log_path.mkdir()
    write_state(settings.log_path, new_state(generation=new_generation()), Disk())
    made = Parts(settings, standing)
    yield made
    made.close()


def append(parts: Parts) -> Appended:
    counts = Appended()
    parts.get(open_log_appender).append(threading.Event(), counts)
    return counts


def outbox(office: Office, database: Database) -> LogOutboxStore:
    return LogOutboxStore(database, office.clock)


def listed(clickhouse: Interruptible, meters: MeterStore, event_id: str) -> tuple[ListedEvent, ...]:
    condition = Comparison(operator=Operator.EQUAL, value=event_id)
    query = EventQuery(namespace=NS, filters=((EventField.ID, condition),))
    return list_events(clickhouse, meters, query, 60).events


def test_it_is_one_event_though_a_process_died_before_it_was_marked(
    office: Office,
    database: Database,
    parts: Parts,
    standing: StandingClock,
    interruptible: Interruptible,
) -> None:
    class Dying(LogOutboxStore):
        def end(self, event_ids: Any) -> None:
            raise Transient(f"died with {len(event_ids)} on disk")

    office.rule(office.channel())
    (event_id,) = office.reporter.report_balance(balance(100, entitlement_id=new_ulid()))
    dying = LogAppender(
        Dying(database, standing), lambda namespace, raws: append_events(parts, namespace, raws)
    )
    with pytest.raises(Transient, match="died with 1"):
        dying.append(threading.Event(), Appended())
    waiting = outbox(office, database)
    assert waiting.waiting() == 1
    # Whoever died had claimed it: its turn ends.
    assert append(parts) == Appended()
    standing.instant += LEASE
    assert append(parts) == Appended(appended=1)
    assert (waiting.waiting(), waiting.next_due()) == (0, None)
    stage = Stage(interruptible, parts.get(open_log), NS)  # type: ignore[arg-type]
    records = stage.log.read(0, -1, 1 << 20)
    assert len(records) == 2
    load_all(stage.loader(), records)
    assert [sum(each) for each in zip(*stage.ledger().values(), strict=True)] == [2, 1, 1, 0, 0]
    (event,) = listed(interruptible, MeterStore(database, standing), event_id)
    assert (event.source, event.type) == (
        "tollgate/notify",
        "tollgate.entitlements.balance.threshold",
    )
    stored = office.events.get(NS, event_id)
    assert event.data == stored.payload
    assert event.time_us == int(stored.created_at.timestamp() * 1_000_000)


def test_a_customer_is_its_subject(
    office: Office, database: Database, standing: StandingClock
) -> None:
    customers = CustomerStore(database, standing)
    office.rule(office.channel())
    bob = {"name": "n", "usageAttribution": {"subjectKeys": ["bob"]}}
    keyed = customers.create(NS, parse_customer({"key": "acme-inc", "name": "n"}))
    nameless = customers.create(NS, parse_customer(bob))
    for customer_id, subject in ((keyed.id, "acme-inc"), (nameless.id, nameless.id), ("x", "ada")):
        about = balance(100, customer_id=customer_id, entitlement_id=customer_id)
        (event_id,) = office.reporter.report_balance(about)
        stored = office.events.get(NS, event_id)
        raw = cloud_event(event_id, stored.kind, stored.created_at, stored.payload)
        assert json.loads(raw)["subject"] == subject
    # An invoice of nobody that is known is still an event.
    raw = cloud_event("i", Kind.INVOICE_CREATED, standing.now(), '{"data":{"total":1e400}}')
    found = json.loads(raw)
    assert (found["subject"], found["type"]) == ("i", "tollgate.invoice.created")
    assert b'"total":1e400' in raw


def test_while_the_log_is_away_it_waits(
    office: Office, database: Database, parts: Parts, standing: StandingClock
) -> None:
    office.rule(office.channel())
    (event_id,) = office.reporter.report_balance(balance(100))
    waiting = outbox(office, database)
    # Another process has the log.
    with closing(SegmentLog(parts.settings.log_path, standing)), pytest.raises(Transient):
        append(parts)
    assert waiting.next_due() == standing.now() + AGAIN
    assert [claim.event_id for claim in office.outbox.claim(10)] == [event_id]
    assert append(parts) == Appended()
    standing.instant += AGAIN
    assert append(parts) == Appended(appended=1)
    assert waiting.waiting() == 0


def test_what_the_log_can_never_take_says_so(
    office: Office, database: Database, parts: Parts, standing: StandingClock
) -> None:
    office.rule(office.channel())
    huge = {"id": "e", "metadata": "x" * parts.settings.event_bytes_max}
    bad, good = office.reporter.report_balances(
        [balance(100, entitlement_id="a", entitlement=huge), balance(100, entitlement_id="b")]
    )
    assert append(parts) == Appended(appended=1, refused=1)
    assert outbox(office, database).waiting() == 0
    why = office.events.get(NS, bad).annotations["notification.log.refused"]
    assert "bytes" in str(why)
    assert office.events.get(NS, good).annotations == {}
    standing.move(days=1)
    assert append(parts) == Appended()


def test_two_workers_share_the_work(office: Office, database: Database) -> None:
    office.rule(office.channel())
    some = [balance(100, entitlement_id=f"e{n}") for n in range(5)]
    told = office.reporter.report_balances(some)
    first, second = outbox(office, database), outbox(office, database)
    claims = [first.claim(3), second.claim(3), first.claim(3)]
    assert [len(each) for each in claims] == [3, 2, 0]
    assert sorted(each.id for some in claims for each in some) == sorted(told)
    # One that was slow appended what another has marked: it stays so.
    second.end(told)
    first.put_off(told)
    assert first.next_due() is None


def test_only_what_happened_goes_there_and_only_if_wanted(
    office: Office, database: Database, standing: StandingClock
) -> None:
    rule = office.rule(office.channel(), features=[TOKENS])
    waiting = outbox(office, database)
    office.events.write([sample_event(rule, standing.now())])
    assert waiting.waiting() == 0
    office.reporter._events = EventStore(database, to_log=False)
    office.reporter.report_balance(balance(100, entitlement_id="off"))
    assert waiting.waiting() == 0
    office.reporter._events = office.events
    office.reporter.report_balance(balance(100, entitlement_id="on"))
    assert waiting.waiting() == 1
    standing.instant -= timedelta(seconds=1)
    assert waiting.claim(1) == ()
