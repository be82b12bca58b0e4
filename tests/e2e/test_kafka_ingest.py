"""Ingest as a process of its own on a real broker: away, back, on another layout, refusing."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.support.event_logs import append, read_all
from tests.support.kafka import log_settings, new_layouts
from tests.support.server import ROOT, clean_environment, free_port, wait_until
from tollgate.events.record import decode_record
from tollgate.local.broker import Broker
from tollgate.local.function_process import FunctionProcess
from tollgate.platform import setup

pytestmark = pytest.mark.e2e
ACK_SECONDS = 2
CLOUDEVENTS = {"Content-Type": "application/cloudevents+json"}


class Ingest:
    """A process that takes events, and a client of it."""

    def __init__(self, folder: Path, broker: Broker, prefix: str) -> None:
        self.settings = {
            "TOLLGATE_LOG_URL": f"{broker.url}/{prefix}",
            "TOLLGATE_LOG_DEVELOPMENT": "true",
            "TOLLGATE_LOG_ACK_SECONDS": str(ACK_SECONDS),
            "TOLLGATE_DATA": str(folder / "ingest"),
        }
        self.log = folder / "ingest.log"
        self._folder = folder
        self.process: FunctionProcess | None = None
        self.http = httpx.Client()

    def start(self, more: Mapping[str, str] | None = None) -> "Ingest":
        port = free_port()
        self.process = FunctionProcess(
            "ingest",
            self.log,
            port=port,
            settings=clean_environment(self.settings | dict(more or {})),
            drain_seconds=5,
        )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
        self.process.start()
        return self

    def send(self, identity: str) -> httpx.Response:
        event = {
            "specversion": "1.0",
            "id": identity,
            "source": "test",
            "type": "prompt",
            "subject": "customer-1",
            "data": {"tokens": 1},
        }
        return self.http.post("/api/v1/events", content=json.dumps(event), headers=CLOUDEVENTS)

    def takes(self, identity: str) -> bool:
        return self.send(identity).status_code == 204

    def close(self) -> None:
        self.http.close()
        if self.process is not None:
            self.process.kill()


@pytest.fixture
def new_ingest(tmp_path: Path, topic_prefix: str) -> Iterator[Callable[[Broker], Ingest]]:
    made: list[Ingest] = []

    def make(broker: Broker) -> Ingest:
        made.append(Ingest(tmp_path, broker, topic_prefix))
        return made[-1]

    yield make
    for each in made:
        each.close()


def stored(broker: Broker, prefix: str) -> dict[tuple[int, int, int], list[str]]:
    """Ids of the events in every record, by generation, partition and offset."""
    found = {}
    with closing(new_layouts(log_settings(broker, prefix))) as layouts:
        for generation in layouts.generations():
            log = layouts.open(generation)
            for partition in range(log.partitions):
                for record in read_all(log, partition=partition):
                    lines = decode_record(record.value).lines.splitlines()
                    ids = [json.loads(b"[" + line)[3] for line in lines]
                    found[generation, partition, record.offset] = ids
    return found


def place(answer: httpx.Response) -> tuple[int, int, int]:
    """Generation, partition and offset that an answer names."""
    generation, _, pair = answer.headers["tollgate-position"].partition(";")
    partition, _, offset = pair.partition(":")
    return int(generation), int(partition), int(offset)


def test_a_broker_that_goes_away_is_answered_with_503_and_nothing_is_lost(
    new_broker: Callable[..., Broker],
    new_ingest: Callable[[Broker], Ingest],
    topic_prefix: str,
) -> None:
    broker = new_broker().start()
    new_layouts(log_settings(broker, topic_prefix)).close()
    ingest = new_ingest(broker).start()
    taken = {f"before-{n}": ingest.send(f"before-{n}") for n in range(20)}
    broker.kill()
    refused = ingest.send("lost")
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert ingest.http.get("/healthz").status_code == 200
    broker.start()
    wait_until(lambda: ingest.takes("lost"), what="events are taken again")
    taken |= {f"after-{n}": ingest.send(f"after-{n}") for n in range(20)}
    assert {answer.status_code for answer in taken.values()} == {204}
    records = stored(broker, topic_prefix)
    for identity, answer in taken.items():
        assert records[place(answer)] == [identity]


def test_ingest_that_starts_before_its_broker_waits_for_it(
    new_broker: Callable[..., Broker],
    new_ingest: Callable[[Broker], Ingest],
    topic_prefix: str,
) -> None:
    broker = new_broker().start()
    new_layouts(log_settings(broker, topic_prefix)).close()
    broker.stop()
    ingest = new_ingest(broker).start()
    refused = ingest.send("early")
    assert refused.status_code == 503
    assert "can't be reached; nothing of this request was stored" in refused.text
    broker.start()
    wait_until(lambda: ingest.takes("early"), what="events are taken")


def test_a_new_layout_under_traffic_loses_nothing(
    broker: Broker, new_ingest: Callable[[Broker], Ingest], topic_prefix: str
) -> None:
    new_layouts(log_settings(broker, topic_prefix)).close()
    ingest = new_ingest(broker).start()
    stop = threading.Event()
    answers: dict[str, httpx.Response] = {}

    def send() -> None:
        number = 0
        while not stop.is_set():
            answer = answers[f"event-{number}"] = ingest.send(f"event-{number}")
            number += 1
            stop.wait(0.01)
            if answer.status_code == 503:
                stop.wait(int(answer.headers["retry-after"]))

    sender = threading.Thread(target=send)
    sender.start()
    wait_until(lambda: len(answers) > 50, what="events taken")
    list(setup._switch_layout(log_settings(broker, topic_prefix, log_partitions=3)))
    seen = len(answers)
    wait_until(
        lambda: sum(a.status_code == 204 for a in list(answers.copy().values())[seen:]) > 50,
        what="events taken by the new layout",
    )
    stop.set()
    sender.join()
    assert {answer.status_code for answer in answers.values()} <= {204, 503}
    taken = {identity: place(a) for identity, a in answers.items() if a.status_code == 204}
    records = stored(broker, topic_prefix)
    assert all(identity in records[taken[identity]] for identity in taken)
    assert {generation for generation, _, _ in taken.values()} == {1, 2}
    assert {partition for generation, partition, _ in taken.values() if generation == 2} == {
        0,
        1,
        2,
    }
    # The 503s say that sending again is due, and at once.
    refused = [a for a in answers.values() if a.status_code == 503]
    assert all(a.headers["retry-after"] == "1" for a in refused)
    assert len(refused) < len(taken)


def test_ingest_refuses_what_could_be_deleted_before_it_is_loaded(
    broker: Broker, new_ingest: Callable[[Broker], Ingest], topic_prefix: str
) -> None:
    with closing(new_layouts(log_settings(broker, topic_prefix, log_retention_hours=1))) as layouts:
        append(layouts.open(1), b"waits to be loaded")
    # A margin beyond the retention: whatever waits is too near its end.
    ingest = new_ingest(broker).start({"TOLLGATE_LOG_RETENTION_MARGIN_SECONDS": "3700"})
    wait_until(lambda: not ingest.takes("early"), what="a refusal")
    refused = ingest.send("late")
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "30"
    assert "come near deletion" in refused.text
    assert "nothing of this request was stored" in refused.text


def test_ingest_does_not_start_on_a_topic_that_could_lose_events(
    broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    new_layouts(log_settings(broker, topic_prefix)).close()
    settings = {
        "TOLLGATE_LOG_URL": f"{broker.url}/{topic_prefix}",
        "TOLLGATE_FUNCTION": "ingest",
        "TOLLGATE_PORT": str(free_port()),
        "TOLLGATE_DATA": str(tmp_path),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "tollgate.platform.serve"],
        env=clean_environment(settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    said = ended.stdout + ended.stderr
    assert "min.insync.replicas is 1: set it to 2 or more" in said
    assert "replication is 1, 3 are needed" in said


def test_the_setup_command_makes_everything_and_says_so(
    broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = {
        "TOLLGATE_LOG_URL": f"{broker.url}/{topic_prefix}",
        "TOLLGATE_LOG_DEVELOPMENT": "true",
        "TOLLGATE_DATA": str(tmp_path / "data"),
    }

    def run(*options: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "tollgate.platform.setup", *options],
            env=clean_environment(settings) | {"HOME": os.fspath(tmp_path)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return ended.stdout

    first = run()
    assert "control plane: the schema is up to date" in first
    assert "migrations applied" in first
    assert f"created topic {topic_prefix}.1" in first
    again = run("--new-generation")
    assert "ClickHouse: up to date" in again
    assert f"topic {topic_prefix}.1 takes no more events" in again
    assert f"topic {topic_prefix}.2 takes events from now on" in again
