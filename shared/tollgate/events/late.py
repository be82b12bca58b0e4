"""Use case: what came in for hours that are sealed, found by position.

A fact is late at the position from which on it holds: an event at its own, a correction where it
applies, an event that a backfill holds back where it is let go. Only the positions of a range are
looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tollgate.core.clock import datetime_from_us, us_from_datetime
from tollgate.events.facts import POSITION, after, within
from tollgate.events.position import Token
from tollgate.events.seal import Late
from tollgate.platform.clickhouse import DATABASE, ClickHouse

_HOUR_US: Final = 3_600_000_000
_EPOCH_HOURS: Final = 613_608
"""From 1900, the first year of the engine's times, to 1970: no hour is negative."""
_NAMES_MAX: Final = 500
HOURS_MAX: Final = 100_000
"""Sealed hours of a namespace that may change between two of its seals."""


def _hour(column: str) -> str:
    """SQL: hours since 1900 of an event time."""
    return f"intDiv(toUnixTimestamp64Micro({column}) + {_EPOCH_HOURS * _HOUR_US}, {_HOUR_US})"


def _instant(hour: int) -> datetime:
    return datetime_from_us((hour - _EPOCH_HOURS) * _HOUR_US)


def _number(hour: datetime) -> int:
    return us_from_datetime(hour) // _HOUR_US + _EPOCH_HOURS


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Positions (begin, end] of the log, and the append times of what stands there.

    Attributes:
        begin, end: vectors.
        since_us, until_us: of the records; nothing is there if `since_us` is the greater.
    """

    begin: Token
    end: Token
    since_us: int
    until_us: int

    @property
    def is_empty(self) -> bool:
        """Whether nothing was appended there."""
        return self.since_us > self.until_us

    def sql(self, prefix: str = "log") -> str:
        """SQL: a position is in it."""
        return f"{after(self.begin, prefix)} AND {within(self.end, prefix)}"

    def counting(self) -> str:
        """SQL: an event of the range did not hold itself back when it came in."""
        held = f"SELECT {POSITION} FROM {DATABASE}.event_corrections WHERE action = 'hold'"
        return f"({POSITION}) NOT IN ({held} AND {self.sql()})"

    def rows(self) -> str:
        """SQL: a row stands in it; parts of the table that are older or younger are not read."""
        return (
            f"{self.sql()} AND appended_at >= fromUnixTimestamp64Micro({self.since_us}, 'UTC')"
            f" AND appended_at <= fromUnixTimestamp64Micro({self.until_us}, 'UTC')"
        )


def read_range(clickhouse: ClickHouse, begin: Token, end: Token) -> Range:
    """A range of the log as the ledger has it.

    Raises:
        Transient: ClickHouse is away.
    """
    ((count, since_us, until_us),) = clickhouse.query(
        "SELECT count(), toUnixTimestamp64Micro(min(appended_at)),"
        f" toUnixTimestamp64Micro(max(appended_at)) FROM {DATABASE}.ledger"
        f" WHERE {after(begin)} AND {within(end)}"
    )
    if not count:
        return Range(begin=begin, end=end, since_us=1, until_us=0)
    return Range(begin=begin, end=end, since_us=since_us, until_us=until_us)


def read_active(clickhouse: ClickHouse, part: Range) -> set[str]:
    """Namespaces that anything came in for.

    Raises:
        Transient: ClickHouse is away.
    """
    if part.is_empty:
        return set()
    rows = clickhouse.query(f"SELECT DISTINCT namespace FROM {DATABASE}.ledger WHERE {part.rows()}")
    return {row[0] for row in rows}


def read_late(
    clickhouse: ClickHouse, part: Range, before: datetime, namespaces: Sequence[str]
) -> dict[str, dict[datetime, Late]]:
    """By namespace and hour: what came in for event times before an instant.

    At most one hour more than `HOURS_MAX` of a namespace is given.

    Raises:
        Transient: ClickHouse is away.
    """
    found: dict[str, dict[datetime, Late]] = {}
    if part.is_empty or not namespaces:
        return found
    bound: dict[str, object] = {"hour": _number(before)}
    mine = "true"
    if len(namespaces) <= _NAMES_MAX:
        mine, bound["namespaces"] = "namespace IN {namespaces:Array(String)}", list(namespaces)
    wanted = set(namespaces)
    place = f"tuple({POSITION})"
    rows = clickhouse.query(
        "SELECT namespace, hour, sum(events), sum(corrections) FROM ("
        f"SELECT namespace, {_hour('time')} AS hour,"
        f" uniqExactIf({place}, amendment = 0) AS events, 0 AS corrections"
        f" FROM {DATABASE}.events WHERE {mine} AND {part.rows()} AND hour < {{hour:Int64}}"
        f" AND {part.counting()}"
        " GROUP BY namespace, hour"
        " UNION ALL SELECT namespace, hour, 0, uniqExact(place) FROM ("
        f"SELECT namespace, {_hour('superseded_time')} AS hour, {place} AS place"
        f" FROM {DATABASE}.event_corrections WHERE {mine} AND superseded_generation > 0"
        " AND action != 'hold'"
        f" AND {part.sql('applied')} AND hour < {{hour:Int64}}"
        f" UNION ALL SELECT namespace, {_hour('time')} AS hour, {place} AS place"
        f" FROM {DATABASE}.events"
        f" WHERE {mine} AND amendment = 1 AND {part.rows()} AND hour < {{hour:Int64}}"
        ") GROUP BY namespace, hour) GROUP BY namespace, hour"
        f" ORDER BY namespace, hour LIMIT {HOURS_MAX + 1} BY namespace",
        bound,
    )
    for namespace, hour, events, corrections in rows:
        if namespace in wanted:
            late = Late(events=int(events), corrections=int(corrections))
            found.setdefault(namespace, {})[_instant(hour)] = late
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """What changed an hour of one subject.

    Attributes:
        hour, subject: whose figures may have changed.
        events, corrections: how many came in.
        reasons, actors, operations: of the corrections, each once, at most ten.
    """

    hour: datetime
    subject: str
    events: int
    corrections: int
    reasons: tuple[str, ...]
    actors: tuple[str, ...]
    operations: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TouchedQuery:
    """Which subjects are asked for: of one type of events, in some hours.

    Attributes:
        namespace, event_type: of the events.
        hours: begins of hours, at least one.
        subjects: only these; None: all.
        rows_max: of the answer.
    """

    namespace: str
    event_type: str
    hours: Sequence[datetime]
    subjects: tuple[str, ...] | None
    rows_max: int


def read_touched(clickhouse: ClickHouse, part: Range, asked: TouchedQuery) -> tuple[Touched, ...]:
    """Whose figures changed, in order of hour and subject; at most one more than `rows_max`.

    Raises:
        Transient: ClickHouse is away.
    """
    if part.is_empty:
        return ()
    bound: dict[str, object] = {
        "namespace": asked.namespace,
        "type": asked.event_type,
        "hours": [_number(hour) for hour in asked.hours],
    }
    subjects = ""
    if asked.subjects is not None:
        subjects, bound["subjects"] = " AND subject IN {subjects:Array(String)}", [*asked.subjects]
    place = f"tuple({POSITION})"
    of_events = (
        f"namespace = {{namespace:String}} AND type = {{type:String}} AND {part.rows()}"
        f" AND hour IN {{hours:Array(Int64)}}{subjects}"
    )
    facts = "reason, toString(actor) AS actor, toString(operation) AS operation"
    rows = clickhouse.query(
        "SELECT hour, subject, sum(events), sum(corrections), groupUniqArrayArray(10)(reasons),"
        " groupUniqArrayArray(10)(actors), groupUniqArrayArray(10)(operations) FROM ("
        f"SELECT {_hour('time')} AS hour, subject,"
        f" uniqExactIf({place}, amendment = 0) AS events, 0 AS corrections,"
        " emptyArrayString() AS reasons, emptyArrayString() AS actors,"
        f" emptyArrayString() AS operations FROM {DATABASE}.events WHERE {of_events}"
        f" AND {part.counting()}"
        " GROUP BY hour, subject"
        " UNION ALL SELECT hour, subject, 0, uniqExact(place), groupUniqArray(10)(reason),"
        " groupUniqArray(10)(actor), groupUniqArray(10)(operation) FROM ("
        f"SELECT {_hour('superseded_time')} AS hour, superseded_subject AS subject,"
        f" {place} AS place, {facts}"
        f" FROM {DATABASE}.event_corrections WHERE namespace = {{namespace:String}}"
        " AND superseded_type = {type:String} AND superseded_generation > 0 AND action != 'hold'"
        f" AND {part.sql('applied')} AND hour IN {{hours:Array(Int64)}}{subjects}"
        f" UNION ALL SELECT {_hour('time')} AS hour, subject, {place} AS place,"
        f" c.1 AS reason, c.2 AS actor, c.3 AS operation FROM {DATABASE}.events"
        f" ANY INNER JOIN (SELECT {POSITION}, tuple(reason, toString(actor), toString(operation))"
        f" AS c FROM {DATABASE}.event_corrections WHERE namespace = {{namespace:String}}"
        f" AND action = 'amend' AND {part.sql()}) AS corrected"
        f" USING ({POSITION}) WHERE amendment = 1 AND {of_events}"
        ") GROUP BY hour, subject) GROUP BY hour, subject ORDER BY hour, subject"
        f" LIMIT {asked.rows_max + 1}",
        bound,
    )
    return tuple(
        Touched(
            hour=_instant(row[0]),
            subject=row[1],
            events=int(row[2]),
            corrections=int(row[3]),
            reasons=_texts(row[4]),
            actors=_texts(row[5]),
            operations=_texts(row[6]),
        )
        for row in rows
    )


def _texts(found: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(text for text in found if text))
