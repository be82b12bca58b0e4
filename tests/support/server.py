"""The product as its users run it: a process of its own on a free port and a data folder."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLE_METERS = ROOT / "infra" / "meters" / "sample.yaml"
_START_SECONDS = 60
_STOP_SECONDS = 40


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], Any], seconds: int = 20, what: str = "condition") -> Any:
    """Polls until a condition gives something true, and gives that."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what} not met within {seconds} s (last: {found!r})")
        time.sleep(0.02)  # noqa: TID251 -- the one place that polls; tests wait for conditions


def setting(name: str, default: str) -> str:
    """A setting of the tests themselves."""
    return os.environ.get(name, default)  # noqa: TID251


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with the product importable and no setting but the given ones."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TOLLGATE_")}  # noqa: TID251
    return kept | {"PYTHONPATH": str(ROOT / "shared")} | dict(settings)


class Server:
    """One process of `python -m tollgate.platform.up`."""

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
                [sys.executable, "-m", "tollgate.platform.up", *arguments],
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

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.kill()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running product with the sample meters, shared by the session."""
    with Server(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes servers of one's own (not started), killed at the end of the test."""
    made: list[Server] = []

    def make(
        settings: Mapping[str, str] | None = None,
        meters: Path | None = SAMPLE_METERS,
        data: Path | None = None,
    ) -> Server:
        made.append(Server(data or tmp_path / "data", meters, settings))
        return made[-1]

    yield make
    for each in made:
        each.__exit__()
