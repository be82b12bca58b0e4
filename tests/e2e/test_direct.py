"""Requests that are taken at once keep their place among others, and lose nothing when cut off."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Server, wait_until
from tests.support.wire import CLOSE, get, parse, post, talk

pytestmark = pytest.mark.e2e
STRUCTURED = b"content-type: application/cloudevents+json\r\n"
BATCHED = b"content-type: application/cloudevents-batch+json\r\n"
V3 = b"/api/v3/openmeter/events"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("direct")
    server = Server(folder / "data").start()
    yield server
    assert server.stop() == 0


def body(event_id: str, **members: object) -> bytes:
    whole = {"id": event_id, "source": "direct", "type": "direct", "subject": "s"} | members
    return json.dumps(whole).encode()


def stored(server: Server) -> list[str]:
    """Ids of this module's events, in order."""
    page = server.http.get("/api/v1/events", params={"limit": "100", "source": "direct"})
    return sorted(each["event"]["id"] for each in page.json() if each["event"]["type"] == "direct")


def test_answers_keep_their_place_whoever_gives_them(target: Server) -> None:
    """At once, by ASGI, refused by each: every answer in the place of its request."""
    requests = [
        post(body("order-1"), STRUCTURED),
        get(b"/healthz"),
        post(body("order-2"), STRUCTURED, target=V3),
        post(b"[" + body("order-3") + b"," + body("order-4") + b"]", BATCHED),
        post(body("", subject=""), STRUCTURED),
        post(body("order-5"), STRUCTURED, target=b"/api/v1/events?partial=true"),
        post(body("order-6", extension="x"), STRUCTURED),
        post(body("order-7", data={"text": "x" * 100_000}), STRUCTURED),
        post(b"{", STRUCTURED),
        post(body("order-8"), STRUCTURED, CLOSE),
    ]
    answers = talk(target, b"".join(requests))
    assert [a.status for a in answers] == [204, 200, 202, 204, 400, 200, 204, 204, 400, 204]
    assert answers[2].headers[b"content-length"] == b"0"
    positions = [a.headers.get(b"tollgate-position") for a in answers]
    assert [bool(each) for each in positions] == [
        status in (202, 204) or index == 5 for index, status in enumerate(a.status for a in answers)
    ]
    assert [a.headers.get(b"connection") for a in answers] == [None] * 9 + [b"close"]
    # Requests of one connection are taken one after another.
    offsets = [int(each.rpartition(b":")[2]) for each in positions if each]
    assert offsets == sorted(set(offsets))
    wait_until(lambda: stored(target) == [f"order-{n}" for n in range(1, 9)], what="all stored")


def test_each_byte_in_a_piece_of_its_own(target: Server) -> None:
    request = post(body("pieces"), STRUCTURED) + post(body("pieces"), STRUCTURED, CLOSE)
    answers = talk(target, (request[n : n + 1] for n in range(len(request))))
    assert [a.status for a in answers] == [204, 204]
    assert b"date" in answers[0].headers


def test_http_1_0_closes(target: Server) -> None:
    request = post(body("old"), STRUCTURED).replace(b"HTTP/1.1", b"HTTP/1.0")
    (answer,) = talk(target, request)
    assert (answer.status, answer.headers[b"connection"]) == (204, b"close")


def test_a_body_that_waits_for_a_word_gets_it(target: Server) -> None:
    head, mark, sent = post(
        body("waits"), STRUCTURED, b"expect: 100-continue\r\n", CLOSE
    ).partition(b"\r\n\r\n")
    with socket.create_connection(("127.0.0.1", target.port), timeout=15) as connection:
        connection.sendall(head + mark)
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(sent)
        received = b""
        while piece := connection.recv(1 << 16):
            received += piece
    assert [a.status for a in parse(received)] == [204]


def test_the_first_of_two_headers_counts(target: Server) -> None:
    (answer,) = talk(
        target, post(body("twice"), STRUCTURED, b"content-type: text/plain\r\n", CLOSE)
    )
    assert answer.status == 204
    (answer,) = talk(
        target, post(body("twice"), b"content-type: text/plain\r\n", STRUCTURED, CLOSE)
    )
    assert answer.status == 415


def test_who_leaves_before_the_answer_disturbs_nobody(target: Server) -> None:
    request = post(body("left"), STRUCTURED)
    for cut in (len(request), len(request) - 1, len(request) // 2):
        with socket.create_connection(("127.0.0.1", target.port), timeout=15) as connection:
            connection.sendall(request[:cut])
    (answer,) = talk(target, post(body("after"), STRUCTURED, CLOSE))
    assert answer.status == 204
    wait_until(lambda: {"after", "left"} <= set(stored(target)), what="stored")
    assert "request could not be taken" not in target.log.read_text()


def test_an_end_waits_for_a_body_that_is_coming(tmp_path: Path) -> None:
    """SIGTERM in the middle of a body: it is read to its end, stored and answered."""
    server = Server(tmp_path / "data").start()
    request = post(body("late"), STRUCTURED)
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as connection:
        connection.sendall(request[:-5])
        # An answer on another connection: the half request was read before.
        assert talk(server, get(b"/healthz", CLOSE))[0].status == 200
        server.signal(15)
        wait_until(lambda: "Waiting for connections" in server.log.read_text(), what="draining")
        connection.sendall(request[-5:])
        received = b""
        while piece := connection.recv(1 << 16):
            received += piece
    (answer,) = parse(received)
    assert (answer.status, answer.headers[b"connection"]) == (204, b"close")
    assert server.stop() in (0, 143)


def test_keys_are_asked_for(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", settings={"TOLLGATE_KEYS_FILE": _keys(tmp_path)}).start()
    with server:
        (answer,) = talk(server, post(body("no key"), STRUCTURED, CLOSE))
        assert answer.status == 401
        key = b"authorization: Bearer tg_reader_" + b"r" * 40 + b"\r\n"
        (answer,) = talk(server, post(body("reader"), STRUCTURED, key, CLOSE))
        assert answer.status == 403
        assert answer.headers[b"content-type"] == b"application/problem+json"
        key = b"authorization: Bearer tg_writer_" + b"w" * 40 + b"\r\n"
        (answer,) = talk(server, post(body("writer"), STRUCTURED, key, CLOSE))
        assert answer.status == 204


def _keys(folder: Path) -> str:
    path = folder / "keys.yaml"
    path.write_text(
        f"- {{key: tg_reader_{'r' * 40}, scopes: [read]}}\n"
        f"- {{key: tg_writer_{'w' * 40}, scopes: [ingest]}}\n"
    )
    return str(path)
