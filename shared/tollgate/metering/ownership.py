"""Whose usage is whose, for one question: a piece of SQL, and the instants at which owners change.

Subjects whose owners changed alike share one timeline, so a customer of ten thousand subjects is
one timeline. Values are bound in pieces: a ClickHouse server takes 128 KiB in one parameter
(`http_max_field_value_size`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate

from tollgate.core.clock import us_from_datetime
from tollgate.customers.attribution import Attribution
from tollgate.platform.filters import Parameters

_BEGINNING = -(2**63)
_PIECE_BYTES = 96 << 10
_PIECE_NUMBERS = 4000
_PHASES_MAX = 100
_TABLE_MAX = 50_000
Timeline = tuple[tuple[int, str], ...]
"""Owners, each from an instant on, until the next one's; "" is nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """Owners within a period.

    Attributes:
        timelines: those that differ.
        subjects: of each that is owned in the period, the number of its timeline.
    """

    timelines: tuple[Timeline, ...]
    subjects: tuple[tuple[str, int], ...]

    @property
    def changes(self) -> frozenset[int]:
        """Instants inside the period at which some subject's owner changes, in microseconds."""
        return frozenset(at for timeline in self.timelines for at, _ in timeline[1:])

    def subjects_sql(self, bound: Parameters) -> str:
        """SQL: all of the subjects, as an array."""
        return bind_texts(bound, [subject for subject, _ in self.subjects])

    def owner_sql(self, bound: Parameters, subjects: str, instant_us: str) -> str:
        """SQL of the owner of a row's usage, "" if nobody owns it.

        Args:
            bound: where values are bound.
            subjects: what `subjects_sql` gave.
            instant_us: SQL of the row's instant in microseconds; of a cell, which no change is
                inside of, its beginning.
        """
        # One more timeline, of nobody, is that of all other subjects.
        timelines = (*self.timelines, ((_BEGINNING, ""),))
        numbers = bind_numbers(bound, [number for _, number in self.subjects])
        timeline = f"transform(subject, {subjects}, {numbers}, toUInt32({len(self.timelines)}))"
        known = sorted({name for each in timelines for _, name in each})
        names = bind_texts(bound, known)
        places = {name: place for place, name in enumerate(known, 1)}
        changes = sorted(self.changes)
        if len(changes) <= _PHASES_MAX and len(changes) * len(timelines) <= _TABLE_MAX:
            # A table: who owned what between which changes. Comparing is all there is to do.
            table = [places[_owner_at(each, at)] for each in timelines for at in (None, *changes)]
            phase = "".join(f" + ({instant_us} >= {at})" for at in changes)
            step = f"{timeline} * {len(changes) + 1}{phase} + 1"
            return f"arrayElement({names}, arrayElement({bind_numbers(bound, table)}, {step}))"
        # All timelines in one list, and where each begins and ends in it.
        steps = [step for each in timelines for step in each]
        ends = list(accumulate(map(len, timelines)))
        owners = bind_numbers(bound, [places[name] for _, name in steps])
        instants = bind_numbers(bound, [at for at, _ in steps], "Int64")
        first, last = (
            f"arrayElement({bind_numbers(bound, each)}, {timeline} + 1)"
            for each in ([0, *ends[:-1]], ends)
        )
        within = f"arraySlice({instants}, {first} + 1, {last} - {first})"
        # What is before all steps, as a cell may be that begins before the period, is of the first.
        step = f"greatest(1, arrayLastIndex(at -> at <= {instant_us}, {within}))"
        return f"arrayElement({names}, arrayElement({owners}, {first} + {step}))"


def ownership(
    attributions: Iterable[Attribution], start: datetime | None, end: datetime | None
) -> Ownership:
    """Owners within [start, end); None is open."""
    low = _BEGINNING if start is None else us_from_datetime(start)
    high = 2**63 if end is None else us_from_datetime(end)
    spans: dict[str, list[tuple[int, int, str]]] = {}
    for each in attributions:
        begin = _BEGINNING if each.begins_at is None else us_from_datetime(each.begins_at)
        finish = 2**63 if each.ends_at is None else us_from_datetime(each.ends_at)
        begin, finish = max(begin, low), min(finish, high)
        if begin < finish:
            spans.setdefault(each.subject_key, []).append((begin, finish, each.customer_id))
    numbers: dict[Timeline, int] = {}
    subjects = [
        (subject, numbers.setdefault(_timeline(sorted(found), low, high), len(numbers)))
        for subject, found in sorted(spans.items())
    ]
    return Ownership(timelines=tuple(numbers), subjects=tuple(subjects))


def _timeline(spans: Sequence[tuple[int, int, str]], low: int, high: int) -> Timeline:
    """Owners from `low` on, of spans in order that do not overlap; neighbours differ."""
    steps: list[tuple[int, str]] = []
    at = low
    for begin, end, name in spans:
        if begin > at:
            steps.append((at, ""))
        steps.append((begin, name))
        at = end
    if at < high:
        steps.append((at, ""))
    return tuple(
        step for number, step in enumerate(steps) if not number or steps[number - 1][1] != step[1]
    )


def _owner_at(timeline: Timeline, at: int | None) -> str:
    """The owner from an instant on; None: at first."""
    begun = [name for begin, name in timeline if at is not None and begin <= at]
    return begun[-1] if begun else timeline[0][1]


def bind_texts(bound: Parameters, values: Sequence[str]) -> str:
    """SQL of an array of texts, each bound."""
    return _joined([bound.bind(tuple(piece)) for piece in _pieces(values)])


def bind_numbers(bound: Parameters, values: Sequence[int], kind: str = "UInt32") -> str:
    """SQL of an array of integers, bound."""
    return _joined(
        [
            bound.bind_numbers(values[at : at + _PIECE_NUMBERS], kind)
            for at in range(0, len(values) or 1, _PIECE_NUMBERS)
        ]
    )


def _pieces(values: Iterable[str]) -> Iterator[list[str]]:
    piece: list[str] = []
    size = 0
    for value in values:
        # Every byte may have to be escaped, and every text is quoted.
        more = 2 * len(value.encode()) + 3
        if piece and size + more > _PIECE_BYTES:
            yield piece
            piece, size = [], 0
        piece.append(value)
        size += more
    yield piece


def _joined(arrays: Sequence[str]) -> str:
    return arrays[0] if len(arrays) == 1 else f"arrayConcat({', '.join(arrays)})"
