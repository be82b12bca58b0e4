"""When a webhook is tried again: ten attempts within about three days.

The times between are those of the Standard Webhooks specification's deliverability schedule. Jitter
is added, never taken away: what failed together does not come back together.
"""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

DELAYS = (
    timedelta(0),
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""Before the first attempt, the second, and so on."""
ATTEMPTS_MAX = len(DELAYS)
JITTER_PERMILLE_MAX = 100
RETRY_AFTER_MAX = timedelta(hours=24)


def next_attempt(
    ended: int, at: datetime, *, retry_after: timedelta | None, jitter_permille: int
) -> datetime | None:
    """When the next attempt is due; None: there is none.

    Args:
        ended: how many attempts failed since the last request to send.
        at: when the last of them ended.
        retry_after: how long the receiver asked to be left alone.
        jitter_permille: random, 0 to `JITTER_PERMILLE_MAX`.
    """
    if ended >= ATTEMPTS_MAX:
        return None
    delay = DELAYS[ended]
    delay += delay * jitter_permille // 1000
    return at + max(delay, min(retry_after or timedelta(0), RETRY_AFTER_MAX))


def parse_retry_after(text: str | None, now: datetime) -> timedelta | None:
    """What a header `Retry-After` asks for (RFC 9110 10.2.3): seconds, or a date."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(timedelta(seconds=int(text[:9])), RETRY_AFTER_MAX)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return min(max(until - now, timedelta(0)), RETRY_AFTER_MAX)
