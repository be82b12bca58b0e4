"""The broker of the tests and of `scripts/up --distributed` behaves as a service should."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.support.server import clean_environment, wait_until
from tollgate.local.broker import CACHE, Broker, fetch_jars
from tollgate.local.broker_image import image_of

_STARTER = """
import sys
from pathlib import Path
from tollgate.local.broker import Broker
broker = Broker(Path(sys.argv[1])).start()
print(broker.pid, flush=True)
sys.stdin.read()
"""


def _produce(broker: Broker, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap, "acks": "all"})
    producer.produce(topic, value, partition=0)
    assert producer.flush(20) == 0


def _values(broker: Broker, topic: str, count: int) -> list[bytes | None]:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "reader"})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        return [message.value() for message in consumer.consume(count, timeout=20)]
    finally:
        consumer.close()


@pytest.mark.parametrize("ending", [Broker.stop, Broker.kill])
def test_a_broker_started_again_keeps_its_data(
    new_broker: Callable[..., Broker], ending: Callable[[Broker], None]
) -> None:
    broker = new_broker().start()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(20)
    _produce(broker, "kept", b"before")
    url = broker.url
    ending(broker)
    broker.start()
    assert broker.url == url
    _produce(broker, "kept", b"after")
    assert _values(broker, "kept", 2) == [b"before", b"after"]


def test_no_broker_outlives_the_process_that_started_it(tmp_path: Path) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", _STARTER, str(tmp_path / "data")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environment({}),
    )
    assert starter.stdout is not None
    broker = psutil.Process(int(starter.stdout.readline()))
    assert "java" in broker.name()
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    wait_until(lambda: not broker.is_running(), what="the broker gone")


def test_a_stopped_broker_leaves_no_process_behind(new_broker: Callable[..., Broker]) -> None:
    broker = new_broker().start()
    session = broker.pid
    members = [p for p in psutil.process_iter() if _session_of(p) == session]
    assert len(members) == 2  # Java, and the shell that holds the leash
    broker.stop()
    wait_until(lambda: not any(p.is_running() for p in members), what="both gone")


def test_a_broker_runs_from_what_the_first_of_all_left(broker: Broker) -> None:
    classes = image_of(CACHE, fetch_jars()).classes
    assert str(classes.resolve()) in Path(f"/proc/{broker.pid}/maps").read_text()


def test_a_broker_that_can_not_use_it_starts_all_the_same_as_a_cluster_of_its_own(
    broker: Broker, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    for each in CACHE.iterdir():
        (tmp_path / "cache" / each.name).symlink_to(each)
    jars = fetch_jars(tmp_path / "cache")
    image, made = image_of(tmp_path / "cache", jars), image_of(CACHE, fetch_jars())
    image.checkpoint.unlink(missing_ok=True)
    image.checkpoint.write_bytes(made.checkpoint.read_bytes())
    image.classes.unlink(missing_ok=True)
    image.classes.write_bytes(b"no classes")
    with Broker(tmp_path / "data", cache=tmp_path / "cache") as other:
        ids = {
            AdminClient({"bootstrap.servers": each.bootstrap}).list_topics(timeout=20).cluster_id
            for each in (broker, other)
        }
        assert str(image.classes) not in Path(f"/proc/{other.pid}/maps").read_text()
    assert len(ids) == 2


def _session_of(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return 0


def test_the_jars_are_whole_and_of_the_wanted_version() -> None:
    names = {jar.name for jar in fetch_jars()}
    assert "kafka_2.13-4.3.1.jar" in names
    assert "log4j-slf4j-impl-2.25.3.jar" in names
