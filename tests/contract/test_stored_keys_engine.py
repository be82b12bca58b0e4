"""Keys in the real engine: filters built again from them, and who claims them."""

import itertools
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from clickhouse_connect.driver.exceptions import StreamFailureError

from tests.support.loading import Interruptible
from tollgate.core.errors import TollgateError, Transient
from tollgate.events.dedupe import DAY_US, SeenKeys, numbers_of
from tollgate.events.rebuild import Stopped, partition_of_day, rebuild
from tollgate.events.stored_claims import Claim, stored_claims
from tollgate.platform.clickhouse import ClickHouse

pytest_plugins = ["tests.support.stages"]
_days = itertools.count(22_000, 40)  # from 2030: no other test's keys stand there
_COLUMNS = (
    *("key", "digest", "log_generation", "log_partition", "log_offset", "log_index"),
    "appended_on",
)


@pytest.fixture
def first_day() -> int:
    """A day of which 30 belong to this test alone; nothing is stored after them."""
    return next(_days)


def hashes(numbers: Sequence[int]) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    """The hashes of keys by their numbers here."""
    joined = b"".join(np.random.default_rng(number).bytes(16) for number in numbers)
    return np.frombuffer(joined, np.uint64).reshape(-1, 2)


def keys(*numbers: int) -> list[int]:
    """What the engine has of the same keys."""
    found: list[int] = numbers_of(hashes(numbers)).tolist()
    return found


def store(
    clickhouse: ClickHouse,
    day: int,
    numbers: Sequence[int],
    *,
    at: tuple[int, int] = (7, 1),
    offset: int = 5,
) -> None:
    """Keys of one append day, at a generation and partition."""
    rows = [
        [key, number, *at, offset, number, day]
        for key, number in zip(keys(*numbers), numbers, strict=True)
    ]
    clickhouse.insert("event_keys", _COLUMNS, "\n".join(map(json.dumps, rows)).encode())


def test_a_rebuilt_filter_answers_as_the_one_that_was_filled(
    interruptible: Interruptible, first_day: int
) -> None:
    by_day = {first_day + day: range(day * 3000, day * 3000 + 2000) for day in range(5)}
    filled = SeenKeys({day: len(numbers) for day, numbers in by_day.items()})
    for day, numbers in by_day.items():
        for part in np.array_split(np.array(numbers), 3):
            store(interruptible, day, part.tolist())
            filled.add(hashes(part.tolist()), day * DAY_US + 1)
    rebuilt = rebuild(interruptible, 7, 1, first_day * DAY_US)
    assert rebuilt.count == filled.count == 10_000
    assert rebuilt.size_bytes == filled.size_bytes
    probes = hashes(range(15_000))
    assert rebuilt.contains(hashes([n for numbers in by_day.values() for n in numbers])).all()
    answers = [
        {day: named.tolist() for day, named in seen.days_of(probes).items()}
        for seen in (rebuilt, filled)
    ]
    assert answers[0] == answers[1]


def test_keys_of_other_partitions_are_left_out_but_not_those_of_other_generations(
    interruptible: Interruptible, first_day: int
) -> None:
    store(interruptible, first_day, range(100), at=(7, 1))
    store(interruptible, first_day, range(100, 200), at=(7, 2))
    store(interruptible, first_day, range(200, 300), at=(6, 2))
    store(interruptible, first_day + 1, range(300, 400), at=(8, 9))
    seen = rebuild(interruptible, 7, 1, first_day * DAY_US)
    assert seen.contains(hashes([*range(100), *range(200, 400)])).all()
    assert not seen.contains(hashes(range(100, 200))).any()
    assert seen.count == 300


def test_days_before_are_left_out_and_a_day_is_read_whole(
    interruptible: Interruptible, first_day: int
) -> None:
    for day in range(3):
        store(interruptible, first_day + day, range(day * 100, day * 100 + 100))
    seen = rebuild(interruptible, 7, 1, (first_day + 2) * DAY_US - 1)
    assert seen.contains(hashes(range(100, 300))).all()
    assert not seen.contains(hashes(range(100))).any()
    # What was read of a day is forgotten with it.
    seen.forget_before((first_day + 2) * DAY_US)
    assert not seen.contains(hashes(range(200))).any()
    assert seen.contains(hashes(range(200, 300))).all()
    assert rebuild(interruptible, 7, 1, (first_day + 3) * DAY_US).count == 0


def test_for_ever_is_since_the_beginning(interruptible: Interruptible, first_day: int) -> None:
    store(interruptible, first_day, range(50))
    assert rebuild(interruptible, 7, 1, 0).contains(hashes(range(50))).all()


def test_filters_that_nobody_wants_any_more_are_not_built_to_the_end(
    interruptible: Interruptible, first_day: int
) -> None:
    for day in range(3):
        store(interruptible, first_day + day, range(day * 10, day * 10 + 10))
    stop = threading.Event()
    assert rebuild(interruptible, 7, 1, 0, stop).count >= 30
    stop.set()
    with pytest.raises(Stopped):
        rebuild(interruptible, 7, 1, 0, stop)


def test_an_engine_that_is_away_is_a_fault_that_may_pass() -> None:
    away = ClickHouse(url="http://default:@127.0.0.1:1")
    with pytest.raises(Transient):
        rebuild(away, 7, 1, 0)


def test_an_answer_that_breaks_off_is_no_filter(
    interruptible: Interruptible, first_day: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(interruptible, first_day, range(100))
    store(interruptible, first_day + 1, range(100, 200))
    client, asked = interruptible.client(), itertools.count()
    whole = client.query_np_stream

    @contextmanager
    def broken(query: str, **options: Any) -> Iterator[Any]:
        with whole(query, **options) as blocks:
            if next(asked):
                raise StreamFailureError("broken off")
            yield blocks

    monkeypatch.setattr(client, "query_np_stream", broken)
    monkeypatch.setattr(interruptible, "client", lambda: client)
    with pytest.raises(TollgateError, match="broken off"):
        rebuild(interruptible, 7, 1, first_day * DAY_US)
    assert next(asked) == 2
    assert not [thread for thread in threading.enumerate() if thread.name == "rebuild"]


def test_the_name_of_a_days_partition_is_the_engines_own(
    interruptible: Interruptible, first_day: int
) -> None:
    store(interruptible, first_day, [1])
    names = interruptible.query(
        "SELECT DISTINCT _partition_id FROM tollgate.event_keys"
        " WHERE toUInt16(appended_on) = {at:UInt16}",
        {"at": first_day},
    )
    assert [tuple(row) for row in names] == [(partition_of_day(first_day),)]


def test_claims_are_found_on_their_days(interruptible: Interruptible, first_day: int) -> None:
    store(interruptible, first_day, range(100))
    store(interruptible, first_day + 1, range(50, 150), offset=9)
    found = stored_claims(
        interruptible,
        {
            first_day: keys(3, 60, 500),
            first_day + 1: keys(*range(60, 80)),
            first_day + 2: keys(60),
        },
    )
    third, sixtieth = keys(3, 60)
    assert found[third] == [Claim((7, 1, 5, 3), first_day, 3)]
    # Both claims of one key, the earlier position first, though another day's.
    assert found[sixtieth] == [
        Claim((7, 1, 5, 60), first_day, 60),
        Claim((7, 1, 9, 60), first_day + 1, 60),
    ]
    assert set(found) == set(keys(3, *range(60, 80)))


def test_a_row_that_was_written_twice_is_one_claim(
    interruptible: Interruptible, first_day: int
) -> None:
    for _ in range(2):
        store(interruptible, first_day, range(10))
    found = stored_claims(interruptible, {first_day: keys(*range(10))})
    assert len(found) == 10
    assert all(len(claims) == 1 for claims in found.values())


def test_many_keys_on_many_days_are_all_found(interruptible: Interruptible, first_day: int) -> None:
    # More keys than a bound value may hold, more days than one query has parts.
    store(interruptible, first_day, range(7000))
    wanted = {first_day: keys(*range(7000))}
    for day in range(1, 25):
        numbers = range(10_000 + day * 20, 10_000 + day * 20 + (3 if day % 2 else 12))
        store(interruptible, first_day + day, numbers)
        wanted[first_day + day] = keys(*numbers)
    found = stored_claims(interruptible, wanted)
    assert len(found) == sum(map(len, wanted.values()))


def test_nothing_wanted_asks_nothing() -> None:
    assert stored_claims(ClickHouse(url="http://127.0.0.1:1"), {}) == {}
