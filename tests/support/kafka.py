"""A real Kafka broker for the session, and a name for topics that no other test uses."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tollgate.local.broker import Broker


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
