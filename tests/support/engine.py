"""The real analytics engine, in this process, on a folder that goes with the session.

chDB allows one data path per process, so every test that needs the engine shares this one client
and makes its own tables or databases in it.
"""

from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client


@pytest.fixture(scope="session")
def engine_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one folder that the engine may use in this process."""
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="session")
def engine(engine_path: Path) -> Iterator[Client]:
    client = clickhouse_connect.get_client(interface="chdb", path=str(engine_path))
    yield client
    client.close()
