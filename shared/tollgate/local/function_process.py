"""One process of one function: `python -m tollgate.platform.serve`, as a cluster runs it."""

import http.client
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from tollgate.core.errors import PermanentFault
from tollgate.local.leash import release_leash, start_leashed
from tollgate.local.ports import HOST

_LISTENING_SECONDS = 60
_STOP_EXTRA_SECONDS = 5


class FunctionProcess:
    """A process on loopback. Its port stays the same when it is started again."""

    def __init__(
        self,
        function: str,
        log: Path,
        *,
        port: int,
        settings: Mapping[str, str],
        drain_seconds: int,
    ) -> None:
        """Names it; nothing is started.

        Args:
            function: name in the function table.
            log: what it prints is appended here.
            port: to listen on.
            settings: more variables of its environment, which win over those of this process.
            drain_seconds: how long `stop` lets requests go on.
        """
        self.log = log
        self.port = port
        self._function = function
        self._settings = {
            **settings,
            "TOLLGATE_FUNCTION": function,
            "TOLLGATE_HOST": HOST,
            "TOLLGATE_PORT": str(port),
            "TOLLGATE_DRAIN_SECONDS": str(drain_seconds),
        }
        self._drain_seconds = drain_seconds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers itself, past the entry."""
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running process."""
        assert self._process is not None, f"{self._function} is not running"
        return self._process.pid

    def start(self) -> "FunctionProcess":
        """Returns when it listens; whether it is ready depends on others too.

        Raises:
            PermanentFault: it ended instead; the message names its log file.
        """
        if self._process is not None:
            return self
        # `env` replaces itself by the command: the process we start is the function.
        settings = [f"{name}={value}" for name, value in self._settings.items()]
        command = ["env", *settings, sys.executable, "-m", "tollgate.platform.serve"]
        self._process = start_leashed(command, self.log)
        try:
            self._wait_until_listening(self._process)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Ends it after requests in flight are answered."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(self._drain_seconds + _STOP_EXTRA_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        self._reap()

    def kill(self) -> None:
        """Ends it with kill -9."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def _reap(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.wait()
            release_leash(process)

    def _wait_until_listening(self, process: "subprocess.Popen[bytes]") -> None:
        pause, end = threading.Event(), time.monotonic() + _LISTENING_SECONDS
        while not self._listens():
            ended = process.poll()
            if ended is not None or time.monotonic() > end:
                state = "does not answer" if ended is None else f"ended with {ended}"
                raise PermanentFault(f"{self._function} {state}: see {self.log}")
            pause.wait(0.02)

    def _listens(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=1)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            # Not listening yet, which is what is waited for.
            return False
        finally:
            connection.close()
