"""A real Kafka broker for the session, and a name for topics that no other test uses."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tollgate.core.clock import SystemClock
from tollgate.local.broker import Broker
from tollgate.platform.event_log import EventLog
from tollgate.platform.kafka_client import kafka_place
from tollgate.platform.kafka_layouts import KafkaLayouts
from tollgate.platform.kafka_topics import Topics
from tollgate.platform.settings import Settings


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A running broker, shared: tests that stop or freeze it take `new_broker`."""
    with Broker(tmp_path_factory.mktemp("kafka") / "data") as running:
        yield running


@pytest.fixture
def topic_prefix() -> str:
    """What this test's topics begin with."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def new_broker(tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    """Makes brokers of one's own (not started), killed at the end of the test."""
    made: list[Broker] = []

    def make(properties: Mapping[str, str] | None = None) -> Broker:
        made.append(Broker(tmp_path / f"kafka-{len(made)}", properties=properties))
        return made[-1]

    yield make
    for each in made:
        each.kill()


def log_settings(broker: Broker, prefix: str, **others: object) -> Settings:
    """Settings of a log on one broker, with two partitions."""
    values: dict[str, object] = {
        "log_url": f"{broker.url}/{prefix}",
        "log_development": True,
        "log_partitions": 2,
    }
    return Settings.model_validate(values | others)


def new_layouts(settings: Settings) -> KafkaLayouts:
    """Layouts whose first generation exists."""
    topics = Topics(kafka_place(settings))
    if not topics.generations():
        topics.create(1, settings)
    return KafkaLayouts(settings, SystemClock())


def new_log(broker: Broker, prefix: str, **others: object) -> EventLog:
    """The newest generation, opened anew. Whoever opens it closes it."""
    layouts = new_layouts(log_settings(broker, prefix, **others))
    return layouts.open(layouts.newest())
