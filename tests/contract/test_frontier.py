"""How far loading has come: told by loaders of this process, else read from the ledger."""

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import pytest

from tests.support.engine import EnginePlace
from tests.support.loading import Interruptible
from tests.support.server import wait_until
from tollgate.core.errors import Transient
from tollgate.events.ledger import Frontier, read_frontier, read_frontiers_after
from tollgate.events.position import Token
from tollgate.events.rows import LEDGER_COLUMNS
from tollgate.platform.clickhouse import DATABASE, ClickHouse

pytest_plugins = ["tests.support.stages"]
_generations = itertools.count(500_000, 10)


class Watched(ClickHouse):
    """ClickHouse that counts its queries, holds them up, or is away."""

    def __init__(self, place: EnginePlace) -> None:
        super().__init__(path=place.path, url=place.url)
        self.asked = 0
        self.away = False
        self.go_on = threading.Event()
        self.go_on.set()

    def query(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Sequence[Sequence[Any]]:
        self.asked += 1
        self.go_on.wait(20)
        if self.away:
            raise Transient("ClickHouse: simulated: connection refused")
        return super().query(sql, parameters, settings)


@pytest.fixture
def store(interruptible: Interruptible, engine_place: EnginePlace) -> Iterator[Watched]:
    with Watched(engine_place) as made:
        yield made
        made.go_on.set()


@pytest.fixture
def generation(store: Watched) -> Iterator[int]:
    """Newer than those of all other tests, which share the engine and go on when this one ends."""
    number = next(_generations)
    yield number
    store.away = False
    for table in ("ledger", "ledger_commits"):
        store.command(
            f"ALTER TABLE {DATABASE}.{table} DELETE WHERE log_generation >= {number}"
            " SETTINGS mutations_sync = 2"
        )


def write(store: ClickHouse, generation: int, partition: int, *offsets: int) -> None:
    """What a loader elsewhere writes into the ledger."""
    names = '"2026-11-24 00:00:00","n","2026-11-24 00:00:00",1,1,0,0,0,0'
    assert len(LEDGER_COLUMNS) == 3 + len(names.split(","))
    rows = "".join(f"[{generation},{partition},{offset},{names}]\n" for offset in offsets)
    store.insert("ledger", LEDGER_COLUMNS, rows.encode())


def test_read_by_hand(store: Watched, generation: int) -> None:
    """Offsets with holes, in parts out of order; a partition without any record."""
    write(store, generation, 0, 0, 1, 7, 9)
    write(store, generation, 0, 3)
    write(store, generation, 1, 0)
    write(store, generation + 1, 0, 40)
    assert [read_frontier(store, generation, p) for p in (0, 1, 2)] == [9, 0, -1]
    known = {(generation, 0): 7, (generation, 1): 0, (generation, 2): -1, (generation + 1, 0): None}
    found = read_frontiers_after(store, known)
    assert found == {
        (generation, 0): 9,
        (generation, 1): 0,
        (generation, 2): -1,
        (generation + 1, 0): 40,
    }
    assert read_frontiers_after(store, {(generation, 0): 9}) == {(generation, 0): 9}
    assert read_frontiers_after(store, {}) == {}


def test_what_a_loader_here_has_is_not_asked(store: Watched, generation: int) -> None:
    frontier = Frontier(store)
    frontier.claim(generation, 0)
    token = Token(generation=generation, offsets={0: 5})
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(frontier.wait, token, 20_000)
        frontier.publish(generation, 0, 4)
        assert not waiting.done()
        frontier.publish(generation, 0, 5)
        assert waiting.result(5)
    assert store.asked == 0
    assert not frontier.wait(Token(generation=generation, offsets={0: 6}), 50)


def test_what_a_loader_elsewhere_has_is_asked(store: Watched, generation: int) -> None:
    frontier = Frontier(store)
    token = Token(generation=generation, offsets={0: 5, 3: 2})
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(frontier.wait, token, 20_000)
        write(store, generation, 0, 5)
        write(store, generation, 3, 1)
        wait_until(lambda: frontier.known().get((generation, 3)) == 1, what="heard of it")
        assert not waiting.done()
        write(store, generation, 3, 2)
        assert waiting.result(5)
    asked = store.asked
    assert frontier.wait(token, 0)
    assert store.asked == asked


def test_a_loader_that_was_dismissed_may_still_speak(store: Watched, generation: int) -> None:
    """Its last batch is true, but what comes after is another loader's, in another process."""
    frontier = Frontier(store)
    frontier.claim(generation, 0)
    token = Token(generation=generation, offsets={0: 5})
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(frontier.wait, token, 20_000)
        frontier.withdraw(generation, 0)
        frontier.publish(generation, 0, 4)
        write(store, generation, 0, 5)
        assert waiting.result(5)


def test_a_record_of_a_newer_generation_says_that_the_older_is_loaded(
    store: Watched, generation: int
) -> None:
    frontier = Frontier(store)
    token = Token(generation=generation, offsets={0: 5})
    frontier.publish(generation + 1, 0, -1)
    assert not frontier.wait(token, 0)
    frontier.publish(generation + 1, 0, 0)
    assert frontier.wait(token, 0)


def test_all_that_wait_share_one_poll(store: Watched, generation: int) -> None:
    """24 waiters for a second: the ledger is asked as often as one alone would ask."""
    frontier = Frontier(store)
    tokens = [Token(generation=generation, offsets={n % 4: 5}) for n in range(24)]
    with ThreadPoolExecutor(24) as pool:
        assert not any(pool.map(lambda token: frontier.wait(token, 1_000), tokens))
    # 20, 40, 80, 160, 250 ms and so on; the first answer takes a query for each partition.
    assert store.asked <= 16
    asked = store.asked
    with ThreadPoolExecutor(24) as pool:
        waiting = [pool.submit(frontier.wait, token, 20_000) for token in tokens]
        for partition in range(4):
            write(store, generation, partition, 5)
        assert all(each.result(5) for each in waiting)
    assert store.asked <= asked + 8


def test_nobody_waits_for_a_query_but_who_needs_it(store: Watched, generation: int) -> None:
    """ClickHouse hangs: loaders go on to publish, what is known is answered, times are kept."""
    frontier = Frontier(store)
    frontier.claim(generation, 0)
    store.go_on.clear()
    with ThreadPoolExecutor() as pool:
        stuck = pool.submit(frontier.wait, Token(generation=generation, offsets={1: 5}), 20_000)
        wait_until(lambda: store.asked, what="the question")
        began = monotonic()
        frontier.publish(generation, 0, 9)
        assert frontier.wait(Token(generation=generation, offsets={0: 9}), 5_000)
        assert not frontier.wait(Token(generation=generation, offsets={1: 5}), 100)
        assert monotonic() - began < 2
        assert not stuck.done()
        write(store, generation, 1, 5)
        store.go_on.set()
        assert stuck.result(5)


def test_a_store_that_is_away_is_said_to_each_and_asked_again(
    store: Watched, generation: int
) -> None:
    frontier = Frontier(store)
    token = Token(generation=generation, offsets={0: 5})
    store.away = True
    with pytest.raises(Transient):
        frontier.wait(token, 5_000)
    store.away = False
    write(store, generation, 0, 5)
    assert frontier.wait(token, 5_000)
