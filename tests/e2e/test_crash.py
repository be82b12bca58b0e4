"""kill -9 of the whole product: every acknowledged event counts exactly once."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.faults import TABLES, FaultyServer, assert_balanced, inspect
from tests.support.server import Server

pytestmark = pytest.mark.e2e
METERS = """
meters:
  - {slug: crash_count, eventType: crash, aggregation: COUNT}
  - {slug: crash_sum, eventType: crash, aggregation: SUM, valueProperty: $.tokens}
"""
BATCH = {"Content-Type": "application/cloudevents-batch+json"}
STEPS = [(when, place) for place in (*TABLES, "release") for when in ("before", "after")]


@pytest.fixture
def meters(tmp_path: Path) -> Path:
    path = tmp_path / "meters.yaml"
    path.write_text(METERS)
    return path


@pytest.fixture
def faulty(tmp_path: Path, meters: Path) -> Iterator[FaultyServer]:
    server = FaultyServer(tmp_path / "data", meters, {"TOLLGATE_POSITION_WAIT_MS": "20000"})
    yield server
    server.__exit__()


def event(event_id: str, tokens: int, **members: object) -> dict[str, object]:
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "crash",
        "type": "crash",
        "subject": "s",
        "data": {"tokens": tokens},
    } | members


def total(server: Server, slug: str, token: str = "") -> int:
    """A meter's one total, read once what the token names is loaded."""
    headers = {"Tollgate-Position": token} if token else {}
    answer = server.http.get(f"/api/v1/meters/{slug}/query", headers=headers)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["data"]
    return int(rows[0]["value"]) if rows else 0


def test_killed_at_every_step_each_event_counts_once(faulty: FaultyServer) -> None:
    """Ten lives of one data folder: each begins with what the last left behind, and dies elsewhere.

    By hand, for life n: 3 new events of n, 10 n and 100 n tokens, the first of them again (a
    duplicate), the second with other content (a conflict), and from the second life on the first
    event of the life before (a duplicate).
    """
    armed, token = faulty.data.with_name("armed"), ""
    for life, (when, place) in enumerate(STEPS, 1):
        faulty.fault = f"kill:{when}:{place}:1:{armed}"
        faulty.start()
        assert total(faulty, "crash_count", token) == 3 * (life - 1), STEPS[life - 2]
        assert total(faulty, "crash_sum") == 111 * life * (life - 1) // 2, STEPS[life - 2]
        body = [
            event(f"{life}-a", life),
            event(f"{life}-b", 10 * life),
            event(f"{life}-c", 100 * life),
            event(f"{life}-a", life),
            event(f"{life}-b", 7),
            *([event(f"{life - 1}-a", life - 1)] if life > 1 else []),
        ]
        armed.touch()
        answer = faulty.http.post("/api/v1/events", json=body, headers=BATCH)
        assert answer.status_code == 204
        assert faulty.end() == -signal.SIGKILL
        armed.unlink()
        token = answer.headers["Tollgate-Position"]
    faulty.fault = "none"
    faulty.start()
    lives = len(STEPS)
    assert total(faulty, "crash_count", token) == 3 * lives, STEPS[-1]
    assert total(faulty, "crash_sum") == 111 * lives * (lives + 1) // 2
    faulty.stop()
    found = inspect(faulty.data)
    assert_balanced(found)
    assert found["events"] == 3 * lives
    assert found["ledger"]["conflict"] == lives
    assert found["ledger"]["duplicate"] == 2 * lives - 1
