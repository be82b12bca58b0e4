"""Loaders as processes of their own, with faults built in, and a client that keeps the truth.

`python -m tests.support.loaders FAULT [option of up ...]`: FAULT is `kill:before:ledger:2:FILE`
(SIGKILL to itself before its second insert into `ledger` while FILE exists; or `after`, or another
table), `stop:...` (SIGSTOP instead), or `none`. After a `stop` that was continued, and the insert
done, `FILE.passed` exists. Faults sit on the edge to ClickHouse; the product is unchanged.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.support.server import ROOT, Server, clean_environment, wait_until
from tollgate.events.ledger import Partition, read_frontiers_after
from tollgate.platform import cron
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.parts import Parts, open_layouts
from tollgate.platform.settings import read_settings
from tollgate.platform.setup import run as set_up

BATCH = {"Content-Type": "application/cloudevents-batch+json"}
PAUSE_SECONDS = 0.06
"""Between two requests of a client: what is tested is what becomes of them, not how many fit."""
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class FunctionProcess(Server):
    """One function of the distributed world, on a data folder of its own."""

    fault = "none"

    def start(self, *, wait: bool = True) -> "FunctionProcess":
        """Starts the process with its fault; with `wait`, returns once `/readyz` says so."""
        command = [sys.executable, "-m", "tests.support.loaders", self.fault]
        command += ["--port", str(self.port), "--data", str(self.data)]
        environment = clean_environment(self._settings)
        environment["PYTHONPATH"] = f"{ROOT / 'shared'}{os.pathsep}{ROOT}"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=ROOT
            )
        if wait:
            wait_until(self._ready, what="function ready")
        return self

    def figures(self) -> dict[str, int]:
        """What `/metrics` says, by name; labels left out, samples of a family added."""
        found: dict[str, int] = {}
        for line in self.http.get("/metrics").text.splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.split("{", 1)[0]
                found[name] = found.get(name, 0) + int(float(value))
        return found

    @property
    def partitions(self) -> int:
        """How many partitions it loads."""
        return self.figures()["tollgate_load_partitions"]


class World:
    """A log on a broker, a store, and the processes of one test."""

    def __init__(self, folder: Path, brokers: str, prefix: str, clickhouse_url: str) -> None:
        self._folder = folder
        self.prefix = prefix
        self.clickhouse_url = clickhouse_url
        self.admin = AdminClient({"bootstrap.servers": brokers})
        self._reader = Consumer({"bootstrap.servers": brokers, "group.id": f"{prefix}.test"})
        self._settings = {
            "TOLLGATE_LOG_URL": f"kafka://{brokers}/{prefix}",
            "TOLLGATE_LOG_DEVELOPMENT": "true",
            "TOLLGATE_CLICKHOUSE_URL": clickhouse_url,
            "TOLLGATE_LOAD_EVENTS_MAX": "2000",
        }
        self.processes: list[FunctionProcess] = []

    def process(self, function: str, **settings: str) -> FunctionProcess:
        """A process of one function, not started."""
        own = {f"TOLLGATE_{name.upper()}": value for name, value in settings.items()}
        data = self._folder / f"{function}-{len(self.processes)}"
        made = FunctionProcess(data, None, self._settings | {"TOLLGATE_FUNCTION": function} | own)
        self.processes.append(made)
        return made

    def set_up(self, partitions: int, *, new_generation: bool = False) -> None:
        """Makes schema and topics; or closes the newest generation and makes the next."""
        settings = self._settings | {
            "TOLLGATE_DATA": str(self._folder / "setup"),
            "TOLLGATE_LOG_PARTITIONS": str(partitions),
        }
        for _ in set_up(read_settings(settings), new_generation=new_generation):
            pass

    def committed(self) -> dict[tuple[str, int], int]:
        """Offsets of the group of loaders, by topic and partition."""
        asked = ConsumerGroupTopicPartitions(f"{self.prefix}.load")
        (answer,) = self.admin.list_consumer_group_offsets([asked]).values()
        return {(t.topic, t.partition): t.offset for t in answer.result().topic_partitions}

    def members(self) -> int:
        """How many take part in the group of loaders."""
        group = f"{self.prefix}.load"
        return len(self.admin.describe_consumer_groups([group])[group].result().members)

    def ends(self) -> dict[tuple[str, int], int]:
        """The offset after the last record, by topic and partition."""
        topics = self.admin.list_topics(timeout=10).topics
        own = [
            TopicPartition(name, partition)
            for name, topic in topics.items()
            if name.startswith(f"{self.prefix}.")
            for partition in topic.partitions
        ]
        watermarks = [self._reader.get_watermark_offsets(each, timeout=10) for each in own]
        return {(t.topic, t.partition): end for t, (_, end) in zip(own, watermarks, strict=True)}

    def lag(self) -> int:
        """Records that the group's offsets say are not loaded: what KEDA scales by."""
        committed = self.committed()
        return sum(end - max(0, committed.get(key, 0)) for key, end in self.ends().items())

    def ask(self, sql: str) -> tuple[Any, ...]:
        """The one row of a query."""
        with ClickHouse(url=self.clickhouse_url) as clickhouse:
            return tuple(clickhouse.query(sql.format(db=DATABASE))[0])

    def loaded(self) -> int:
        """Events that are accounted for."""
        return int(self.ask("SELECT sum(accepted) FROM {db}.ledger FINAL")[0])

    def await_loaded(self) -> None:
        """Waits until the ledger has every record of the log."""
        with closing(Parts(read_settings(self._settings))) as parts:
            layouts = parts.get(open_layouts)
            logs = [layouts.open(generation) for generation in layouts.generations()]
            wanted = {
                (log.generation, p): log.end(p) for log in logs for p in range(log.partitions)
            }
        with ClickHouse(url=self.clickhouse_url) as clickhouse:
            asked: dict[Partition, int | None] = dict.fromkeys(wanted)
            wait_until(lambda: read_frontiers_after(clickhouse, asked) == wanted, what="all loaded")

    def close(self) -> None:
        """Kills what runs."""
        self._reader.close()
        for process in self.processes:
            process.__exit__()


@dataclass
class Truth:
    """What clients know. Guarded by `lock`."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    acknowledged: dict[str, int] = field(default_factory=dict)
    answers: int = 0
    unknown: int = 0
    refused: list[str] = field(default_factory=list)
    token: str = ""

    def await_answers(self, more: int = 20) -> None:
        """Waits until some more requests were acknowledged."""
        before = self.answers
        wait_until(lambda: self.answers >= before + more, what="requests acknowledged")


class Client:
    """Sends batches of new events, with repeats and contradictions of old ones among them.

    A request without an answer, or with 503, is sent again as it is until it is acknowledged.
    """

    def __init__(self, url: str, name: str, truth: Truth) -> None:
        self._url, self._name, self._truth = url, name, truth
        self._chance = random.Random(name)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        number = 0
        old: list[tuple[str, int]] = []
        with httpx.Client(base_url=self._url, timeout=30) as http:
            while not self.stop.is_set():
                new = [(f"{self._name}-{number + n}", number + n) for n in range(20)]
                number += len(new)
                repeated = self._chance.sample(old, min(3, len(old)))
                contradicted = self._chance.sample(old, min(2, len(old)))
                body = [event(*each) for each in new + repeated]
                body += [event(name, -1) for name, _ in contradicted]
                if not self._send(http, json.dumps(body).encode()):
                    return
                old = (old + new)[-2000:]
                with self._truth.lock:
                    self._truth.acknowledged |= dict(new)
                    self._truth.answers += 1
                self.stop.wait(PAUSE_SECONDS)

    def _send(self, http: httpx.Client, body: bytes) -> bool:
        while True:
            try:
                answer = http.post("/api/v1/events", content=body, headers=BATCH)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == 204:
                self._truth.token = answer.headers["Tollgate-Position"]
                return True
            if answer is not None and answer.status_code != 503:
                self._truth.refused.append(answer.text)
                return False
            with self._truth.lock:
                self._truth.unknown += 1
            if self.stop.wait(0.2) and self._truth.unknown > 1000:
                return False


class Traffic:
    """Some clients at work."""

    def __init__(self, url: str, clients: int = 3, name: str = "c") -> None:
        self.truth = Truth()
        self._clients = [Client(url, f"{name}{n}", self.truth) for n in range(clients)]

    def __enter__(self) -> Truth:
        for client in self._clients:
            client.thread.start()
        return self.truth

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.stop.set()
        for client in self._clients:
            client.thread.join(60)
            assert not client.thread.is_alive()
        assert self.truth.refused == []


def event(event_id: str, number: int) -> dict[str, object]:
    """An event whose content is its number."""
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "loaders",
        "type": "t",
        "subject": "s",
        "data": {"n": number},
    }


_RECORD = "log_generation, log_partition, log_offset"
_INVARIANTS = {
    "keys counted twice": "SELECT count() FROM (SELECT namespace, source, id FROM {db}.events FINAL"
    " WHERE amendment = 0 GROUP BY ALL HAVING count() > 1)",
    "positions without a key": f"SELECT count() FROM {{db}}.events FINAL WHERE amendment = 0 AND"
    f" ({_RECORD}, log_index) NOT IN (SELECT {_RECORD}, log_index FROM {{db}}.event_keys)",
    "keys without an event": f"SELECT count() FROM {{db}}.event_keys FINAL WHERE ({_RECORD},"
    f" log_index) NOT IN (SELECT {_RECORD}, log_index FROM {{db}}.events)",
    "positions with two outcomes": f"SELECT count() FROM (SELECT {_RECORD}, log_index FROM"
    " {db}.event_outcomes FINAL GROUP BY ALL HAVING count() > 1)",
    "records out of balance": "SELECT count() FROM {db}.ledger FINAL"
    " WHERE accepted != stored + duplicate + conflict + dead",
    "records miscounted": f"SELECT count() FROM (SELECT {_RECORD}, sum(stored) AS n FROM"
    f" {{db}}.ledger FINAL GROUP BY ALL) AS l FULL JOIN (SELECT {_RECORD}, count() AS n FROM"
    " {db}.events FINAL WHERE amendment = 0 GROUP BY ALL) AS e"
    f" USING ({_RECORD}) WHERE l.n != e.n",
    "dead letters": "SELECT count() FROM {db}.event_outcomes FINAL WHERE outcome = 'dead'",
}


def assert_counted_once(world: World, truth: Truth) -> None:
    """Every acknowledged event is stored once with its own content, and the ledger balances."""
    for name, sql in _INVARIANTS.items():
        assert world.ask(sql) == (0,), name
    with ClickHouse(url=world.clickhouse_url) as clickhouse:
        rows = clickhouse.query(
            f"SELECT id, JSONExtractInt(data, 'n') FROM {DATABASE}.events FINAL"
        )
    assert {row[0]: row[1] for row in rows} == truth.acknowledged


class _Countdown:
    """Sends this process a signal at the n-th pass of a point."""

    def __init__(self, fault: str) -> None:
        kind, self.when, self.table, number, file = fault.split(":")
        self.signal, self.left, self.file = _SIGNALS[kind], int(number), Path(file)
        self.lock = threading.Lock()

    def pass_by(self, when: str, table: str) -> bool:
        with self.lock:
            if (when, table) != (self.when, self.table) or not self.file.exists():
                return False
            self.left -= 1
            if self.left:
                return False
        os.kill(os.getpid(), self.signal)
        return True


def _signal_at(fault: str) -> None:
    point = _Countdown(fault)
    insert = ClickHouse.insert

    def insert_or_end(self: ClickHouse, table: str, columns: Sequence[str], rows: bytes) -> None:
        stopped = point.pass_by("before", table)
        insert(self, table, columns, rows)
        if stopped or point.pass_by("after", table):
            point.file.with_suffix(".passed").touch()

    ClickHouse.insert = insert_or_end  # type: ignore[method-assign]


def _tend_often() -> None:
    """Scheduled work comes every two seconds: nobody waits for the next full minute."""

    def soon(_expression: str, after: datetime) -> datetime:
        return after + timedelta(seconds=2)

    schedules: Any = cron
    schedules.next_run = soon


def main(arguments: list[str]) -> int:
    """See the module."""
    fault, rest = arguments[0], arguments[1:]
    _tend_often()
    if fault != "none":
        _signal_at(fault)
    from tollgate.platform.up import main as up

    return up(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
