"""Group commit: one flush on its way, what arrives meanwhile shares the next record."""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.core.clock import SystemClock
from tollgate.core.errors import Transient
from tollgate.events.flush import Flusher, pack
from tollgate.events.record import ENTRY, Encoded, decode_record
from tollgate.platform.event_log import Done
from tollgate.platform.sqlite_log import SqliteLog


def encoded(line: bytes) -> Encoded:
    return Encoded(
        key_hash=bytes(16),
        content_hash=bytes(16),
        time_us=0,
        received_us=0,
        flags=0,
        key_length=1,
        line=line,
    )


def sized(size: int) -> Encoded:
    return encoded(b"x" * (size - ENTRY.size))


Groups = list[tuple[str, list[Encoded]]]


def shape(records: Sequence[Sequence[tuple[str, Sequence[Encoded]]]]) -> list[list[object]]:
    return [[(name, [e.size for e in events]) for name, events in record] for record in records]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([("a", [100, 100])], [[("a", [100, 100])]]),
        ([("a", [100, 100, 100])], [[("a", [100, 100])], [("a", [100])]]),
        (
            [("a", [100]), ("b", [100]), ("a", [100])],
            [[("a", [100]), ("b", [100])], [("a", [100])]],
        ),
        ([("a", [300])], [[("a", [300])]]),
        ([("a", [100, 300, 100])], [[("a", [100])], [("a", [300])], [("a", [100])]]),
        ([("a", [250]), ("b", [1 + 64])], [[("a", [250])], [("b", [65])]]),
    ],
    ids=["fits", "splits", "keeps order of names", "too large alone", "too large between", "exact"],
)
def test_packing_by_hand(groups: list[tuple[str, list[int]]], expected: list[object]) -> None:
    """Records of 250 bytes."""
    made = [(name, [sized(size) for size in sizes]) for name, sizes in groups]
    assert shape(pack(made, 250)) == expected


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.lists(st.integers(65, 400), min_size=1, max_size=6)),
        min_size=1,
        max_size=6,
    ),
    st.integers(65, 500),
)
def test_packing_keeps_every_event_in_order_and_within_bounds(
    groups: list[tuple[str, list[int]]], bytes_max: int
) -> None:
    made = [(name, [sized(size) for size in sizes]) for name, sizes in groups]
    records = pack(made, bytes_max)
    flat = [(name, e) for record in records for name, events in record for e in events]
    assert flat == [(name, e) for name, events in made for e in events]
    for record in records:
        sizes = [e.size for _, events in record for e in events]
        assert sizes
        assert sum(sizes) <= bytes_max or len(sizes) == 1
    for before, after in itertools.pairwise(records):
        room = bytes_max - sum(e.size for _, events in before for e in events)
        assert after[0][1][0].size > room, "a record was ended too early"


class Held(SqliteLog):
    """The log on a disk that takes its time: a flush is written when the test lets it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, SystemClock())
        self.flights: list[tuple[Sequence[bytes], Done]] = []

    def submit(self, partition: int, values: Sequence[bytes], done: Done) -> None:
        self.flights.append((values, done))

    def let_go(self) -> None:
        """Writes the flush that waits."""
        values, done = self.flights.pop()
        super().submit(0, values, done)


def flusher(log: SqliteLog, pending_bytes_max: int = 10_000) -> Flusher:
    return Flusher(log, 0, record_bytes_max=1000, pending_bytes_max=pending_bytes_max)


def lines_of(log: SqliteLog) -> list[bytes]:
    return [bytes(decode_record(r.value).lines) for r in log.read(0, -1, 1 << 20)]


def test_requests_of_one_turn_share_a_record_and_the_next_waits(tmp_path: Path) -> None:
    async def scenario(log: Held) -> None:
        flush = flusher(log)
        first = [flush.append("a", [encoded(b"1")]), flush.append("b", [encoded(b"2")])]
        await asyncio.sleep(0)
        assert len(log.flights) == 1
        later = [flush.append("a", [encoded(b"3")]), flush.append("a", [encoded(b"4")])]
        await asyncio.sleep(0)
        assert len(log.flights) == 1, "one flush at a time"
        assert flush.pending_bytes == 4 * (ENTRY.size + 1)
        log.let_go()
        assert await asyncio.gather(*first) == [0, 0]
        assert not any(future.done() for future in later)
        log.let_go()
        assert await asyncio.gather(*later) == [1, 1]
        assert (flush.flushes, flush.pending_bytes) == (2, 0)
        await flush.drain()
        assert lines_of(log) == [b"12", b"34"]

    with closing(Held(tmp_path / "log.sqlite")) as log:
        asyncio.run(scenario(log))


def test_a_large_request_becomes_several_records_and_gets_the_last_offset(tmp_path: Path) -> None:
    async def scenario(log: SqliteLog) -> None:
        assert await flusher(log).append("a", [sized(600), sized(600), sized(600)]) == 2

    with closing(SqliteLog(tmp_path / "log.sqlite", SystemClock())) as log:
        asyncio.run(scenario(log))
        assert [len(lines) for lines in lines_of(log)] == [536, 536, 536]


def test_too_much_waiting_is_refused_and_nothing_of_it_stored(tmp_path: Path) -> None:
    async def scenario(log: Held) -> None:
        flush = flusher(log, pending_bytes_max=200)
        # One request larger than the bound is taken when nothing else waits.
        first = flush.append("a", [sized(300)])
        with pytest.raises(Transient, match="nothing of this request was stored"):
            flush.append("a", [sized(65)])
        await asyncio.sleep(0)
        log.let_go()
        assert await first == 0
        second = flush.append("a", [sized(200)])
        await asyncio.sleep(0)
        log.let_go()
        assert await second == 1

    with closing(Held(tmp_path / "log.sqlite")) as log:
        asyncio.run(scenario(log))


def test_a_refusal_reaches_every_request_of_the_flush_and_the_next_goes_on(tmp_path: Path) -> None:
    async def scenario(log: Held) -> None:
        flush = flusher(log)
        first = [flush.append("a", [encoded(b"1")]), flush.append("b", [encoded(b"2")])]
        await asyncio.sleep(0)
        _, done = log.flights.pop()
        next_one = flush.append("a", [encoded(b"3")])
        done(Transient("disk is full"))
        outcomes = await asyncio.gather(*first, return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["disk is full"] * 2
        log.let_go()
        assert await next_one == 0
        assert flush.pending_bytes == 0

    with closing(Held(tmp_path / "log.sqlite")) as log:
        asyncio.run(scenario(log))


def test_a_client_that_left_keeps_no_one_from_an_answer(tmp_path: Path) -> None:
    async def scenario(log: Held) -> None:
        flush = flusher(log)
        gone, stays = flush.append("a", [encoded(b"1")]), flush.append("a", [encoded(b"2")])
        await asyncio.sleep(0)
        gone.cancel()
        log.let_go()
        assert await stays == 0

    with closing(Held(tmp_path / "log.sqlite")) as log:
        asyncio.run(scenario(log))
        assert lines_of(log) == [b"12"], "what was sent is stored, whoever listens"
