"""What a request to ClickHouse's HTTP interface asks for.

Source: https://clickhouse.com/docs/interfaces/http
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from tollgate.local.http_wire import BrokenRequest, Head

_SQL_BYTES_MAX = 64 << 20
_INSERT_HEAD_BYTES_MAX = 256 << 10
_PARAMETER = "param_"
# Of the interface itself, not of the engine.
_TRANSPORT = frozenset(
    (
        "query",
        "database",
        "default_format",
        "user",
        "password",
        "quota_key",
        "role",
        "query_id",
        "stacktrace",
        "session_id",
        "session_timeout",
        "session_check",
        "close_session",
        "client_protocol_version",
        "compress",
        "decompress",
        "buffer_size",
        "wait_end_of_query",
        "http_write_exception_in_output_format",
    )
)
# Settings that only a server in front of a network reads.
_OF_SERVERS = frozenset(
    (
        "cancel_http_readonly_queries_on_client_close",
        "enable_http_compression",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
    )
)
_NAME = re.compile(r"[A-Za-z_][\w.]*")
_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)[\s;]*$", re.IGNORECASE)
_INSERT_WORD = re.compile(rb"\s*INSERT\s", re.IGNORECASE)
_WORD = rb"(?:`(?:[^`\\]|\\.)*`|\"(?:[^\"\\]|\\.)*\"|\w+)"
# Only an INSERT whose rows follow a FORMAT clause; anything else runs as it stands.
_INSERT_HEAD = re.compile(
    rb"(\s*INSERT\s+INTO\s+(?:TABLE\s+)?" + _WORD + rb"(?:\s*\.\s*" + _WORD + rb")?"
    rb"(?:\s*\([^()]*\))?(?:\s*SETTINGS\s+[^;]*?)?)"
    rb"\s*\bFORMAT\s+(\w+)(?![\w(])[ \t\f]*(?:\r?\n)?",
    re.IGNORECASE,
)
_BOUNDARY = re.compile(r"multipart/form-data;.*\bboundary=\"?([^\";]+)", re.IGNORECASE)
_FIELD_NAME = re.compile(rb"\bname=\"([^\"]*)\"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement and what it runs with.

    Attributes:
        sql: its text; of an INSERT with rows, what stands before FORMAT.
        rows: of such an INSERT, as they come in; otherwise None.
        format: of the rows, or of the result unless the text itself names one.
        named_format: what the text itself names as the format of the result; "" if nothing.
        parameters: values of `{name:Type}`.
        settings: of the engine, for this statement only.
        database: to look in for names without one; "" for the default.
        whole: the result is complete before the answer begins.
    """

    sql: bytes
    rows: Iterator[bytes] | None = None
    format: str
    named_format: str
    parameters: Mapping[str, str]
    settings: Mapping[str, str]
    database: str
    whole: bool


def read_statement(head: Head, body: Iterator[bytes]) -> Statement:
    """The statement of a request.

    Raises:
        BrokenRequest: a setting that is no name, too much SQL, or a form that can't be read.
    """
    arguments = dict(head.arguments)
    boundary = _BOUNDARY.match(head.content_type)
    if boundary is not None:
        form = _form(_all(body), boundary[1].encode())
        body = iter(())
        sql = form.pop("query", b"")
        arguments |= {name: value.decode("utf-8", "replace") for name, value in form.items()}
    else:
        sql = b""
    if "query" in arguments:
        sql = arguments["query"].encode("utf-8", "surrogateescape") + sql
    sql, rows, insert_format = _split(sql, body)
    named = None if rows is not None else _FORMAT.search(sql[-200:])
    asked = head.fields.get("x-clickhouse-format") or arguments.get("default_format")
    return Statement(
        sql=sql,
        rows=rows,
        format=insert_format or asked or "TabSeparated",
        named_format=named[1].decode() if named else "",
        parameters={
            name.removeprefix(_PARAMETER): value
            for name, value in arguments.items()
            if name.startswith(_PARAMETER)
        },
        settings=_settings(arguments, read_only=head.method == "GET"),
        database=head.fields.get("x-clickhouse-database") or arguments.get("database", ""),
        whole=arguments.get("wait_end_of_query", "0") not in ("0", "false"),
    )


def _settings(arguments: Mapping[str, str], *, read_only: bool) -> dict[str, str]:
    settings = {
        name: value
        for name, value in arguments.items()
        if not name.startswith(_PARAMETER) and name not in _TRANSPORT and name not in _OF_SERVERS
    }
    for name in settings:
        if _NAME.fullmatch(name) is None:
            raise BrokenRequest(404, f"Code: 115. DB::Exception: Unknown setting {name!r}")
    if read_only:
        # Last: nothing can be set after it.
        settings["readonly"] = "2"
    return settings


def _split(sql: bytes, body: Iterator[bytes]) -> tuple[bytes, Iterator[bytes] | None, str]:
    """Statement, rows and their format: the rows may follow the statement within the body."""
    if sql:
        found = _INSERT_HEAD.fullmatch(sql)
        if found is not None:
            return found[1], body, found[2].decode()
        rest = _all(body)
        return (sql + b"\n" + rest if rest else sql), None, ""
    begin = bytearray()
    for piece in body:
        begin += piece
        if len(begin) >= 8 and _INSERT_WORD.match(begin) is None:
            break
        found = _INSERT_HEAD.match(begin)
        # The clause is known to be whole once something follows it.
        if found is not None and found.end() < len(begin):
            first = bytes(memoryview(begin)[found.end() :])
            return found[1], chain((first,), body), found[2].decode()
        if len(begin) > _INSERT_HEAD_BYTES_MAX:
            break
    found = _INSERT_HEAD.fullmatch(begin)
    if found is not None:
        return found[1], body, found[2].decode()
    return bytes(begin) + _all(body, len(begin)), None, ""


def _all(body: Iterator[bytes], already: int = 0) -> bytes:
    pieces = []
    size = already
    for piece in body:
        size += len(piece)
        if size > _SQL_BYTES_MAX:
            raise BrokenRequest(413, "Code: 167. DB::Exception: the statement is too large")
        pieces.append(piece)
    return b"".join(pieces)


def _form(body: bytes, boundary: bytes) -> dict[str, bytes]:
    """Fields of `multipart/form-data` (RFC 7578)."""
    fields: dict[str, bytes] = {}
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:]:
        if part.startswith(b"--"):
            return fields
        top, gap, value = part.partition(b"\r\n\r\n")
        name = _FIELD_NAME.search(top)
        if not gap or name is None:
            break
        if b"filename=" in top:
            raise BrokenRequest(501, "Code: 48. DB::Exception: external data is not served here")
        fields[name[1].decode("utf-8", "replace")] = value
    raise BrokenRequest(400, "Code: 36. DB::Exception: the form can't be read")
