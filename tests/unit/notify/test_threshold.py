"""Which levels a balance has reached, worked out by hand."""

from decimal import Decimal

import pytest

from tollgate.notify.threshold import Figures, Level, LevelType, reached

PERCENT, USAGE, BALANCE = (
    LevelType.USAGE_PERCENTAGE,
    LevelType.USAGE_VALUE,
    LevelType.BALANCE_VALUE,
)


def level(kind: LevelType, value: str | int) -> Level:
    return Level(type=kind, value=Decimal(value))


def figures(usage: str | int, total: str | int, balance: str | int | None = None) -> Figures:
    left = max(Decimal(total) - Decimal(usage), Decimal(0))
    return Figures(
        usage=Decimal(usage),
        total=Decimal(total),
        balance=left if balance is None else Decimal(balance),
    )


@pytest.mark.parametrize(
    ("kind", "value", "usage", "total", "is_reached"),
    [
        (PERCENT, 75, "74.999999999999999999", 100, False),
        (PERCENT, 75, 75, 100, True),
        (PERCENT, 100, 100, 100, True),
        (PERCENT, 150, 149, 100, False),
        (PERCENT, 150, 150, 100, True),
        # A third of three: 33.3... per cent is not 33.34, and is more than 33.33.
        (PERCENT, "33.33", 1, 3, True),
        (PERCENT, "33.34", 1, 3, False),
        # A double cannot tell these from each other.
        (PERCENT, 50, "9007199254740993.5", "18014398509481987", True),
        (PERCENT, 50, "9007199254740993.499999999999999999", "18014398509481987", False),
        # Nothing granted: any usage is more than every share of it.
        (PERCENT, 1000, "0.000000000000000001", 0, True),
        (PERCENT, 1, 0, 0, False),
        (PERCENT, 1, -1, 0, False),
        (PERCENT, 1, 0, 100, False),
        (USAGE, 10, "9.999999999999999999", 0, False),
        (USAGE, 10, 10, 0, True),
        (USAGE, 10, 11, 5, True),
        (BALANCE, 10, 89, 100, False),
        (BALANCE, 10, 90, 100, True),
        (BALANCE, 0, 99, 100, False),
        (BALANCE, 0, 100, 100, True),
        (BALANCE, 0, 5, 0, True),
        (BALANCE, 10, 0, 0, False),
        # More than was ever granted: low from the start.
        (BALANCE, 500, 0, 100, True),
    ],
)
def test_a_level_is_reached_at_its_value(
    kind: LevelType, value: str | int, usage: str | int, total: str | int, is_reached: bool
) -> None:
    wanted = level(kind, value)
    assert reached([wanted], figures(usage, total)) == ((wanted,) if is_reached else ())


def test_the_older_names_mean_the_same() -> None:
    levels = [level(LevelType.PERCENT, 50), level(LevelType.NUMBER, 60)]
    assert reached(levels, figures(59, 100)) == (levels[0],)
    assert reached(levels, figures(60, 100)) == tuple(levels)
    assert [each.type.meaning for each in levels] == [PERCENT, USAGE]


def test_all_levels_that_are_reached_are_told_in_their_order() -> None:
    levels = [level(PERCENT, n) for n in (150, 50, 100, 75)] + [level(BALANCE, 0)]
    assert reached(levels, figures(100, 100)) == (*levels[1:4], levels[4])
