"""The host as an operator meets it: health, drain, logs, refusals at start, the stock command."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.server import ROOT, Server, clean_environment, free_port, wait_until

NewServer = Callable[..., Server]
EVENT = {"specversion": "1.0", "source": "host", "type": "host.test", "subject": "s"}


@pytest.mark.embedded_only("distributed, each process has figures of its own")
def test_health_and_metrics_answer(server: Server) -> None:
    for path in ("/healthz", "/_/health", "/readyz", "/_/ready"):
        assert server.http.get(path).status_code == 200, path
    answer = server.http.get("/metrics")
    families = {f.name: f for f in text_string_to_metric_families(answer.text)}
    assert {
        "tollgate_ingest_events",
        "tollgate_load_events",
        "tollgate_load_lag_records",
        "tollgate_load_freshness_seconds",
        "tollgate_log_backlog_bytes",
    } <= families.keys()
    outcomes = {s.labels["outcome"] for s in families["tollgate_load_events"].samples}
    assert outcomes == {"stored", "duplicate", "conflict", "dead"}


def test_metrics_count_what_was_sent(new_server: NewServer) -> None:
    server = new_server().start()
    good = [EVENT | {"id": str(n)} for n in range(3)]
    answer = server.http.post("/api/v1/events", json=[*good, EVENT | {"id": "0"}])
    assert answer.status_code == 204
    assert server.http.post("/api/v1/events", json=EVENT).status_code == 400

    def counted() -> bool:
        text = server.http.get("/metrics").text
        samples = {
            (s.name, tuple(s.labels.values())): s.value
            for family in text_string_to_metric_families(text)
            for s in family.samples
        }
        return (
            samples["tollgate_ingest_events_total", ("accepted",)] == 4
            and samples["tollgate_ingest_events_total", ("rejected",)] == 1
            and samples["tollgate_load_events_total", ("stored",)] == 3
            and samples["tollgate_load_events_total", ("duplicate",)] == 1
        )

    wait_until(counted, what="metrics")


def test_a_request_in_flight_is_answered_before_the_end(new_server: NewServer) -> None:
    server = new_server().start()
    body = json.dumps(EVENT | {"id": "late"}).encode()
    head = (
        f"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(head + body[:10])
        wait_until(lambda: server.http.get("/healthz").status_code == 200)
        server.signal(signal.SIGTERM)
        wait_until(lambda: not _accepts(server.port), what="no new connections")
        client.sendall(body[10:])
        answer = client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 204"), answer
    assert server.stop() in (0, -signal.SIGTERM)
    again = new_server(data=server.data).start()
    position = answer.split(b"tollgate-position: ")[1].split(b"\r\n")[0].decode()
    found = again.http.get(
        "/api/v1/events", params={"id": "late"}, headers={"Tollgate-Position": position}
    )
    assert [e["event"]["id"] for e in found.json()] == ["late"]


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_request_that_never_ends_holds_the_end_up_no_longer_than_allowed(
    new_server: NewServer,
) -> None:
    server = new_server(settings={"TOLLGATE_DRAIN_SECONDS": "1"}).start()
    process = server.process
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        wait_until(lambda: server.http.get("/healthz").status_code == 200)
        server.signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
        answer = client.recv(4096)
    # Whoever sent it learns that it may be sent again: nothing is known of it.
    assert answer.startswith(b"HTTP/1.1 503"), answer
    assert b"\r\nretry-after: 1\r\n" in answer
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ends_by_itself_on_a_signal(new_server: NewServer, number: int) -> None:
    server = new_server().start()
    process = server.process
    server.signal(number)
    assert process.wait(30) in (0, -number)
    assert "Traceback" not in server.log.read_text()


def test_logs_are_json_lines_and_carry_the_trace(new_server: NewServer) -> None:
    server = new_server(settings={"TOLLGATE_POSITION_WAIT_MS": "50"}).start()
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    answer = server.http.get(
        "/api/v1/meters/tokens_total/query",
        headers={"traceparent": f"00-{trace}-{span}-01", "Tollgate-Position": "1;0:999999"},
    )
    assert answer.status_code == 503
    assert answer.headers["retry-after"].isdigit()
    instance = answer.json()["instance"]
    lines = [line for line in server.log.read_text().splitlines() if line.startswith("{")]
    entries = [json.loads(line) for line in lines]
    assert all({"time", "level", "logger", "message"} <= entry.keys() for entry in entries)
    (mine,) = [entry for entry in entries if entry.get("instance") == instance]
    assert (mine["trace_id"], mine["span_id"]) == (trace, span)


def test_keep_alive_outlives_a_pause(server: Server) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

    def answer(client: socket.socket) -> bytes:
        received = b""
        while not received.endswith(b"ok\n"):
            piece = client.recv(4096)
            assert piece, "the connection was closed"
            received += piece
        return received

    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(request)
        assert answer(client).startswith(b"HTTP/1.1 200")
        # uvicorn's default closes after 5 s: an answer after 6 s shows that ours is longer.
        threading.Event().wait(6)
        client.sendall(request)
        assert answer(client).startswith(b"HTTP/1.1 200")


def run_once(data: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Starts the product expecting it to refuse."""
    return subprocess.run(
        [sys.executable, "-m", "tollgate.platform.up", "--data", str(data), *arguments],
        env=clean_environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_wrong_setting_is_said_at_once(tmp_path: Path) -> None:
    done = run_once(tmp_path / "d", TOLLGATE_PORT="99999", TOLLGATE_LOAD_WAIT_MS="soon")
    assert done.returncode == 2
    assert "TOLLGATE_PORT:" in done.stderr
    assert "TOLLGATE_LOAD_WAIT_MS:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.embedded_only("the distributed world has a test of its own")
def test_a_taken_port_is_said(server: Server, tmp_path: Path) -> None:
    done = run_once(tmp_path / "d", "--port", str(server.port))
    assert done.returncode != 0
    assert "address already in use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.embedded_only("it starts another embedded product on the folder")
def test_a_data_folder_in_use_is_refused(server: Server) -> None:
    done = run_once(server.data, "--port", str(free_port()))
    assert done.returncode == 2
    assert "another process uses the data folder" in done.stderr


def test_more_than_loopback_needs_a_key(tmp_path: Path) -> None:
    done = run_once(tmp_path / "d", "--port", str(free_port()), TOLLGATE_HOST="0.0.0.0")
    assert done.returncode == 2
    assert "tollgate keys create" in done.stderr


def test_faults_of_the_meters_file_are_said_with_their_lines(tmp_path: Path) -> None:
    meters = tmp_path / "meters.yaml"
    meters.write_text("meters:\n  - slug: Bad Slug\n    eventType: a\n    aggregation: SUM\n")
    done = run_once(tmp_path / "d", "--port", str(free_port()), "--meters", str(meters))
    assert done.returncode != 0
    assert "meters.yaml:2" in done.stderr


@contextmanager
def stock_command(target: str, data: Path, host: str = "127.0.0.1") -> Iterator[httpx.Client]:
    """The functions-framework command as it comes, serving one function."""
    port = free_port()
    command = Path(sys.executable).with_name("functions-framework")
    source = ROOT / "functions" / target / "main.py"
    with subprocess.Popen(
        [str(command), "--target", target, "--source", str(source), "--port", str(port)],
        env=clean_environment({"TOLLGATE_DATA": str(data), "TOLLGATE_HOST": host}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
        try:
            wait_until(lambda: _accepts(port), 30, "functions-framework")
            yield client
        finally:
            client.close()
            os.killpg(process.pid, signal.SIGKILL)


def test_the_stock_command_serves_ingest_and_usage(new_server: NewServer) -> None:
    # The command forks after it imports: whatever opened a file or thread at import would hang.
    server = new_server().start()
    server.stop()
    with stock_command("ingest", server.data) as client:
        answer = client.post("/api/v1/events", json=EVENT | {"id": "stock"})
        assert answer.status_code == 204, answer.text
        position = answer.headers["tollgate-position"]
        assert client.post("/api/v1/events", json=EVENT).status_code == 400
    with stock_command("usage", server.data) as client:
        slugs = {m["slug"] for m in client.get("/api/v1/meters").json()}
        assert "tokens_total" in slugs
    again = new_server(data=server.data).start()
    found = again.http.get(
        "/api/v1/events", params={"id": "stock"}, headers={"Tollgate-Position": position}
    )
    assert [e["event"]["id"] for e in found.json()] == ["stock"]


@pytest.mark.parametrize("host", ["", "0.0.0.0"])
def test_the_stock_command_is_not_open_to_all(tmp_path: Path, host: str) -> None:
    # It listens on every address unless told otherwise, and no setting of ours tells it.
    with stock_command("ingest", tmp_path / "data", host) as client:
        answer = client.post("/api/v1/events", json=EVENT | {"id": "stock"})
        assert answer.status_code == 401
        assert "TOLLGATE_KEYS_FILE" in answer.json()["detail"]
        assert "TOLLGATE_HOST=127.0.0.1" in answer.json()["detail"]


HEAVY = (
    "chdb",
    "clickhouse_connect",
    "sqlalchemy",
    "alembic",
    "psycopg",
    "numpy",
    "yaml",
    "tzdata",
)
FRAMEWORK = ("functions_framework", "flask", "starlette")
OURS = ("tollgate.metering", "tollgate.customers", "tollgate.platform.api")


def imported_by(function: str) -> set[str]:
    program = (
        "import runpy, sys; import tollgate.platform.serve; runpy.run_path(sys.argv[1]); "
        "print(*sorted(name for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "functions" / function / "main.py")],
        env=clean_environment({}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.split())


def test_ingest_imports_only_what_it_needs() -> None:
    """A cold start pays for each import: 240 ms for the analytics client, 500 ms for SQLAlchemy."""
    loaded = imported_by("ingest")
    assert "tollgate.events.ingest" in loaded
    assert loaded.isdisjoint({*HEAVY, *FRAMEWORK, *OURS})


def test_notify_imports_no_log_before_it_has_something_for_it() -> None:
    loaded = imported_by("notify")
    assert "tollgate.notify.append" in loaded
    logs = {"confluent_kafka", "tollgate.platform.kafka_layouts", "tollgate.platform.segment_log"}
    engines = {"chdb", "numpy", "tollgate.events.load", "tollgate.events.ingest"}
    assert loaded.isdisjoint({*FRAMEWORK, *logs, *engines})
