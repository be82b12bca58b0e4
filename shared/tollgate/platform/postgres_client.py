"""Connections to PostgreSQL that end in bounded time, whatever has become of the server.

TCP's own timeouts tell of a host that is gone. They say nothing of a server that is stopped, or of
a proxy that holds the connection and passes nothing on: to the kernel such a peer is well. So each
wait for an answer has an end of its own.
"""

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.conninfo import conninfo_to_dict

CONNECT_SECONDS = 2
"""psycopg takes no less (https://www.postgresql.org/docs/18/libpq-connect.html); per address."""
PROBE_SECONDS = 1
"""To say that a connection is alive."""
ANSWER_SECONDS = 5
"""To answer one statement of the control plane: they read and write a few rows."""
CONNECTION: Mapping[str, object] = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
}
"""Defaults of connection parameters; what the URL says wins."""
_LOOK_SECONDS = 0.1


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is given up when the server does not answer in time.

    Attributes:
        answer_seconds_max: how long one exchange may take.
        on_silence: called when it was given up.
    """

    answer_seconds_max: int = PROBE_SECONDS
    on_silence: Callable[[], None] | None = None

    def wait(
        self,
        gen: PQGen[RV],
        interval: float = _LOOK_SECONDS,  # tidy: allow-float -- seconds, as psycopg has it
        timeout: float | None = None,  # tidy: allow-float -- seconds, as psycopg has it
    ) -> RV:
        """As psycopg's.

        Raises:
            OperationalError: no answer in time; the connection is closed.
        """
        return super().wait(self._bounded(gen), interval, timeout)

    def _bounded(self, gen: PQGen[RV]) -> PQGen[RV]:
        seconds = self.answer_seconds_max
        end = monotonic() + seconds
        try:
            wanted = next(gen)
            while True:
                # psycopg sends something at each interval, also when nothing has come.
                ready = yield wanted
                if monotonic() > end:
                    self._give_up(seconds)
                wanted = gen.send(ready)
        except StopIteration as done:
            result: RV = done.value
            return result

    def _give_up(self, seconds: int) -> None:
        self.pgconn.finish()
        if self.on_silence is not None:
            self.on_silence()
        raise psycopg.OperationalError(f"no answer within {seconds} s")


def connect_bounded(address: str) -> BoundedConnection:
    """A connection with our defaults, to be closed after a statement or two.

    Args:
        address: `postgresql://…`.

    Raises:
        psycopg.Error: as `psycopg.connect` does.
    """
    given = conninfo_to_dict(address)
    defaults: dict[str, Any] = {n: v for n, v in CONNECTION.items() if n not in given}
    made = BoundedConnection.connect(address, **defaults)
    made.answer_seconds_max = ANSWER_SECONDS
    return made
