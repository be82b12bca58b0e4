"""ClickHouse's HTTP interface in front of the embedded engine, as a process of its own.

So that functions in several processes share one real engine as they would share a server. It has
what `clickhouse_connect` asks for: SQL in the body or in `query`, `param_*` bindings, settings,
`database`, rows behind an INSERT, error codes (https://clickhouse.com/docs/interfaces/http). Users,
sessions and compressed answers are not there; it listens on 127.0.0.1 only.
"""

import argparse
import gzip
import json
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, urlsplit

from tollgate.core.errors import PermanentFault
from tollgate.local.leash import release_leash, start_leashed

_READY_SECONDS = 60
_STOP_SECONDS = 60
_BODY_BYTES_MAX = 1 << 30
_CHUNK_BYTES = 1 << 20
_HANDLES_MAX = 16
# What the interface takes beside settings.
_TRANSPORT = frozenset(
    (
        "query",
        "database",
        "session_id",
        "session_timeout",
        "session_check",
        "query_id",
        "quota_key",
        "compress",
        "decompress",
        "wait_end_of_query",
        "client_protocol_version",
        "role",
        "user",
        "password",
        "buffer_size",
        "send_progress_in_http_headers",
        "enable_http_compression",
        "http_headers_progress_interval_ms",
        "default_format",
    )
)
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_INSERT = re.compile(r"\s*INSERT\s+INTO\s", re.IGNORECASE)
_INSERT_HEAD = re.compile(
    rb"\s*INSERT\s+INTO\s+[^\s()]+\s*(?:\([^()]*\))?\s*FORMAT\s+\w+[ \t]*\r?\n?", re.IGNORECASE
)
_NAME = re.compile(r"\w+", re.ASCII)
_CODE = re.compile(r"Code: (\d+)")
_UNKNOWN = frozenset(("60", "81"))
_SYNTAX = frozenset(("62",))


class ClickHouseHttp:
    """One engine on a folder. The port stays the same when it is started again."""

    def __init__(self, data: Path, *, port: int = 0) -> None:
        """Names the folder; nothing is started.

        Args:
            data: folder of this engine alone; kept.
            port: to listen on; 0: a free one.
        """
        self.data = data
        self.log = data.with_name(data.name + ".log")
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """`TOLLGATE_CLICKHOUSE_URL`."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Process id of the running engine."""
        assert self._process is not None, "the engine is not running"
        return self._process.pid

    def start(self) -> "ClickHouseHttp":
        """Returns when the engine answers.

        Raises:
            PermanentFault: it did not come up; the message names its log file.
        """
        if self._process is not None:
            return self
        self.data.mkdir(parents=True, exist_ok=True)
        if not self._port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self._port = int(probe.getsockname()[1])
        command = [sys.executable, "-m", "tollgate.local.clickhouse_http"]
        command += ["--port", str(self._port), "--data", str(self.data)]
        self._process = start_leashed(command, self.log)
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Ends it after the queries at hand."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        self._reap()

    def kill(self) -> None:
        """Ends it with kill -9."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def __enter__(self) -> "ClickHouseHttp":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _reap(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.wait()
            release_leash(process)

    def _wait_until_ready(self) -> None:
        pause, end = threading.Event(), time.monotonic() + _READY_SECONDS
        while True:
            with (
                suppress(urllib.error.URLError, OSError),
                urllib.request.urlopen(f"{self.url}/ping", timeout=2),  # noqa: S310 -- our own address
            ):
                return
            assert self._process is not None
            ended = self._process.poll()
            if ended is not None or time.monotonic() > end:
                state = "does not answer" if ended is None else f"ended with {ended}"
                raise PermanentFault(f"the ClickHouse engine {state}: see {self.log}")
            pause.wait(0.05)


class _Engine:
    """Handles of the engine; one serves one query at a time."""

    def __init__(self, data: Path) -> None:
        import chdb

        # chDB brings no types.
        self._connect: Callable[[], Any] = lambda: chdb.connect(str(data))  # type: ignore[no-untyped-call]
        self._free: queue.LifoQueue[Any] = queue.LifoQueue()
        self._slots = threading.Semaphore(_HANDLES_MAX)
        self._first = self._connect()  # the engine lives as long as one handle does

    @contextmanager
    def handle(self, database: str, settings: Mapping[str, str]) -> Iterator[Any]:
        """A handle with the settings of one query, which it loses afterwards."""
        with self._slots:
            try:
                handle = self._free.get_nowait()
            except queue.Empty:
                handle = self._connect()
            used = []
            try:
                handle.query(f"USE `{database}`")
                for name, value in settings.items():
                    handle.query(f"SET {name} = {_quoted(value)}")
                    used.append(name)
                yield handle
            finally:
                for name in used:
                    handle.query(f"SET {name} = DEFAULT")
                self._free.put(handle)

    def close(self) -> None:
        """Closes every handle; the engine writes what it has to."""
        while True:
            try:
                self._free.get_nowait().close()
            except queue.Empty:
                break
        self._first.close()


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


class _BadRequest(Exception):
    """What was sent is no request of this interface."""


class _Request(BaseHTTPRequestHandler):
    """One connection; requests on it come one after the other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: "_Server"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base's name
        """Says nothing: callers log what they were told."""

    def do_GET(self) -> None:
        """Answers a query, or `/ping`."""
        self._answer()

    def do_POST(self) -> None:
        """Answers a query with a body."""
        self._answer()

    def _answer(self) -> None:
        try:
            with tempfile.TemporaryFile() as body:
                self._read_body(body)
                url = urlsplit(self.path)
                if url.path == "/ping":
                    self._send(200, b"Ok.\n")
                    return
                arguments = dict(parse_qsl(url.query, keep_blank_values=True))
                result = self._run(arguments, body)
        except _BadRequest as problem:
            self.close_connection = True
            self._send(400, str(problem).encode())
        except ConnectionError:
            self.close_connection = True
        except Exception as problem:  # noqa: BLE001 -- the engine's errors have one class: RuntimeError's kin
            self._refuse(str(problem))
        else:
            summary = json.dumps({"read_rows": "0", "written_rows": "0"})
            named = {"X-ClickHouse-Query-Id": arguments.get("query_id", "")}
            self._send(200, result, {"X-ClickHouse-Summary": summary} | named)

    def _run(self, arguments: Mapping[str, str], body: BinaryIO) -> bytes:
        sql = arguments.get("query", "")
        head = body.read(_CHUNK_BYTES)
        if sql and head and _INSERT.match(sql) and _FORMAT.search(sql):
            return self._insert(sql, arguments, body, 0)
        named = None if sql else _INSERT_HEAD.match(head)
        if named is not None:
            return self._insert(named[0].decode(), arguments, body, named.end())
        rest = (head + body.read()).decode("utf-8", "surrogateescape")
        sql = f"{sql}\n{rest}" if sql and rest else sql or rest
        found = _FORMAT.search(sql)
        form = found[1] if found else self.headers.get("X-ClickHouse-Format", "")
        form = form or arguments.get("default_format", "TabSeparated")
        with self._handle(arguments) as handle:
            result = handle.query(sql[: found.start()] if found else sql, form, **_bound(arguments))
            given: bytes = result.bytes()
        return given

    def _insert(self, sql: str, arguments: Mapping[str, str], body: BinaryIO, start: int) -> bytes:
        found = _FORMAT.search(sql)
        assert found is not None, "the caller looked"
        with tempfile.NamedTemporaryFile(dir=self.server.scratch) as rows:
            body.seek(start)
            while chunk := body.read(_CHUNK_BYTES):
                rows.write(chunk)
            rows.flush()
            place = f"{sql[: found.start()]} FROM INFILE {_quoted(rows.name)} FORMAT {found[1]}"
            with self._handle(arguments) as handle:
                handle.query(place, **_bound(arguments))
        return b""

    def _handle(self, arguments: Mapping[str, str]) -> Any:
        settings = {
            name: value
            for name, value in arguments.items()
            if name not in _TRANSPORT and not name.startswith("param_")
        }
        database = arguments.get("database") or "default"
        for name in (*settings, database):
            if not _NAME.fullmatch(name):
                raise _BadRequest(f"{name!r} is no name of a setting or database")
        return self.server.engine.handle(database, settings)

    def _read_body(self, target: BinaryIO) -> None:
        left = int(self.headers.get("Content-Length") or 0)
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while left := int(self.rfile.readline(64).split(b";")[0] or b"0", 16):
                self._copy(left, target)
                self.rfile.readline(4)
            self.rfile.readline(4)
        else:
            self._copy(left, target)
        encoding = self.headers.get("Content-Encoding", "")
        if encoding:
            self._unpack(encoding, target)
        target.seek(0)

    def _copy(self, left: int, target: BinaryIO) -> None:
        if target.tell() + left > _BODY_BYTES_MAX:
            raise _BadRequest(f"the body is larger than {_BODY_BYTES_MAX} bytes")
        while left:
            chunk = self.rfile.read1(min(left, _CHUNK_BYTES))
            if not chunk:
                raise ConnectionError
            target.write(chunk)
            left -= len(chunk)

    @staticmethod
    def _unpack(encoding: str, target: BinaryIO) -> None:
        import lz4.frame  # type: ignore[import-untyped]  # it brings no types

        unpack = {"gzip": gzip.decompress, "lz4": lz4.frame.decompress}.get(encoding)
        if unpack is None:
            raise _BadRequest(f"Content-Encoding {encoding!r} is not known; use gzip or lz4")
        target.seek(0)
        plain = unpack(target.read())
        target.seek(0)
        target.truncate()
        target.write(plain)

    def _refuse(self, text: str) -> None:
        code = _CODE.search(text)
        number = code[1] if code else "1"
        status = 404 if number in _UNKNOWN else 400 if number in _SYNTAX else 500
        self._send(status, text.encode(), {"X-ClickHouse-Exception-Code": number})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("X-ClickHouse-Timezone", "UTC")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(ConnectionError):
            self.wfile.write(body)
            self.wfile.flush()


def _bound(arguments: Mapping[str, str]) -> dict[str, dict[str, str]]:
    values = {n.removeprefix("param_"): v for n, v in arguments.items() if n.startswith("param_")}
    return {"params": values} if values else {}


class _Server(ThreadingHTTPServer):
    """The interface; a thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, data: Path) -> None:
        self.scratch = data.with_name(data.name + ".incoming")
        self.scratch.mkdir(parents=True, exist_ok=True)
        for left_over in self.scratch.iterdir():
            left_over.unlink()
        self.engine = _Engine(data)
        super().__init__(("127.0.0.1", port), _Request)


def main() -> None:
    """Serves until SIGTERM."""
    parser = argparse.ArgumentParser(description="ClickHouse's HTTP interface on an engine folder")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    with _Server(options.port, options.data) as server:
        stopping = threading.Thread(target=server.shutdown)
        signal.signal(signal.SIGTERM, lambda *_: stopping.start())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        server.serve_forever(poll_interval=0.1)
        server.engine.close()


if __name__ == "__main__":
    main()
