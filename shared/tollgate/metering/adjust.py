"""Use case: what changed in sealed hours, as quantities of a meter.

A quantity of a sealed hour is what a query says as of the seal's vector, so it is the same for
ever, and an invoice that names (hour, revision) can be computed again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tollgate.core.errors import Fault, InvalidInput, NotFound
from tollgate.core.times import format_instant
from tollgate.events.as_of import vector_now
from tollgate.events.late import TouchedQuery, read_late, read_range, read_touched
from tollgate.events.position import Token, joined
from tollgate.events.seal import HOUR, Seal, whole_hour
from tollgate.events.seal_store import SealStore
from tollgate.metering.adjustment import Adjustment, Stamp, adjustments_of
from tollgate.metering.meter import Meter
from tollgate.metering.query import QueryBounds, run_query
from tollgate.metering.question import SUBJECT, MeterQuery, QueryRow
from tollgate.metering.window import WindowSize
from tollgate.platform.clickhouse import ClickHouse

_SUBJECTS_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class AdjustmentQuery:
    """Which adjustments are asked for.

    Attributes:
        start, end: hours that overlap [start, end).
        subjects: only these; None: all.
        group_by: dimensions of the meter; subjects are always apart.
        after: hour and revision that the page before ended with.
        limit: revisions of hours that a page goes through.
    """

    start: datetime | None
    end: datetime | None
    subjects: tuple[str, ...] | None
    group_by: tuple[str, ...]
    after: tuple[datetime, int] | None
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdjustmentPage:
    """Some of them.

    Attributes:
        adjustments: by hour, revision, subject and group.
        pending: of what came since the last revision; on the last page only.
        after: where the next page goes on; None: this is the last.
    """

    adjustments: tuple[Adjustment, ...]
    pending: tuple[Adjustment, ...]
    after: tuple[datetime, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjuster:
    """Reads adjustments of one meter.

    Attributes:
        clickhouse, store: the stores.
        meter: as it is now: seals cover facts, not meters.
        bounds: of each query.
    """

    clickhouse: ClickHouse
    store: SealStore
    meter: Meter
    bounds: QueryBounds

    def page(self, asked: AdjustmentQuery) -> AdjustmentPage:
        """One page.

        Raises:
            InvalidInput: unknown dimensions, or too many rows.
            Transient: SQL or ClickHouse is away.
        """
        found = self.store.list(
            self.meter.namespace,
            start=asked.start,
            end=asked.end,
            revised=True,
            after=asked.after,
            limit=asked.limit + 1,
        )
        shown = found[: asked.limit]
        adjustments: list[Adjustment] = []
        for begin, end, seals in _by_run(shown):
            stamps = {s.start: Stamp(revision=s.revision, sealed_at=s.sealed_at) for s in seals}
            adjustments += self._between(begin, end, stamps, asked)
        adjustments.sort(key=_order)
        if len(found) > len(shown):
            last = shown[-1]
            return AdjustmentPage(
                adjustments=tuple(adjustments), pending=(), after=(last.start, last.revision)
            )
        pending = sorted(self._pending(asked), key=_order)
        return AdjustmentPage(adjustments=tuple(adjustments), pending=tuple(pending), after=None)

    def _pending(self, asked: AdjustmentQuery) -> list[Adjustment]:
        namespace = self.meter.namespace
        state = self.store.state(namespace)
        now = joined(state.vector, vector_now(self.clickhouse))
        part = read_range(self.clickhouse, state.vector, now)
        late = read_late(self.clickhouse, part, state.sealed_through, [namespace])
        nothing = Stamp(revision=None, sealed_at=None)
        hours = {
            hour: nothing
            for hour in late.get(namespace, {})
            if (asked.end is None or hour < asked.end)
            and (asked.start is None or hour + HOUR > asked.start)
        }
        return self._between(state.vector, now, hours, asked) if hours else []

    def _between(
        self, begin: Token, end: Token, stamps: Mapping[datetime, Stamp], asked: AdjustmentQuery
    ) -> list[Adjustment]:
        """What changed in some hours between two vectors."""
        touched = read_touched(
            self.clickhouse,
            read_range(self.clickhouse, begin, end),
            TouchedQuery(
                namespace=self.meter.namespace,
                event_type=self.meter.event_type,
                hours=sorted(stamps),
                subjects=asked.subjects,
                rows_max=self.bounds.rows_max,
            ),
        )
        if len(touched) > self.bounds.rows_max:
            message = "ask for a shorter period, fewer subjects or a smaller `limit`"
            raise InvalidInput((Fault(field="", code="too_many_rows", message=message),))
        found: list[Adjustment] = []
        for first, last in _spans(sorted({each.hour for each in touched})):
            subjects = sorted({t.subject for t in touched if first <= t.hour < last})
            for number in range(0, len(subjects), _SUBJECTS_AT_ONCE):
                some = tuple(subjects[number : number + _SUBJECTS_AT_ONCE])
                before, after = (
                    self._quantities(vector, first, last, some, asked.group_by)
                    for vector in (begin, end)
                )
                found += adjustments_of(self.meter.aggregation, touched, stamps, before, after)
        return found

    def _quantities(
        self,
        vector: Token,
        start: datetime,
        end: datetime,
        subjects: tuple[str, ...],
        group_by: tuple[str, ...],
    ) -> tuple[QueryRow, ...]:
        asked = MeterQuery(
            start=start,
            end=end,
            window=WindowSize.HOUR,
            subjects=subjects,
            group_by=(SUBJECT, *group_by),
            as_of=vector,
        )
        return run_query(self.clickhouse, self.meter, asked, self.bounds)


def sealed_value(
    clickhouse: ClickHouse,
    store: SealStore,
    meter: Meter,
    hour: datetime,
    revision: int | None = None,
    asked: MeterQuery | None = None,
) -> tuple[Seal, tuple[QueryRow, ...]]:
    """What a meter said of a sealed hour, with the seal that says so: the same for ever.

    Args:
        clickhouse: the store.
        store: the seals.
        meter: which meter.
        hour: begin of the hour.
        revision: of its seal; None: the last.
        asked: subjects, groups and filters; period, window and `as_of` are the seal's.

    Raises:
        NotFound: the hour is not sealed, or has no such revision.
        Transient: SQL or ClickHouse is away.
    """
    hour = whole_hour(hour)
    seal = store.find(meter.namespace, hour, revision)
    if seal is None:
        which = "sealed" if revision is None else f"sealed as revision {revision}"
        raise NotFound(f"the hour {format_instant(hour)} is not {which}")
    asked = asked or MeterQuery()
    question = MeterQuery(
        start=hour,
        end=hour + HOUR,
        subjects=asked.subjects,
        group_by=asked.group_by,
        filters=asked.filters,
        subject_filter=asked.subject_filter,
        customers=asked.customers,
        attributions=asked.attributions,
        as_of=seal.vector,
    )
    bounds = QueryBounds(rows_max=100_000, seconds_max=60)
    return seal, run_query(clickhouse, meter, question, bounds)


def _by_run(seals: Sequence[Seal]) -> Iterator[tuple[Token, Token, list[Seal]]]:
    """Revisions that cover the same range of the log are computed together."""
    runs: dict[tuple[str, str], list[Seal]] = {}
    for seal in seals:
        runs.setdefault((str(seal.previous), str(seal.vector)), []).append(seal)
    for group in runs.values():
        # An hour may be in a run once only: a run gives it one revision.
        previous = group[0].previous
        assert previous is not None
        yield previous, group[0].vector, group


def _spans(hours: Sequence[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """Hours side by side as one period."""
    first = last = None
    for hour in hours:
        if last is not None and hour != last:
            assert first is not None
            yield first, last
            first = hour
        first = first or hour
        last = hour + HOUR
    if first is not None and last is not None:
        yield first, last


def _order(each: Adjustment) -> tuple[object, ...]:
    return each.hour, each.revision or 0, each.subject, tuple(sorted(each.dimensions.items()))
