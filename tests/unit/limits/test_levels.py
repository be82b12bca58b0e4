"""Levels against tables worked out with pen and paper."""

import pytest

from tests.support.limits import Case, check, every, facts, grant
from tollgate.limits.usage_kind import UsageKind

CASES = [
    Case(
        name="a level is covered by what grants hold, and burns none",
        known=facts(
            grant("a", 5),
            grant("b", 5, 4, 4, priority=2),
            kind=UsageKind.LEVEL,
            usage_period=every(10),
            preserve_overage=True,
        ),
        usage={1: 3, 3: 7, 9: 4},
        expected=[
            (2, {"a": 2}, 3, 0, 5),
            (4, {"a": 0, "b": 3}, 7, 0, 10),  # begins here
            (5, {"a": 0, "b": 3}, 7, 0, 10),
            (8, {"a": 0}, 7, 2, 5),  # expires here
            (9, {"a": 0}, 7, 2, 5),
            (10, {"a": 0}, 0, 0, 0),  # rolls over to 0
        ],
    ),
    Case(
        name="a level's grants keep their capacity over a reset if they roll over",
        known=facts(
            grant("a", 5, rolls=(0, 5)),
            kind=UsageKind.LEVEL,
            usage_period=every(10),
            preserve_overage=True,
        ),
        usage={1: 7, 12: 2},
        expected=[(9, {"a": 0}, 7, 2, 5), (10, {"a": 5}, 0, 0, 5), (13, {"a": 3}, 2, 0, 5)],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_balances(case: Case) -> None:
    check(case)
