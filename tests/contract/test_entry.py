"""The entry port: HAProxy with our rules, in front of servers that do what a function might do."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.server import wait_until
from tollgate.core.errors import PermanentFault
from tollgate.local.entry import Entry
from tollgate.local.entry_rules import HEAD_BYTES_MAX, Upstream
from tollgate.local.ports import free_ports
from tollgate.platform.functions import FUNCTIONS, function_for

PIECE = bytes(1 << 20)


class Answering(BaseHTTPRequestHandler):
    """Notes what it was asked, says who it is; `/api/ends` hangs up, `/api/long` streams."""

    protocol_version = "HTTP/1.1"
    server: "Function"

    def setup(self) -> None:
        super().setup()
        self.server.connections.append(self.connection)

    def answer(self) -> None:
        if self.path.endswith("/readyz"):
            self._reply(b"")
            return
        self.server.seen.append(f"{self.command} {self.path}")
        self.server.headers_seen = {k.lower(): v for k, v in self.headers.items()}
        length = int(self.headers.get("content-length", "0"))
        self.server.body_bytes = 0
        while length:
            self.server.body_bytes += (read := len(self.rfile.read(min(length, 1 << 16))))
            length -= read
        if self.path == "/api/ends":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif self.path == "/api/long":
            self._stream(200)
        else:
            self._reply(self.server.name.encode())

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = answer  # noqa: N815

    def _reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _stream(self, pieces: int) -> None:
        self.send_response(200)
        self.send_header("content-length", str(pieces * len(PIECE)))
        self.end_headers()
        try:
            for sent in range(pieces):
                self.wfile.write(PIECE)
                self.server.pieces_sent = sent + 1
        except OSError:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        return


class Function(ThreadingHTTPServer):
    """A process of a function."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, name: str, port: int) -> None:
        super().__init__(("127.0.0.1", port), Answering)
        self.name = name
        self.seen: list[str] = []
        self.headers_seen: dict[str, str] = {}
        self.body_bytes = 0
        self.pieces_sent = 0
        self.connections: list[socket.socket] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def end(self) -> None:
        """As the end of a process would: nobody listens, connections are gone."""
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: Any) -> None:
        """A connection that is gone is no news."""


@pytest.fixture
def functions() -> Iterator[dict[str, Function]]:
    """One process of each function, two of the loader."""
    names = ["ingest", "load-1", "load-2", "archive", "rollup"]
    names += ["customers", "entitlements", "limits", "notify", "usage", "console"]
    made = {
        name: Function(name, port) for name, port in zip(names, free_ports(len(names)), strict=True)
    }
    yield made
    for each in made.values():
        each.end()


@pytest.fixture
def entry(functions: dict[str, Function], tmp_path: Path) -> Iterator[Entry]:
    upstreams: dict[str, list[Upstream]] = {}
    for name, function in functions.items():
        upstream = Upstream(name=name, port=function.server_address[1])
        upstreams.setdefault(name.partition("-")[0], []).append(upstream)
    with Entry(tmp_path, upstreams, port=free_ports(1)[0], drain_seconds=5) as running:
        wait_until(lambda: not running.unreadiness(), what="all ready")
        yield running


@pytest.fixture
def http(entry: Entry) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=entry.url, timeout=20) as client:
        yield client


METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]
PATHS = [
    *{prefix for function in FUNCTIONS for _, prefix in function.routes},
    "/api",
    "/api/",
    "/api/v1/events/",
    "/api/v1/events/more",
    "/api/v1/%65vents",
    "/api/v1/events?a=/api/openapi.json",
    "/api/openapi.json/more",
    "/docs",
    "/apis",
    "//api/v1/events",
    "/_/load/more",
    "/api/v1/customers/acme/access/more",
    "/api/v1/customers/acme/accessible",
    "/api/v1/customers/acme/more/access",
    "/api/v1/customers/a%2Fb/entitlements/f/value",
    "/api/v1/customers/a%2Fentitlements",
    "/api/v1/customers//access",
    "/api/v3/openmeter/customers/acme/entitlement-access?a=b",
]


def test_requests_go_where_the_function_table_says(http: httpx.Client) -> None:
    for method in METHODS:
        for path in PATHS:
            plain = httpx.URL(path).path if not path.startswith("//") else path
            raw = httpx.URL(path).raw_path.decode().partition("?")[0]
            wanted = function_for(method, plain, plain if path.startswith("//") else raw)
            # Nothing answers: the console knows the whole table, and says so.
            name = wanted.name if wanted else "console"
            answer = http.request(method, f"{http.base_url}{path}")
            if method == "HEAD":
                assert answer.content == b""
            else:
                assert answer.text.partition("-")[0] == name, (method, path)


def test_processes_of_a_function_take_turns_and_who_is_away_is_left_out(
    http: httpx.Client, functions: dict[str, Function]
) -> None:
    answers = [http.post("/_/load").text for _ in range(10)]
    assert answers.count("load-1") == answers.count("load-2") == 5
    functions["load-1"].end()
    answers = [http.post("/_/load").text for _ in range(10)]
    assert answers == ["load-2"] * 10
    functions["load-1"] = Function("again", functions["load-1"].server_address[1])
    wait_until(lambda: http.post("/_/load").text == "again", what="back")


PROBLEM_V1 = {"type": "about:blank", "extensions": {"code": "transient"}}
PROBLEM_V3 = {"type": "https://httpstatuses.com/503"}


@pytest.mark.parametrize(
    ("path", "extra", "prefix"),
    [
        ("/api/v1/events", PROBLEM_V1, "urn:request:"),
        ("/api/v3/openmeter/events", PROBLEM_V3, "kong:trace:"),
    ],
)
def test_a_function_that_is_away_is_said(
    http: httpx.Client,
    functions: dict[str, Function],
    path: str,
    extra: dict[str, object],
    prefix: str,
) -> None:
    functions["ingest"].end()
    for _ in range(3):
        answer = http.post(path, json={})
        assert answer.status_code == 503
        assert answer.elapsed.total_seconds() < 2
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"] == "1"
        body = answer.json()
        assert body.pop("instance").startswith(prefix)
        assert "nothing of it was done" in body.pop("detail")
        assert body == {"title": "Service Unavailable", "status": 503, **extra}
    assert http.get("/readyz").text == "ingest: not there\n"
    assert http.get("/healthz").status_code == 200
    assert http.get("/api/v1/meters").text == "usage"


def test_a_request_is_sent_once_whatever_becomes_of_it(
    entry: Entry, functions: dict[str, Function]
) -> None:
    answer = httpx.post(f"{entry.url}/api/ends", json={})
    assert answer.status_code == 503
    assert "unknown" in answer.json()["detail"]
    assert answer.headers["retry-after"] == "1"
    assert functions["usage"].seen == ["POST /api/ends"]


def test_who_asks_is_said_and_nobody_says_it_for_others(
    http: httpx.Client, functions: dict[str, Function]
) -> None:
    claimed = {"x-forwarded-for": "8.8.8.8", "forwarded": "for=8.8.8.8", "host": "meter.test"}
    http.get("/api/v1/meters", headers=claimed | {"x-forwarded-proto": "https"})
    seen = functions["usage"].headers_seen
    assert seen["host"] == seen["x-forwarded-host"] == "meter.test"
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-forwarded-proto"] == "http"
    assert "forwarded" not in seen


def test_bodies_stream_both_ways_and_wait_for_each_other(
    entry: Entry, functions: dict[str, Function]
) -> None:
    def resident_kib() -> int:
        status = Path(f"/proc/{entry.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    before = resident_kib()
    answer = httpx.post(f"{entry.url}/api/taken", content=PIECE * 64, timeout=30)
    assert answer.status_code == 200
    assert functions["usage"].body_bytes == 64 << 20
    with httpx.stream("GET", f"{entry.url}/api/long", timeout=30) as long:
        pieces = long.iter_raw(1 << 16)
        next(pieces)
        stuck = wait_until(lambda: settled(lambda: functions["usage"].pieces_sent), what="stuck")
        assert stuck < 50  # of 200: the sockets on the way are full, and nobody gathers the rest
        assert sum(map(len, pieces)) == (200 << 20) - (1 << 16)
    assert resident_kib() - before < 8 << 10


def settled(read: Callable[[], int]) -> int:
    """What it reads once it stays the same for a while; 0 before."""
    first = read()
    threading.Event().wait(0.3)
    return first if first == read() else 0


def raw(entry: Entry, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", entry.port), timeout=20) as client:
        client.sendall(request)
        return client.recv(4096)


def test_heads_are_bounded(entry: Entry) -> None:
    def head(size: int) -> bytes:
        return b"GET /api/x HTTP/1.1\r\nHost: x\r\nX: " + b"a" * size + b"\r\n\r\n"

    assert raw(entry, head(HEAD_BYTES_MAX - 1000)).startswith(b"HTTP/1.1 200")
    assert raw(entry, head(HEAD_BYTES_MAX + 10_000)).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "smuggled",
    [
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Content-Length: +5\r\n\r\nabcde",
    ],
)
def test_what_two_readers_could_read_differently_is_refused_or_made_plain(
    entry: Entry, functions: dict[str, Function], smuggled: bytes
) -> None:
    answer = raw(entry, b"POST /api/x HTTP/1.1\r\nHost: x\r\n" + smuggled)
    if answer.startswith(b"HTTP/1.1 200"):
        assert "content-length" not in functions["usage"].headers_seen
    else:
        assert answer.startswith(b"HTTP/1.1 400")
        assert functions["usage"].seen == []


def test_an_end_waits_for_requests_in_flight(entry: Entry, functions: dict[str, Function]) -> None:
    with socket.create_connection(("127.0.0.1", entry.port), timeout=20) as client:
        client.sendall(b"POST /api/x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        wait_until(lambda: functions["usage"].seen, what="in flight")
        stopping = threading.Thread(target=entry.stop)
        stopping.start()
        wait_until(lambda: entry.unreadiness() == "the entry does not answer", what="closed")
        client.sendall(b"cd")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    stopping.join(20)
    assert not stopping.is_alive()


def test_figures_of_each_process_have_a_place(
    http: httpx.Client, functions: dict[str, Function]
) -> None:
    assert "haproxy_process_" in http.get("/metrics").text
    for name, function in functions.items():
        assert http.get(f"/metrics/{name}").text == name
        assert function.seen == ["GET /metrics"]


def test_a_taken_port_is_said(entry: Entry, tmp_path: Path) -> None:
    upstreams = {"console": [Upstream(name="console", port=1)]}
    with pytest.raises(PermanentFault, match=str(entry.port)):
        Entry(tmp_path / "other", upstreams, port=entry.port).start()
