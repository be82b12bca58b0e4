"""Customers with a right to tokens, and the watch over them, on real stores."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.support.control_plane import meter_input
from tests.support.loading import NOON_US, Interruptible, Sent, Stage
from tests.support.notifications import NS, Office
from tests.support.reservations import StandingClock
from tests.support.stages import new_generation
from tollgate.core.clock import us_from_datetime
from tollgate.core.ids import new_ulid
from tollgate.customers.attribution_store import AttributionStore
from tollgate.customers.customer import parse_customer
from tollgate.customers.customer_store import CustomerStore
from tollgate.limits.entitled_subjects import EntitledSubjects
from tollgate.limits.entitlement import IssueAfterReset
from tollgate.limits.entitlement_record import EntitlementInput, EntitlementKind, RecurrenceInput
from tollgate.limits.entitlement_store import EntitlementStore
from tollgate.limits.facts_store import FactsStore
from tollgate.limits.feature import parse_feature
from tollgate.limits.feature_store import FeatureStore
from tollgate.limits.grant_store import GrantStore
from tollgate.limits.interval import Interval
from tollgate.limits.reset import Reset
from tollgate.limits.usage_reader import UsageReader
from tollgate.metering.store import MeterStore
from tollgate.notify.limit_balances import LimitBalances
from tollgate.notify.limit_resets import LimitResets
from tollgate.notify.rule import FeatureName, Kind, Rule
from tollgate.notify.watch import Watch
from tollgate.platform.clickhouse_schema import migrate_clickhouse
from tollgate.platform.disk import Disk
from tollgate.platform.segment_log import SegmentLog
from tollgate.platform.segment_state import new_state, write_state
from tollgate.platform.sql import Database


def at(month: int, day: int, hour: int = 0) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


class Shop:
    """Begins on March 10, 2026."""

    def __init__(self, database: Database, stage: Stage) -> None:
        self.clock = clock = StandingClock()
        clock.instant = at(3, 10)
        self.office = Office(database, clock)
        self.customers = CustomerStore(database, clock)
        self.entitlements = EntitlementStore(database, clock)
        self.grants = GrantStore(database, clock)
        MeterStore(database, clock).create(NS, meter_input())
        feature = {"key": "tokens", "name": "t", "meterSlug": "tokens_total"}
        made = FeatureStore(database, clock).create(NS, parse_feature(feature))
        self.tokens = FeatureName(id=made.id, key=made.key)
        facts = FactsStore(database)
        self._stage, self._loader, self._offset = stage, stage.loader(), 0
        self.balances = LimitBalances(
            stage.clickhouse,
            self.entitlements,
            facts,
            UsageReader(stage.clickhouse, None, 60),
            EntitledSubjects(database, clock),
            AttributionStore(database),
        )
        self.resets = LimitResets(database, self.entitlements, facts, self.balances)

    def entitle(self, **more: Any) -> str:
        """The id of a new customer's entitlement, of a hundred each month from its first on."""
        key = f"c{new_ulid().lower()}"
        self.customers.create(NS, parse_customer({"key": key, "name": key}))
        given: dict[str, Any] = {
            "usage_period": RecurrenceInput(interval=Interval(months=1), anchor=at(1, 1)),
            "issue_after_reset": IssueAfterReset(amount=Decimal(100)),
        }
        wanted = EntitlementInput(
            kind=EntitlementKind.METERED,
            feature="tokens",
            **given | more,
        )
        return self.entitlements.create(NS, key, wanted)[0].id

    def customer(self, entitlement_id: str) -> str:
        return self.entitlements.get_by_id(NS, entitlement_id)[0].definition.customer_id

    def reset(self, entitlement_id: str, effective: datetime | None = None) -> None:
        """By hand, now, or as of an earlier instant."""
        self.grants.reset(
            NS,
            self.customer(entitlement_id),
            entitlement_id,
            lambda now: Reset(effective_at=effective or now, retain_anchor=True),
        )

    def use(self, entitlement_id: str, *used: tuple[datetime, int]) -> None:
        """Loads events of its customer together: instant and tokens."""
        customer = self.customer(entitlement_id)
        sent = [
            Sent(
                id=new_ulid(),
                data=f'{{"tokens":{tokens}}}',
                time_us=us_from_datetime(time),
                type="prompt",
                subject=customer,
            )
            for time, tokens in used
        ]
        self._offset += 1
        self._loader.load([self._stage.record(self._offset, NOON_US, *sent)])

    def rule(self, **more: Any) -> Rule:
        kind = Kind.ENTITLEMENT_RESET.value
        return self.office.rule(self.office.channel(), type=kind, **more)

    def watch(self, instant: datetime | None = None) -> list[dict[str, Any]]:
        """The data of what a watch told."""
        self.clock.instant = instant or self.clock.instant
        office = self.office
        before = {event.id for event in office.told()}
        count = Watch(
            office.rules,
            office.watches,
            self.balances,
            self.resets,
            office.reporter,
            office.clock,
        ).run(threading.Event())
        found = [event for event in office.told() if event.id not in before]
        assert len(found) == count
        return [json.loads(event.payload)["data"] for event in found]

    def begun(self, instant: datetime | None = None) -> list[tuple[str, str]]:
        """Entitlement, and begin of the usage period, of what a watch told."""
        return periods(self.watch(instant))


def periods(told: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Entitlement, and begin of the usage period, of each."""
    found = [data["entitlement"] for data in told]
    return sorted((each["id"], each["currentUsagePeriod"]["from"]) for each in found)


@contextmanager
def opened_stage(engine_path: Path, folder: Path) -> Iterator[Stage]:
    """What usage is loaded by, into the engine of this process."""
    clickhouse = Interruptible(path=engine_path)
    migrate_clickhouse(clickhouse)
    folder.mkdir()
    write_state(folder, new_state(generation=new_generation()), Disk())
    clock = StandingClock()
    with closing(clickhouse), closing(SegmentLog(folder, clock)) as log:
        yield Stage(clickhouse, log, NS)
