"""ClickHouse's HTTP interface byte for byte: what clients other than ours may send, and faults."""

import gzip
import http.client
import json
import socket
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

import clickhouse_connect
import lz4.frame  # type: ignore[import-untyped]  # it brings no types
import pytest
from backports import zstd
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from tests.support.server import wait_until
from tollgate.local.clickhouse_http import ClickHouseServer

ROWS = b"".join(b"%d\tone \\t line\n" % number for number in range(30_000))
TOTAL = 30_000 * 29_999 // 2


@pytest.fixture(scope="module")
def client(engine_server: ClickHouseServer) -> Iterator[Client]:
    with closing(clickhouse_connect.get_client(dsn=engine_server.url)) as made:
        made.command("CREATE DATABASE wire")
        made.command("CREATE TABLE wire.t (n UInt64, s String) ENGINE = MergeTree ORDER BY n")
        yield made


@pytest.fixture
def table(client: Client) -> str:
    client.command("TRUNCATE TABLE wire.t")
    return "wire.t"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    body: bytes
    fields: Mapping[str, str]

    @property
    def code(self) -> str:
        return self.fields.get("X-ClickHouse-Exception-Code", "")


class Caller:
    """One connection that stays open."""

    def __init__(self, url: str) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)

    def __call__(
        self,
        body: bytes = b"",
        method: str = "POST",
        fields: Mapping[str, str] | None = None,
        /,
        **arguments: str,
    ) -> Answer:
        self.connection.request(method, f"/?{urlencode(arguments)}", body, dict(fields or {}))
        answer = self.connection.getresponse()
        return Answer(status=answer.status, body=answer.read(), fields=dict(answer.getheaders()))


@pytest.fixture
def call(engine_server: ClickHouseServer) -> Iterator[Caller]:
    caller = Caller(engine_server.url)
    yield caller
    caller.connection.close()


def stored(call: Caller) -> list[int]:
    answer = call(
        b"SELECT count(), sum(n), countIf(s = 'one \\t line') FROM wire.t FORMAT JSONCompact"
    )
    return [int(value) for value in json.loads(answer.body)["data"][0]]


def test_it_says_that_it_is_there(call: Caller) -> None:
    call.connection.request("GET", "/ping")
    assert call.connection.getresponse().read() == b"Ok.\n"
    assert call(b"", "GET").body == b"Ok.\n"


@pytest.mark.parametrize(
    ("sql", "fields", "arguments", "body"),
    [
        (b"SELECT 1, 'a\\tb'", {}, {}, b"1\ta\\tb\n"),
        (b"SELECT 1 AS a FORMAT JSONEachRow", {}, {}, b'{"a":1}\n'),
        (b"SELECT 1 AS a", {"X-ClickHouse-Format": "CSV"}, {}, b"1\n"),
        (b"SELECT 1 AS a", {}, {"default_format": "TSVWithNames"}, b"a\n1\n"),
        (b"SELECT toUInt16(258) FORMAT RowBinary", {}, {}, b"\x02\x01"),
        (b"", {}, {"query": "SELECT 1"}, b"1\n"),
        (b"+ 2", {}, {"query": "SELECT 1"}, b"3\n"),
        (b"SELECT {n:UInt8} + 1", {}, {"param_n": "4"}, b"5\n"),
        (b"SELECT currentDatabase()", {}, {"database": "wire"}, b"wire\n"),
        (b"SELECT getSetting('max_threads')", {}, {"max_threads": "1"}, b"1\n"),
        (b"SELECT 1 WHERE 0", {}, {}, b""),
        (b"SELECT 1", {}, {"session_id": "s", "query_id": "q", "role": "r"}, b"1\n"),
    ],
)
def test_a_query_is_answered_as_asked(
    call: Caller,
    client: Client,
    sql: bytes,
    fields: dict[str, str],
    arguments: dict[str, str],
    body: bytes,
) -> None:
    for waits in ("0", "1"):
        answer = call(sql, "POST", fields, wait_end_of_query=waits, **arguments)
        assert (answer.status, answer.body) == (200, body)
        assert answer.fields["X-ClickHouse-Query-Id"] == arguments.get(
            "query_id", answer.fields["X-ClickHouse-Query-Id"]
        )


@pytest.mark.parametrize(
    ("sql", "arguments", "status", "code"),
    [
        (b"SELEC 1", {}, 400, "62"),
        (b"SELECT nope", {}, 404, "47"),
        (b"SELECT * FROM nope", {}, 404, "60"),
        (b"SELECT 1", {"database": "nope"}, 404, "81"),
        (b"SELECT 1", {"no_such_setting": "1"}, 404, "115"),
        (b"SELECT 1", {"no such name": "1"}, 404, "115"),
        (b"SELECT throwIf(1)", {}, 500, "395"),
        (b"SELECT number FROM numbers(9)", {"max_result_rows": "1"}, 500, "396"),
        (b"INSERT INTO wire.t FORMAT TSV\nno\tx\n", {}, 400, "27"),
        (b"INSERT INTO wire.nope FORMAT TSV\n1\tx\n", {}, 404, "60"),
    ],
)
def test_a_refusal_has_the_servers_status_and_the_engines_code(
    call: Caller, table: str, sql: bytes, arguments: dict[str, str], status: int, code: str
) -> None:
    answer = call(sql, **arguments)
    assert (answer.status, answer.code) == (status, code)
    assert answer.body.startswith(b"Code: %b. DB::Exception" % code.encode())
    # The connection serves on, and nothing of the refused statement is left on it.
    assert call(b"SELECT currentDatabase(), getSetting('max_result_rows')").body == b"default\t0\n"
    assert stored(call) == [0, 0, 0]


def test_a_get_changes_nothing(call: Caller, table: str) -> None:
    answer = call(b"", "GET", query=f"INSERT INTO {table} VALUES (1, 'x')")
    assert (answer.status, answer.code) == (500, "164")
    assert stored(call)[0] == 0


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("", bytes),
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("lz4", lz4.frame.compress),
        ("lz4", lambda rows: lz4.frame.compress(rows[:99]) + lz4.frame.compress(rows[99:])),
        ("zstd", zstd.compress),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("in_url", [False, True])
def test_rows_come_in_however_they_are_packed(
    call: Caller, table: str, encoding: str, pack: type[bytes], chunked: bool, in_url: bool
) -> None:
    sql = f"INSERT INTO {table} (`n`, `s`) FORMAT TabSeparated"
    body = pack(ROWS if in_url else f"{sql}\n".encode() + ROWS)
    fields = {"Content-Encoding": encoding} if encoding else {}
    pieces = [body[start : start + 999] for start in range(0, len(body), 999)]
    call.connection.request(
        "POST",
        f"/?{urlencode({'query': sql})}" if in_url else "/",
        iter(pieces) if chunked else body,
        fields | ({"Transfer-Encoding": "chunked"} if chunked else {}),
        encode_chunked=chunked,
    )
    answer = call.connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"")
    summary = json.loads(answer.headers["X-ClickHouse-Summary"])
    assert summary["written_rows"] == "30000"
    assert stored(call) == [30_000, TOTAL, 30_000]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO wire.t VALUES (3, 'FORMAT x'), (4, 'y')",
        "INSERT INTO wire.t (s, n) SELECT 'z', number + 3 FROM numbers(2)",
        'insert into `wire`.`t` (n) settings max_threads = 1 format JSONEachRow\n{"n":3}{"n":4}',
        "INSERT INTO wire.t FORMAT CSV 3,x\n4,y",
    ],
)
def test_every_form_of_insert(call: Caller, table: str, sql: str) -> None:
    assert call(sql.encode()).status == 200
    assert stored(call)[:2] == [2, 7]


def test_an_insert_with_no_rows_stores_none(call: Caller, table: str) -> None:
    assert call(b"INSERT INTO wire.t FORMAT TSV\n").status == 200
    assert call(query="INSERT INTO wire.t FORMAT TSV").status == 200
    assert stored(call) == [0, 0, 0]


@pytest.mark.parametrize("encoding", ["", "lz4", "gzip"])
def test_rows_that_end_early_are_not_stored(
    engine_server: ClickHouseServer, call: Caller, table: str, encoding: str
) -> None:
    """The client dies while it sends: the rows before the cut would be whole ones."""
    packed = {"": bytes, "lz4": lz4.frame.compress, "gzip": gzip.compress}[encoding](ROWS)
    place = urlsplit(engine_server.url)
    with socket.create_connection((str(place.hostname), int(place.port or 0))) as connection:
        query = urlencode({"query": "INSERT INTO wire.t FORMAT TSV"})
        field = f"Content-Encoding: {encoding}\r\n" if encoding else ""
        top = f"POST /?{query} HTTP/1.1\r\n{field}Content-Length: {len(packed)}\r\n\r\n"
        connection.sendall(top.encode() + packed[: len(packed) // 2])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert stored(call) == [0, 0, 0]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx", 415),
        (b"POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", 400),
        (b"POST /elsewhere HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 404),
        (b"GET /" + b"x" * (2 << 20) + b" HTTP/1.1\r\n\r\n", 431),
    ],
)
def test_a_broken_request_ends_its_connection_only(
    engine_server: ClickHouseServer, call: Caller, request_bytes: bytes, status: int
) -> None:
    place = urlsplit(engine_server.url)
    with socket.create_connection((str(place.hostname), int(place.port or 0))) as connection:
        connection.sendall(request_bytes)
        assert connection.recv(4096).startswith(b"HTTP/1.1 %d " % status)
    assert call(b"SELECT 1").body == b"1\n"


def test_long_lists_come_as_a_form(client: Client) -> None:
    words = [f"{number:032x}" for number in range(20_000)]
    answer = client.query("SELECT length({w:Array(String)}), {w:Array(String)}[7]", {"w": words})
    assert list(answer.result_rows) == [(20_000, words[6])]


def test_a_result_is_the_same_in_pieces_and_whole(client: Client) -> None:
    sql = "SELECT number AS n, toString(number) AS s FROM numbers(500000)"
    whole = client.raw_query(sql, fmt="TabSeparated")
    assert whole.count(b"\n") == 500_000
    with client.raw_stream(sql, fmt="TabSeparated") as stream:
        assert stream.read() == whole
    with client.query_row_block_stream(sql) as blocks:
        assert sum(row[0] for block in blocks for row in block) == 500_000 * 499_999 // 2
    assert json.loads(client.raw_query(sql, fmt="JSON"))["rows"] == 500_000


def test_an_error_after_the_first_rows_reaches_the_reader(client: Client) -> None:
    sql = "SELECT throwIf(number = 900000, 'too far') FROM numbers(1000000)"
    settings = {"max_threads": 1, "max_block_size": 1000}
    with (
        pytest.raises(StreamFailureError, match="too far"),
        client.query_row_block_stream(sql, settings=settings) as blocks,
    ):
        for _ in blocks:
            pass
    with pytest.raises(DatabaseError, match="too far"):
        client.query(sql, settings=settings)
    assert client.query("SELECT 1").result_rows == [(1,)]


@pytest.mark.parametrize("waits", ["0", "1"])
def test_a_query_ends_when_its_client_has_gone(
    engine_server: ClickHouseServer, call: Caller, waits: str
) -> None:
    sql = b"SELECT sum(sipHash64(number)) FROM numbers(900000000000)"
    running = b"SELECT count() FROM system.processes WHERE query LIKE '%sipHash%(number)%900%'"
    other = Caller(engine_server.url)
    other.connection.request("POST", f"/?wait_end_of_query={waits}", sql)
    wait_until(lambda: call(running).body == b"2\n", what="the query runs")
    other.connection.close()
    wait_until(lambda: call(running).body == b"1\n", what="the query's end")
