"""The analytics store: one client for the embedded engine and for a server.

Embedded: chDB in this process through `clickhouse_connect` (one data path per process).
Distributed: the same client over HTTP. A client belongs to one thread. Values are bound as
`{name:Type}`; nothing a caller sends becomes SQL text.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from tollgate.core.errors import Fault, InvalidInput, PermanentFault, TollgateError, Transient

DATABASE = "tollgate"
INSERT_SETTINGS: dict[str, Any] = {
    "async_insert": 0,
    "optimize_on_insert": 0,
    "insert_deduplicate": 0,
    "date_time_input_format": "basic",
}
_CODE = re.compile(r"Code: (\d+)")
# https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp
# Only what a row can be guilty of: a missing column or unknown format is no dead letter's fault.
_BAD_ROWS = frozenset(
    (6, 25, 26, 27, 33, 38, 41, 53, 69, 70, 72, 117, 128, 130, 131, 349, 376, 467, 469)
)
_TRANSIENT = frozenset(
    # memory, timeouts, too many queries or parts, network, disk full, read only, shutting down
    {3, 74, 75, 76, 159, 164, 198, 201, 202, 209, 210, 225, 236, 241, 242, 243, 252, 253, 279}
    | {289, 319, 394, 425, 439, 447, 473, 999}
)
_TOO_MUCH = frozenset((158, 307, 396))


class BadRows(TollgateError):
    """The engine can't read some row of an insert; nothing of the insert was stored."""

    code = "bad_rows"


class ClickHouse:
    """Queries and inserts, from any thread."""

    def __init__(self, *, path: Path | None = None, url: str = "") -> None:
        """Names the engine. Nothing is opened before the first use.

        Args:
            path: folder of the embedded engine.
            url: `http://user:password@host:8123` of a server; wins over `path`.
        """
        self._path = path
        self._url = url
        self._local = threading.local()
        self._clients: list[Client] = []
        self._lock = threading.Lock()

    @property
    def embedded(self) -> bool:
        """Whether the engine runs in this process."""
        return not self._url

    @property
    def path(self) -> Path | None:
        """Folder of the embedded engine."""
        return self._path

    def client(self) -> Client:
        """This thread's client.

        Raises:
            Transient: the engine can't be reached.
        """
        found: Client | None = getattr(self._local, "client", None)
        if found is None:
            try:
                with self._lock:
                    found = self._open()
                    self._clients.append(found)
            except (ClickHouseError, OSError, RuntimeError) as problem:
                raise translated(problem) from problem
            self._local.client = found
        return found

    def _open(self) -> Client:
        if self._url:
            return clickhouse_connect.get_client(dsn=self._url, autogenerate_session_id=False)
        assert self._path is not None
        self._path.mkdir(parents=True, exist_ok=True)
        return clickhouse_connect.get_client(interface="chdb", path=str(self._path))

    def query(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Sequence[Sequence[Any]]:
        """Rows of a SELECT.

        Raises:
            Transient: try again. InvalidInput: the query reads or returns more than its settings
                allow. PermanentFault: the engine refuses the SQL.
        """
        try:
            result = self.client().query(
                sql, parameters=dict(parameters or {}), settings=dict(settings or {})
            )
            rows: Sequence[Sequence[Any]] = result.result_rows
        except (ClickHouseError, OSError, RuntimeError) as problem:
            raise translated(problem) from problem
        return rows

    def command(self, sql: str, parameters: Mapping[str, object] | None = None) -> None:
        """Runs a statement that gives no rows. Errors as in `query`."""
        try:
            self.client().command(sql, parameters=dict(parameters or {}))
        except (ClickHouseError, OSError, RuntimeError) as problem:
            raise translated(problem) from problem

    def insert(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        """Inserts JSONCompactEachRow rows; one call is one part.

        Raises:
            BadRows: some row can't be read; none was stored.
            Transient: unknown outcome; the same insert may be sent again.
        """
        try:
            self.client().raw_insert(
                f"{DATABASE}.{table}",
                column_names=columns,
                insert_block=rows,
                fmt="JSONCompactEachRow",
                settings=INSERT_SETTINGS,
            )
        except (ClickHouseError, OSError, RuntimeError) as problem:
            raise translated(problem) from problem

    def close(self) -> None:
        """Closes every thread's client."""
        with self._lock:
            for client in self._clients:
                client.close()
            self._clients.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def translated(problem: Exception) -> TollgateError:
    """The kind of an engine's or its client's error: the one table for this vendor."""
    text = str(problem)
    match = _CODE.search(text)
    code = int(match[1]) if match else 0
    short = text.split(" (for url", 1)[0][:500]
    if code in _TOO_MUCH:
        return InvalidInput(
            (
                Fault(
                    field="",
                    code="query_too_large",
                    message="the query reads or returns more than allowed; narrow the period, "
                    "filters or grouping",
                ),
            )
        )
    if code in _BAD_ROWS:
        return BadRows(f"ClickHouse: {short}")
    if code in _TRANSIENT or not match:
        return Transient(f"ClickHouse: {short}", retry_after_seconds=2)
    return PermanentFault(f"ClickHouse: {short}")
