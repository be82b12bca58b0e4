"""Schedules of the function table."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.platform.cron import next_run, parse_cron
from tollgate.platform.functions import FUNCTIONS

# 2026-01-01 is a Thursday.
NEXT = [
    ("* * * * *", "2026-01-01T00:00", "2026-01-01T00:01"),
    ("0 * * * *", "2026-01-01T00:00", "2026-01-01T01:00"),
    ("*/15 * * * *", "2026-01-01T00:14", "2026-01-01T00:15"),
    ("*/15 * * * *", "2026-01-01T00:45", "2026-01-01T01:00"),
    ("5/20 * * * *", "2026-01-01T00:25", "2026-01-01T00:45"),
    ("10-12 * * * *", "2026-01-01T00:12", "2026-01-01T01:10"),
    ("10-14/2 3 * * *", "2026-01-01T00:00", "2026-01-01T03:10"),
    ("0,30 * * * *", "2026-01-01T00:05", "2026-01-01T00:30"),
    ("0 0 * * 0", "2026-01-01T00:00", "2026-01-04T00:00"),
    ("0 0 * * 1-5", "2026-01-02T00:00", "2026-01-05T00:00"),
    ("0 0 31 * *", "2026-01-31T00:00", "2026-03-31T00:00"),
    ("59 23 31 12 *", "2026-01-01T00:00", "2026-12-31T23:59"),
]


@pytest.mark.parametrize(("expression", "after", "due"), NEXT)
def test_next_run_by_hand(expression: str, after: str, due: str) -> None:
    start = datetime.fromisoformat(after).replace(tzinfo=UTC)
    wanted = datetime.fromisoformat(due).replace(tzinfo=UTC)
    assert next_run(expression, start) == wanted
    assert next_run(expression, start + timedelta(seconds=59, microseconds=999_999)) == wanted


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 7",
        "5-1 * * * *",
        "-1 * * * *",
        "a * * * *",
        "*/0 * * * *",
        "*/-5 * * * *",
        "1,,2 * * * *",
        "0 0 30 2 *",
    ],
)
def test_wrong_expressions(expression: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        next_run(expression, datetime(2026, 1, 1, tzinfo=UTC))


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 -- made aware below
    st.sampled_from([expression for expression, _, _ in NEXT if " 31 " not in expression]),
)
def test_nothing_due_is_passed_over(naive: datetime, expression: str) -> None:
    after = naive.replace(tzinfo=UTC)
    due = next_run(expression, after)
    assert after < due
    assert (due.second, due.microsecond) == (0, 0)
    minutes, hours, days, months, weekdays = parse_cron(expression)

    def named(at: datetime) -> bool:
        return (
            at.minute in minutes
            and at.hour in hours
            and at.day in days
            and at.month in months
            and at.isoweekday() % 7 in weekdays
        )

    assert named(due)
    at = after.replace(second=0, microsecond=0) + timedelta(minutes=1)
    while at < due:
        assert not named(at)
        at += timedelta(minutes=1)


def test_every_schedule_of_the_table_can_be_read() -> None:
    for function in FUNCTIONS:
        if function.schedule:
            parse_cron(function.schedule)
