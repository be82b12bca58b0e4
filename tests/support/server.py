"""The product as its users run it, on a port and a data folder: one process, or a world of them.

A test that asks for `server` runs twice, on the embedded product and on the distributed one, unless
it is marked `embedded_only`; one that asks for `new_server` only if it is marked `both_worlds`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLE_METERS = ROOT / "infra" / "meters" / "sample.yaml"
_START_SECONDS = 100
PATIENT = {"TOLLGATE_POSITION_WAIT_MS": "20000"}
"""Several worlds at once on two processors: loading may take its time."""
_SHARED = PATIENT | {"TOLLGATE_NOTIFY_PRIVATE_ADDRESSES": "true"}
"""Receivers of webhooks are on this machine too."""
_STOP_SECONDS = 40
EMBEDDED, DISTRIBUTED = "embedded", "distributed"
SHARED_WORLD = pytest.StashKey["World"]()


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], Any], seconds: int = 60, what: str = "condition") -> Any:
    """Polls until a condition gives something true, and gives that.

    What takes long is asked for less often: a wait is a tenth longer at most, and who is waited for
    has the processor.
    """
    began = time.monotonic()
    while True:
        found = condition()
        if found:
            return found
        waited = time.monotonic() - began
        if waited > seconds:
            raise AssertionError(f"{what} not met within {seconds} s (last: {found!r})")
        # The one place that polls; tests wait for conditions.
        time.sleep(min(max(0.02, waited / 10), 0.25))  # noqa: TID251


def setting(name: str, default: str) -> str:
    """A setting of the tests themselves."""
    return os.environ.get(name, default)  # noqa: TID251


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with the product importable and no setting but the given ones."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TOLLGATE_")}  # noqa: TID251
    return kept | {"PYTHONPATH": str(ROOT / "shared")} | dict(settings)


class Server:
    """One process of `python -m tollgate.platform.up`."""

    module = "tollgate.platform.up"

    def __init__(
        self,
        data: Path,
        meters: Path | None = SAMPLE_METERS,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.data = data
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data.with_name(data.name + ".log")
        self._meters = meters
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(base_url=self.url, timeout=30)

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The running process."""
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, wait: bool = True) -> "Server":
        """Starts the process; with `wait`, returns once `/readyz` says so."""
        environment = clean_environment(self._settings)
        arguments = ["--port", str(self.port), "--data", str(self.data)]
        if self._meters is not None:
            arguments += ["--meters", str(self._meters)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module, *arguments],
                env=environment,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )
        if wait:
            wait_until(self._ready, _START_SECONDS, "server ready")
        return self

    def _ready(self) -> bool:
        assert self._process is not None
        code = self._process.poll()
        assert code is None, f"server ended with {code}:\n{self.log.read_text()[-3000:]}"
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def signal(self, number: int) -> None:
        """Sends a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends the process with kill -9, and waits for it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        process = self._process
        if process is None:
            return 0
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(_STOP_SECONDS)
        finally:
            process.kill()
            process.wait()
            self._process = None

    def __enter__(self) -> Self:
        if self._process is None:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.kill()


class World(Server):
    """The same, distributed: the process is the one that keeps all others running."""

    module = "tollgate.local.world"

    def processes(self) -> dict[str, int]:
        """Process ids by name, of those that run."""
        try:
            found = json.loads((self.data / "world.json").read_text())["processes"]
        except FileNotFoundError:
            return {}
        return {name: each["pid"] for name, each in found.items() if each["pid"] is not None}

    def place(self, name: str) -> str:
        """Where a process answers itself."""
        found = json.loads((self.data / "world.json").read_text())["processes"]
        place: str = found[name]["url"]
        return place

    def _ready(self) -> bool:
        return super()._ready() and "entry" in self.processes()

    def kill(self) -> None:
        """Ends all with kill -9 of the one that keeps them, and waits until none is left."""
        left = self.processes() if self._process is not None else {}
        super().kill()
        wait_until(lambda: not any(map(is_running, left.values())), what="none left")


def is_running(pid: int) -> bool:
    """Whether a process has not ended; one that nobody has taken note of has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test on the worlds that are its own."""
    marked = metafunc.definition.get_closest_marker
    if "server" in metafunc.fixturenames:
        worlds = [EMBEDDED] if marked("embedded_only") else [EMBEDDED, DISTRIBUTED]
        metafunc.parametrize("server", worlds, indirect=True, scope="session")
    if "new_server" in metafunc.fixturenames and marked("both_worlds"):
        # By its name such a test is none of the shared world, and runs with its file.
        names = [EMBEDDED, f"own {DISTRIBUTED}"]
        metafunc.parametrize("new_server", [EMBEDDED, DISTRIBUTED], ids=names, indirect=True)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running product in one process with the sample meters, shared by the session."""
    with Server(tmp_path_factory.mktemp("server") / "data", settings=_SHARED) as running:
        yield running


@pytest.fixture(scope="session")
def distributed(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[World]:
    """A running product of many processes with the sample meters, shared by the session."""
    with World(tmp_path_factory.mktemp("world") / "data", settings=_SHARED) as running:
        pytestconfig.stash[SHARED_WORLD] = running
        yield running


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Server:
    """A running product with the sample meters, shared by the session."""
    running: Server = request.getfixturevalue(getattr(request, "param", EMBEDDED))
    return running


@pytest.fixture
def new_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes servers of one's own (not started), killed at the end of the test."""
    kind = World if getattr(request, "param", EMBEDDED) == DISTRIBUTED else Server
    made: list[Server] = []

    def make(
        settings: Mapping[str, str] | None = None,
        meters: Path | None = SAMPLE_METERS,
        data: Path | None = None,
    ) -> Server:
        made.append(kind(data or tmp_path / "data", meters, settings))
        return made[-1]

    yield make
    for each in made:
        each.__exit__()
