"""The delivery of an event to a channel: its states, attempts, and what follows from one. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from tollgate.core.clock import datetime_from_us, us_from_datetime
from tollgate.notify.retry import next_attempt

ATTEMPTS_KEPT = 32
_GONE = 410


class State(StrEnum):
    """Of a delivery, as the contract names it.

    Sending: at least one attempt was begun, and others may follow. Resending: asked for again.
    """

    PENDING = "PENDING"
    SENDING = "SENDING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    RESENDING = "RESENDING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request, and what came of it.

    Attributes:
        status: of the answer; None: there was none.
        body: of the answer, cut to a bound.
        error: why there was no answer; "" if there was.
        at: when it began.
        retry_after: how long the receiver asked to be left alone.
    """

    url: str
    status: int | None
    body: str
    error: str
    duration_ms: int
    at: datetime
    retry_after: timedelta | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the receiver has taken it: any 2xx."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def says_gone(self) -> bool:
        """Whether the receiver wants no more of any."""
        return self.status == _GONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A delivery as it is stored; attempts oldest first, the last `ATTEMPTS_KEPT`."""

    event_id: str
    channel_id: str
    state: State
    reason: str
    next_attempt: datetime | None
    attempts: tuple[Attempt, ...]
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows from an attempt."""

    state: State
    reason: str
    next_attempt: datetime | None


def judge(attempt: Attempt, tries: int, now: datetime, jitter_permille: int) -> Verdict:
    """What follows from an attempt that ended now.

    Args:
        attempt: that ended.
        tries: how many have failed before it since the delivery was last asked for.
        now: the present.
        jitter_permille: as in `next_attempt`.
    """
    if attempt.succeeded:
        return Verdict(state=State.SUCCESS, reason="delivered", next_attempt=None)
    if attempt.says_gone:
        reason = "the receiver answered 410: the channel is disabled"
        return Verdict(state=State.FAILED, reason=reason, next_attempt=None)
    what = _what_failed(attempt)
    due = next_attempt(
        tries + 1, now, retry_after=attempt.retry_after, jitter_permille=jitter_permille
    )
    if due is None:
        reason = f"{what}; that was the last attempt"
        return Verdict(state=State.FAILED, reason=reason, next_attempt=None)
    return Verdict(state=State.SENDING, reason=f"{what}; it is tried again", next_attempt=due)


def _what_failed(attempt: Attempt) -> str:
    if attempt.status is None:
        return attempt.error
    if 300 <= attempt.status < 400:
        return f"the receiver answered {attempt.status}, and redirects are not followed"
    return f"the receiver answered {attempt.status}"


def members_from_attempt(attempt: Attempt) -> dict[str, object]:
    """An attempt as it is stored."""
    return {
        "url": attempt.url,
        "status": attempt.status,
        "body": attempt.body,
        "error": attempt.error,
        "duration_ms": attempt.duration_ms,
        "at_us": us_from_datetime(attempt.at),
    }


def attempt_from_members(members: Mapping[str, object]) -> Attempt:
    """An attempt that was stored."""
    status = members["status"]
    return Attempt(
        url=str(members["url"]),
        status=None if status is None else int(str(status)),
        body=str(members["body"]),
        error=str(members["error"]),
        duration_ms=int(str(members["duration_ms"])),
        at=datetime_from_us(int(str(members["at_us"]))),
    )
