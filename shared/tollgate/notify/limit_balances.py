"""Balances of entitlements, for the watch: which may have moved since an earlier look.

The mark of a look is its instant and the vector of the log that was loaded. What moved since is
what events and corrections beyond that vector touch, what changed in SQL, and what time changed.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile

from tollgate.core.clock import datetime_from_us, us_from_datetime
from tollgate.core.errors import TooLarge
from tollgate.customers.api_customers_v1 import open_customers
from tollgate.customers.attribution_store import AttributionStore
from tollgate.events.as_of import vector_now
from tollgate.events.position import Token, vector_from_text
from tollgate.limits.entitled_subjects import EntitledSubjects
from tollgate.limits.entitlement_parts import (
    open_entitled_subjects,
    open_entitlements,
    open_facts,
    open_usage_reader,
)
from tollgate.limits.entitlement_record import EntitlementKind, EntitlementRecord, usage_period_at
from tollgate.limits.entitlement_store import EntitlementListing, EntitlementStore
from tollgate.limits.evaluate import limits_at
from tollgate.limits.facts_store import FactsStore, Known
from tollgate.limits.plan import plan
from tollgate.limits.reset import Reset
from tollgate.limits.usage_reader import UsageReader
from tollgate.limits.wire_entitlements_v1 import subject_entitlement_body
from tollgate.metering.deltas import corrected_subjects, first_touched
from tollgate.metering.meter import Meter
from tollgate.metering.query import ledger_tail
from tollgate.metering.statement import Tail
from tollgate.notify.balance import Balance
from tollgate.notify.reset_times import reset_times
from tollgate.notify.rule import FeatureName
from tollgate.notify.watch import Look
from tollgate.platform.clickhouse import ClickHouse
from tollgate.platform.parts import Parts, open_clickhouse

_PAGE = 500
_CHANGES_MAX = 100_000
_BACK = timedelta(minutes=1)
_JUST_BEFORE = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class _Mark:
    at: datetime
    vector: Token

    def __str__(self) -> str:
        return f"{us_from_datetime(self.at)}|{self.vector}"


def _read(mark: str) -> _Mark | None:
    if not mark:
        return None
    instant, _, vector = mark.partition("|")
    return _Mark(datetime_from_us(int(instant)), vector_from_text(vector))


def held_pages(
    entitlements: EntitlementStore, namespace: str, keys: tuple[str, ...] | None, at: datetime
) -> Iterator[Sequence[tuple[EntitlementRecord, tuple[Reset, ...]]]]:
    """Metered entitlements that hold at an instant, with their resets, some at a time."""
    skipped = 0
    while True:
        listing = EntitlementListing(
            skipped=skipped,
            count_max=_PAGE,
            features=keys,
            kinds=(EntitlementKind.METERED,),
            active_at=at,
        )
        rows, _ = entitlements.list(namespace, listing)
        if not rows:
            return
        yield rows
        skipped += len(rows)


class LimitBalances:
    """Reads; nothing is remembered but the mark that the caller keeps."""

    def __init__(
        self,
        clickhouse: ClickHouse,
        entitlements: EntitlementStore,
        facts: FactsStore,
        usage: UsageReader,
        subjects: EntitledSubjects,
        attributions: AttributionStore,
    ) -> None:
        self._clickhouse = clickhouse
        self._entitlements = entitlements
        self._facts = facts
        self._usage = usage
        self._subjects = subjects
        self._attributions = attributions

    def look(
        self, namespace: str, features: frozenset[FeatureName] | None, since: str, at: datetime
    ) -> Look:
        """As `Balances.look`."""
        vector = vector_now(self._clickhouse)
        return Look(
            balances=self._moved(namespace, features, _read(since), at),
            mark=str(_Mark(at, vector)),
        )

    def _moved(
        self,
        namespace: str,
        features: frozenset[FeatureName] | None,
        since: _Mark | None,
        at: datetime,
    ) -> Iterator[Balance]:
        moved = _Moved(self, namespace, since, at)
        keys = None if features is None else tuple(sorted(each.key for each in features))
        for page in self._pages(namespace, keys, at):
            now = [each for each in page if moved.has(each)]
            yield from self.at(namespace, now, at)
            ended: dict[datetime, list[Known]] = {}
            for each in now:
                for instant in moved.ends(each):
                    ended.setdefault(instant - _JUST_BEFORE, []).append(each)
            for instant, some in ended.items():
                yield from self.at(namespace, some, instant)

    def _pages(
        self, namespace: str, keys: tuple[str, ...] | None, at: datetime
    ) -> Iterator[list[Known]]:
        """All metered entitlements that hold, some at a time."""
        for rows in held_pages(self._entitlements, namespace, keys, at):
            ids = {record.id for record, _ in rows}
            whose = {record.definition.customer_id for record, _ in rows}
            known = self._facts.of_customers(namespace, whose, at, keys)
            yield [each for each in known if each.record.id in ids]

    def at(self, namespace: str, known: Sequence[Known], at: datetime) -> Iterator[Balance]:
        """The balances of entitlements at an instant; of those that do not hold then, none."""
        measured = [
            each
            for each in known
            if each.metering is not None and at >= each.metering.entitlement.measure_usage_from
        ]
        shown = self._subjects.shown(
            namespace, {each.record.definition.customer_id for each in measured}
        )
        for each, limit in zip(measured, limits_at(self._usage, measured, at), strict=True):
            balance, metering = limit.balance, each.metering
            if balance is None or metering is None:
                continue
            customer = each.record.definition.customer_id
            subject = shown.get(customer, customer)
            body = subject_entitlement_body(each.record, metering.resets, at, subject)
            yield Balance(
                namespace=namespace,
                entitlement_id=each.record.id,
                feature=FeatureName(id=metering.feature.id, key=metering.feature.key),
                customer_id=customer,
                subject_key=subject,
                period_start=balance.last_reset,
                period_end=balance.next_reset,
                usage=balance.usage,
                total=balance.total_available,
                balance=balance.remaining,
                overage=balance.overage,
                has_access=limit.has_access,
                at=at,
                entitlement=body.model_dump(mode="json", by_alias=True, exclude_none=True),
            )

    def touched(self, meter: Meter, tail: Tail) -> dict[str, datetime]:
        """Customers of whom usage of a meter was loaded, with the earliest time of it."""
        earliest = first_touched(self._clickhouse, meter, tail)
        found: dict[str, datetime] = {}
        for each in self._attributions.of_subjects(meter.namespace, earliest):
            at = earliest[each.subject_key]
            found[each.customer_id] = min(at, found.get(each.customer_id, at))
        return found

    def changed(self, namespace: str, since: datetime) -> frozenset[str]:
        """Entitlements that changed in SQL."""
        found = self._entitlements.changes(namespace, since - _BACK, _CHANGES_MAX)
        return frozenset(each.entitlement_id for each in found)

    def corrected(self, namespace: str, tail: Tail) -> frozenset[str]:
        """Customers of whom usage was corrected."""
        subjects = {
            subject
            for of, _, subject in corrected_subjects(self._clickhouse, tail)
            if of == namespace
        }
        found = self._attributions.of_subjects(namespace, subjects) if subjects else ()
        return frozenset(each.customer_id for each in found)

    def tail(self, vector: Token) -> Tail | None:
        """What was loaded since."""
        return ledger_tail(self._clickhouse, vector)


class _Moved:
    """What moved since a mark, of one namespace."""

    def __init__(
        self, balances: LimitBalances, namespace: str, since: _Mark | None, at: datetime
    ) -> None:
        self._balances = balances
        self._since = since
        self._at = at
        self._tail = None if since is None else balances.tail(since.vector)
        self._changed = frozenset[str]()
        self._corrected = frozenset[str]()
        if since is not None:
            self._changed = balances.changed(namespace, since.at)
        if self._tail is not None:
            self._corrected = balances.corrected(namespace, self._tail)
        self._touched: dict[str, dict[str, datetime]] = {}

    def has(self, known: Known) -> bool:
        """Whether a balance may have moved."""
        if self._since is None:
            return True
        customer = known.record.definition.customer_id
        return (
            known.record.id in self._changed
            or customer in self._corrected
            or self._earliest(known) is not None
            or self._is_moved_by_time(known)
        )

    def ends(self, known: Known) -> Iterable[datetime]:
        """Ends of usage periods that the balance has to be looked at once more just before.

        Those that ended since the mark, and those from the earliest usage on that was loaded since:
        later ones may have got usage too, or what is left over from that. Of each the newest
        `RESETS_MAX`, and the one that the earliest usage belongs to.
        """
        if self._since is None or known.metering is None:
            return ()
        entitlement, resets = known.metering.entitlement, known.metering.resets
        found = set(reset_times(entitlement, resets, self._since.at, self._at))
        earliest = self._earliest(known)
        if earliest is not None:
            earliest = max(earliest, entitlement.measure_usage_from)
            period, _ = usage_period_at(entitlement, resets, earliest)
            by_hand = (each.effective_at for each in resets if each.effective_at > earliest)
            found.add(min([period.end, *by_hand]))
            found.update(reset_times(entitlement, resets, earliest, self._at))
        return sorted(each for each in found if each <= self._at)

    def _earliest(self, known: Known) -> datetime | None:
        """When the earliest usage happened that was loaded since; None: none was."""
        if self._tail is None or known.metering is None:
            return None
        meter = known.metering.meter
        if meter.id not in self._touched:
            self._touched[meter.id] = self._balances.touched(meter, self._tail)
        return self._touched[meter.id].get(known.record.definition.customer_id)

    def _is_moved_by_time(self, known: Known) -> bool:
        """Whether something happened since the mark that changes the balance without usage."""
        assert self._since is not None
        if known.metering is None or self._at < known.metering.entitlement.measure_usage_from:
            return False
        mark = self._since.at
        try:
            phases = plan(known.metering.facts, self._at).phases
        except TooLarge:
            # It changes so often that it is looked at each time.
            return True
        return any(
            phase.boundary is not None
            for phase in takewhile(lambda each: each.end > mark, reversed(phases))
        )


def open_limit_balances(parts: Parts) -> LimitBalances:
    """The balances of this process."""
    return LimitBalances(
        parts.get(open_clickhouse),
        parts.get(open_entitlements),
        parts.get(open_facts),
        parts.get(open_usage_reader),
        parts.get(open_entitled_subjects),
        parts.get(open_customers).attributions,
    )
