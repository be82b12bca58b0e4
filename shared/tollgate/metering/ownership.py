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
            instant_us: SQL of the row's instant in microseconds; of a cell, any inside it that no
                change comes after.
        """
        if not self.subjects:
            return "''"
        numbers = _bind_numbers(bound, [number + 1 for _, number in self.subjects])
        timeline = f"transform(subject, {subjects}, {numbers}, toUInt32(0))"
        if not self.changes:
            names = bind_texts(bound, [timeline[0][1] for timeline in self.timelines])
            # No array has an element 0: nobody.
            return f"arrayElement({names}, {timeline})"
        # All timelines in one list, and where each begins and ends in it.
        steps = [step for each in self.timelines for step in each]
        ends = list(accumulate(len(each) for each in self.timelines))
        begins = [0, *ends[:-1]]
        names = bind_texts(bound, [name for _, name in steps])
        instants = _bind_numbers(bound, [at for at, _ in steps], "Int64")
        first, last = (
            f"arrayElement({_bind_numbers(bound, n)}, {timeline})" for n in (begins, ends)
        )
        within = f"arraySlice({instants}, {first} + 1, {last} - {first})"
        step = f"arrayLastIndex(at -> at <= {instant_us}, {within})"
        # A subject without a timeline has none of its steps.
        return f"if({timeline} = 0 OR {step} = 0, '', arrayElement({names}, {first} + {step}))"


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


def bind_texts(bound: Parameters, values: Sequence[str]) -> str:
    """SQL of an array of texts, each bound."""
    return _joined([bound.bind(tuple(piece)) for piece in _pieces(values)])


def _bind_numbers(bound: Parameters, values: Sequence[int], kind: str = "UInt32") -> str:
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
