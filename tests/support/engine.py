"""The real analytics engine, in this process and as a server, on folders that go with the session.

chDB allows one data path per process, so every test that needs the engine shares this one client
and makes its own tables or databases in it. Contract tests that take `engine_place` run twice: with
the engine in this process, and with a server over HTTP.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from tollgate.local.clickhouse_http import ClickHouseServer

PLACES = ("embedded", "http")
DATABASES = ("sqlite", "postgresql")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlace:
    """Where the engine is: what `ClickHouse` is opened with.

    Attributes:
        path: folder of the engine in this process, or None.
        url: address of a server, or "".
    """

    path: Path | None = None
    url: str = ""


def takes_databases(metafunc: pytest.Metafunc) -> bool:
    """Whether a test runs on every database: it asks for one, and does not say which."""
    own = any(
        mark.args[0] == "database_url" for mark in metafunc.definition.iter_markers("parametrize")
    )
    return "database_url" in metafunc.fixturenames and not own


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Contracts hold in both places; properties and the rest take the engine in this process.

    With a database they go in pairs, as the two worlds have them: neither knows of the other.
    """
    contract = Path(__file__).parents[1] / "contract"
    if "engine_place" not in metafunc.fixturenames or metafunc.definition.path.parent != contract:
        return
    if takes_databases(metafunc):
        pairs = list(zip(DATABASES, PLACES, strict=True))
        metafunc.parametrize(("database_url", "engine_place"), pairs, indirect=True)
    else:
        metafunc.parametrize("engine_place", PLACES, indirect=True, scope="session")


@pytest.fixture(scope="session")
def engine_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one folder that the engine may use in this process."""
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="session")
def engine(engine_path: Path) -> Iterator[Client]:
    client = clickhouse_connect.get_client(interface="chdb", path=str(engine_path))
    yield client
    client.close()


@pytest.fixture(scope="session")
def engine_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """One server for the session."""
    with ClickHouseServer(tmp_path_factory.mktemp("server") / "engine") as server:
        yield server


@pytest.fixture(scope="session")
def engine_place(request: pytest.FixtureRequest) -> EnginePlace:
    """In this process, unless the test asks for a server."""
    if getattr(request, "param", "embedded") == "http":
        server: ClickHouseServer = request.getfixturevalue("engine_server")
        return EnginePlace(url=server.url)
    # The client of the session keeps the engine open between tests.
    request.getfixturevalue("engine")
    path: Path = request.getfixturevalue("engine_path")
    return EnginePlace(path=path)
