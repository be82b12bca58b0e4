"""Asks for the usage of phases: one query for all that count by one meter in one way.

A plan's phases cut time; `tollgate.metering.stretches` says what is used between two cuts. From
that follow the quantities of any phases, of several entitlements at once.
"""

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial

from tollgate.core.decimals import EXACT
from tollgate.events.position import Token
from tollgate.limits.facts_store import Metering
from tollgate.limits.period import Period
from tollgate.limits.plan import Plan
from tollgate.limits.usage_kind import UsageKind
from tollgate.metering.deltas import later_usage
from tollgate.metering.meter import Aggregation, Meter
from tollgate.metering.query import QueryBounds, run_query
from tollgate.metering.question import CUSTOMER, MeterQuery, QueryRow, Stretches
from tollgate.metering.rollup_reader import RollupReader
from tollgate.platform.clickhouse import ClickHouse
from tollgate.platform.filters import Filter

_ZERO = Decimal(0)
_QUERIES_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """The phases of an entitlement whose usage is needed.

    Attributes:
        filters: which usage counts; None: that of the feature.
    """

    metering: Metering
    plan: Plan
    filters: Mapping[str, Filter] | None = None

    @property
    def conditions(self) -> dict[str, Filter]:
        """What must hold for the dimensions of usage."""
        return dict(self.metering.feature.filters if self.filters is None else self.filters)


@dataclass(slots=True)
class _Question:
    """What one query answers."""

    needs: list[tuple[int, Need]] = field(default_factory=list)

    @property
    def is_grouped(self) -> bool:
        """Whether rows are of one customer each."""
        return len({need.metering.entitlement.customer_id for _, need in self.needs}) > 1

    def asked(self, as_of: Token | None) -> MeterQuery:
        """The query: all cuts of all its entitlements, of all their customers."""
        first = self.needs[0][1]
        bounds = sorted({at for _, need in self.needs for at in _bounds(need.plan)})
        attributions = {
            need.metering.entitlement.customer_id: need.metering.attributions
            for _, need in self.needs
        }
        return MeterQuery(
            start=bounds[0],
            end=bounds[-1],
            customers=tuple(attributions),
            attributions=tuple(row for rows in attributions.values() for row in rows),
            group_by=(CUSTOMER,) if self.is_grouped else (),
            filters=first.conditions,
            as_of=as_of,
            stretches=Stretches(bounds=tuple(bounds), restarts=_restarts(first.plan)),
        )


class UsageReader:
    """Reads quantities from the usage store."""

    def __init__(
        self, clickhouse: ClickHouse, reader: RollupReader | None, seconds_max: int
    ) -> None:
        self._clickhouse = clickhouse
        self._reader = reader
        self._seconds_max = seconds_max

    def usages(self, needs: Sequence[Need], *, as_of: Token | None = None) -> list[list[Decimal]]:
        """Quantities of each need's `intervals`, in their order.

        Args:
            needs: whose, and of which phases.
            as_of: only what was known at this vector of the log; None: all that is.

        Raises:
            Transient: the store is away.
        """
        found: list[list[Decimal]] = [[] for _ in needs]
        questions: dict[Hashable, _Question] = {}
        for number, need in enumerate(needs):
            if need.plan.phases:
                questions.setdefault(_key(need), _Question()).needs.append((number, need))
        for question, rows in self._answers(list(questions.values()), as_of):
            of_customer: dict[str | None, list[QueryRow]] = {}
            for row in rows:
                of_customer.setdefault(row.customer_id, []).append(row)
            for number, need in question.needs:
                whose = need.metering.entitlement.customer_id if question.is_grouped else None
                found[number] = quantities(
                    need.metering.meter.aggregation,
                    of_customer.get(whose, ()),
                    need.plan.intervals(),
                )
        return found

    def latest(self, needs: Sequence[Need], at: datetime) -> list[datetime | None]:
        """The latest time of usage of each need that is dated at an instant or later; None: none.

        Usage that the need's filters leave out is not told apart.

        Raises:
            Transient: the store is away.
        """
        subjects: dict[tuple[str, str], set[str]] = {}
        for need in needs:
            subjects.setdefault(_type(need), set()).update(_present_subjects(need, at))
        found = {
            (key, subject): latest
            for key, own in subjects.items()
            for subject, latest in later_usage(self._clickhouse, *key, own, at).items()
        }
        if not found:
            return [None for _ in needs]
        return [
            max(
                (
                    latest
                    for subject in _present_subjects(need, at)
                    if (latest := found.get((_type(need), subject))) is not None
                ),
                default=None,
            )
            for need in needs
        ]

    def _answers(
        self, questions: Sequence[_Question], as_of: Token | None
    ) -> Iterable[tuple[_Question, Sequence[QueryRow]]]:
        if len(questions) < 2:
            return [(each, self._answer(each, as_of)) for each in questions]
        with ThreadPoolExecutor(min(len(questions), _QUERIES_AT_ONCE), "usage") as pool:
            # What they log belongs to the caller's trace.
            asking = [
                pool.submit(copy_context().run, self._answer, each, as_of) for each in questions
            ]
            return list(zip(questions, [each.result() for each in asking], strict=True))

    def _answer(self, question: _Question, as_of: Token | None) -> Sequence[QueryRow]:
        asked = question.asked(as_of)
        assert asked.stretches is not None
        assert asked.customers is not None
        rows_max = len(asked.stretches.bounds) * len(asked.customers)
        bounds = QueryBounds(rows_max=rows_max, seconds_max=self._seconds_max)
        meter = question.needs[0][1].metering.meter
        return run_query(self._clickhouse, meter, asked, bounds, self._reader)


def quantities(
    aggregation: Aggregation, rows: Sequence[QueryRow], intervals: Sequence[Period]
) -> list[Decimal]:
    """Quantities of intervals from those of stretches that none of their bounds is inside of.

    Args:
        aggregation: of the meter.
        rows: in order of time; of distinct values those that were new in a stretch.
        intervals: in order of their ends.
    """
    starts = [row.start for row in rows]
    place = partial(bisect_left, starts)
    values = [row.value for row in rows]
    match aggregation:
        case Aggregation.LATEST:
            return [_last(values, place, each) for each in intervals]
        case Aggregation.MAX:
            return _greatest(values, place, intervals)
        case _:
            sums = [_ZERO]
            for value in values:
                sums.append(EXACT.add(sums[-1], value))
            return [
                EXACT.subtract(sums[place(each.end)], sums[place(each.start)]) for each in intervals
            ]


def _last(values: Sequence[Decimal], place: Callable[[datetime], int], interval: Period) -> Decimal:
    end = place(interval.end)
    return values[end - 1] if end > place(interval.start) else _ZERO


def _greatest(
    values: Sequence[Decimal], place: Callable[[datetime], int], intervals: Iterable[Period]
) -> list[Decimal]:
    found: list[Decimal] = []
    opened, at = None, 0
    most: Decimal | None = None
    for each in intervals:
        if each.start != opened:
            opened, at, most = each.start, place(each.start), None
        end = place(each.end)
        new = values[at:end]
        if new:
            most = max(new) if most is None else max(most, *new)
        at = end
        found.append(_ZERO if most is None else most)
    return found


def _type(need: Need) -> tuple[str, str]:
    return need.metering.meter.namespace, need.metering.meter.event_type


def _present_subjects(need: Need, at: datetime) -> set[str]:
    """Subjects whose usage is the customer's at an instant, or later."""
    rows = need.metering.attributions
    return {each.subject_key for each in rows if each.ends_at is None or each.ends_at > at}


def _bounds(plan: Plan) -> set[datetime]:
    return {at for each in plan.intervals() for at in (each.start, each.end)}


def _restarts(plan: Plan) -> tuple[datetime, ...]:
    """Where a distinct value counts anew; nothing for what adds up."""
    if plan.facts.kind is not UsageKind.DISTINCT:
        return ()
    return tuple(sorted({each.start for each in plan.intervals()}))


def _key(need: Need) -> Hashable:
    """Equal for what one query can answer."""
    return usage_key(need.metering.meter, need.conditions), _restarts(need.plan)


def usage_key(meter: Meter, filters: Mapping[str, Filter]) -> Hashable:
    """Equal for the same usage of the same meter."""
    return meter.id, tuple(sorted(filters.items(), key=str))
