"""A ClickHouse of its own process: the embedded engine behind ClickHouse's HTTP interface.

    python -m tollgate.local.clickhouse_http --port 8123 --path folder

Several processes share one real engine through it as they share a server: statements, formats,
error codes and statuses are the engine's and the server's. What it leaves out is what one machine
does not need: users, sessions, roles, external data, compressed answers.
"""

import argparse
import contextlib
import http.client
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from tollgate.core.errors import PermanentFault
from tollgate.local.ending import listen_for_end
from tollgate.local.leash import release_leash, start_leashed
from tollgate.platform.garbage import begin_start, end_start

_log = logging.getLogger(__name__)
_HOST = "127.0.0.1"
# Below the ports that the system gives to clients: one that looks for a server that is away could
# otherwise be given the server's own port.
_PORTS = range(20000, 32000)
_READY_SECONDS = 60
_STOP_SECONDS = 30
_ATTEMPTS = 3
_BACKLOG = 128


class ClickHouseServer:
    """One server on a folder. Its port stays the same when it is started again."""

    def __init__(self, path: Path, *, port: int = 0) -> None:
        """Names the folder; nothing is started.

        Args:
            path: the engine's folder; kept. The log file stands beside it.
            port: to listen on; 0: a free one.
        """
        self.path = path
        self.log = path.parent / f"{path.name}.log"
        self._port = port
        self._any_port = not port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """`TOLLGATE_CLICKHOUSE_URL`."""
        return f"http://{_HOST}:{self._port}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "the ClickHouse server is not running"
        return self._process.pid

    def start(self) -> "ClickHouseServer":
        """Returns when the server answers.

        Raises:
            PermanentFault: it did not come up; the message names its log file.
        """
        if self._process is not None:
            return self
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, _ATTEMPTS + 1):
            self._port = self._port or _free_port()
            try:
                self._launch()
            except PermanentFault:
                # Another process may have taken the port between our look and its use.
                if not self._any_port or attempt == _ATTEMPTS:
                    raise
                self._port = 0
            else:
                break
        return self

    def stop(self) -> None:
        """Ends it in good order: requests in flight are answered, the folder is closed."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        self._reap()

    def kill(self) -> None:
        """Ends it with kill -9."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def suspend(self) -> None:
        """Freezes it (SIGSTOP): connections stand, nothing answers."""
        assert self._process is not None, "the ClickHouse server is not running"
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        assert self._process is not None, "the ClickHouse server is not running"
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> "ClickHouseServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _reap(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.wait()
            release_leash(process)

    def _launch(self) -> None:
        own = [sys.executable, "-m", "tollgate.local.clickhouse_http"]
        command = [*own, "--path", str(self.path.resolve()), "--port", str(self._port)]
        self._process = start_leashed(command, self.log)
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def _wait_until_ready(self) -> None:
        pause = threading.Event()
        end = time.monotonic() + _READY_SECONDS
        while not _answers(self._port):
            assert self._process is not None
            ended = self._process.poll()
            if ended is not None or time.monotonic() > end:
                state = "does not answer" if ended is None else f"ended with {ended}"
                raise PermanentFault(f"the ClickHouse server {state}: see {self.log}")
            pause.wait(0.02)
        # Another server may have had the port, and has answered in its place.
        if self._process is not None and self._process.poll() is not None:
            raise PermanentFault(f"the ClickHouse server ended: see {self.log}")


def _free_port() -> int:
    while True:
        port = random.choice(_PORTS)  # noqa: S311 -- no secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((_HOST, port))
            return port


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(_HOST, port, timeout=1)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().read() == b"Ok.\n"
    except (OSError, http.client.HTTPException):
        # Not listening yet, which is what is waited for.
        return False
    finally:
        connection.close()


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code."""
    begin_start()
    # The class above is imported by tests and by processes that never open an engine.
    from tollgate.local.clickhouse_engine import Engine, EngineError
    from tollgate.local.clickhouse_front import Front

    parser = argparse.ArgumentParser(description="ClickHouse's engine behind its HTTP interface.")
    parser.add_argument("--path", type=Path, required=True, help="the engine's folder")
    parser.add_argument("--port", type=int, required=True, help="TCP port")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        # Bound but not listening: until the folder is open, clients are refused at once.
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((given.host, given.port))
        engine = Engine(given.path.resolve())
        listener.listen(_BACKLOG)
    except (EngineError, OSError) as problem:
        _log.error("%s", problem)
        return 1
    front = Front(engine, listener)
    told, _ = listen_for_end()

    def end() -> None:
        os.read(told, 1)
        front.end()

    threading.Thread(target=end, name="end", daemon=True).start()
    end_start()
    _log.info("ClickHouse %s answers on http://%s:%d", engine.version, given.host, given.port)
    front.serve()
    engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
