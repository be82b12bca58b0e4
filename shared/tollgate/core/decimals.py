"""Exact decimal quantities: 38 digits, 18 of them after the point."""

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import reduce

SCALE = 18
"""Digits after the point that a value may have (ClickHouse Decimal(38, 18))."""

# Sums are held as Decimal(76, 18); a quotient needs room beyond that before it is rounded once.
EXACT = Context(prec=120, rounding=ROUND_HALF_EVEN)
_QUANTUM = Decimal(1).scaleb(-SCALE)


def divide(total: Decimal, count: int) -> Decimal:
    """Divides a total by a count, with 18 digits after the point, half to even."""
    return EXACT.quantize(EXACT.divide(total, Decimal(count)), _QUANTUM)


def total(values: Iterable[Decimal]) -> Decimal:
    """The sum of values, exact; of none 0."""
    return reduce(EXACT.add, values, Decimal(0))


def plain_text(value: Decimal) -> str:
    """The shortest text without exponent: `1.5`, `100`, `-0.000000000000000001`, never `-0`."""
    if not value:
        return "0"
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
