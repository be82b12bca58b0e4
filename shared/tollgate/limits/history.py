"""Histories: what a burn-down was, window by window and change by change."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Self

from tollgate.core.decimals import EXACT
from tollgate.limits.burn_down import EndReason, Segment
from tollgate.limits.usage_kind import UsageKind

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What was used in a window, as far as it is in the asked period.

    Attributes:
        start, end: of what is in it.
        usage: in it; of a level the value at its end.
        balance_at_start: of all grants in force.
    """

    start: datetime
    end: datetime
    usage: Decimal
    balance_at_start: Decimal

    @classmethod
    def of(cls, segments: Sequence[Segment], kind: UsageKind) -> Self:
        """The window that segments make up, in their order."""
        with localcontext(EXACT):
            return cls(
                start=segments[0].start,
                end=segments[-1].end,
                usage=_usage(segments, kind),
                balance_at_start=sum(segments[0].balances_at_start.values(), _ZERO),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The same time twice.

    Attributes:
        windows: by the clock.
        segments: by what changed the balance beside usage.
    """

    windows: tuple[Window, ...]
    segments: tuple[Segment, ...]


def merged(segments: Iterable[Segment], kind: UsageKind) -> Iterator[Segment]:
    """Segments as if they had only been cut where something happened."""
    opened: Segment | None = None
    with localcontext(EXACT):
        for segment in segments:
            opened = segment if opened is None else _joined(opened, segment, kind)
            if any(end.reason is not EndReason.CUT for end in segment.ends):
                yield opened
                opened = None
    if opened is not None:
        yield opened


def _joined(first: Segment, second: Segment, kind: UsageKind) -> Segment:
    is_level = kind is UsageKind.LEVEL
    return replace(
        second,
        start=first.start,
        usage=_usage((first, second), kind),
        balances_at_start=first.balances_at_start,
        burned=second.burned if is_level else _added(first.burned, second.burned),
        overage_at_start=first.overage_at_start,
    )


def _usage(segments: Sequence[Segment], kind: UsageKind) -> Decimal:
    if kind is UsageKind.LEVEL:
        return segments[-1].usage
    return sum((segment.usage for segment in segments), _ZERO)


def _added(first: Mapping[str, Decimal], second: Mapping[str, Decimal]) -> dict[str, Decimal]:
    names = [*first, *(name for name in second if name not in first)]
    sums = {name: first.get(name, _ZERO) + second.get(name, _ZERO) for name in names}
    return {name: amount for name, amount in sums.items() if amount}
