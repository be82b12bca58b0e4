"""What follows from an attempt, and when."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from tollgate.notify.delivery import (
    Attempt,
    State,
    attempt_from_members,
    judge,
    members_from_attempt,
)
from tollgate.notify.retry import next_attempt, parse_retry_after

NOW = datetime(2026, 3, 1, 12, 0, 0, 123457, tzinfo=UTC)


def attempt(status: int | None, error: str = "", retry_after: timedelta | None = None) -> Attempt:
    return Attempt(
        url="https://example.com",
        status=status,
        body="b",
        error=error,
        duration_ms=7,
        at=NOW,
        retry_after=retry_after,
    )


def test_ten_attempts_within_about_three_days() -> None:
    at, times = NOW, [NOW]
    for ended in range(1, 10):
        due = next_attempt(ended, at, retry_after=None, jitter_permille=0)
        assert due is not None
        times.append(at := due)
    seconds = [(after - before) // timedelta(seconds=1) for before, after in pairwise(times)]
    assert seconds == [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
    assert timedelta(days=3) < times[-1] - NOW < timedelta(days=3, hours=4)
    assert next_attempt(10, at, retry_after=None, jitter_permille=0) is None


def test_jitter_is_added_in_whole_permille() -> None:
    due = next_attempt(2, NOW, retry_after=None, jitter_permille=100)
    assert due == NOW + timedelta(seconds=330)


@pytest.mark.parametrize(
    ("asked", "seconds"), [(timedelta(seconds=3), 5), (timedelta(seconds=60), 60)]
)
def test_the_receiver_may_ask_for_more_time(asked: timedelta, seconds: int) -> None:
    due = next_attempt(1, NOW, retry_after=asked, jitter_permille=0)
    assert due == NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("120", 120),
        (" 0 ", 0),
        ("99999999999999", 86_400),
        ("Sun, 01 Mar 2026 12:01:00 GMT", 59),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
    ],
)
def test_retry_after(text: str | None, seconds: int | None) -> None:
    found = parse_retry_after(text, NOW)
    assert (None if found is None else found // timedelta(seconds=1)) == seconds


@pytest.mark.parametrize(
    ("what", "tries", "state", "reason", "waits"),
    [
        (attempt(200), 0, State.SUCCESS, "delivered", None),
        (attempt(299), 9, State.SUCCESS, "delivered", None),
        (attempt(500), 0, State.SENDING, "answered 500; it is tried again", 5),
        (attempt(500), 8, State.SENDING, "answered 500; it is tried again", 86_400),
        (attempt(500), 9, State.FAILED, "answered 500; that was the last attempt", None),
        (attempt(302), 0, State.SENDING, "302, and redirects are not followed", 5),
        (attempt(410), 0, State.FAILED, "410: the channel is disabled", None),
        (attempt(None, "no answer"), 0, State.SENDING, "no answer; it is tried again", 5),
        (attempt(429, "", timedelta(minutes=1)), 0, State.SENDING, "answered 429", 60),
    ],
)
def test_what_follows(
    what: Attempt, tries: int, state: State, reason: str, waits: int | None
) -> None:
    verdict = judge(what, tries, NOW, 0)
    assert verdict.state is state
    assert reason in verdict.reason
    due = None if waits is None else NOW + timedelta(seconds=waits)
    assert verdict.next_attempt == due


@pytest.mark.parametrize("what", [attempt(200), attempt(None, "gone")])
def test_an_attempt_is_stored_and_read_again(what: Attempt) -> None:
    assert attempt_from_members(members_from_attempt(what)) == what
