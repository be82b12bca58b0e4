"""Balances against tables worked out with pen and paper."""

import pytest

from tests.support.limits import Case, check, every, facts, grant, hour, reset

CASES = [
    Case(
        name="usage burns a grant, and what is over is overage",
        known=facts(grant("a", 10)),
        usage={1: 4, 2: 5, 3: 3},
        expected=[
            (0, {"a": 10}, 0, 0, 10),
            (1, {"a": 10}, 0, 0, 10),  # usage at an instant is not before it
            (2, {"a": 6}, 4, 0, 10),
            (3, {"a": 1}, 9, 0, 10),
            (4, {"a": 0}, 12, 2, 10),
        ],
    ),
    Case(
        name="without grants all is overage",
        known=facts(),
        usage={1: 4},
        expected=[(0, {}, 0, 0, 0), (2, {}, 4, 4, 0)],
    ),
    Case(
        name="by priority, then earliest expiry, then age, then id",
        known=facts(
            grant("late", 10, 0, 50, priority=2),
            grant("soon", 10, 0, 40, priority=2),
            grant("first", 10, priority=1),
            grant("last", 10, priority=3),
        ),
        usage={1: 15, 2: 10, 3: 10},
        expected=[
            (2, {"first": 0, "soon": 5, "late": 10, "last": 10}, 15, 0, 40),
            (3, {"first": 0, "soon": 0, "late": 5, "last": 10}, 25, 0, 40),
            (4, {"first": 0, "soon": 0, "late": 0, "last": 5}, 35, 0, 40),
            # What was burned from grants since gone was available; what they still held was not.
            (50, {"first": 0, "last": 5}, 35, 0, 40),
        ],
    ),
    Case(
        name="a grant that expires takes what it held with it",
        known=facts(grant("a", 10, 0, 5), grant("b", 10)),
        usage={1: 4, 5: 4},
        expected=[
            (4, {"a": 6, "b": 10}, 4, 0, 20),
            (5, {"b": 10}, 4, 0, 14),
            (6, {"b": 6}, 8, 0, 14),
        ],
    ),
    Case(
        name="a void grant does the same",
        known=facts(grant("a", 10, voided_at=hour(5)), grant("b", 10)),
        usage={1: 4, 5: 4},
        expected=[(5, {"b": 10}, 4, 0, 14), (6, {"b": 6}, 8, 0, 14)],
    ),
    Case(
        name="a grant that begins pays the overage there is",
        known=facts(grant("a", 10), grant("b", 10, 5)),
        usage={1: 13, 6: 2},
        expected=[
            (4, {"a": 0}, 13, 3, 10),
            (5, {"a": 0, "b": 7}, 13, 0, 20),
            (7, {"a": 0, "b": 5}, 15, 0, 20),
        ],
    ),
    Case(
        name="grants that begin at one instant share the overage in burn order",
        known=facts(grant("b", 2, 5, priority=1), grant("a", 10, 5, priority=2)),
        usage={1: 5},
        expected=[(5, {"b": 0, "a": 7}, 5, 0, 12)],
    ),
    Case(
        name="a grant with lower priority that begins later burns later",
        known=facts(grant("b", 10, priority=2), grant("a", 10, 5, priority=1)),
        usage={1: 3, 6: 4},
        expected=[(7, {"a": 6, "b": 7}, 7, 0, 20)],
    ),
    Case(
        name="grants from before usage is measured are whole there",
        known=facts(grant("a", 10, -50), grant("gone", 10, -50, 50)),
        usage={-10: 5, 1: 1},
        expected=[(0, {"a": 10}, 0, 0, 10), (2, {"a": 9}, 1, 0, 10)],
    ),
    Case(
        name="a recurring grant is topped up, not added to",
        known=facts(grant("a", 10, recurrence=every(5))),
        usage={1: 4, 5: 3, 11: 12},
        expected=[
            (4, {"a": 6}, 4, 0, 10),
            (5, {"a": 10}, 4, 0, 14),
            (6, {"a": 7}, 7, 0, 14),
            (10, {"a": 10}, 7, 0, 17),
            (14, {"a": 0}, 19, 2, 17),
            (15, {"a": 8}, 19, 0, 27),
        ],
    ),
    Case(
        name="a grant recurs by its own anchor, from its begin to its end",
        known=facts(grant("a", 10, 3, 9, recurrence=every(4))),
        usage={3: 1, 5: 1, 9: 1},
        expected=[
            (2, {}, 0, 0, 0),
            (4, {"a": 10}, 1, 0, 11),
            (6, {"a": 9}, 2, 0, 11),
            (8, {"a": 10}, 2, 0, 12),
            (11, {"a": 9}, 3, 0, 12),
            (12, {}, 3, 0, 3),  # ends where it would have recurred
        ],
    ),
    Case(
        name="rollover: min(max, max(balance, min)), by grant",
        known=facts(
            grant("all", 10, priority=1, rolls=(0, 10)),
            grant("capped", 10, priority=2, rolls=(0, 6)),
            grant("floor", 10, priority=3, rolls=(4, 10)),
            grant("none", 10, priority=4),
            grant("same", 10, priority=5, rolls=(10, 10)),
            usage_period=every(10),
        ),
        usage={1: 12, 11: 3},
        expected=[
            (9, {"all": 0, "capped": 8, "floor": 10, "none": 10, "same": 10}, 12, 0, 50),
            (10, {"all": 0, "capped": 6, "floor": 10, "none": 0, "same": 10}, 0, 0, 26),
            (12, {"all": 0, "capped": 3, "floor": 10, "none": 0, "same": 10}, 3, 0, 26),
            (20, {"all": 0, "capped": 3, "floor": 10, "none": 0, "same": 10}, 0, 0, 23),
        ],
    ),
    Case(
        name="a reset drops overage",
        known=facts(grant("a", 10, rolls=(10, 10)), usage_period=every(10)),
        usage={1: 13},
        expected=[(9, {"a": 0}, 13, 3, 10), (10, {"a": 10}, 0, 0, 10)],
    ),
    Case(
        name="a reset that preserves overage has the next period's grants pay it",
        known=facts(grant("a", 10, rolls=(10, 10)), usage_period=every(10), preserve_overage=True),
        usage={1: 13, 11: 1, 12: 20},
        expected=[
            (9, {"a": 0}, 13, 3, 10),
            (10, {"a": 7}, 0, 0, 10),
            (12, {"a": 6}, 1, 0, 10),
            (14, {"a": 0}, 21, 14, 10),
            (20, {"a": 0}, 0, 4, 10),  # more than the new period has: the rest stays overage
            (30, {"a": 6}, 0, 0, 10),
        ],
    ),
    Case(
        name="what is preserved is overage of the period, however it was carried",
        known=facts(usage_period=every(10), preserve_overage=True),
        usage={1: 3, 11: 2},
        expected=[(10, {}, 0, 3, 0), (15, {}, 2, 5, 0), (20, {}, 0, 5, 0)],
    ),
    Case(
        name="a reset by hand keeps the anchor",
        known=facts(grant("a", 10, rolls=(10, 10)), usage_period=every(10), resets=(reset(4),)),
        usage={1: 3, 5: 4},
        expected=[
            (3, {"a": 7}, 3, 0, 10),
            (4, {"a": 10}, 0, 0, 10),
            (9, {"a": 6}, 4, 0, 10),
            (10, {"a": 10}, 0, 0, 10),
        ],
    ),
    Case(
        name="a reset by hand that moves the anchor moves all later periods",
        known=facts(
            grant("a", 10, rolls=(10, 10)),
            usage_period=every(10),
            resets=(reset(4, retain_anchor=False),),
        ),
        usage={1: 3, 5: 4, 15: 1},
        expected=[
            (4, {"a": 10}, 0, 0, 10),
            (13, {"a": 6}, 4, 0, 10),
            (14, {"a": 10}, 0, 0, 10),
            (20, {"a": 9}, 1, 0, 10),
            (24, {"a": 10}, 0, 0, 10),
        ],
    ),
    Case(
        name="a reset by hand says what becomes of overage",
        known=facts(
            grant("a", 10, rolls=(10, 10)),
            usage_period=every(10),
            resets=(reset(4, preserve_overage=True), reset(24, preserve_overage=False)),
        ),
        usage={1: 13, 21: 13},
        expected=[(4, {"a": 7}, 0, 0, 10), (10, {"a": 10}, 0, 0, 10), (24, {"a": 10}, 0, 0, 10)],
    ),
    Case(
        name="a reset by hand where a period ends takes its place",
        known=facts(
            grant("a", 10, rolls=(10, 10)),
            usage_period=every(10),
            resets=(reset(10, preserve_overage=True),),
        ),
        usage={1: 13},
        expected=[(10, {"a": 7}, 0, 0, 10)],
    ),
    Case(
        name="two resets by hand at one instant preserve overage only if both do",
        known=facts(
            grant("a", 10, rolls=(10, 10)),
            usage_period=every(10),
            resets=(
                reset(4, preserve_overage=True),
                reset(4, retain_anchor=False, preserve_overage=False),
            ),
        ),
        usage={1: 13, 5: 1},
        expected=[(4, {"a": 10}, 0, 0, 10), (13, {"a": 9}, 1, 0, 10), (14, {"a": 10}, 0, 0, 10)],
    ),
    Case(
        name="at one instant: expiry, reset with rollover, top-up, begin, then overage",
        known=facts(
            grant("ends", 10, 0, 10, priority=1, rolls=(10, 10)),
            grant("recurs", 4, priority=2, recurrence=every(10), rolls=(0, 1)),
            grant("begins", 10, 10, priority=3),
            usage_period=every(10),
            preserve_overage=True,
        ),
        usage={1: 19},
        # Overage 5: "ends" is gone and not rolled over, "recurs" is 0 after the reset and 4 after
        # its top-up and pays 4, "begins" is whole although it would roll over to 0, and pays 1.
        expected=[
            (9, {"ends": 0, "recurs": 0}, 19, 5, 14),
            (10, {"recurs": 0, "begins": 9}, 0, 0, 14),
        ],
    ),
    Case(
        name="a grant that begins and ends at one instant never counts",
        known=facts(grant("a", 10, 3, voided_at=hour(3)), grant("b", 10, 3, voided_at=hour(2))),
        usage={1: 1},
        expected=[(3, {}, 1, 1, 0), (4, {}, 1, 1, 0)],
    ),
    Case(
        name="one grant ends where another begins",
        known=facts(grant("a", 10, 0, 5), grant("b", 10, 5)),
        usage={4: 12},
        expected=[(4, {"a": 10}, 0, 0, 10), (5, {"b": 8}, 12, 0, 20)],
    ),
    Case(
        name="all digits count",
        known=facts(grant("a", "99999999999999999999.999999999999999999"), grant("b", "1e-18", 5)),
        usage={1: "0.000000000000000001", 2: "99999999999999999999", 6: "1"},
        expected=[
            (
                2,
                {"a": "99999999999999999999.999999999999999998"},
                "1e-18",
                0,
                "99999999999999999999.999999999999999999",
            ),
            (
                3,
                {"a": "0.999999999999999998"},
                "99999999999999999999.000000000000000001",
                0,
                "99999999999999999999.999999999999999999",
            ),
            (
                7,
                {"a": 0, "b": 0},
                "100000000000000000000.000000000000000001",
                "1e-18",
                "100000000000000000000",
            ),
        ],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_balances(case: Case) -> None:
    check(case)
