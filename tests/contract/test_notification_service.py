"""The service: a watch that is rung tells, and what was told is on its way at once."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.notifications import MARCH, NS, Account, MemoryBalances, Office, balance
from tests.support.receiver import Receiver, receiving
from tests.support.reservations import StandingClock
from tests.support.server import wait_until
from tollgate.notify import service
from tollgate.notify.append import Appended, open_log_outbox
from tollgate.notify.doorbell import open_doorbell
from tollgate.notify.log_outbox_store import AGAIN
from tollgate.notify.report import open_reporter
from tollgate.notify.service import NotifyService
from tollgate.platform.database import open_database
from tollgate.platform.parts import Parts, open_layouts, open_log
from tollgate.platform.segment_log import SegmentLog
from tollgate.platform.settings import Settings
from tollgate.platform.sql import migrate


@pytest.fixture
def clock() -> StandingClock:
    made = StandingClock()
    made.instant = MARCH + timedelta(days=9)
    return made


@pytest.fixture
def parts(tmp_path: Path, clock: StandingClock) -> Iterator[Parts]:
    settings = Settings(data=tmp_path, notify_private_addresses=True)
    migrate(settings.sql_url)
    made = Parts(settings, clock)
    yield made
    made.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def test_a_watch_that_is_rung_is_heard_by_the_receiver(
    parts: Parts, clock: StandingClock, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account("one", granted=100)
    balances = MemoryBalances([account])
    balances.use(account, MARCH, 80)
    monkeypatch.setattr(service, "open_limit_balances", lambda _parts: balances)
    office = Office(parts.get(open_database), clock)
    office.rule(office.channel(receiver.url), levels=[("usage_percentage", 80)])

    async def live() -> list[str]:
        made = NotifyService(parts)
        await made.start()
        await made.tend()
        await asyncio.to_thread(receiver.wait_for, 1)
        # Whoever reports in this process rings too.
        reporter = parts.get(open_reporter)
        await asyncio.to_thread(reporter.report_balance, balance(90, entitlement_id="two"))
        await asyncio.to_thread(receiver.wait_for, 2)
        await made.stop()
        return [sample.name for family in made.metrics() for sample in family.samples]

    names = asyncio.run(live())
    told = [(each.payload["data"]["value"]["usage"]) for each in receiver.received]
    assert told == [80, 90]
    assert "tollgate_notify_waiting" in names
    assert {event.deliveries[0].state for event in office.told()} == {"SUCCESS"}


def test_what_is_old_is_deleted_by_the_schedule(
    parts: Parts, clock: StandingClock, receiver: Receiver
) -> None:
    office = Office(parts.get(open_database), clock)
    office.rule(office.channel(receiver.url))
    office.reporter.report_balance(balance(100))

    async def live() -> None:
        made = NotifyService(parts)
        for worker in made._workers:
            await asyncio.to_thread(worker.work)
        clock.move(days=parts.settings.notify_retention_days)
        await made._begin_watch()
        assert len(office.told()) == 1
        clock.move(seconds=1)
        await made._begin_watch()
        assert (office.told(), made._deleted) == ((), 1)

    asyncio.run(live())


def test_a_worker_sleeps_until_something_is_due(
    parts: Parts, clock: StandingClock, receiver: Receiver
) -> None:
    made = NotifyService(parts)
    deliver, append = made._workers
    assert (deliver.pause_ms(), append.pause_ms()) == (60_000, 60_000)
    office = Office(parts.get(open_database), clock)
    office.rule(office.channel(receiver.url))
    (event_id,) = office.reporter.report_balance(balance(100))
    # Due, but perhaps another's turn: no busy loop.
    assert deliver.pause_ms() == 1000
    clock.move(seconds=-5)
    assert deliver.pause_ms() == 5001
    clock.move(days=-5)
    assert deliver.pause_ms() == 60_000
    assert append.pause_ms() == 60_000
    clock.move(days=5, seconds=5)
    # The log is nobody's turn but that of whoever claims.
    assert append.pause_ms() == 1000
    assert office.events.get(NS, event_id).payload.count("100") >= 1


def test_a_log_that_is_away_holds_up_no_webhook(
    parts: Parts, clock: StandingClock, receiver: Receiver
) -> None:
    office = Office(parts.get(open_database), clock)
    office.rule(office.channel(receiver.url))

    async def live() -> None:
        made = NotifyService(parts)
        # Another process has it.
        with closing(SegmentLog(parts.settings.log_path, clock)):
            await made.start()
            reporter = parts.get(open_reporter)
            await asyncio.to_thread(reporter.report_balance, balance(100))
            await asyncio.to_thread(receiver.wait_for, 1)
            await asyncio.to_thread(wait_until, lambda: made._failures["append"])
        waiting = parts.get(open_log_outbox)
        assert waiting.waiting() == 1
        clock.instant += AGAIN
        parts.get(open_doorbell).ring()
        await asyncio.to_thread(wait_until, lambda: not waiting.waiting())
        await made.stop()
        assert made._appended == Appended(appended=1)

    asyncio.run(live())
    assert parts.get(open_log).end(0) == 0


def test_no_log_is_opened_while_there_is_nothing_for_it(
    parts: Parts, clock: StandingClock, receiver: Receiver
) -> None:
    office = Office(parts.get(open_database), clock)
    office.rule(office.channel(receiver.url))

    async def live() -> None:
        made = NotifyService(parts)
        await made.start()
        for worker in made._workers:
            await asyncio.to_thread(worker.work)
        assert not parts.has(open_layouts)
        await made.stop()

    asyncio.run(live())


def test_nothing_is_watched_where_there_is_nothing_to_watch(parts: Parts) -> None:
    async def live() -> None:
        made = NotifyService(parts)
        await made.start()
        await made.tend()
        await asyncio.to_thread(wait_until, lambda: made._watching and made._watching.done())
        await made.stop()
        assert made._failures == {"watch": 0, "deliver": 0, "append": 0, "delete": 0}

    asyncio.run(live())
