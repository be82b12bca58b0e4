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
from tollgate.events.record import (
    EVENT_BYTES,
    RECORD_BYTES,
    REQUEST_BYTES,
    Encoded,
    Group,
    decode_record,
    encode_record,
)
from tollgate.platform.event_log import Done
from tollgate.platform.segment_log import SegmentLog

EVENT = EVENT_BYTES + 1
"""What the smallest event takes."""


def encoded(line: bytes) -> Encoded:
    return Encoded(key_hash=bytes(16), line=line + b"\n")


def group(name: str, *lines: bytes) -> Group:
    return Group(name, 0, [encoded(line) for line in lines])


def sized(name: str, *sizes: int) -> Group:
    return group(name, *(b"x" * (size - EVENT) for size in sizes))


def size_of(event: Encoded) -> int:
    return EVENT_BYTES + len(event.line)


def shape(records: Sequence[Sequence[Group]]) -> list[list[object]]:
    return [[(g.namespace, [size_of(e) for e in g.events]) for g in record] for record in records]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([("a", [100, 100])], [[("a", [100, 100])]]),
        ([("a", [100, 100, 100])], [[("a", [100, 100])], [("a", [100])]]),
        ([("a", [100]), ("b", [100])], [[("a", [100])], [("b", [100])]]),
        ([("a", [300])], [[("a", [300])]]),
        ([("a", [100, 300, 100])], [[("a", [100])], [("a", [300])], [("a", [100])]]),
        ([("a", [250]), ("b", [65])], [[("a", [250])], [("b", [65])]]),
    ],
    ids=["fits", "splits", "a request has a head", "too large alone", "too large between", "exact"],
)
def test_packing_by_hand(groups: list[tuple[str, list[int]]], expected: list[object]) -> None:
    """Records with room for 250 bytes of events of one request."""
    made = [sized(name, *sizes) for name, sizes in groups]
    assert shape(pack(made, 250 + RECORD_BYTES + REQUEST_BYTES)) == expected


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.lists(st.integers(65, 400), min_size=1, max_size=6)),
        min_size=1,
        max_size=6,
    ),
    st.integers(200, 900),
)
def test_packing_keeps_every_event_in_order_and_within_bounds(
    groups: list[tuple[str, list[int]]], bytes_max: int
) -> None:
    made = [sized(name, *sizes) for name, sizes in groups]
    records = pack(made, bytes_max)
    flat = [(g.namespace, e) for record in records for g in record for e in g.events]
    assert flat == [(g.namespace, e) for g in made for e in g.events]
    for record in records:
        count = sum(len(g.events) for g in record)
        assert count
        assert len(encode_record(record)) <= bytes_max or count == 1
    for before, after in itertools.pairwise(records):
        room = bytes_max - RECORD_BYTES - sum(g.size for g in before)
        assert size_of(after[0].events[0]) > room - REQUEST_BYTES, "a record was ended too early"


class Held(SegmentLog):
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


def flusher(log: SegmentLog, pending_bytes_max: int = 10_000) -> Flusher:
    return Flusher(log, 0, record_bytes_max=1000, pending_bytes_max=pending_bytes_max)


def lines_of(log: SegmentLog) -> list[bytes]:
    return [bytes(decode_record(r.value).lines) for r in log.read(0, -1, 1 << 20)]


def test_requests_of_one_turn_share_a_record_and_the_next_waits(tmp_path: Path) -> None:
    async def scenario(log: Held) -> None:
        flush = flusher(log)
        first = [flush.append(group("a", b"1")), flush.append(group("b", b"2"))]
        await asyncio.sleep(0)
        assert len(log.flights) == 1
        later = [flush.append(group("a", b"3")), flush.append(group("a", b"4"))]
        await asyncio.sleep(0)
        assert len(log.flights) == 1, "one flush at a time"
        assert flush.pending_bytes == 2 * group("a", b"1").size + 2 * group("b", b"2").size
        log.let_go()
        assert await asyncio.gather(*first) == [0, 0]
        assert not any(future.done() for future in later)
        log.let_go()
        assert await asyncio.gather(*later) == [1, 1]
        assert (flush.flushes, flush.pending_bytes) == (2, 0)
        await flush.drain()
        assert lines_of(log) == [b"0,1\n1,2\n", b"0,3\n1,4\n"]

    with closing(Held(tmp_path / "log")) as log:
        asyncio.run(scenario(log))


def test_a_large_request_becomes_several_records_and_gets_the_last_offset(tmp_path: Path) -> None:
    async def scenario(log: SegmentLog) -> None:
        assert await flusher(log).append(sized("a", 600, 600, 600)) == 2

    with closing(SegmentLog(tmp_path / "log", SystemClock())) as log:
        asyncio.run(scenario(log))
        assert [len(lines) for lines in lines_of(log)] == [600 - EVENT + 3] * 3


def test_too_much_waiting_is_refused_and_nothing_of_it_stored(tmp_path: Path) -> None:
    async def scenario(log: Held) -> None:
        flush = flusher(log, pending_bytes_max=200)
        # One request larger than the bound is taken when nothing else waits.
        first = flush.append(sized("a", 300))
        with pytest.raises(Transient, match="nothing of this request was stored"):
            flush.append(sized("a", 65))
        await asyncio.sleep(0)
        log.let_go()
        assert await first == 0
        second = flush.append(sized("a", 200))
        await asyncio.sleep(0)
        log.let_go()
        assert await second == 1

    with closing(Held(tmp_path / "log")) as log:
        asyncio.run(scenario(log))


def test_a_refusal_reaches_every_request_of_the_flush_and_the_next_goes_on(tmp_path: Path) -> None:
    async def scenario(log: Held) -> None:
        flush = flusher(log)
        first = [flush.append(group("a", b"1")), flush.append(group("b", b"2"))]
        await asyncio.sleep(0)
        _, done = log.flights.pop()
        next_one = flush.append(group("a", b"3"))
        done(Transient("disk is full"))
        outcomes = await asyncio.gather(*first, return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["disk is full"] * 2
        log.let_go()
        assert await next_one == 0
        assert flush.pending_bytes == 0

    with closing(Held(tmp_path / "log")) as log:
        asyncio.run(scenario(log))


def test_a_client_that_left_keeps_no_one_from_an_answer(tmp_path: Path) -> None:
    async def scenario(log: Held) -> None:
        flush = flusher(log)
        gone, stays = flush.append(group("a", b"1")), flush.append(group("a", b"2"))
        await asyncio.sleep(0)
        gone.cancel()
        log.let_go()
        assert await stays == 0

    with closing(Held(tmp_path / "log")) as log:
        asyncio.run(scenario(log))
        assert lines_of(log) == [b"0,1\n1,2\n"], "what was sent is stored, whoever listens"
