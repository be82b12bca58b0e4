"""The distributed world: what is killed comes back, and every event counts as it was answered."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.support.faults import assert_balanced, question_all
from tests.support.loaders import BATCH, PAUSE_SECONDS, Traffic, Truth, event
from tests.support.server import World, is_running, wait_until
from tollgate.local.world import PROCESSES
from tollgate.platform.clickhouse import DATABASE, ClickHouse

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]
METERS = """
meters:
  - {slug: world_count, eventType: t, aggregation: COUNT}
  - {slug: world_sum, eventType: t, aggregation: SUM, valueProperty: $.n}
"""
SERVICES = ["kafka", "postgres", "clickhouse"]
FUNCTIONS = [name for names in PROCESSES.values() for name in names]
INGEST_KIB_MAX = 80 << 10


@dataclass
class Hasty:
    """A client that never sends anything again: what was not acknowledged may count, once."""

    url: str
    name: str
    acknowledged: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        number = 0
        while not self.stop.is_set():
            sent = {f"{self.name}-{number + n}": number + n for n in range(10)}
            number += len(sent)
            body = json.dumps([event(*each) for each in sent.items()])
            try:
                answer = httpx.post(
                    f"{self.url}/api/v1/events", content=body, headers=BATCH, timeout=30
                )
                known = answer.status_code == 204
                assert known or answer.status_code == 503, answer.text
            except httpx.TransportError:
                known = False
            (self.acknowledged if known else self.unknown).update(sent)
            self.stop.wait(PAUSE_SECONDS)


class Load:
    """Careful clients and a hasty one, until the block ends; then all is checked."""

    def __init__(self, world: World, name: str, owed: dict[str, int]) -> None:
        self._world, self._owed = world, owed
        self._traffic = Traffic(world.url, clients=2, name=name)
        self._hasty = Hasty(world.url, f"{name}-hasty")
        self._thread = threading.Thread(target=self._hasty.run, daemon=True)
        self.truth: Truth = self._traffic.truth

    def __enter__(self) -> "Load":
        self._traffic.__enter__()
        self._thread.start()
        self.truth.await_answers()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._hasty.stop.set()
        self._traffic.__exit__()
        self._thread.join(60)
        if kind is None:
            self._check()

    def _check(self) -> None:
        self._owed |= self.truth.acknowledged | self._hasty.acknowledged
        wait_until(self._is_loaded, what="what was acknowledged is loaded")
        stored = contents(self._world)
        strangers = stored.items() - self._owed.items()
        assert strangers <= self._hasty.unknown.items()
        # A 503 is no promise that it does not count: from now on it must stay.
        self._owed |= stored
        assert totals(self._world) == expected(self._owed)
        with ClickHouse(url=self._world.place("clickhouse")) as clickhouse:
            assert_balanced(question_all(clickhouse))

    def _is_loaded(self) -> bool:
        lag = [figure(self._world, name, "tollgate_load_lag_records") for name in PROCESSES["load"]]
        return lag == [0, 0] and self._owed.items() <= contents(self._world).items()


def contents(world: World) -> dict[str, int]:
    """Every stored event and its number; fails if one is stored twice."""
    with ClickHouse(url=world.place("clickhouse")) as clickhouse:
        rows = clickhouse.query(
            f"SELECT id, JSONExtractInt(data, 'n') FROM {DATABASE}.events FINAL"
        )
    found = {str(row[0]): int(row[1]) for row in rows}
    assert len(found) == len(rows)
    return found


def totals(world: World) -> tuple[int, int]:
    """What the meters say: how many events, and the sum of their numbers."""

    def total(slug: str) -> int:
        answer = world.http.get(f"/api/v1/meters/{slug}/query")
        assert answer.status_code == 200, answer.text
        return int(answer.json()["data"][0]["value"])

    return total("world_count"), total("world_sum")


def expected(owed: dict[str, int]) -> tuple[int, int]:
    return len(owed), sum(owed.values())


def figure(world: World, process: str, name: str) -> int:
    """A figure of a process; -1 while it is not there."""
    try:
        text = world.http.get(f"/metrics/{process}").text
    except httpx.TransportError:
        return -1
    found = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return int(float(found[0].split()[1])) if found else -1


def ready(world: World) -> bool:
    try:
        return world.http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("kept")
    meters = folder / "meters.yaml"
    meters.write_text(METERS)
    with World(folder / "data", meters) as running:
        yield running


@pytest.fixture(scope="module")
def owed() -> dict[str, int]:
    """Every event that must count from now on, with its number."""
    return {}


def test_every_process_runs_and_ingest_stays_small(world: World) -> None:
    running = world.processes()
    assert list(running) == [*SERVICES, *FUNCTIONS, "entry"]
    assert all(map(is_running, running.values()))
    status = Path(f"/proc/{running['ingest']}/status").read_text()
    assert int(status.split("VmRSS:")[1].split()[0]) < INGEST_KIB_MAX


@pytest.mark.parametrize("name", [*SERVICES, *FUNCTIONS, "entry"])
def test_what_is_killed_comes_back_and_no_count_is_wrong(
    world: World, owed: dict[str, int], name: str
) -> None:
    with Load(world, name, owed) as load:
        before = world.processes()
        os.kill(before[name], signal.SIGKILL)
        if name == "postgres":
            # The meters are known without it.
            assert world.http.get("/api/v1/meters/world_count/query").status_code == 200
        wait_until(
            lambda: world.processes().get(name) not in (None, before[name]), 60, f"{name} again"
        )
        wait_until(lambda: ready(world), what="all ready")
        load.truth.await_answers()
    others = {other: pid for other, pid in before.items() if other != name}
    assert others.items() <= world.processes().items(), "one that was not killed ended"


@pytest.mark.parametrize("end", [World.stop, World.kill])
def test_a_world_starts_again_where_it_ended(
    world: World, owed: dict[str, int], end: Callable[[World], object]
) -> None:
    with Load(world, f"before-{end.__name__}", owed):
        pass
    before = world.processes()
    end(world)
    assert not any(map(is_running, before.values()))
    world.start()
    assert totals(world) == expected(owed)
    with Load(world, f"after-{end.__name__}", owed):
        pass


def test_an_end_may_be_asked_for_while_it_starts(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    world.start(wait=False)
    wait_until(lambda: "postgres" in world.processes(), what="something runs")
    seen = world.processes()
    assert world.stop() == 0
    assert not any(map(is_running, seen.values()))
    assert world.processes() == {}
    assert "Traceback" not in world.log.read_text()


def test_a_port_that_is_taken_is_said(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "data")
    other.port = world.port
    other.start(wait=False)
    assert other.process.wait(60) == 2
    assert f"port {world.port}: address already in use" in other.log.read_text()
    assert other.processes() == {}
