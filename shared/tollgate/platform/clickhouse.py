"""The analytics store: one client for the embedded engine and for a server.

Embedded: chDB in this process through `clickhouse_connect` (one data path per process).
Distributed: the same client over HTTP, without sessions. Values are bound as `{name:Type}`; nothing
a caller sends becomes SQL text.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, cast
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from urllib3 import Timeout

from tollgate.core.errors import Fault, InvalidInput, PermanentFault, TollgateError, Transient

if TYPE_CHECKING:
    from clickhouse_connect.driver.httpclient import HttpClient

DATABASE = "tollgate"
INSERT_SETTINGS: dict[str, Any] = {
    "async_insert": 0,
    "optimize_on_insert": 0,
    "insert_deduplicate": 0,
    "date_time_input_format": "basic",
    # Queries go first: somebody waits for them. Of no effect where the engine may not set it.
    "os_thread_priority": 5,
}
BACKGROUND: dict[str, object] = {"os_thread_priority": 7}
"""Settings of long statements that nobody waits for: they give way to queries, and to loading."""
_ROW_FORMAT = "JSONCompactEachRow"
_OPEN_SECONDS = 1
"""For the first connection, which is tried twice."""
_CONNECT_SECONDS = 2
_SEND_SECONDS = 5
"""For connecting, and for each piece of an insert."""
_INSERT_SECONDS = 300
_GRACE_SECONDS = 30
_PIECE_BYTES = 256 << 10
_REQUEST = re.compile(r" with url: \S+")
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
UNCOMPILED: dict[str, object] = {
    "compile_expressions": 0,
    "compile_aggregate_expressions": 0,
    "compile_sort_description": 0,
}
"""Settings of short statements: machine code is made at the fourth run, and takes 40 to 100 ms."""
READS_LITTLE = UNCOMPILED | {
    "max_threads": 1,
    "optimize_move_to_prewhere": 0,
    "optimize_use_projections": 0,
    "optimize_use_implicit_projections": 0,
}
"""Of those that read a few rows by their key: planning them better costs more than it saves."""


_ERRORS = (ClickHouseError, OSError, RuntimeError)


class _Closable(Protocol):
    def close(self) -> None: ...


class BadRows(TollgateError):
    """The engine can't read some row of an insert; nothing of the insert was stored."""

    code = "bad_rows"


class ClickHouse:
    """Queries and inserts, from any thread."""

    def __init__(
        self, *, path: Path | None = None, url: str = "", query_seconds_max: int = 60
    ) -> None:
        """Names the engine. Nothing is opened before the first use.

        Args:
            path: folder of the embedded engine.
            url: `http://user:password@host:8123` of a server; wins over `path`. Its query may set
                options of `clickhouse_connect.get_client`.
            query_seconds_max: a server that says nothing for longer than this, and some, is away.
        """
        self._path = path
        self._url = url
        self._query_seconds = query_seconds_max + _GRACE_SECONDS
        self._local = threading.local()
        self._shared: dict[bool, Client] = {}
        self._opened: list[_Closable] = []
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
        """The client for queries: embedded this thread's own, else one for all threads.

        Raises:
            Transient: the engine can't be reached.
        """
        if self._url:
            return self._remote(writes=False)
        found: Client | None = getattr(self._local, "client", None)
        if found is None:
            try:
                with self._lock:
                    found = clickhouse_connect.get_client(interface="chdb", path=self._folder())
                    self._opened.append(found)
            except _ERRORS as problem:
                raise translated(problem) from problem
            self._local.client = found
        return found

    def _remote(self, *, writes: bool) -> Client:
        """A client of a server, made once: it asks the server for all of its settings (13 ms).

        Without sessions nothing in it belongs to a thread; its pool opens connections again that
        the server has closed.
        """
        found = self._shared.get(writes)
        if found is not None:
            return found
        try:
            # Not under the lock: while the server is away, each thread waits for its own attempt.
            made = clickhouse_connect.get_client(
                dsn=self._url,
                interface=urlsplit(self._url).scheme,
                autogenerate_session_id=False,
                dedicated_pool=True,
                compress=False if _is_near(self._url) else "lz4",
                connect_timeout=_OPEN_SECONDS,
                send_receive_timeout=_INSERT_SECONDS if writes else self._query_seconds,
            )
            remote = cast("HttpClient", made)
            # From now on connecting is tried once; who asked repeats it, or says 503.
            remote.http_retries = 0
            remote.timeout = Timeout(
                connect=_SEND_SECONDS if writes else _CONNECT_SECONDS,
                read=remote.timeout.read_timeout,
            )
        except _ERRORS as problem:
            raise translated(problem) from problem
        with self._lock:
            found = self._shared.setdefault(writes, made)
            if found is made:
                self._opened.append(made)
        if found is not made:
            made.close()
        return found

    def _folder(self) -> str:
        assert self._path is not None
        self._path.mkdir(parents=True, exist_ok=True)
        # The engine compares folders by their spelling.
        return str(self._path.resolve())

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
        except _ERRORS as problem:
            raise translated(problem) from problem
        return rows

    def command(self, sql: str, parameters: Mapping[str, object] | None = None) -> None:
        """Runs a statement that gives no rows. Errors as in `query`."""
        try:
            client = self._remote(writes=True) if self._url else self.client()
            client.command(sql, parameters=dict(parameters or {}))
        except _ERRORS as problem:
            raise translated(problem) from problem

    def insert(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        """Inserts JSONCompactEachRow rows; one call is one part.

        Raises:
            BadRows: some row can't be read; none was stored.
            Transient: unknown outcome; the same insert may be sent again.
        """
        self._insert(table, columns, rows, _ROW_FORMAT)

    def insert_arrow(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        """Inserts rows that come as an Arrow stream with these columns. As `insert`."""
        self._insert(table, columns, rows, "ArrowStream")

    def _insert(self, table: str, columns: Sequence[str], rows: bytes, form: str) -> None:
        try:
            if self._url:
                self._send(table, columns, rows, form)
            else:
                self._feed(table, columns, rows, form)
        except _ERRORS as problem:
            raise translated(problem) from problem

    def _send(self, table: str, columns: Sequence[str], rows: bytes, form: str) -> None:
        near = _is_near(self._url)
        self._remote(writes=True).raw_insert(
            f"{DATABASE}.{table}",
            column_names=columns,
            # What reads pieces takes any iterable.
            insert_block=_Pieces(rows) if near else _PackedPieces(rows),  # type: ignore[arg-type]
            fmt=form,
            compression=None if near else "lz4",
            settings=INSERT_SETTINGS,
        )

    def _feed(self, table: str, columns: Sequence[str], rows: bytes, form: str) -> None:
        """Hands the rows to the engine as they lie in memory.

        The client would write them to a file first, which takes a fifth longer.
        """
        connection = getattr(self._local, "inserts", None)
        if connection is None:
            import chdb

            with self._lock:
                connect: Callable[[str], Any] = chdb.connect  # which says nothing of its types
                connection = connect(self._folder())
                self._opened.append(connection)
            pairs = ", ".join(f"{name} = '{value}'" for name, value in INSERT_SETTINGS.items())
            connection.query(f"SET {pairs}")
            self._local.inserts = connection
        names = ", ".join(f"`{column}`" for column in columns)
        with connection.send_insert(f"INSERT INTO {DATABASE}.{table} ({names})", form) as insert:
            insert.append(rows)
            insert.finish()

    def close(self) -> None:
        """Closes every client."""
        with self._lock:
            for opened in self._opened:
                opened.close()
            self._opened.clear()
            self._shared.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Pieces:
    """Rows in pieces: `urllib3` allows the time for connecting for each of them, not for all."""

    def __init__(self, rows: bytes) -> None:
        self._rows = memoryview(rows)

    def __iter__(self) -> Iterator[bytes | memoryview]:
        for start in range(0, len(self._rows), _PIECE_BYTES):
            yield self._rows[start : start + _PIECE_BYTES]


class _PackedPieces(_Pieces):
    """The same for a server across a network."""

    def __iter__(self) -> Iterator[bytes | memoryview]:
        from lz4.frame import LZ4FrameCompressor  # type: ignore[import-untyped]

        packer = LZ4FrameCompressor()
        yield packer.begin()
        for piece in super().__iter__():
            yield packer.compress(piece)
        yield packer.flush()


def _is_near(url: str) -> bool:
    """Whether packing would cost more than the way: 17 MB of rows take 2 ms on loopback."""
    host = urlsplit(url).hostname or ""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def translated(problem: Exception) -> TollgateError:
    """The kind of an engine's or its client's error: the one table for this vendor."""
    text = str(problem)
    match = _CODE.search(text)
    code = getattr(problem, "code", None) or (int(match[1]) if match else 0)
    short = _REQUEST.sub("", text.split(" (for url", 1)[0])[:500]
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
    if code in _TRANSIENT or not code:
        return Transient(f"ClickHouse: {short}", retry_after_seconds=2)
    return PermanentFault(f"ClickHouse: {short}")
