"""HTTP/1.1 load from one process: raw protocols, prebuilt bytes, the least parsing that is right.

Closed loop: every connection sends its next request when the last one is answered; the figure is
throughput. Open loop: requests are due at a fixed rate whatever the server does, and latency counts
from the instant a request was due, not from when a connection was free (no coordinated omission).
Requests go out on a tick of 1 ms, so an open loop's latencies are up to 1 ms too high.
"""

import asyncio
import collections
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

from tests.bench.histogram import Histogram

RequestSource = Callable[[], bytes]

_NO_CONTENT: Final = b"HTTP/1.1 204"
_END_OF_HEAD: Final = b"\r\n\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"
_TICK_SECONDS: Final = 0.001
_DRAIN_SECONDS: Final = 10
_RECONNECT_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the server listens."""

    port: int
    host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What one run saw.

    Attributes:
        statuses: Answers within the measured window, by status.
        seconds: Length of the measured window.
        latencies: Of the same answers.
        acknowledged: 2xx answers of the whole run, warm-up and drain included: what the server
            must hold.
        broken: Connections lost with a request in flight, and connects refused.
        unanswered: Requests without an answer when the drain ended, or due but never sent.
    """

    statuses: Mapping[int, int]
    seconds: float
    latencies: Histogram
    acknowledged: int
    broken: int
    unanswered: int

    @property
    def completed(self) -> int:
        """Number of answers in the window, of any status."""
        return sum(self.statuses.values())

    @property
    def accepted_per_second(self) -> float:
        """2xx answers a second."""
        accepted = sum(count for status, count in self.statuses.items() if 200 <= status < 300)
        return accepted / self.seconds


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request in flight."""

    __slots__ = ("_buffer", "_run", "_transport", "in_flight", "started_ns")

    def __init__(self, run: "_Run") -> None:
        self._run = run
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self.in_flight = False
        self.started_ns = 0

    def send(self, request: bytes, started_ns: int) -> None:
        """Send a request whose latency counts from `started_ns`."""
        self.started_ns = started_ns
        self.in_flight = True
        if self._transport is not None:
            self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio.Transport, so no isinstance check.
        self._transport = transport  # type: ignore[assignment]

    @override
    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self._run.lost(self)

    @override
    def data_received(self, data: bytes) -> None:
        if not self._buffer and data.startswith(_NO_CONTENT) and data.endswith(_END_OF_HEAD):
            self.in_flight = False
            self._run.answered(self, 204)
            return
        self._buffer += data
        if _is_complete(self._buffer):
            status = int(self._buffer[9:12])
            self._buffer = b""
            self.in_flight = False
            self._run.answered(self, status)


def _is_complete(response: bytes) -> bool:
    """Tell whether a response is whole; one request is in flight, so nothing may follow it."""
    head_end = response.find(_END_OF_HEAD)
    if head_end < 0:
        return False
    if response[9:12] in (b"204", b"304"):
        return True
    head = response[:head_end].lower() + b"\r\n"
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return b"chunked" in head and response.endswith(_LAST_CHUNK)
    length = int(head[at + 17 : head.index(b"\r\n", at + 17)])
    return len(response) >= head_end + 4 + length


class _Run(ABC):
    """What both loops share: connections, counting, the measured window."""

    def __init__(self, target: Target, source: RequestSource, connections: int) -> None:
        self._target = target
        self._source = source
        self._wanted = connections
        self._loop = asyncio.get_running_loop()
        self._connections: set[_Connection] = set()
        self._reconnecting: set[asyncio.Task[None]] = set()
        self._statuses = [0] * 600
        self._latencies = Histogram()
        self._window_start_ns = 0
        self._window_end_ns = 0
        self._acknowledged = 0
        self._broken = 0
        self._quiet = asyncio.Event()
        self._closing = False
        self.sending = False

    async def open(self) -> None:
        """Open all connections; raises OSError when the server does not listen."""
        for _ in range(self._wanted):
            await self._connect()

    async def _connect(self) -> _Connection:
        connection = _Connection(self)
        await self._loop.create_connection(lambda: connection, self._target.host, self._target.port)
        self._connections.add(connection)
        return connection

    def lost(self, connection: _Connection) -> None:
        """Count a request that was cut off, and open another connection while the run lasts."""
        self._connections.discard(connection)
        self.forget(connection)
        self._broken += connection.in_flight and not self._closing
        if not self.sending:
            self._note_quiet()
        else:
            task = self._loop.create_task(self._reconnect())
            self._reconnecting.add(task)
            task.add_done_callback(self._reconnecting.discard)

    async def _reconnect(self) -> None:
        while self.sending:
            try:
                connection = await self._connect()
            except OSError:
                self._broken += 1
                await asyncio.sleep(_RECONNECT_SECONDS)
            else:
                self.ready(connection)
                return

    def count(self, connection: _Connection, status: int, reference_ns: int, now_ns: int) -> None:
        """Count one answer, in the window if `reference_ns` lies in it."""
        if 200 <= status < 300:
            self._acknowledged += 1
        if self._window_start_ns <= reference_ns < self._window_end_ns:
            self._statuses[status] += 1
            self._latencies.record((now_ns - connection.started_ns) // 1000)
        if not self.sending:
            self._note_quiet()

    def open_window(self, warm_up_seconds: float, seconds: float) -> None:
        """Measure `seconds` from the end of the warm-up, which starts now."""
        self._window_start_ns = time.perf_counter_ns() + int(warm_up_seconds * 1e9)
        self._window_end_ns = self._window_start_ns + int(seconds * 1e9)

    def close_window(self) -> None:
        """End the window now, when nobody knew its length before."""
        self._window_end_ns = min(self._window_end_ns, time.perf_counter_ns())

    async def drain(self) -> int:
        """Wait for what is in flight, close everything, return how many got no answer."""
        self.sending = False
        self._note_quiet()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._quiet.wait(), _DRAIN_SECONDS)
        for task in self._reconnecting:
            task.cancel()
        self._closing = True
        unanswered = sum(connection.in_flight for connection in self._connections)
        for connection in list(self._connections):
            connection.close()
        return unanswered

    def _note_quiet(self) -> None:
        if not any(connection.in_flight for connection in self._connections):
            self._quiet.set()

    def result(self, unanswered: int) -> LoadResult:
        return LoadResult(
            statuses={status: n for status, n in enumerate(self._statuses) if n},
            seconds=(self._window_end_ns - self._window_start_ns) / 1e9,
            latencies=self._latencies,
            acknowledged=self._acknowledged,
            broken=self._broken,
            unanswered=unanswered,
        )

    @abstractmethod
    def answered(self, connection: _Connection, status: int) -> None: ...

    @abstractmethod
    def ready(self, connection: _Connection) -> None: ...

    @abstractmethod
    def forget(self, connection: _Connection) -> None:
        """Drop a lost connection from wherever the loop keeps it."""


class _ClosedLoop(_Run):
    def begin(self) -> None:
        self.sending = True
        for connection in self._connections:
            self.ready(connection)

    @override
    def ready(self, connection: _Connection) -> None:
        connection.send(self._source(), time.perf_counter_ns())

    @override
    def forget(self, connection: _Connection) -> None:
        pass  # it keeps none

    @override
    def answered(self, connection: _Connection, status: int) -> None:
        now_ns = time.perf_counter_ns()
        self.count(connection, status, now_ns, now_ns)
        if self.sending:
            connection.send(self._source(), now_ns)


async def run_closed_loop(
    target: Target,
    source: RequestSource,
    *,
    connections: int,
    seconds: float,
    warm_up_seconds: float = 0.3,
) -> LoadResult:
    """Keep every connection busy; answers that come within `seconds` after the warm-up count.

    Raises:
        OSError: The server does not listen.
    """
    run = _ClosedLoop(target, source, connections)
    await run.open()
    run.open_window(warm_up_seconds, seconds)
    run.begin()
    await asyncio.sleep(warm_up_seconds + seconds)
    return run.result(await run.drain())


class OpenLoop(_Run):
    """Requests at a fixed rate until it is stopped.

    A request that is due while no connection is free waits, and its latency counts the wait.
    """

    def __init__(
        self, target: Target, source: RequestSource, *, connections: int, per_second: int
    ) -> None:
        """Prepare; nothing is sent before `start`."""
        super().__init__(target, source, connections)
        self._interval_ns = 1_000_000_000 // per_second
        self._idle: list[_Connection] = []
        self._due: collections.deque[int] = collections.deque()
        self._next_ns = 0

    async def start(self, *, warm_up_seconds: float = 0.3, seconds: float = 86_400) -> None:
        """Open the connections and send; requests due in the window after the warm-up are measured.

        Raises:
            OSError: The server does not listen.
        """
        await self.open()
        self._idle.extend(self._connections)
        self.open_window(warm_up_seconds, seconds)
        self._next_ns = time.perf_counter_ns()
        self.sending = True
        self._tick()

    async def stop(self) -> LoadResult:
        """Stop sending, wait for the answers under way, return what the window saw."""
        self.close_window()
        unanswered = await self.drain()
        # What was due after the window was never to be measured.
        return self.result(unanswered + sum(due < self._window_end_ns for due in self._due))

    def _tick(self) -> None:
        if not self.sending:
            return
        now_ns = time.perf_counter_ns()
        while self._next_ns <= now_ns:
            self._due.append(self._next_ns)
            self._next_ns += self._interval_ns
        while self._due and self._idle:
            self._idle.pop().send(self._source(), self._due.popleft())
        self._loop.call_later(_TICK_SECONDS, self._tick)

    @override
    def ready(self, connection: _Connection) -> None:
        if self._due and self.sending:
            connection.send(self._source(), self._due.popleft())
        else:
            self._idle.append(connection)

    @override
    def forget(self, connection: _Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    @override
    def answered(self, connection: _Connection, status: int) -> None:
        self.count(connection, status, connection.started_ns, time.perf_counter_ns())
        self.ready(connection)


async def run_open_loop(
    target: Target,
    source: RequestSource,
    *,
    connections: int,
    per_second: int,
    seconds: float,
) -> LoadResult:
    """Send at a fixed rate for `seconds` after a warm-up.

    Raises:
        OSError: The server does not listen.
    """
    warm_up_seconds = 0.3
    run = OpenLoop(target, source, connections=connections, per_second=per_second)
    await run.start(warm_up_seconds=warm_up_seconds, seconds=seconds)
    await asyncio.sleep(warm_up_seconds + seconds)
    return await run.stop()
