"""Resets of entitlements, for the watch: of those that hold, and of those that have ended since.

Found by what an entitlement is, not by what anybody did at the time: so resets of periods that
ended while no process lived are found too.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from tollgate.limits.entitlement import MeteredEntitlement
from tollgate.limits.entitlement_parts import open_entitlements, open_facts
from tollgate.limits.entitlement_record import EntitlementKind, EntitlementRecord
from tollgate.limits.entitlement_rows import SELECTED, resets_of
from tollgate.limits.entitlement_store import EntitlementStore
from tollgate.limits.entitlement_tables import entitlements, record_of_row, resets
from tollgate.limits.facts_store import FactsStore
from tollgate.limits.reset import Reset
from tollgate.notify.balance import EntitlementReset
from tollgate.notify.limit_balances import LimitBalances, held_pages, open_limit_balances
from tollgate.notify.reset_times import reset_times
from tollgate.notify.rule import FeatureName
from tollgate.platform.database import open_database
from tollgate.platform.parts import Parts
from tollgate.platform.sql import Database

_PAGE = 500
_BACK = timedelta(minutes=1)
"""A reset is seen when it is committed, a while after the instant that it bears."""
_JUST_BEFORE = timedelta(microseconds=1)
_c = entitlements.c
Found = tuple[EntitlementRecord, tuple[Reset, ...]]


class LimitResets:
    """Reads; nothing is remembered."""

    def __init__(
        self,
        database: Database,
        entitlements: EntitlementStore,
        facts: FactsStore,
        balances: LimitBalances,
    ) -> None:
        self._database = database
        self._entitlements = entitlements
        self._facts = facts
        self._balances = balances

    def resets(
        self,
        namespace: str,
        features: frozenset[FeatureName] | None,
        since: datetime,
        at: datetime,
    ) -> Iterator[EntitlementReset]:
        """As `Resets.resets`."""
        keys = None if features is None else tuple(sorted(each.key for each in features))
        for page in held_pages(self._entitlements, namespace, keys, at):
            yield from self._resets(namespace, page, since, at)
        for ended in self._ended(namespace, keys, since, at):
            last = ended[0].definition.active_to or at
            yield from self._resets(namespace, [ended], since, last - _JUST_BEFORE)

    def _ended(
        self, namespace: str, keys: tuple[str, ...] | None, since: datetime, at: datetime
    ) -> Iterator[Found]:
        """Those that held after `since` and do not at `at`; deleted ones too."""
        query = SELECTED.where(
            _c.namespace == namespace,
            _c.kind == EntitlementKind.METERED.value,
            _c.active_to > since,
            _c.active_to <= at,
            _c.active_to > _c.active_from,
        )
        if keys is not None:
            query = query.where(_c.feature_key.in_(keys))
        after = ""
        while True:
            page = query.where(_c.id > after).order_by(_c.id).limit(_PAGE)
            with self._database.connect() as connection:
                records = [record_of_row(row) for row in connection.execute(page).mappings()]
                by_hand = resets_of(connection, [each.id for each in records])
            if not records:
                return
            yield from ((each, by_hand.get(each.id, ())) for each in records)
            after = records[-1].id

    def _resets(
        self, namespace: str, some: Sequence[Found], since: datetime, until: datetime
    ) -> Iterator[EntitlementReset]:
        """Those of entitlements that all hold at `until`."""
        asked = self._asked([record.id for record, _ in some], since - _BACK)
        found: dict[datetime, dict[str, datetime]] = {}
        for record, by_hand in some:
            assert isinstance(record.definition, MeteredEntitlement)
            times = set(reset_times(record.definition, by_hand, since, until))
            # Asked for lately, as of a time that was looked at before.
            times |= asked.get(record.id, {}).keys() - {record.definition.measure_usage_from}
            for time in times:
                happened = asked.get(record.id, {}).get(time, time)
                found.setdefault(time, {})[record.id] = happened
        if not found:
            return
        wanted = {name for names in found.values() for name in names}
        whose = {record.definition.customer_id for record, _ in some if record.id in wanted}
        facts = self._facts.of_customers(namespace, whose, until)
        known = {each.record.id: each for each in facts if each.record.id in wanted}
        for time, happened_at in sorted(found.items()):
            there = [known[name] for name in sorted(happened_at) if name in known]
            for balance in self._balances.at(namespace, there, time):
                yield EntitlementReset(
                    balance=balance, happened_at=happened_at[balance.entitlement_id]
                )

    def _asked(
        self, entitlement_ids: Collection[str], since: datetime
    ) -> Mapping[str, dict[datetime, datetime]]:
        """When resets by hand were asked for after an instant, by entitlement and reset time."""
        c = resets.c
        query = (
            sa.select(c.entitlement_id, c.effective_at, sa.func.min(c.created_at).label("first"))
            .where(c.entitlement_id.in_(sorted(entitlement_ids)), c.created_at > since)
            .group_by(c.entitlement_id, c.effective_at)
        )
        found: dict[str, dict[datetime, datetime]] = {}
        with self._database.connect() as connection:
            for row in connection.execute(query):
                found.setdefault(row.entitlement_id, {})[row.effective_at] = row.first
        return found


def open_limit_resets(parts: Parts) -> LimitResets:
    """The resets of this process."""
    return LimitResets(
        parts.get(open_database),
        parts.get(open_entitlements),
        parts.get(open_facts),
        parts.get(open_limit_balances),
    )
