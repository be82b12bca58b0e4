"""Loaders on a real broker: they share, die, freeze and sleep, and each event counts once."""

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.loaders import (
    BATCH,
    FunctionProcess,
    Traffic,
    World,
    assert_counted_once,
    event,
)
from tests.support.server import wait_until
from tollgate.local.broker import Broker
from tollgate.local.clickhouse_http import ClickHouseServer

pytest_plugins = ["tests.support.kafka"]
pytestmark = [pytest.mark.e2e, pytest.mark.slow]
PARTITIONS = 4


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ClickHouseServer]:
    with ClickHouseServer(tmp_path / "clickhouse") as running:
        yield running


@pytest.fixture
def world(
    tmp_path: Path, broker: Broker, topic_prefix: str, store: ClickHouseServer
) -> Iterator[World]:
    made = World(tmp_path, broker.bootstrap, topic_prefix, store.url)
    made.set_up(PARTITIONS)
    yield made
    made.close()


@pytest.fixture
def ingest(world: World) -> FunctionProcess:
    return world.process("ingest").start()


def send(ingest: FunctionProcess, *events: dict[str, object]) -> None:
    answer = ingest.http.post("/api/v1/events", content=json.dumps(events), headers=BATCH)
    assert answer.status_code == 204, answer.text


def ring(loader: FunctionProcess) -> httpx.Response:
    record = b"\0" * 300_000  # longer than what a connection buffers
    return loader.http.post(
        "/_/load", content=record, headers={"ce-type": "dev.knative.kafka.event"}
    )


def test_two_loaders_share_one_dies_and_comes_back(world: World, ingest: FunctionProcess) -> None:
    first, second = world.process("load").start(), world.process("load")
    wait_until(lambda: first.partitions == PARTITIONS, 20, "all partitions loaded")
    with Traffic(ingest.url) as truth:
        truth.await_answers()
        second.start()
        wait_until(lambda: (first.partitions, second.partitions) == (2, 2), 20, "halves")
        truth.await_answers()
        first.kill()
        truth.await_answers()
        wait_until(lambda: second.partitions == PARTITIONS, 30, "the living has all")
        first.start()
        wait_until(lambda: (first.partitions, second.partitions) == (2, 2), 20, "halves again")
        truth.await_answers()
        assert second.stop() == 0
        wait_until(lambda: first.partitions == PARTITIONS, 20, "given back at once")
    world.await_loaded()
    assert_counted_once(world, truth)
    wait_until(lambda: world.lag() == 0, 10, "committed behind the ledger")


@pytest.mark.parametrize("table", ["arrivals", "ledger"])
def test_a_loader_that_was_frozen_past_a_rebalance_changes_nothing(
    world: World, ingest: FunctionProcess, tmp_path: Path, table: str
) -> None:
    """SIGSTOP before a write; the other loads all of it and more; SIGCONT: a late write."""
    armed = tmp_path / "armed"
    frozen, other = world.process("load"), world.process("load")
    frozen.fault = f"stop:before:{table}:1:{armed}"
    frozen.start()
    other.start()
    wait_until(lambda: (frozen.partitions, other.partitions) == (2, 2), 20, "halves")
    with Traffic(ingest.url) as truth:
        truth.await_answers()
        armed.touch()
        wait_until(lambda: other.partitions == PARTITIONS, 40, "the other has all")
        truth.await_answers(50)
        late = armed.with_suffix(".passed")
        assert not late.exists()
        frozen.signal(signal.SIGCONT)
        wait_until(late.exists, 20, "the late write")
        wait_until(lambda: (frozen.partitions, other.partitions) == (2, 2), 40, "halves again")
        truth.await_answers()
    world.await_loaded()
    assert_counted_once(world, truth)


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_between_two_writes_another_goes_on(
    world: World, ingest: FunctionProcess, tmp_path: Path, when: str
) -> None:
    armed = tmp_path / "armed"
    dying, other = world.process("load"), world.process("load")
    dying.fault = f"kill:{when}:ledger:2:{armed}"
    dying.start()
    wait_until(lambda: dying.partitions == PARTITIONS, 20, "all partitions loaded")
    with Traffic(ingest.url) as truth:
        truth.await_answers()
        armed.touch()
        assert dying.process.wait(30) == -signal.SIGKILL
        other.start()
        truth.await_answers()
        wait_until(lambda: other.partitions == PARTITIONS, 30, "the other has all")
    world.await_loaded()
    assert_counted_once(world, truth)


def test_more_loaders_than_partitions(world: World, ingest: FunctionProcess) -> None:
    """Who owns nothing is ready, says so, and takes over when another leaves."""
    loaders = [world.process("load").start() for _ in range(PARTITIONS)]
    idle = world.process("load").start()
    wait_until(lambda: [each.partitions for each in loaders] == [1] * PARTITIONS, 30, "one each")
    figures = idle.figures()
    assert figures["tollgate_load_partitions"] == 0
    assert figures["tollgate_load_lag_records"] == figures["tollgate_load_freshness_seconds"] == 0
    assert figures["tollgate_load_group_joined"] == 1
    assert idle.http.get("/readyz").status_code == 200
    with Traffic(ingest.url) as truth:
        truth.await_answers()
    world.await_loaded()
    stored = world.loaded()

    def counted() -> int:  # after the ledger's answer: the last batch may still be on its way
        return sum(each.figures()["tollgate_load_events_total"] for each in loaders)

    wait_until(lambda: counted() >= stored, 10, "every batch in the metrics")
    assert counted() == stored
    assert loaders[0].stop() == 0
    wait_until(lambda: idle.partitions == 1, 20, "taken over")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("awake", [True, False])
def test_a_new_generation_comes_after_the_old_one(
    world: World, ingest: FunctionProcess, awake: bool
) -> None:
    """Layouts change under way: keys of the old one are known in the new, whose partitions differ.

    Both generations are loaded by two loaders, either while it happens or all of it afterwards.
    """
    loaders = [world.process("load") for _ in range(2)]
    with Traffic(ingest.url) as truth:
        for loader in loaders if awake else ():
            loader.start()
        truth.await_answers()
        of_the_old = list(truth.acknowledged.copy().items())[:300]
        world.set_up(PARTITIONS - 1, new_generation=True)
        truth.await_answers()
    send(ingest, *(event(*each) for each in of_the_old))
    for loader in () if awake else loaders:
        loader.start()
    wait_until(lambda: sum(each.partitions for each in loaders) == 2 * PARTITIONS - 1, 30, "shared")
    world.await_loaded()
    assert_counted_once(world, truth)
    sql = "SELECT uniqExact(id) FROM {db}.event_outcomes WHERE outcome = 'duplicate'"
    assert world.ask(f"{sql} AND log_generation = 2 AND first_generation = 1")[0] >= 300
    # Loaders of what is over end, and no lag is left that would keep any awake.
    wait_until(lambda: world.lag() == 0, 90, "nothing left of the old generation")

    def waiting() -> int:
        return sum(each.figures()["tollgate_load_partitions_waiting"] for each in loaders)

    wait_until(lambda: waiting() == 0, 10, "loaded or over, all of them")
    wait_until(
        lambda: sum(each.partitions for each in loaders) == 2 * PARTITIONS - 1,
        10,
        "kept",
    )
    with Traffic(ingest.url, name="d") as more:
        more.await_answers()
    world.await_loaded()
    truth.acknowledged |= more.acknowledged
    assert_counted_once(world, truth)


# -- the doorbell ----------------------------------------------------------------------------------


def test_a_ring_loads_all_that_stands_and_then_sleeps(
    world: World, ingest: FunctionProcess
) -> None:
    sleeper = world.process("load", load_mode="doorbell", load_idle_seconds="1").start()
    assert world.members() == 0
    for turn in range(1, 4):
        send(ingest, *(event(f"{turn}-{n}", n) for n in range(50)))
        assert ring(sleeper).status_code == 204
        assert world.loaded() == 50 * turn
        wait_until(lambda: world.members() == 0, 20, "asleep")
        assert sleeper.partitions == 0
        assert world.lag() == 0
    assert sleeper.figures()["tollgate_load_events_total"] == 150


@pytest.mark.timeout(240)
def test_rings_that_come_while_one_is_answered_are_joined(
    world: World, ingest: FunctionProcess
) -> None:
    """A KafkaSource rings once for every record, many at a time: each answer is true."""
    sleepers = [world.process("load", load_mode="doorbell").start() for _ in range(2)]
    with ThreadPoolExecutor(16) as pool, Traffic(ingest.url, clients=1) as truth:
        truth.await_answers()

        def acknowledged_then_loaded(number: int) -> bool:
            send(ingest, event(f"ring-{number}", number))
            # A machine that is busy may need longer than a ring is given.
            wait_until(lambda: ring(sleepers[number % 2]).status_code == 204, 90, "an answer")
            sql = "SELECT count() FROM {db}.events FINAL WHERE id = 'ring-NUMBER'"
            return world.ask(sql.replace("NUMBER", str(number))) == (1,)

        assert all(pool.map(acknowledged_then_loaded, range(64)))
    truth.acknowledged |= {f"ring-{n}": n for n in range(64)}
    wait_until(lambda: ring(sleepers[0]).status_code == 204, 90, "an answer")
    assert_counted_once(world, truth)


def test_a_ring_that_cannot_be_answered_is_to_be_repeated(
    world: World, ingest: FunctionProcess, store: ClickHouseServer
) -> None:
    sleeper = world.process("load", load_mode="doorbell", load_ring_seconds="4").start()
    send(ingest, event("a", 1))
    store.kill()
    answer = ring(sleeper)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    store.start()
    wait_until(lambda: ring(sleeper).status_code == 204, what="a ring answered")
    assert world.loaded() == 1


def test_killed_while_it_answers_a_ring(
    world: World, ingest: FunctionProcess, tmp_path: Path
) -> None:
    armed = tmp_path / "armed"
    sleeper = world.process("load", load_mode="doorbell")
    sleeper.fault = f"kill:after:arrivals:1:{armed}"
    sleeper.start()
    armed.touch()
    with Traffic(ingest.url) as truth:
        truth.await_answers()
        with pytest.raises(httpx.TransportError):
            ring(sleeper)
        assert sleeper.process.wait(20) == -signal.SIGKILL
        sleeper.fault = "none"
        sleeper.start()
    wait_until(lambda: ring(sleeper).status_code == 204, what="a ring answered")
    assert_counted_once(world, truth)
