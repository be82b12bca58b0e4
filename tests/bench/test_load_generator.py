"""The generator's figures are only worth what these hold: nothing lost, nothing counted twice."""

import asyncio
import itertools
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.event_requests import (
    REPEATED,
    make_event_requests,
    make_repeating_requests,
    new_of_repeating,
)
from tests.bench.figures import Row, spread_of
from tests.bench.histogram import Histogram
from tests.bench.load_generator import LoadResult, Target, run_closed_loop, run_open_loop

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
Answer = Callable[[int, asyncio.StreamWriter], None]


def run(
    answer: Answer, load: Callable[[Target], asyncio.Future[LoadResult]]
) -> tuple[LoadResult, list[bytes]]:
    """Run a load against a server that hands every whole request's number to `answer`."""
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                bodies.append(await reader.readexactly(length))
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            answer(len(bodies), writer)
        writer.close()

    async def main() -> LoadResult:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        listening: AbstractAsyncContextManager[object] = server
        async with listening:
            port = server.sockets[0].getsockname()[1]
            return await load(Target(port=port))

    return uvloop.run(main()), bodies


def closed(
    connections: int = 4, seconds: float = 0.2
) -> Callable[[Target], asyncio.Future[LoadResult]]:
    return lambda target: asyncio.ensure_future(
        run_closed_loop(
            target,
            make_event_requests("t", 1),
            connections=connections,
            seconds=seconds,
            warm_up_seconds=0.02,
        )
    )


def test_every_request_that_the_server_saw_is_acknowledged_and_has_an_id_of_its_own() -> None:
    result, bodies = run(lambda _, writer: writer.write(NO_CONTENT), closed())
    assert result.acknowledged == len(bodies) > 100
    assert len({json.loads(body)["id"] for body in bodies}) == len(bodies)
    assert 0 < result.completed <= result.acknowledged
    assert result.latencies.total == result.completed == result.statuses[204]
    assert result.unanswered == result.broken == 0


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([b"HTTP/1.1 503 No\r\ncontent-", b"length: 5\r\n\r\nhe", b"llo"], 503),
        ([b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n"], 400),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"0\r\n\r\n"], 200),
        ([b"HTTP/1.1 204 No Content\r\nTollgate-Position: 1", b"/0:7\r\n\r\n"], 204),
    ],
)
def test_answers_that_come_in_pieces_are_counted_once_by_status(
    pieces: list[bytes], status: int
) -> None:
    def answer(_: int, writer: asyncio.StreamWriter) -> None:
        # Each starts the wait for the next: timers set at once can overtake one another in a stall.
        def write(place: int) -> None:
            writer.write(pieces[place])
            if place + 1 < len(pieces):
                asyncio.get_running_loop().call_later(0.003, write, place + 1)

        write(0)

    result, bodies = run(answer, closed(connections=2))
    assert set(result.statuses) == {status}
    assert result.acknowledged == (len(bodies) if status < 300 else 0)


def test_a_cut_connection_is_counted_as_broken_and_replaced() -> None:
    def answer(number: int, writer: asyncio.StreamWriter) -> None:
        if number % 10:
            writer.write(NO_CONTENT)
        else:
            writer.close()

    result, bodies = run(answer, closed(connections=2))
    assert result.broken == len(bodies) // 10 > 1
    assert result.acknowledged == len(bodies) - result.broken


def test_an_open_loop_charges_a_stall_to_every_request_that_was_due_meanwhile() -> None:
    """100 a second; the first two requests, on both connections, are answered after 0.7 s.

    By hand: of the 50 measured, due from 0.3 s to 0.8 s, the 30 due before 0.6 s wait 0.1 s or
    more. Counted from the send, only those on the two connections would show it.
    """

    def answer(number: int, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        if number <= 2:
            loop.call_later(0.7, writer.write, NO_CONTENT)
        else:
            writer.write(NO_CONTENT)

    result, bodies = run(
        answer,
        lambda target: asyncio.ensure_future(
            run_open_loop(
                target, make_event_requests("t", 1), connections=2, per_second=100, seconds=0.5
            )
        ),
    )
    assert result.acknowledged == len(bodies)
    assert result.unanswered == 0
    assert result.completed == 50
    assert result.latencies.percentile(50) >= 100_000


def test_a_batch_has_ids_of_its_own_and_says_its_length() -> None:
    source = make_event_requests("t", 100)
    ids = []
    for request in itertools.islice(iter(source, b""), 50):
        head, body = request.split(b"\r\n\r\n", 1)
        assert f"Content-Length: {len(body)}".encode() in head
        ids += [event["id"] for event in json.loads(body)]
    assert len(set(ids)) == len(ids) == 5000


def test_percentiles_of_a_table_computed_by_hand() -> None:
    histogram = Histogram()
    for microseconds in (1, 2, 3, 4, 5, 6, 7, 8, 9, 100_000):
        histogram.record(microseconds)
    assert [histogram.percentile(percent) for percent in (10, 50, 90, 91, 100)] == [
        1,
        5,
        9,
        100_000,
        100_000,
    ]
    assert Histogram().percentile(99) == 0


@given(
    st.lists(st.integers(0, 10**10), min_size=1, max_size=50),
    st.lists(st.integers(0, 10**6), max_size=50),
    st.integers(1, 100),
)
def test_a_percentile_is_never_too_low_and_at_most_a_64th_too_high(
    values: list[int], more: list[int], percent: int
) -> None:
    histogram, other = Histogram(), Histogram()
    for microseconds in values:
        histogram.record(microseconds)
    for microseconds in more:
        other.record(microseconds)
    histogram.add(other)
    bound = (1 << 33) - 1
    everything = sorted(min(value, bound) for value in values + more)
    exact = everything[-(-len(everything) * percent // 100) - 1]
    assert exact <= histogram.percentile(percent) <= exact + exact // 64
    assert histogram.maximum == everything[-1]


def test_a_ratio_is_taken_round_by_round() -> None:
    row = Row(
        scenario="s",
        label="l",
        unit="1/s",
        values=[10, 30, 40],
        baseline="b",
        baseline_values=[20, 40, 160],
    )
    assert row.ratios == (0.5, 0.75, 0.25)
    spread = spread_of(row.ratios)
    assert (spread.least, spread.median, spread.greatest, spread.width) == (0.25, 0.5, 0.75, 3)


def test_repeats_are_the_same_events() -> None:
    source = make_repeating_requests("again", 5)
    events: dict[str, object] = {}
    for number in range(1, REPEATED * 2):
        head, _, body = source().partition(b"\r\n\r\n")
        assert int(head.rpartition(b" ")[2]) == len(body)
        batch = json.loads(body)
        assert len(batch) == 5
        for event in batch:
            assert events.setdefault(event["id"], event) == event
        assert len(events) == new_of_repeating(number, 5)
