"""Hostile requests: each gets a clear answer or a closed connection; no 5xx, no hang."""

import gzip
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.server import Server, wait_until

EVENTS = "/api/v1/events"
JSON = "application/json"
GROWTH_BYTES_MAX = 150 << 20


def event(**members: object) -> bytes:
    whole = {
        "id": "h",
        "source": "hostile",
        "type": "hostile",
        "subject": "s",
        "specversion": "1.0",
    }
    return json.dumps(whole | members).encode()


def with_data(data: bytes) -> bytes:
    return event()[:-1] + b', "data": ' + data + b"}"


REFUSED_BODIES: dict[str, bytes] = {
    "nothing": b"",
    "blank": b" \n\t ",
    "byte order mark": b"\xef\xbb\xbf" + event(),
    "utf-16": event().decode().encode("utf-16"),
    "broken utf-8 in data": with_data(b'{"a": "\xff\xfe"}'),
    "broken utf-8 in id": event().replace(b'"h"', b'"\xc3\x28"'),
    "overlong utf-8": with_data(b'{"a": "\xc0\xaf"}'),
    "raw surrogate": with_data(b'{"a": "\xed\xa0\x80"}'),
    "escaped lone surrogate": with_data(rb'{"a": "\ud800"}'),
    "escaped lone surrogate in a name": with_data(rb'{"\udfff": 1}'),
    "lone surrogate in subject": event().replace(b'"s"', rb'"\ud83d"'),
    "nul in id": event(id="a\x00b"),
    "line feed in subject": event(subject="a\nb"),
    "number as top": b"5",
    "text as top": b'"x"',
    "null as top": b"null",
    "batch in batch": b"[[]]",
    "nulls": b"[null, null]",
    "cut off": event()[:-5],
    "two documents": event() + event(),
    "single quotes": b"{'id': 'x'}",
    "nan": with_data(b'{"a": NaN}'),
    "infinity": with_data(b'{"a": -Infinity}'),
    "leading zero": with_data(b'{"a": 01}'),
    "trailing comma": with_data(b'{"a": 1,}'),
    "comment": with_data(b'{"a": 1 /* x */}'),
    "nested 10 000 objects": with_data(b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    "nested 100 000 arrays": with_data(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "nested 65 levels": with_data(b'{"a":' * 65 + b"1" + b"}" * 65),
    "data is an array": with_data(b"[1]"),
    "data is a text": with_data(b'"x"'),
    "id of one mebibyte": event(id="x" * (1 << 20)),
    "empty id": event(id=""),
    "id is a number": event(id=7),
    "time without a zone": event(time="2026-01-01T00:00:00"),
    "time of no day": event(time="2026-02-30T00:00:00Z"),
    "time far away": event(time="9999-12-31T23:59:59Z"),
    "an event too large": with_data(json.dumps({"a": "x" * 300_000}).encode()),
    "extension is an object": event(ext={"a": 1}),
    "70 extensions": event(**{f"e{n}": n for n in range(70)}),
}
TAKEN_BODIES: dict[str, bytes] = {
    "1e400 beside a value": with_data(b'{"big": 1e400, "n": 1}'),
    "400 digits": with_data(b'{"n": ' + b"9" * 400 + b"}"),
    "tiny exponent": with_data(b'{"n": 1e-99999999999999999999}'),
    "huge exponent": with_data(b'{"n": 1e99999999999999999999}'),
    "1000 duplicate keys": with_data(b"{" + b",".join([b'"a": 1'] * 1000) + b"}"),
    "duplicate attributes": event()[:-1] + b', "id": "other"}',
    "escaped nul in data": with_data(rb'{"a": "\u0000"}'),
    "surrogate pair": with_data(rb'{"a": "\ud83d\ude00"}'),
    "64 levels": with_data(b'{"a":' * 64 + b"1" + b"}" * 64),
    "sql in everything": event(id="'; DROP TABLE events --", subject="{ns:String}", type="%(x)s"),
    "right to left": event(subject="\u202eabc\u2066"),
}


@pytest.fixture(scope="module")
def memory(server: Server) -> Iterator[None]:
    process = psutil.Process(server.pid)
    before = process.memory_info().rss
    yield
    assert process.memory_info().rss - before < GROWTH_BYTES_MAX
    assert server.http.get("/readyz").status_code == 200


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("name", REFUSED_BODIES)
def test_a_bad_body_is_refused_with_reasons(server: Server, name: str) -> None:
    for path in (EVENTS, "/api/v3/openmeter/events"):
        answer = server.http.post(
            path, content=REFUSED_BODIES[name], headers={"Content-Type": JSON}
        )
        assert answer.status_code in (400, 413), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == answer.status_code
        assert problem["detail"]
        assert len(answer.content) < 1 << 20


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("name", TAKEN_BODIES)
def test_an_odd_but_good_body_is_taken_and_listed(server: Server, name: str) -> None:
    body = TAKEN_BODIES[name].replace(b'"id": "h"', b'"id": "h ' + name.encode() + b'"', 1)
    answer = server.http.post(EVENTS, content=body, headers={"Content-Type": JSON})
    assert answer.status_code == 204, answer.text
    found = server.http.get(
        EVENTS, headers={"Tollgate-Position": answer.headers["tollgate-position"]}
    )
    assert found.status_code == 200, found.text


@pytest.mark.usefixtures("memory")
def test_gzip_bombs_are_bounded(server: Server) -> None:
    bomb = gzip.compress(b"0" * (200 << 20), 9)
    assert len(bomb) < 1 << 20
    headers = {"Content-Type": JSON, "Content-Encoding": "gzip"}
    assert server.http.post(EVENTS, content=bomb, headers=headers).status_code == 413
    nested = gzip.compress(bomb)
    assert server.http.post(EVENTS, content=nested, headers=headers).status_code == 400
    assert server.http.post(EVENTS, content=bomb[:-9], headers=headers).status_code in (400, 413)
    assert server.http.post(EVENTS, content=b"no gzip", headers=headers).status_code == 400
    good = gzip.compress(b"[") + gzip.compress(event(id="members") + b"]")
    assert server.http.post(EVENTS, content=good, headers=headers).status_code == 204


def exchange(server: Server, *sent: bytes, close: bool = False) -> bytes:
    """Sends bytes and reads until the server closes, or falls silent for a second."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        for piece in sent:
            client.sendall(piece)
        if close:
            client.shutdown(socket.SHUT_WR)
        client.settimeout(1)
        received = b""
        try:
            while piece := client.recv(65536):
                received += piece
        except TimeoutError:
            pass
        except ConnectionResetError:
            pass
        return received


def post(body: bytes, *headers: str) -> bytes:
    lines = [f"POST {EVENTS} HTTP/1.1", "Host: x", f"Content-Type: {JSON}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


MALFORMED: dict[str, bytes] = {
    "length too long": post(event(), f"Content-Length: {len(event()) + 100}"),
    "negative length": post(event(), "Content-Length: -5"),
    "length is no number": post(event(), "Content-Length: many"),
    "length beyond measure": post(b"", "Content-Length: 99999999999999999999"),
    "two lengths": post(event(), "Content-Length: 5", "Content-Length: 6"),
    "length and chunks": post(b"0\r\n\r\n", "Content-Length: 5", "Transfer-Encoding: chunked"),
    "chunk size is no number": post(b"zz\r\nabc\r\n", "Transfer-Encoding: chunked"),
    "chunk cut off": post(b"100\r\nabc", "Transfer-Encoding: chunked"),
    "chunk size beyond measure": post(b"ffffffffffffffffff\r\n", "Transfer-Encoding: chunked"),
    "unknown method": b"BREW /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n",
    "no request": b"\x16\x03\x01\x02\x00\x01\x00",
    "header without colon": b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
    "nul in a header": b"GET / HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
    "header of a mebibyte": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * (1 << 20) + b"\r\n\r\n",
    "20 000 headers": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
    "absolute target": b"GET http://x/api/v1/meters HTTP/1.1\r\nHost: x\r\n\r\n",
    "nul in the path": b"GET /api/v1/meters/%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no utf-8 in the path": b"GET /api/v1/meters/%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n",
    "traversal": b"GET /docs/../../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "encoded traversal": b"GET /docs/%2e%2e%2f%2e%2e%2fetc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "broken percent": b"GET /api/v1/meters/%zz?a=%zz HTTP/1.1\r\nHost: x\r\n\r\n",
    "long query": b"GET /api/v1/events?" + b"a=b&" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "deep query": b"GET /api/v3/openmeter/meters?filter"
    + b"[a]" * 500
    + b"=1 HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_http_gets_no_5xx(server: Server, name: str) -> None:
    received = exchange(server, MALFORMED[name], close=True)
    statuses = [
        line.split()[1] for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")
    ]
    assert all(not status.startswith(b"5") for status in statuses), received[:500]
    assert b"root:" not in received
    assert server.http.get("/healthz").status_code == 200


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    bodies = [event(id="pipe 1"), b"broken", event(id="pipe 2")]
    requests = b"".join(post(body, f"Content-Length: {len(body)}") for body in bodies)
    received = exchange(server, requests + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    statuses = re.findall(rb"HTTP/1\.1 (\d{3})", received)
    assert statuses == [b"204", b"400", b"204", b"200"], received


def test_a_slow_body_holds_nobody_up(server: Server) -> None:
    body = event(id="slow")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
        slow.sendall(post(body[:5], f"Content-Length: {len(body)}"))
        for number in range(20):
            assert server.http.post(EVENTS, json=json.loads(event(id=f"quick {number}"))).is_success
        slow.sendall(body[5:])
        assert slow.recv(4096).startswith(b"HTTP/1.1 204")


def test_who_leaves_mid_body_stores_nothing(server: Server) -> None:
    body = event(id="gone midway", type="hostile.left")
    exchange(server, post(body[:-10], f"Content-Length: {len(body)}"), close=True)
    exchange(server, post(b'5\r\n{"id"', "Transfer-Encoding: chunked"), close=True)
    answer = server.http.post(EVENTS, json=json.loads(event(id="after", type="hostile.left")))
    found = wait_until(
        lambda: server.http.get(
            EVENTS,
            params={"limit": 100, "id": "after"},
            headers={"Tollgate-Position": answer.headers["tollgate-position"]},
        ).json()
    )
    assert [each["event"]["id"] for each in found] == ["after"]
    assert server.http.get(EVENTS, params={"id": "gone midway"}).json() == []


def test_nothing_was_logged_as_a_crash(server: Server) -> None:
    assert Path(server.log).exists()
    assert "request failed" not in server.log.read_text()
