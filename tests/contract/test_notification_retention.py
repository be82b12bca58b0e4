"""Events are kept for a time, what they told is known for good, and nothing that waits is lost."""

import shutil
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.contract.test_notification_outbox import ended
from tests.contract.test_notification_stores import at_once
from tests.support.notifications import MARCH, NS, Office, balance
from tests.support.reservations import StandingClock
from tollgate.core.clock import SystemClock
from tollgate.core.errors import NotFound
from tollgate.notify import retain
from tollgate.notify.balance import EntitlementReset
from tollgate.notify.delivery import State
from tollgate.notify.log_outbox_store import LogOutboxStore
from tollgate.notify.new_event import new_event
from tollgate.notify.retain import Retention
from tollgate.notify.sample import sample_event
from tollgate.notify.tables import deliveries, told
from tollgate.platform.paths import INFRA
from tollgate.platform.sql import Database, migrate

KEPT = timedelta(days=90)


@pytest.fixture
def standing() -> StandingClock:
    return StandingClock()


@pytest.fixture
def office(database: Database, standing: StandingClock) -> Office:
    return Office(database, standing)


@pytest.fixture
def log(database: Database, standing: StandingClock) -> LogOutboxStore:
    return LogOutboxStore(database, standing)


def delete(office: Office, database: Database, kept: timedelta | None = KEPT) -> int:
    return Retention(database, office.clock, kept).run(threading.Event())


def tell(office: Office, log: LogOutboxStore, *names: str, usage: int = 100) -> list[str]:
    """An event for each entitlement, that the log has."""
    some = [balance(usage, entitlement_id=name) for name in names]
    ids = list(office.reporter.report_balances(some))
    log.end(ids)
    return ids


def send(office: Office, status: int = 200) -> None:
    for claim in office.outbox.claim(100):
        assert ended(office, claim, status)


def counted(database: Database, table: sa.Table) -> int:
    with database.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def test_what_is_old_goes_with_its_deliveries(
    office: Office, database: Database, log: LogOutboxStore, standing: StandingClock
) -> None:
    office.rule(office.channel(), office.channel())
    tell(office, log, "old")
    send(office)
    standing.instant += KEPT
    young = tell(office, log, "young")
    send(office)
    assert delete(office, database) == 0
    standing.move(seconds=1)
    assert delete(office, database, None) == 0
    assert delete(office, database) == 1
    assert delete(office, database) == 0
    assert [event.id for event in office.told()] == young
    assert (counted(database, deliveries), counted(database, told)) == (2, 1)


def test_nothing_goes_that_waits(
    office: Office, database: Database, log: LogOutboxStore, standing: StandingClock
) -> None:
    channel = office.channel()
    office.rule(channel)
    (unsent,) = tell(office, log, "unsent")
    standing.instant += KEPT + timedelta(days=1)
    assert delete(office, database) == 0
    send(office, 500)
    assert office.events.get(NS, unsent).deliveries[0].state is State.SENDING
    assert delete(office, database) == 0
    office.outbox.resend(NS, unsent, [])
    assert delete(office, database) == 0
    send(office)
    assert delete(office, database) == 1
    (unlogged,) = office.reporter.report_balance(balance(100, entitlement_id="unlogged"))
    send(office)
    standing.instant += KEPT + timedelta(days=1)
    assert delete(office, database) == 0
    log.end([unlogged])
    assert delete(office, database) == 1
    for event_id in (unsent, unlogged):
        with pytest.raises(NotFound):
            office.outbox.resend(NS, event_id, [])
    assert office.outbox.claim(10) == ()


def test_what_was_told_is_not_told_again(
    office: Office, database: Database, log: LogOutboxStore, standing: StandingClock
) -> None:
    channel = office.channel(disabled=True)
    rule = office.rule(channel, levels=[("usage_percentage", n) for n in (50, 100)])
    office.rule(channel, type="entitlements.reset")
    # A usage period of a century, and one that a late event comes to.
    tell(office, log, "life", "late", usage=60)
    reset = EntitlementReset(balance=balance(), happened_at=standing.now())
    log.end(office.reporter.report_resets([reset]))
    office.events.write([sample_event(rule, standing.now())])
    standing.instant += KEPT + timedelta(days=1)
    assert delete(office, database) == 4
    assert (office.told(), counted(database, told)) == ((), 3)
    assert tell(office, log, "life", "late", usage=60) == []
    assert office.reporter.report_resets([reset]) == ()
    # Whoever did not ask whether it is known writes nothing either.
    about = balance(60, entitlement_id="life")
    key = about.once_key(rule.id, rule.levels[0])
    assert office.events.write([new_event(rule, {}, about, key, standing.now())]) == ()
    assert office.told() == ()
    # Another level is news.
    assert len(tell(office, log, "life", usage=100)) == 1


def test_it_is_done_in_parts(
    office: Office,
    database: Database,
    log: LogOutboxStore,
    standing: StandingClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retain, "EVENTS_AT_ONCE", 2)
    monkeypatch.setattr(retain, "EVENTS_AT_A_RUN_MAX", 4)
    office.rule(office.channel(disabled=True))
    tell(office, log, *(f"e{n}" for n in range(7)))
    standing.instant += KEPT + timedelta(days=1)
    assert delete(office, database) == 4
    assert at_once(2, lambda _: delete(office, database)).count(0) <= 1
    assert (office.told(), counted(database, told)) == ((), 7)
    stopped = threading.Event()
    stopped.set()
    tell(office, log, "later")
    standing.instant += KEPT + timedelta(days=1)
    assert Retention(database, standing, KEPT).run(stopped) == 0


def test_what_is_asked_for_again_stays_or_is_gone(
    office: Office, database: Database, log: LogOutboxStore, standing: StandingClock
) -> None:
    office.rule(office.channel())
    ids = tell(office, log, *(f"e{n}" for n in range(8)))
    for _ in ids:
        send(office)
    standing.instant += KEPT + timedelta(days=1)

    def work(number: int) -> Any:
        if number == 0:
            return delete(office, database)
        try:
            return office.outbox.resend(NS, ids[number - 1], [])
        except NotFound:
            return 0

    deleted, *sent = at_once(1 + len(ids), work)
    assert deleted + sum(sent) == len(ids)
    assert len(office.told()) == counted(database, deliveries) == sum(sent)
    assert len(office.outbox.claim(100)) == sum(sent)


def test_an_older_schema_becomes_this_one(database_url: str, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(INFRA / "migrations" / "sql", older)
    for path in (older / "versions").glob("0*.py"):
        if path.name > "0013":
            path.unlink()
    migrate(database_url, older)
    database = Database(database_url)
    with database.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO notification_rules (id, namespace, kind, name, disabled, metadata,"
                " levels, created_at, updated_at) VALUES ('R', 'acme', 'entitlements.reset', 'r',"
                " false, '{}', '[]', 1, 1)"
            )
        )
        connection.execute(
            sa.text(
                "INSERT INTO notification_events (id, namespace, kind, rule_id, once_key, payload,"
                " annotations, created_at) VALUES ('E', 'acme', 'entitlements.reset', 'R', 'k',"
                " '{}', '{}', 1)"
            )
        )
    before = SystemClock().now()
    migrate(database_url)
    standing = StandingClock()
    office = Office(database, standing)
    assert office.rules.get(NS, "R").enabled_at >= before > MARCH
    # What was told before there was this is not for the log.
    assert LogOutboxStore(database, standing).next_due() is None
    assert [event.id for event in office.told()] == ["E"]
    assert delete(office, database) == 1
    database.dispose()
