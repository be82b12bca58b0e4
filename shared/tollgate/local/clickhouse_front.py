"""Answers ClickHouse's HTTP interface from an engine: a thread for each connection."""

import itertools
import json
import logging
import select
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass

from tollgate.local.clickhouse_engine import Engine, EngineError, Session
from tollgate.local.clickhouse_statement import Statement, read_statement
from tollgate.local.http_wire import BrokenRequest, Head, Wire

_log = logging.getLogger(__name__)
_CONNECTIONS_MAX = 1024
_STATEMENTS_MAX = 100
_IDLE_SECONDS = 600
_BODY_SECONDS = 60
_WATCH_SECONDS = 0.25
_DRAIN_SECONDS = 10
_CANCEL_SECONDS = 2
_TOO_MANY = (
    "Code: 202. DB::Exception: Too many simultaneous queries. (TOO_MANY_SIMULTANEOUS_QUERIES)"
)
# https://github.com/ClickHouse/ClickHouse/blob/master/src/Server/HTTP/exceptionCodeToHTTPStatus.cpp
_BAD_REQUEST = frozenset((6, 25, 26, 27, 38, 41, 53, 62, 72, 117, 168, 169, 223))
_NOT_FOUND = frozenset((46, 47, 50, 56, 60, 73, 81, 115, 152, 230))
_CLOSE = {"Connection": "close"}
_STATUS = {167: 413, 48: 501, 76: 503, 209: 503, 439: 503}


@dataclass(slots=True)
class _Reading:
    """A query whose client may go away before it ends."""

    mark: str
    since: float  # tidy: allow-float -- a time of the monotonic clock


class Front:
    """Accepts connections and answers each on a thread of its own."""

    def __init__(self, engine: Engine, listener: socket.socket) -> None:
        self._engine = engine
        self._listener = listener
        self._lock = threading.Lock()
        self._idle: set[socket.socket] = set()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._reading: dict[socket.socket, _Reading] = {}
        self._room = threading.BoundedSemaphore(_CONNECTIONS_MAX)
        self._statements = threading.BoundedSemaphore(_STATEMENTS_MAX)
        self._ending = threading.Event()

    def serve(self) -> None:
        """Serves until `end` is called, then until the requests in flight are answered."""
        threading.Thread(target=self._watch, daemon=True).start()
        while not self._ending.is_set():
            self._room.acquire()  # the thread of the connection gives it back
            try:
                connection, _ = self._listener.accept()
            except OSError:
                self._room.release()
                if self._ending.is_set():
                    break
                _log.exception("a connection could not be accepted")
                self._ending.wait(0.1)
                continue
            thread = threading.Thread(target=self._converse, args=(connection,), daemon=True)
            with self._lock:
                self._open[connection] = thread
                self._idle.add(connection)
            thread.start()
        self._drain()

    def end(self) -> None:
        """Takes no more connections or requests."""
        self._ending.set()
        with suppress(OSError):
            # Wakes the thread that accepts.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _drain(self) -> None:
        until = time.monotonic() + _DRAIN_SECONDS
        with self._lock:
            threads = list(self._open.values())
            for connection in self._idle:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        for reading in list(self._reading.values()):
            # Its client is told, and asks again.
            self._engine.cancel(reading.mark)
        for thread in threads:
            thread.join(max(0.0, until + _CANCEL_SECONDS - time.monotonic()))

    def _converse(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.settimeout(_IDLE_SECONDS)
                wire = Wire(connection)
                while self._request(wire, connection):
                    pass
        except OSError:
            # The client has gone; nobody is left to tell.
            pass
        except Exception:  # noqa: BLE001 -- the others go on
            _log.exception("a connection ended by a defect")
        finally:
            with self._lock:
                self._idle.discard(connection)
                del self._open[connection]
            self._room.release()

    def _request(self, wire: Wire, connection: socket.socket) -> bool:
        """Answers one request. Returns whether another may follow on the connection."""
        try:
            head = wire.read_head()
            if head is None:
                return False
            with self._lock:
                self._idle.discard(connection)
            connection.settimeout(_BODY_SECONDS)
            self._answer(wire, head, connection)
        except BrokenRequest as problem:
            found = EngineError(problem)
            wire.send(problem.status, _error_fields(found) | _CLOSE, f"{problem}\n".encode())
            return False
        connection.settimeout(_IDLE_SECONDS)
        with self._lock:
            self._idle.add(connection)
        return head.keep_alive and not self._ending.is_set()

    def _answer(self, wire: Wire, head: Head, connection: socket.socket) -> None:
        body = wire.read_body(head)
        if head.path == "/ping" or (head.method == "GET" and "query" not in head.arguments):
            wire.send(200, {}, b"Ok.\n")
            return
        if head.path != "/":
            raise BrokenRequest(404, f"there is nothing at {head.path}")
        statement = read_statement(head, body)
        query_id = head.arguments.get("query_id") or str(uuid.uuid4())
        fields = {
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Timezone": self._engine.time_zone,
        }
        if not self._statements.acquire(blocking=False):
            _rest(body)
            refusal = EngineError(RuntimeError(_TOO_MANY))
            wire.send(500, fields | _error_fields(refusal), f"{refusal}\n".encode())
            return
        try:
            with self._engine.session(statement) as session:
                self._run(wire, session, statement, fields, connection)
        except EngineError as problem:
            _rest(body)
            wire.send(
                _status(problem.code), fields | _error_fields(problem), f"{problem}\n".encode()
            )
        finally:
            self._statements.release()

    def _run(
        self,
        wire: Wire,
        session: Session,
        statement: Statement,
        fields: Mapping[str, str],
        connection: socket.socket,
    ) -> None:
        if statement.rows is not None:
            rows, size = session.insert()
            wire.send(200, {**fields, **_summary(rows, size)}, b"")
            return
        if not session.reads:
            wire.send(200, {**fields, **_summary(0, 0)}, session.run())
            return
        fields = {
            **fields,
            **_summary(0, 0),
            "X-ClickHouse-Format": statement.named_format or statement.format,
        }
        self._reading[connection] = _Reading(session.mark, time.monotonic())
        try:
            with closing(session.stream()) as pieces:
                first = next(pieces, b"")
                second = next(pieces, b"") if first else b""
                if not second:
                    wire.send(200, fields, first)
                    return
                tag = uuid.uuid4().hex[:16]
                fields["X-ClickHouse-Exception-Tag"] = tag
                wire.send_chunks(fields, _explained(itertools.chain((first, second), pieces), tag))
        finally:
            self._reading.pop(connection, None)

    def _watch(self) -> None:
        """Cancels queries whose client has closed its connection."""
        while not self._ending.wait(_WATCH_SECONDS):
            before = time.monotonic() - _WATCH_SECONDS
            for connection, reading in list(self._reading.items()):
                if reading.since < before and _closed(connection):
                    self._engine.cancel(reading.mark)


def _closed(connection: socket.socket) -> bool:
    poll = select.poll()
    try:
        poll.register(connection, select.POLLRDHUP)
    except (OSError, ValueError):
        # It was closed just now, by its own thread.
        return False
    return bool(poll.poll(0))


def _rest(body: Iterator[bytes]) -> None:
    """Takes in what the client still sends: it reads the answer only after that."""
    for _ in body:
        pass


def _explained(pieces: Iterator[bytes], tag: str) -> Iterator[bytes]:
    """What is sent, and in place of its end the error, if one ends it."""
    try:
        yield from pieces
    except EngineError as problem:
        text = f"{problem}\n".encode()
        mark = tag.encode()
        yield b"\r\n__exception__\r\n%b\r\n%b%d %b\r\n__exception__\r\n" % (
            *(mark, text, len(text), mark),
        )
        # Without its last chunk the answer is broken for clients that do not know the mark.
        raise ConnectionAbortedError from problem


def _status(code: int) -> int:
    if code in _BAD_REQUEST:
        return 400
    return 404 if code in _NOT_FOUND else _STATUS.get(code, 500)


def _error_fields(problem: EngineError) -> dict[str, str]:
    return {
        "X-ClickHouse-Exception-Code": str(problem.code),
        "Content-Type": "text/plain; charset=UTF-8",
    }


def _summary(rows: int, size: int) -> dict[str, str]:
    numbers = {"written_rows": str(rows), "written_bytes": str(size)}
    return {"X-ClickHouse-Summary": json.dumps(numbers)}
