"""kill -9 of the whole product: every acknowledged event counts exactly once."""

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.faults import TABLES, FaultyServer, assert_balanced, inspect
from tests.support.loaders import PAUSE_SECONDS
from tests.support.server import Server, wait_until

pytestmark = pytest.mark.e2e
METERS = """
meters:
  - {slug: crash_count, eventType: crash, aggregation: COUNT}
  - {slug: crash_sum, eventType: crash, aggregation: SUM, valueProperty: $.tokens}
"""
BATCH = {"Content-Type": "application/cloudevents-batch+json"}
ROUNDS = int(os.environ.get("TOLLGATE_TEST_CRASH_ROUNDS", "4"))  # noqa: TID251 -- for tests alone
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


def test_killed_within_corrections_each_holds_once(faulty: FaultyServer) -> None:
    """Killed after each of the writes of a batch of corrections; by hand, for life n.

    Two events of 1 and 10 tokens; a void of the first, an amendment of the second to n tokens.
    """
    armed, token = faulty.data.with_name("armed"), ""
    for life, table in enumerate(("arrivals", "event_corrections", "ledger"), 1):
        faulty.fault = f"kill:after:{table}:1:{armed}"
        faulty.start()
        assert total(faulty, "crash_sum", token) == life * (life - 1) // 2
        body = [event(f"{life}-a", 1), event(f"{life}-b", 10)]
        answer = faulty.http.post("/api/v1/events", json=body, headers=BATCH)
        sent = answer.headers["Tollgate-Position"]
        assert total(faulty, "crash_sum", sent) == life * (life - 1) // 2 + 11
        armed.touch()
        key = {"source": "crash", "reason": "wrong"}
        corrections = [
            key | {"action": "void", "id": f"{life}-a"},
            key | {"action": "amend", "id": f"{life}-b", "event": event(f"{life}-b", life)},
        ]
        answer = faulty.http.post("/api/v1/corrections", json={"corrections": corrections})
        assert answer.status_code == 202, answer.text
        assert faulty.end() == -signal.SIGKILL
        armed.unlink()
        token = answer.headers["Tollgate-Position"]
    faulty.fault = "none"
    faulty.start()
    assert total(faulty, "crash_sum", token) == 6
    assert total(faulty, "crash_count") == 3
    faulty.stop()
    found = inspect(faulty.data)
    assert_balanced(found)
    assert found["events"] == 6


# -- at random moments, under load -----------------------------------------------------------------


@dataclass
class Truth:
    """What clients know: which events the product owes them. Guarded by `lock`."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    acknowledged: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    token: int = -1
    refused: list[str] = field(default_factory=list)

    def await_load(self) -> None:
        """Waits until the product that runs now has acknowledged some requests."""
        before = self.sent
        wait_until(lambda: self.sent > before + 50, 30, "load after a restart")

    def take(self, body: list[dict[str, Any]], token: str) -> None:
        """Notes an acknowledged request."""
        with self.lock:
            self.sent += len(body)
            self.token = max(self.token, int(token.rpartition(":")[2]))
            for each in body:
                # The first acknowledged content is not always the stored one (an unanswered
                # request may have been stored before it), so all contents of an id have one amount.
                self.acknowledged[each["id"]] = each["data"]["tokens"]


class Client:
    """Sends batches until each is acknowledged, the way a careful client does."""

    def __init__(self, url: str, name: str, seed: int, truth: Truth) -> None:
        self._random = random.Random(seed)
        self._name, self._truth = name, truth
        self._http = httpx.Client(base_url=url, timeout=10)
        self._number = 0
        self.thread = threading.Thread(target=self._run, name=name)
        self.stop = threading.Event()

    def _event(self) -> dict[str, Any]:
        """A new event, or an old one again: same bytes, other order, or with another time."""
        fresh = self._number == 0 or self._random.random() < 0.8
        number = self._number if fresh else self._random.randrange(self._number)
        self._number += fresh
        amount = number % 97 + 1
        made = event(f"{self._name}-{number}", amount)
        kind = number % 3
        if kind == 1:  # a time of its own, out of order
            made["time"] = f"2026-{1 + number * 7 % 12:02}-{1 + number * 5 % 28:02}T00:00:00Z"
        elif kind == 2 and not fresh:  # the same id with other content: a conflict
            made["data"] = {"tokens": amount, "again": True}
        return made

    def _run(self) -> None:
        while not self.stop.is_set():
            body = [self._event() for _ in range(self._random.randint(1, 20))]
            twice = self._random.random() < 0.1
            if twice:
                others = threading.Thread(target=self._send, args=(body,))
                others.start()
                self._send(body)
                others.join()
            else:
                self._send(body)
            self.stop.wait(PAUSE_SECONDS)

    def _send(self, body: list[dict[str, Any]]) -> None:
        """Once acknowledged the events are owed; until then they are sent again and again."""
        pause = threading.Event()
        while True:
            try:
                answer = self._http.post("/api/v1/events", json=body, headers=BATCH)
            except httpx.TransportError:
                pause.wait(0.05)  # the server is dead; its next life listens on the same port
                continue
            if answer.status_code == 204:
                self._truth.take(body, answer.headers["Tollgate-Position"])
                return
            if answer.status_code != 503:
                self._truth.refused.append(answer.text)
                return


@pytest.mark.timeout(60 + 40 * ROUNDS)
def test_killed_at_random_moments_under_load_totals_are_exact(
    tmp_path: Path, meters: Path, new_server: Callable[..., Server]
) -> None:
    """Seeded; `TOLLGATE_TEST_CRASH_ROUNDS` asks for more rounds than the few of every day."""
    server = new_server({"TOLLGATE_POSITION_WAIT_MS": "30000"}, meters=meters)
    server.start()
    truth, chance = Truth(), random.Random(20261123)
    clients = [Client(server.url, f"c{n}", n, truth) for n in range(3)]
    for client in clients:
        client.thread.start()
    try:
        for _ in range(ROUNDS):
            truth.await_load()
            threading.Event().wait(chance.uniform(0, 0.8))
            server.kill()
            server.start()
    finally:
        for client in clients:
            client.stop.set()
    for client in clients:
        client.thread.join(60)
        assert not client.thread.is_alive()
    assert truth.refused == []
    assert total(server, "crash_count", f"1;0:{truth.token}") == len(truth.acknowledged)
    assert total(server, "crash_sum") == sum(truth.acknowledged.values())
    server.stop()
    found = inspect(server.data)
    assert_balanced(found)
    assert found["events"] == len(truth.acknowledged)
    # Requests that no one answered may stand in the log as well: as duplicates or conflicts.
    assert found["ledger"]["accepted"] >= truth.sent
