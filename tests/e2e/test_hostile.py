"""What no honest client sends: never a 5xx, never a hang, memory bounded, the server goes on."""

import gzip
import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import psutil
import pytest

from tests.support.hostile_bodies import BODIES, BODY_MAX, LARGE, MIB, WRONG, event
from tests.support.server import Server, wait_until
from tests.support.wire import CLOSE, EVENT, HOST, JSON, POST, Answer, get, post, talk

pytestmark = pytest.mark.e2e

GZIP = b"content-encoding: gzip\r\n"
MANY = b"content-type: application/cloudevents-batch+json\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose memory is compared before the first hostile byte and at the end."""
    with Server(tmp_path_factory.mktemp("hostile") / "data") as server:
        for body in (EVENT, b"[" + EVENT + b"]", b"[]", b"{"):
            server.http.post(
                "/api/v1/events", content=body, headers={"content-type": "application/json"}
            )
        server.http.get("/api/v1/meters/tokens_total/query")
        process = psutil.Process(server.pid)
        before = process.memory_info().rss
        yield server
        assert server.http.get("/readyz").status_code == 200
        growth = (process.memory_info().rss - before) // MIB
        assert growth < 100, f"{growth} MiB more than before"
        assert '"status":500' not in server.log.read_text()
        assert "Traceback" not in server.log.read_text()


def one(answers: list[Answer]) -> Answer:
    """The only answer."""
    (answer,) = answers
    return answer


def refused_well(answer: Answer, status: int) -> None:
    assert answer.status == status, answer.body[:300]
    if status >= 400:
        assert answer.headers[b"content-type"] == b"application/problem+json"
        assert json.loads(answer.body)["status"] == status
        assert len(answer.body) < MIB


@pytest.mark.parametrize("name", BODIES)
def test_bodies(target: Server, name: str) -> None:
    body, status = BODIES[name]
    refused_well(one(talk(target, post(body, CLOSE))), status)


@pytest.mark.parametrize("name", ["empty", "nulls", "cut off", "16 MiB of events", "NaN"])
def test_bodies_with_partial_answers(target: Server, name: str) -> None:
    body, status = BODIES[name]
    answer = one(talk(target, post(body, CLOSE, target=b"/api/v1/events?partial=true")))
    assert answer.status == (status if status == LARGE else 200)


@pytest.mark.parametrize(
    "path", [b"/api/v1/meters", b"/api/v1/subjects", b"/api/v3/openmeter/meters"]
)
@pytest.mark.parametrize(
    "name",
    ["empty", "nulls", "UTF-16", "a million levels open", "a million objects open", "cut off",
     "broken UTF-8 in data", "escaped lone surrogate in an id", "16 MiB of empty objects",
     "16 MiB of members", "100 000 digits as id", "1000 members of one name"],
)  # fmt: skip
def test_bodies_of_the_control_plane(target: Server, name: str, path: bytes) -> None:
    answer = one(talk(target, post(BODIES[name][0], CLOSE, target=path)))
    assert answer.status in (400, 413), answer.body[:300]
    assert answer.headers[b"content-type"] == b"application/problem+json"


@pytest.mark.parametrize(
    ("packed", "status"),
    [
        (gzip.compress(b"\0" * (256 * MIB), 9), LARGE),
        (gzip.compress(gzip.compress(b"\0" * (64 * MIB))), WRONG),
        (gzip.compress(b"") * 700_000, WRONG),
        (gzip.compress(EVENT)[:-1], WRONG),
        (gzip.compress(EVENT)[:9], WRONG),
        (gzip.compress(EVENT) + b"rest", WRONG),
        (EVENT, WRONG),
        (b"", WRONG),
    ],
    ids=["bomb", "twice", "empty members", "cut off", "head only", "rest", "unpacked", "empty"],
)
def test_gzip(target: Server, packed: bytes, status: int) -> None:
    refused_well(one(talk(target, post(packed, GZIP, CLOSE))), status)


def length(number: bytes) -> bytes:
    return b"content-length: " + number + b"\r\n"


FRAMES: dict[str, tuple[bytes, bool, tuple[int, ...]]] = {
    "body shorter than its length": (POST + JSON + length(b"1000") + b"\r\n" + EVENT, True, ()),
    "body longer than its length": (POST + JSON + length(b"9") + b"\r\n" + EVENT, False, ()),
    "negative length": (POST + JSON + length(b"-5") + b"\r\n" + EVENT, False, (400,)),
    "length of text": (POST + JSON + length(b"many") + b"\r\n" + EVENT, False, (400,)),
    "length beyond 64 bits": (POST + JSON + length(b"9" * 30) + b"\r\n", False, (400,)),
    "length of a terabyte": (POST + JSON + length(b"1" + b"0" * 12) + b"\r\n", True, (413,)),
    "two lengths": (POST + JSON + length(b"5") + length(b"60") + b"\r\n" + EVENT, False, (400,)),
    "length and chunks": (POST + JSON + CHUNKED + length(b"5") + b"\r\n0\r\n\r\n", False, (400,)),
    "chunks, then gzip": (POST + JSON + b"transfer-encoding: chunked, gzip\r\n\r\n", False, (400,)),
    "unknown coding": (POST + JSON + b"transfer-encoding: brotli\r\n\r\n" + EVENT, False, (400,)),
    "chunk size of text": (POST + JSON + CHUNKED + b"\r\nxyz\r\n" + EVENT, False, (400,)),
    "negative chunk": (POST + JSON + CHUNKED + b"\r\n-1\r\n" + EVENT, False, (400,)),
    "chunk beyond 64 bits": (POST + JSON + CHUNKED + b"\r\n" + b"f" * 17 + b"\r\n", False, (400,)),
    "chunk without end": (POST + JSON + CHUNKED + b"\r\n5\r\nabcdefghij\r\n", False, (400,)),
    "chunks cut off": (POST + JSON + CHUNKED + b"\r\nff\r\n" + EVENT, True, ()),
    "no request": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", False, (400,)),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", False, (400,)),
    "unknown method": (b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n", False, (400,)),
    "CONNECT": (b"CONNECT example.com:443 HTTP/1.1\r\n" + HOST + b"\r\n", False, (400,)),
    "line feed in a header": (get(b"/healthz", b"a: b\nc\r\n", CLOSE), False, (400,)),
    "NUL in a header": (get(b"/healthz", b"a: \x00\r\n", CLOSE), False, (400,)),
    "space before a colon": (get(b"/healthz", b"a : b\r\n", CLOSE), False, (400,)),
    "a header of 16 MiB": (get(b"/healthz", b"a: " + b"b" * (16 * MIB) + b"\r\n"), False, (431,)),
    "a target of 16 MiB": (get(b"/" + b"a" * (16 * MIB)), False, (431,)),
    "500 000 headers": (get(b"/healthz", b"a: b\r\n" * 500_000), False, (431,)),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMES)
def test_frames(target: Server, name: str) -> None:
    request, finish, statuses = FRAMES[name]
    answers = talk(target, request, finish=finish)
    found = tuple(answer.status for answer in answers)
    # A reset may overtake the refusal of what was never read to its end.
    assert found == statuses or (statuses == (431,) and not found)


TARGETS: dict[bytes, tuple[int, ...]] = {
    b"/%00": (404,),
    b"/%ff": (404,),
    b"//": (404,),
    b"/%2e%2e/%2e%2e/etc/passwd": (404,),
    b"/../../../etc/passwd": (404,),
    b"/api/../../etc/passwd": (404,),
    b"/api/v1/meters/..%2f..%2fetc%2fpasswd": (400, 404),
    b"/api/v1/meters/%00": (400, 404),
    b"/api/v1/meters/%ff": (400, 404),
    b"/api/v1/meters/%ed%a0%80": (400, 404),
    b"/api/v1/meters/%zz": (400, 404),
    b"/api/v1/meters/%": (400, 404),
    b"/api/v1/meters/'%20OR%201=1--": (400, 404),
    b"/api/v1/meters/" + b"a" * 10_000: (400, 404),
    b"/api/v1/subjects/%00": (400, 404),
    b"/api/v1/subjects/..%2f..": (400, 404),
    b"/a\xffb": (400,),
    b"http://example.com/healthz": (200,),
    b"http://[::1/healthz": (400,),
    b"*": (400, 404),
    b"/api/v1/events?limit=%zz&from=%ff": (400,),
    b"/api/v1/events?subject=%00": (200, 400),
    b"/api/v1/events?subject=%ed%a0%80": (400,),
    b"/api/v1/events?" + b"a=1&" * 10_000: (400,),
    b"/api/v1/events?" + b"&" * 10_000: (200, 400),
    b"/api/v1/events?limit=" + b"9" * 5_000: (400,),
    b"/api/v1/events?q=" + b"x" * 60_000: (200, 400),
    b"/api/v2/events?cursor=%00&filter=" + b"[" * 5_000: (400,),
    b"/api/v2/events?filter=%7B%22subject%22%3A" + b"%7B%22$and%22%3A[" * 1_000: (400,),
    b"/api/v1/events/lookup?source=%00&id=%00": (400, 404),
    b"/api/v1/meters/tokens_total/query?groupBy=%00": (400,),
    b"/api/v1/meters/tokens_total/query?subject=%00": (200, 400),
    b"/api/v1/meters/tokens_total/query?windowTimeZone=../../etc/passwd": (400,),
    b"/api/v1/meters/tokens_total/query?filterGroupBy[model]=%00": (200, 400),
    b"/api/v1/meters/tokens_total/query?filterGroupBy[a][": (400,),
    b"/api/v1/meters/tokens_total/query?" + b"filterGroupBy" + b"[a]" * 1_000 + b"=1": (400,),
    b"/api/v1/meters/tokens_total/query?from=9999-12-31T23:59:59Z": (400,),
    b"/api/v1/meters/tokens_total/query?windowSize=MINUTE&from=1900-01-01T00:00:00Z": (200, 400),
}  # fmt: skip


@pytest.mark.parametrize("path", TARGETS, ids=lambda path: repr(path[:70]))
def test_targets(target: Server, path: bytes) -> None:
    answer = one(talk(target, get(path, CLOSE)))
    assert answer.status in TARGETS[path], answer.body[:300]
    assert b"root:" not in answer.body


@pytest.mark.parametrize(
    "header",
    [
        b"authorization: Bearer \xff\xfe\r\n",
        b"authorization: " + b"_" * 50_000 + b"\r\n",
        b"accept: \xff\r\n",
        b"accept: " + b"text/csv;q=," * 4_000 + b"\r\n",
        b"tollgate-position: 9;0:99\r\n",
        b"tollgate-position: \xff\r\n",
        b"tollgate-position: 1;" + b"0:1," * 10_000 + b"\r\n",
        b"traceparent: \xff\r\n",
        b"content-type: \xff\xff; charset=\x80\r\n",
        b"expect: 100-continue\r\n",
        b"expect: 200-ok\r\n",
    ],
)
@pytest.mark.parametrize("path", [b"/api/v1/events", b"/api/v1/meters/tokens_total/query"])
def test_headers(target: Server, header: bytes, path: bytes) -> None:
    method = get(path, header, CLOSE) if path.endswith(b"query") else post(EVENT, header, CLOSE)
    answers = talk(target, method)
    # A position that is far ahead is waited for, then asked again: the one 503 that is right.
    waited = header.startswith(b"tollgate-position: 9") and path.endswith(b"query")
    assert all(answer.status < (504 if waited else 500) for answer in answers), answers
    assert answers


@pytest.mark.parametrize(
    "method", [b"TRACE", b"PROPFIND", b"DELETE", b"PATCH", b"HEAD", b"OPTIONS"]
)
@pytest.mark.parametrize("path", [b"/", b"/healthz", b"/metrics", b"/api/v1/events", b"/nothing"])
def test_methods(target: Server, method: bytes, path: bytes) -> None:
    request = method + b" " + path + b" HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
    with socket.create_connection(("127.0.0.1", target.port), timeout=15) as connection:
        connection.sendall(request)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    status = int(received.split(b" ", 2)[1])
    assert status in (200, 204, 400, 404, 405), received[:200]
    if method == b"HEAD":
        assert received.endswith(b"\r\n\r\n"), "no body after HEAD"


def test_pipelined_requests_are_answered_in_order(target: Server) -> None:
    wanted, requests = [], []
    for _ in range(40):
        wanted += [204, 400, 404, 200]
        requests += [post(event()), post(b"{"), get(b"/nothing"), get(b"/healthz")]
    answers = talk(target, b"".join(requests) + get(b"/readyz", CLOSE))
    assert [answer.status for answer in answers] == [*wanted, 200]
    assert answers[-1].body == b"ready\n"


def test_a_pipeline_in_small_pieces(target: Server) -> None:
    text = b"".join([post(event()), post(b"{"), get(b"/healthz", CLOSE)])
    answers = talk(target, (text[at : at + 7] for at in range(0, len(text), 7)))
    assert [answer.status for answer in answers] == [204, 400, 200]


def test_a_refusal_is_never_taken_for_an_earlier_answer(target: Server) -> None:
    answers = talk(target, post(event()) + b"\x00nonsense\r\n\r\n")
    assert [answer.status for answer in answers] in ([204, 400], [204], [])


H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"


def test_an_offer_to_upgrade_changes_nothing(target: Server) -> None:
    """Java's client makes it with its first request: the body must not be dropped."""
    answers = talk(target, post(event(), H2C) + get(b"/healthz", H2C) + get(b"/readyz", CLOSE))
    assert [(answer.status, answer.body) for answer in answers] == [
        (204, b""), (200, b"ok\n"), (200, b"ready\n"),
    ]  # fmt: skip
    pieces = post(event(), H2C), get(b"/healthz", b"connection: close, upgrade\r\nupgrade: h2c\r\n")
    split = [pieces[0][:-30], pieces[0][-30:], pieces[1]]
    assert [answer.status for answer in talk(target, split)] == [204, 200]
    chunked = POST + JSON + H2C + CHUNKED + b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(EVENT), EVENT)
    assert [a.status for a in talk(target, chunked + get(b"/healthz", CLOSE))] == [204, 200]


def test_chunked_bodies_in_bytes(target: Server) -> None:
    def pieces() -> Iterable[bytes]:
        yield POST + JSON + CLOSE + CHUNKED + b"\r\n"
        for byte in event():
            yield b"1;extension=%b\r\n%c\r\n" % (b"x" * 20, byte)
        yield b"0\r\ntrailer: x\r\n\r\n"

    assert one(talk(target, pieces())).status == 204


def test_slow_clients_keep_nobody_waiting(target: Server) -> None:
    """Heads and bodies that never end hold their connection, not the server."""
    with ExitStack() as stack:
        slow = []
        for number in range(100):
            connection = socket.create_connection(("127.0.0.1", target.port), timeout=15)
            stack.enter_context(connection)
            body = POST + JSON + length(b"1000") + b"\r\n{"
            connection.sendall(body if number % 2 else b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ")
            slow.append(connection)
        for _ in range(5):
            for connection in slow:
                connection.sendall(b" ")
            assert one(talk(target, post(event(), CLOSE))).status == 204
    process = psutil.Process(target.pid)
    wait_until(
        lambda: sum(c.status == "ESTABLISHED" for c in process.net_connections("tcp")) < 20,
        what="connections given up",
    )


def test_memory_stays_bounded_when_large_bodies_come_at_once(target: Server) -> None:
    """Twelve bodies of 16 MiB that are never finished: what waits is what was read, no more."""
    process = psutil.Process(target.pid)
    before = process.memory_info().rss
    with ExitStack() as stack:
        for _ in range(12):
            connection = socket.create_connection(("127.0.0.1", target.port), timeout=15)
            stack.enter_context(connection)
            connection.sendall(POST + JSON + length(b"%d" % BODY_MAX) + b"\r\n" + b" " * (4 * MIB))
        assert one(talk(target, post(event(), CLOSE))).status == 204
        assert process.memory_info().rss - before < 150 * MIB


def test_what_was_accepted_is_loaded(target: Server) -> None:
    """Nothing of all this stopped the loader."""
    last = target.http.post(
        "/api/v1/events", content=event(), headers={"content-type": "application/json"}
    )
    position = {"tollgate-position": last.headers["tollgate-position"]}
    assert target.http.get("/api/v1/meters/tokens_total/query", headers=position).status_code == 200
    dead = target.http.get("/api/v1/dead-letters").json()["items"]
    assert dead == []
