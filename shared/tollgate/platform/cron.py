"""Five-field cron expressions in UTC: the schedules of the function table.

Fields: minute, hour, day of month, month, day of week (0 is Sunday); `*`, numbers, lists, ranges
and steps (POSIX crontab(5) with steps). PingSource reads the same text on Knative.
"""

from datetime import datetime, timedelta

_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_SEARCH_MINUTES_MAX = 366 * 24 * 60


def parse_cron(expression: str) -> tuple[frozenset[int], ...]:
    """The allowed values of each field.

    Raises:
        ValueError: not five fields, or a value out of its bounds.
    """
    fields = expression.split()
    if len(fields) != len(_BOUNDS):
        raise ValueError(f"{expression!r} has {len(fields)} fields, a cron expression has 5")
    return tuple(_field(text, *bounds) for text, bounds in zip(fields, _BOUNDS, strict=True))


def _field(text: str, low: int, high: int) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        start = low if first == "*" else int(first)
        end = high if first == "*" or (step and not last) else int(last or first)
        if not low <= start <= end <= high:
            raise ValueError(f"{part!r} is outside {low} to {high}")
        values.update(range(start, end + 1, int(step or 1)))
    return frozenset(values)


def next_run(expression: str, after: datetime) -> datetime:
    """The first minute after an instant that the expression names.

    Raises:
        ValueError: the expression is wrong, or names no day within a year.
    """
    minutes, hours, days, months, weekdays = parse_cron(expression)
    at = after.replace(second=0, microsecond=0)
    for _ in range(_SEARCH_MINUTES_MAX):
        at += timedelta(minutes=1)
        if (
            at.minute in minutes
            and at.hour in hours
            and at.day in days
            and at.month in months
            and at.isoweekday() % 7 in weekdays
        ):
            return at
    raise ValueError(f"{expression!r} names no minute within a year")
