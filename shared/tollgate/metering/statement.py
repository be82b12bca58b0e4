"""The SQL of one meter query: events, or cells of rollups and what events are left, as one answer.

Every source gives *partial* rows of one form, whose columns are those of a cell; merging them gives
the quantity. So it does not matter how a period is split between sources.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tollgate.events.facts import UNCORRECTED, after, counting, within
from tollgate.events.position import Token
from tollgate.metering.aggregation import DOCUMENT, LATEST_ORDER, Value
from tollgate.metering.jsonpath import JsonPath
from tollgate.metering.meter import Meter
from tollgate.metering.ownership import ownership
from tollgate.metering.plan import Span, Tiling
from tollgate.metering.question import CUSTOMER, SUBJECT, MeterQuery, RowKey
from tollgate.metering.rollup import MINUTE_US, Level, Rollups, Segment, dimension_names
from tollgate.metering.stretches import AnyWindows, StretchWindows
from tollgate.platform.clickhouse import DATABASE
from tollgate.platform.filters import Parameters, to_sql

ORDER = ", ".join(LATEST_ORDER)
EVENT_US = "toUnixTimestamp64Micro(time)"
CELL_US = f"toInt64(minute) * {MINUTE_US}"


def at_sql(us: int) -> str:
    """SQL of an instant."""
    return f"fromUnixTimestamp64Micro(toInt64({us}), 'UTC')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The facts beyond a vector, as far as they were loaded when it was asked.

    Attributes:
        vector: which.
        until: up to which they are read: a correction that is loaded meanwhile would be seen with
            what it counts and without what it supersedes.
        appended_us: when the earliest of them was appended, as the ledger says. What was appended
            before need not be looked at, whole months and parts. It is no clock that says so:
            clocks may be set back.
    """

    vector: Token
    until: Token
    appended_us: int

    def sql(self) -> str:
        """A condition on `events`."""
        return f"appended_at >= {at_sql(self.appended_us)} AND {after(self.vector)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FromRollups:
    """What a query takes from rollups.

    Attributes:
        rollups: of the meter.
        tiling: which part of the period it answers.
        vector: how far the cells go.
        tail: the facts beyond; None: there are none.
        pending: whether corrections beyond the vector supersede facts in the cells.
    """

    rollups: Rollups
    tiling: Tiling
    vector: Token
    tail: Tail | None
    pending: bool

    @property
    def needs_events(self) -> bool:
        """Whether cells alone are not all."""
        return bool(self.tail or self.tiling.edges)


class Statement:
    """Builds the SQL of one query. Every value is bound.

    Attributes:
        ownership: whose usage is whose within the period.
        corrected: whether events have to be asked whether they count.
        vector: only what was known at it is read; None: all that is there.
    """

    def __init__(self, meter: Meter, asked: MeterQuery) -> None:
        self.meter = meter
        self.asked = asked
        self.corrected = True
        self.vector = asked.as_of
        self.value = Value(aggregation=meter.aggregation, path=meter.value_path())
        self.low = max(filter(None, (asked.start, meter.event_from)), default=None)
        self.groups = tuple(dict.fromkeys(asked.group_by))
        self._bound = Parameters("p")
        self.ownership = ownership(asked.attributions, self.low, asked.end)
        self._paths = {
            name: path
            for name, path in meter.dimension_paths().items()
            if name in asked.group_by or name in asked.filters
        }
        self._columns = {name: f"dimension_{number}" for number, name in enumerate(self._paths)}
        self._namespace = self._bound.bind(meter.namespace)
        self._event_type = self._bound.bind(meter.event_type)
        self._owned = self.ownership.subjects_sql(self._bound) if self.ownership.subjects else ""
        self._subjects = self._subject_conditions()
        self._times = self._time_conditions()
        self._having = self._dimension_conditions()
        self._owner_at: dict[str, str] = {}

    @property
    def parameters(self) -> dict[str, object]:
        """All that the SQL binds."""
        found = dict(self._bound.values) | self.value.parameters()
        if self.asked.supposing is not None:
            found |= self.asked.supposing.parameters
        for number, path in enumerate(self._paths.values()):
            found |= path.parameters(f"d{number}")
        return found

    @property
    def needs_subject(self) -> bool:
        """Whether an answer depends on subjects."""
        return bool(self._subjects) or not {SUBJECT, CUSTOMER}.isdisjoint(self.groups)

    @property
    def needs_dimensions(self) -> bool:
        """Whether an answer depends on dimensions."""
        return bool(self._paths)

    def stretches(self) -> StretchWindows | None:
        """The stretches asked for, their bounds bound."""
        asked = self.asked.stretches
        return None if asked is None else StretchWindows(asked, self._bound)

    def conditions(self) -> str:
        """Which events are read, on the table's own columns."""
        parts = [f"namespace = {self._namespace}", f"type = {self._event_type}"]
        facts = [within(self.vector)] if self.vector is not None else []
        corrected = counting(self._namespace, self._event_type, self.vector)
        facts.append(corrected if self.corrected else UNCORRECTED)
        supposing = self.asked.supposing
        if supposing is not None:
            counted = " AND ".join(facts)
            facts = [f"(({counted}) AND NOT ({supposing.without}) OR ({supposing.also}))"]
        subjects = [*self._subjects, *self._owner_conditions(EVENT_US)]
        return " AND ".join([*parts, *facts, *subjects, *self._times])

    def _subject_conditions(self) -> list[str]:
        asked, bind = self.asked, self._bound.bind
        parts = []
        if asked.subjects is not None:
            parts.append(f"subject IN {bind(asked.subjects)}")
        if asked.customers is not None:
            parts.append(f"subject IN {self._owned or bind(())}")
        if asked.subject_filter is not None:
            parts.append(f"({to_sql(asked.subject_filter, 'subject', self._bound)})")
        return parts

    def _owner_conditions(self, instant_us: str) -> list[str]:
        """Without rows of a customer's subject at a time when it is not the customer's."""
        if self.asked.customers is None or not self.ownership.changes:
            return []
        return [f"{self._owner(instant_us)} != ''"]

    def _owner(self, instant_us: str) -> str:
        if instant_us not in self._owner_at:
            found = self.ownership.owner_sql(self._bound, self._owned, instant_us)
            self._owner_at[instant_us] = found
        return self._owner_at[instant_us]

    def _time_conditions(self) -> list[str]:
        parts = []
        if self.low is not None:
            parts.append(f"time >= {self._bound.bind(self.low)}")
        if self.asked.end is not None:
            parts.append(f"time < {self._bound.bind(self.asked.end)}")
        return parts

    def _dimension_conditions(self) -> str:
        parts = [
            f"({to_sql(condition, self._columns[name], self._bound, nullable=True)})"
            for name, condition in self.asked.filters.items()
        ]
        return " AND ".join(parts) or "true"

    def _group_columns(self, instant_us: str) -> list[str]:
        return [
            f"{self._group(name, instant_us)} AS group_{number}"
            for number, name in enumerate(self.groups)
        ]

    def _group(self, name: str, instant_us: str) -> str:
        if name == SUBJECT:
            return "subject"
        if name == CUSTOMER:
            return self._owner(instant_us)
        return f"ifNull({self._columns[name]}, '')"

    def select(
        self,
        windows: AnyWindows | None,
        limit: int,
        source: FromRollups | None = None,
        beyond: str = "true",
    ) -> str:
        """The whole statement. Columns: window start, the groups, value, first and last instant.

        Args:
            windows: the asked ones.
            limit: of rows.
            source: what comes from rollups; None: all from events.
            beyond: SQL: which rows are wanted, on `key_columns`.
        """
        names = self.key_columns
        if source is None:
            parts = [self._of_events(windows, self.conditions())]
        else:
            parts = list(self._parts(windows, source))
        all_parts = " UNION ALL ".join(parts)
        if isinstance(windows, StretchWindows) and self.value.counts_uniques:
            first_seen = windows.first_seen(names, all_parts, limit)
            if first_seen is not None:
                return first_seen
        extent = "min(first_us), max(last_us)" if self._needs_extent else "0, 0"
        return (
            f"SELECT {', '.join(names)}, {self.value.merged()} AS quantity,"
            f" {extent} FROM ({all_parts})"
            f" WHERE {beyond} GROUP BY {', '.join(names)} ORDER BY {', '.join(names)} LIMIT {limit}"
        )

    @property
    def key_columns(self) -> list[str]:
        """Names of what tells the rows of an answer apart, in their order."""
        return ["window_start", *(f"group_{number}" for number in range(len(self.groups)))]

    def beyond(self, after: RowKey | None) -> str:
        """SQL: rows that come after one in the order of the answer."""
        if after is None:
            return "true"
        values = [str(after.start_us), *(self._bound.bind(text) for text in after.groups)]
        return f"({', '.join(self.key_columns)}) > ({', '.join(values)})"

    def _parts(self, windows: AnyWindows | None, source: FromRollups) -> Iterable[str]:
        """Cells; facts up to their vector that no tile holds; all facts beyond it."""
        if source.tiling.tiles:
            yield self._of_cells(windows, source)
        held = " OR ".join(
            filter(None, (_times(source.tiling.edges), self._pending_events(source)))
        )
        if held:
            where = f"{self.conditions()} AND {within(source.vector)} AND ({held})"
            yield self._of_events(windows, where)
        if source.tail is not None:
            yield self._of_events(windows, f"{self.conditions()} AND {source.tail.sql()}")

    @property
    def _needs_extent(self) -> bool:
        """Whether the first and last instant say where an open period begins and ends."""
        asked = self.asked
        return asked.window is None and (asked.start is None or asked.end is None)

    def _of_events(self, windows: AnyWindows | None, where: str) -> str:
        """Partial rows, one an event."""
        dimensions = [
            f"{self._dimension(name, path, f'd{number}')} AS {self._columns[name]}"
            for number, (name, path) in enumerate(self._paths.items())
        ]
        start = windows.sql("time") if windows else "toInt64(0)"
        needs_document = self.value.path is not None or dimensions
        inner = [f"{DOCUMENT} AS document"] if needs_document else []
        groups = self._group_columns(EVENT_US)
        names = [*self.key_columns, *self.value.cell_of_event()]
        instant = "toUnixTimestamp64Micro(time)" if self._needs_extent else "toInt64(0)"
        return (
            f"SELECT {', '.join(names)}, {instant} AS first_us, {instant} AS last_us"
            f" FROM (SELECT {start} AS window_start, {', '.join([*groups, ORDER])},"
            f" {self.value.columns()}"
            f" FROM (SELECT {', '.join([ORDER, 'subject', *inner, *dimensions])}"
            f" FROM {DATABASE}.events FINAL WHERE {where})"
            f" WHERE {self._having}) WHERE {self.value.counted()}"
        )

    def _dimension(self, name: str, path: JsonPath, prefix: str) -> str:
        if name not in self.asked.filters:
            return path.call("JSONExtractString", "document", prefix)
        # A filter can ask whether there is a value: only then absence and '' must differ.
        return nullable_dimension(path, prefix)

    def _of_cells(self, windows: AnyWindows | None, source: FromRollups) -> str:
        """Partial rows, one a cell."""
        order = {name: number for number, name in enumerate(dimension_names(self.meter))}
        dimensions = []
        for name, column in self._columns.items():
            text = f"dimensions[{order[name] + 1}]"
            absent = f"bitTest(absent, {order[name]})"
            known = f"if({absent}, NULL, {text})" if name in self.asked.filters else text
            dimensions.append(f"{known} AS {column}")
        start = windows.sql_of_instant(CELL_US) if windows else "toInt64(0)"
        first = last = "toInt64(0)"
        if self._needs_extent:
            first, last = (
                f"(toInt64(minute) + {each}_minute) * {MINUTE_US}" for each in ("first", "last")
            )
        columns = [*self._group_columns(CELL_US), *self.value.cell_columns()]
        return (
            f"{'WITH ' if dimensions else ''}{', '.join(dimensions)}"
            f" SELECT {', '.join([f'{start} AS window_start', *columns])},"
            f" {first} AS first_us, {last} AS last_us FROM {DATABASE}.rollup_cells"
            f" WHERE {self._cell_conditions(source)} AND {self._having}"
        )

    def _cell_conditions(self, source: FromRollups) -> str:
        rollups, levels = source.rollups, source.tiling.levels
        keys = "level, subject, minute" if levels[0].by_subject else "level, minute"
        parts = [f"segment IN ({_ids(rollups.segments)})", f"definition = {rollups.definition}"]
        parts += [*self._subjects, *self._owner_conditions(CELL_US)]
        tiles = (
            f"level = {each.number} AND ({_minutes(source.tiling.spans(each))})" for each in levels
        )
        parts.append(_any(tiles))
        numbers = ", ".join(str(each.number) for each in levels)
        for later, earlier in rollups.replacements():
            parts.append(
                f"NOT (segment IN ({_ids(earlier)}) AND ({keys}) IN (SELECT {keys}"
                f" FROM {DATABASE}.rollup_replaced WHERE segment = {later.id}"
                f" AND definition = {rollups.definition} AND level IN ({numbers})))"
            )
        if source.pending:
            parts += [
                f"NOT (level = {each.number} AND {_key(each, 'subject', 'minute')}"
                f" IN ({self._pending_windows(source, each)}))"
                for each in levels
            ]
        return " AND ".join(parts)

    def _pending_windows(self, source: FromRollups, level: Level) -> str:
        """SELECT of the windows whose cells hold facts that corrections have superseded since."""
        minute = level.minute_sql("superseded_time")
        return (
            f"SELECT {_key(level, 'superseded_subject', minute)} FROM {DATABASE}.event_corrections"
            f" WHERE namespace = {self._namespace} AND superseded_type = {self._event_type}"
            f" AND {self.pending(source.vector)}"
        )

    def pending(self, vector: Token) -> str:
        """SQL: which corrections supersede facts up to a vector, but only beyond it."""
        return (
            f"superseded_generation > 0 AND {within(vector, 'superseded')}"
            f" AND {after(vector, 'applied')}"
        )

    def _pending_events(self, source: FromRollups) -> str:
        """SQL: which events are read in place of such cells; "" for none."""
        if not source.pending or not source.tiling.tiles:
            return ""
        return _any(
            f"{_times(source.tiling.spans(each))}"
            f" AND {_key(each, 'subject', each.minute_sql('time'))}"
            f" IN ({self._pending_windows(source, each)})"
            for each in source.tiling.levels
        )


def nullable_dimension(path: JsonPath, prefix: str) -> str:
    """SQL of a dimension of the column `document`: NULL where there is no value."""
    return f"{path.call('JSONExtract', 'document', prefix)[:-1]}, 'Nullable(String)')"


def _times(spans: Sequence[Span]) -> str:
    """SQL: a time is in one of these; "" without any."""
    return _any(f"time >= {at_sql(start)} AND time < {at_sql(end)}" for start, end in spans)


def _minutes(spans: Sequence[Span]) -> str:
    """SQL: a cell's window is in one of these."""
    return _any(f"minute >= {a // MINUTE_US} AND minute < {b // MINUTE_US}" for a, b in spans)


def _any(conditions: Iterable[str]) -> str:
    """SQL: one of these holds; "" without any."""
    found = " OR ".join(f"({each})" for each in conditions)
    return f"({found})" if found else ""


def _key(level: Level, subject: str, minute: str) -> str:
    """SQL of what tells the windows of a level apart."""
    return f"({subject}, {minute})" if level.by_subject else minute


def _ids(segments: Iterable[Segment]) -> str:
    return ", ".join(str(segment.id) for segment in segments)
