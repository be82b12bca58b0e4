"""ClickHouse away, the log full, the disk full, the log lost: nothing acknowledged is lost."""

import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.test_crash import BATCH, METERS, event, total
from tests.support.faults import FaultyServer, assert_balanced, inspect
from tests.support.server import Server, wait_until
from tollgate.platform.segment_state import read_state

pytestmark = pytest.mark.e2e
WAIT = {"TOLLGATE_POSITION_WAIT_MS": "20000"}
NewFaulty = Callable[..., FaultyServer]


@pytest.fixture
def new_faulty(tmp_path: Path) -> Iterator[NewFaulty]:
    made: list[FaultyServer] = []
    meters = tmp_path / "meters.yaml"
    meters.write_text(METERS)

    def make(fault: str = "none", settings: dict[str, str] | None = None) -> FaultyServer:
        made.append(FaultyServer(tmp_path / "data", meters, WAIT | (settings or {})))
        made[-1].fault = fault
        return made[-1]

    yield make
    for server in made:
        server.__exit__()


def post(server: Server, *events: dict[str, object]) -> httpx.Response:
    return server.http.post("/api/v1/events", json=list(events), headers=BATCH)


def metric(server: Server, name: str) -> int:
    for line in server.http.get("/metrics").text.splitlines():
        if line.startswith((f"{name} ", f"{name}{{")):
            return int(float(line.rpartition(" ")[2]))
    raise AssertionError(f"no metric {name}")


def test_ingest_goes_on_while_clickhouse_is_away(new_faulty: NewFaulty, tmp_path: Path) -> None:
    away = tmp_path / "away"
    server = new_faulty(f"away:{away}")
    server.start()
    assert post(server, event("before", 1)).status_code == 204
    wait_until(lambda: total(server, "crash_count") == 1, what="loaded")
    away.touch()
    for n in range(20):
        assert post(server, event(f"during-{n}", 10)).status_code == 204
    wait_until(lambda: metric(server, "tollgate_load_failures_total") >= 2, what="failures shown")
    assert metric(server, "tollgate_load_lag_records") >= 1
    assert metric(server, "tollgate_log_backlog_bytes") > 0
    # The process stays in service: it takes events in, and the log keeps them.
    assert server.http.get("/readyz").status_code == 200
    assert server.http.get("/healthz").status_code == 200
    assert "connection refused" in server.log.read_text()
    answer = post(server, event("before", 1), event("last", 5))
    assert answer.status_code == 204
    assert total(server, "crash_count") == 1
    away.unlink()
    assert total(server, "crash_count", answer.headers["Tollgate-Position"]) == 22
    assert total(server, "crash_sum") == 1 + 20 * 10 + 5
    wait_until(lambda: metric(server, "tollgate_load_lag_records") == 0, what="no lag")
    server.stop()
    found = inspect(server.data)
    assert_balanced(found)
    assert found["ledger"] == {
        "accepted": 23,
        "stored": 22,
        "duplicate": 1,
        "conflict": 0,
        "dead": 0,
    }


def _unready(server: Server) -> str:
    answer = server.http.get("/readyz")
    return answer.text if answer.status_code == 503 else ""


def test_a_full_log_answers_503_until_it_is_loaded(new_faulty: NewFaulty, tmp_path: Path) -> None:
    away = tmp_path / "away"
    away.touch()
    server = new_faulty(f"away:{away}", {"TOLLGATE_LOG_BYTES_MAX": "20000"})
    server.start()
    acknowledged, answer = 0, post(server, event("n-0", 1))
    while answer.status_code == 204:
        acknowledged += 1
        assert acknowledged < 500
        answer = post(server, event(f"n-{acknowledged}", 1))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "event log is full" in answer.text
    assert acknowledged > 20
    away.unlink()
    last = wait_until(lambda: _taken(server, event("late", 1)), what="room again")
    assert total(server, "crash_count", last) == acknowledged + 1


def _taken(server: Server, sent: dict[str, object]) -> str:
    answer = post(server, sent)
    assert answer.status_code in (204, 503)
    return str(answer.headers.get("Tollgate-Position", ""))


def test_a_log_full_of_loaded_records_is_emptied_by_a_restart(
    new_faulty: NewFaulty, tmp_path: Path
) -> None:
    """Killed before the release: nothing is left to load, so the start itself makes room."""
    armed = tmp_path / "armed"
    armed.touch()
    settings = {"TOLLGATE_LOG_BYTES_MAX": "2000"}
    server = new_faulty(f"kill:after:ledger:1:{armed}", settings)
    server.start()
    assert post(server, *[event(f"n-{n}", 1) for n in range(50)]).status_code == 204
    server.end()
    armed.unlink()
    server.start()
    last = wait_until(lambda: _taken(server, event("late", 1)), what="room again")
    assert total(server, "crash_count", last) == 51


def test_a_full_disk_answers_503_and_later_takes_events_again(new_faulty: NewFaulty) -> None:
    server = new_faulty()
    server.start()
    first = post(server, event("first", 1))
    assert total(server, "crash_count", first.headers["Tollgate-Position"]) == 1
    # A bound on file size refuses writes of this process as a full disk does.
    before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1024, before[1]))
    answer = post(server, event("refused", 10))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert server.http.get("/healthz").status_code == 200
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)
    last = wait_until(lambda: _taken(server, event("refused", 10)), what="room again")
    assert total(server, "crash_count", last) == 2
    assert total(server, "crash_sum") == 11


def test_a_lost_log_does_not_use_offsets_again(new_faulty: NewFaulty) -> None:
    server = new_faulty()
    server.start()
    first = post(server, event("a", 1)).headers["Tollgate-Position"]
    assert total(server, "crash_count", first) == 1
    server.kill()
    shutil.rmtree(server.data / "log")
    server.start()
    second = post(server, event("b", 10), event("a", 1)).headers["Tollgate-Position"]
    assert int(second.rpartition(":")[2]) > int(first.rpartition(":")[2])
    assert total(server, "crash_count", second) == 2
    assert total(server, "crash_sum") == 11
    server.stop()
    assert_balanced(inspect(server.data))


def test_a_lost_log_does_not_use_offsets_of_half_a_batch_again(
    new_faulty: NewFaulty, tmp_path: Path
) -> None:
    """Killed after the events were written, the log deleted: what stands there was acknowledged."""
    armed = tmp_path / "armed"
    armed.touch()
    server = new_faulty(f"kill:after:arrivals:1:{armed}")
    server.start()
    first = post(server, event("a", 1)).headers["Tollgate-Position"]
    server.end()
    armed.unlink()
    shutil.rmtree(server.data / "log")
    server.start()
    second = post(server, event("b", 10)).headers["Tollgate-Position"]
    assert int(second.rpartition(":")[2]) > int(first.rpartition(":")[2])
    assert total(server, "crash_count", second) == 2


def test_a_lost_clickhouse_is_refused_not_papered_over(new_faulty: NewFaulty) -> None:
    server = new_faulty()
    server.start()
    first = post(server, event("a", 1)).headers["Tollgate-Position"]
    assert total(server, "crash_count", first) == 1
    log = server.data / "log"
    wait_until(lambda: _released(log) >= 0, what="released")
    server.stop()
    (server.data / "clickhouse").rename(server.data / "clickhouse.lost")
    server.start(wait=False)
    told = wait_until(lambda: _try(lambda: _unready_of_load(server)), 30, "the fault said")
    assert "Restore the data folder from a backup" in told


def _released(path: Path) -> int:
    state = read_state(path)
    return state.released if state else -1


def _unready_of_load(server: Server) -> str:
    told = _unready(server)
    return told if "load:" in told and "backup" in told else ""


def _try(question: Callable[[], str]) -> str:
    try:
        return question()
    except httpx.TransportError:
        return ""
