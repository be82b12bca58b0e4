"""Levels of a threshold: which of them a balance has reached. Pure, exact."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from tollgate.core.decimals import EXACT

_HUNDRED = Decimal(100)


class LevelType(StrEnum):
    """What a level is compared with, as the contract names it; two have an older name too."""

    USAGE_PERCENTAGE = "usage_percentage"
    USAGE_VALUE = "usage_value"
    BALANCE_VALUE = "balance_value"
    PERCENT = "PERCENT"
    NUMBER = "NUMBER"

    @property
    def meaning(self) -> "LevelType":
        """The type without its older name."""
        return _MEANINGS.get(self, self)


_MEANINGS = {
    LevelType.PERCENT: LevelType.USAGE_PERCENTAGE,
    LevelType.NUMBER: LevelType.USAGE_VALUE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One threshold of a rule; `type` as it was sent."""

    type: LevelType
    value: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What levels are compared with, of one usage period.

    Attributes:
        usage: of the period.
        total: of the period's grants: what remains of those in force and what was used of all.
        balance: what remains; never below zero.
    """

    usage: Decimal
    total: Decimal
    balance: Decimal


def reached(levels: Iterable[Level], figures: Figures) -> tuple[Level, ...]:
    """The levels that the figures have reached, in the order given.

    Usage reaches a level from below: at it, it is reached. A balance reaches it from above. Where
    nothing was granted, any usage is more than every share of it. Where nothing was granted and
    nothing used, there is nothing to tell, and no level is reached.
    """
    if not figures.total and not figures.usage:
        return ()
    return tuple(level for level in levels if _is_reached(level, figures))


def _is_reached(level: Level, figures: Figures) -> bool:
    match level.type.meaning:
        case LevelType.USAGE_VALUE:
            return figures.usage >= level.value
        case LevelType.BALANCE_VALUE:
            return figures.balance <= level.value
        case _:
            if figures.total <= 0:
                return figures.usage > 0
            # Multiplied out: a quotient would have to be rounded.
            share = EXACT.multiply(figures.usage, _HUNDRED)
            return share >= EXACT.multiply(level.value, figures.total)
