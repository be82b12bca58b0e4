"""Usage that is given back, against tables worked out with pen and paper."""

import pytest

from tests.support.limits import Case, check, every, facts, grant

CASES = [
    Case(
        name="usage given back lowers overage, then restores in reverse burn order",
        known=facts(grant("a", 10), grant("b", 10, priority=2), grant("c", 10, 50)),
        usage={1: 23, 2: -2, 3: -4, 4: -9},
        expected=[
            (2, {"a": 0, "b": 0}, 23, 3, 20),
            (3, {"a": 0, "b": 0}, 21, 1, 20),
            (4, {"a": 0, "b": 3}, 17, 0, 20),
            (5, {"a": 2, "b": 10}, 8, 0, 20),
        ],
    ),
    Case(
        name="usage given back across a boundary restores what was burned before it",
        known=facts(grant("a", 10), grant("b", 10, 5, priority=2)),
        usage={1: 8, 6: -3, 7: -9},
        expected=[
            (5, {"a": 2, "b": 10}, 8, 0, 20),
            (7, {"a": 5, "b": 10}, 5, 0, 20),
            # 4 more than was ever used: no grant goes over what it had, and later usage has it.
            (8, {"a": 10, "b": 10}, -4, 0, 20),
        ],
    ),
    Case(
        name="the last grant that would burn is restored first",
        known=facts(grant("a", 10), grant("b", 10, priority=2), grant("c", 10, 5, priority=3)),
        usage={1: 13, 6: -2, 7: -3, 8: -9},
        expected=[
            (5, {"a": 0, "b": 7, "c": 10}, 13, 0, 30),
            (7, {"a": 0, "b": 9, "c": 10}, 11, 0, 30),
            (8, {"a": 2, "b": 10, "c": 10}, 8, 0, 30),
            (9, {"a": 10, "b": 10, "c": 10}, -1, 0, 30),
        ],
    ),
    Case(
        name="usage that comes and is given back between two boundaries leaves no trace",
        known=facts(grant("b", 10, priority=2), grant("a", 10, 5)),
        usage={1: 3, 6: -2, 7: 2, 8: 4, 9: -4},
        expected=[
            (5, {"a": 10, "b": 7}, 3, 0, 20),
            (7, {"a": 10, "b": 9}, 1, 0, 20),
            (8, {"a": 10, "b": 7}, 3, 0, 20),
            (9, {"a": 6, "b": 7}, 7, 0, 20),
            (10, {"a": 10, "b": 7}, 3, 0, 20),
        ],
    ),
    Case(
        name="what no grant could take is used up first",
        known=facts(grant("a", 10), grant("b", 10, 5)),
        usage={1: -3, 6: 2, 7: 2},
        expected=[
            (4, {"a": 10}, -3, 0, 10),
            (7, {"a": 10, "b": 10}, -1, 0, 20),
            (8, {"a": 9, "b": 10}, 1, 0, 20),
        ],
    ),
    Case(
        name="an expired grant takes nothing back, nor does one that was topped up since",
        known=facts(
            grant("gone", 4, 0, 5),
            grant("recurs", 4, priority=2, recurrence=every(5)),
        ),
        usage={1: 6, 6: -5, 7: 6},
        expected=[
            (4, {"gone": 0, "recurs": 2}, 6, 0, 8),
            (5, {"recurs": 4}, 6, 0, 10),
            (7, {"recurs": 4}, 1, 0, 10),
            (8, {"recurs": 3}, 7, 0, 10),
        ],
    ),
    Case(
        name="what was given back beyond all grants does not outlive a reset",
        known=facts(grant("a", 10, rolls=(0, 10)), usage_period=every(10), preserve_overage=True),
        usage={1: -3, 11: 2},
        expected=[(9, {"a": 10}, -3, 0, 10), (10, {"a": 10}, 0, 0, 10), (12, {"a": 8}, 2, 0, 10)],
    ),
    Case(
        name="usage of the last period is not given back to this one's grants",
        known=facts(grant("a", 10, rolls=(0, 10)), usage_period=every(10)),
        usage={1: 4, 11: -3},
        expected=[(10, {"a": 6}, 0, 0, 6), (12, {"a": 6}, -3, 0, 6)],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_balances(case: Case) -> None:
    check(case)
