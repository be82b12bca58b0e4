"""One connection, any requests in any pieces, answers at any time: known heads change nothing."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from tests.support.wire import CLOSE, HOST, Answer, get, parse, post
from tollgate.core.errors import Transient
from tollgate.platform.body import Receive, Scope, Send, read_body
from tollgate.platform.direct import Answer as Reply
from tollgate.platform.direct import Headers, Taker
from tollgate.platform.http_protocol import BoundedHttpProtocol
from tollgate.platform.known_heads import KnownHeads

PATH = b"/take"
_TAKEN = b"HTTP/1.1 204 No Content\r\n"
REQUESTS = {
    "same": post(b"0123456789", target=PATH),
    "other": post(b"abcdefghij", target=PATH),
    "other length": post(b"123", target=PATH),
    "other header": post(b"0123456789", b"x-trace: 1\r\n", target=PATH),
    "looks like a request": post(get(b"/x"), target=PATH),
    "refused by the service": post(b"no........", target=PATH),
    "fails afterwards": post(b"bad.......", target=PATH),
    "not taken": post(b"0123456789", target=b"/other"),
    "query": post(b"0123456789", target=PATH + b"?a=b"),
    "without a body": get(PATH),
    "empty": post(b"", target=PATH),
    "chunked": b"POST /take HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n"
    b"a\r\n0123456789\r\n0\r\n\r\n",
    "offers an upgrade": post(
        b"0123456789", b"connection: upgrade\r\n", b"upgrade: h2c\r\n", target=PATH
    ),
}
LAST = {
    "closes": post(b"0123456789", CLOSE, target=PATH),
    "old": post(b"0123456789", target=PATH).replace(b"HTTP/1.1", b"HTTP/1.0"),
}


class Service:
    """Takes most; says later what became of it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.waiting: list[tuple[bytes, Reply]] = []

    def taker(self, path: str, headers: Headers) -> Taker | None:
        """As in `Direct`."""
        assert path == PATH.decode()
        assert dict(headers)[b"host"] == b"tollgate"
        return self._take

    def _take(self, body: bytes, answer: Reply) -> bool:
        if body.startswith(b"no"):
            return False
        self.bodies.append(body)
        self.waiting.append((body, answer))
        return True

    def answer_one(self) -> None:
        """Answers the oldest."""
        if self.waiting:
            body, answer = self.waiting.pop(0)
            answer(
                Transient("later")
                if body.startswith(b"bad")
                else _TAKEN + b"x-b: %b\r\n" % body.hex().encode()
            )


class Transport(asyncio.Transport):
    """Keeps what is written; delivers nothing while reading is paused."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.paused = self.closed = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Nothing is known."""
        del name
        return default

    def write(self, data: Any) -> None:
        """Keeps it."""
        assert not self.closed
        self.written += data

    def pause_reading(self) -> None:
        """Nothing more is delivered."""
        self.paused = True

    def resume_reading(self) -> None:
        """The opposite."""
        self.paused = False

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed

    def close(self) -> None:
        """Closes it."""
        self.closed = True


class Forgetful(KnownHeads):
    """Learns nothing."""

    def learn(self, message: bytes, headers: Headers, known: object) -> None:
        """Forgets it at once."""


class Connection:
    """A protocol with its two sides."""

    def __init__(self, loop: asyncio.AbstractEventLoop, heads: KnownHeads) -> None:
        self.service = Service()
        self.transport = Transport()
        self.asgi: list[bytes] = []
        config = uvicorn.Config(
            self._app,
            lifespan="off",
            log_config=None,
            loop="none",
            ws="none",
            interface="asgi3",
            proxy_headers=False,
        )
        config.load()
        self.state = ServerState()
        self.protocol = BoundedHttpProtocol(
            config=config,
            server_state=self.state,
            app_state={},
            _loop=loop,
            direct=lambda path: self.service if path == PATH.decode() else None,
            heads=heads,
        )
        self.protocol.connection_made(self.transport)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, 1 << 20)
        self.asgi.append(body)
        line = b"%b %b" % (scope["path"].encode(), body)
        headers = [(b"content-length", b"%d" % len(line))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": line})


async def _turns() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def talk(
    connection: Connection, pieces: list[bytes], answers: Iterator[int]
) -> tuple[list[Answer], list[bytes], list[bytes], bool]:
    """Sends the pieces, answers between them as told, then answers all."""
    service, transport = connection.service, connection.transport
    for piece in pieces:
        for _ in range(next(answers)):
            service.answer_one()
        await _turns()
        while transport.paused and service.waiting:
            service.answer_one()
            await _turns()
        if not transport.closed:
            connection.protocol.data_received(piece)
        await _turns()
    while service.waiting:
        service.answer_one()
        await _turns()
    written = re.sub(rb"urn:request:\w{26}", b"urn:request:" + b"x" * 26, transport.written)
    return parse(written), service.bodies, connection.asgi, transport.closed


@given(
    st.lists(st.sampled_from(sorted(REQUESTS)) | st.just("same"), min_size=1, max_size=12),
    st.none() | st.sampled_from(sorted(LAST)),
    st.data(),
)
@settings(max_examples=400, deadline=None)
def test_known_heads_change_nothing(
    names: list[str], last: str | None, data: st.DataObject
) -> None:
    whole = [REQUESTS[name] for name in names] + ([LAST[last]] if last else [])
    pieces: list[bytes] = []
    for request in whole:
        cuts = sorted(data.draw(st.sets(st.integers(1, len(request) - 1), max_size=2)))
        pieces += [request[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
    joined = data.draw(st.lists(st.booleans(), min_size=len(pieces), max_size=len(pieces)))
    sent: list[bytes] = []
    for piece, is_joined in zip(pieces, joined, strict=True):
        if is_joined and sent:
            sent[-1] += piece
        else:
            sent.append(piece)
    counts = data.draw(st.lists(st.integers(0, 3), min_size=len(sent), max_size=len(sent)))
    with closing(asyncio.new_event_loop()) as loop:
        known = KnownHeads()
        # What the connection before it taught.
        first = Connection(loop, known)
        loop.run_until_complete(talk(first, [REQUESTS["same"]], iter([0])))
        found = [
            loop.run_until_complete(talk(Connection(loop, heads), sent, iter(counts)))
            for heads in (known, Forgetful())
        ]
    assert found[0] == found[1]
    answers, taken, asgi, closed = found[0]
    assert len(answers) == len(whole)
    assert len(taken) + len(asgi) == len(whole)
    assert closed == bool(last)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with closing(asyncio.new_event_loop()) as made:
        yield made


def test_a_known_head_is_not_parsed_again(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = Connection(loop, KnownHeads())
    loop.run_until_complete(talk(connection, [REQUESTS["same"]], iter([0])))
    monkeypatch.setattr(connection.protocol, "parser", None)
    sent = [REQUESTS["same"], REQUESTS["other"]]
    answers, taken, _, _ = loop.run_until_complete(talk(connection, sent, iter([0, 1])))
    assert [bytes.fromhex(a.headers[b"x-b"].decode()) for a in answers] == taken
    assert taken == [b"0123456789", b"0123456789", b"abcdefghij"]
    assert connection.state.total_requests == 3


@pytest.mark.parametrize("body", [b"0123456789", b"bad......."])
def test_an_end_waits_for_the_answer(loop: asyncio.AbstractEventLoop, body: bytes) -> None:
    connection = Connection(loop, KnownHeads())
    loop.run_until_complete(talk(connection, [REQUESTS["same"]], iter([0])))
    connection.protocol.data_received(post(body, target=PATH))
    connection.protocol.shutdown()
    assert not connection.transport.closed
    answers, *_ = loop.run_until_complete(talk(connection, [], iter([])))
    assert [answer.status for answer in answers] == [204, 503 if body[:3] == b"bad" else 204]
    assert answers[1].headers[b"connection"] == b"close"
    assert connection.transport.closed


def test_an_answer_keeps_the_connection_open(loop: asyncio.AbstractEventLoop) -> None:
    """The timer that a known request leaves alone does not close what is not idle for long."""
    connection = Connection(loop, KnownHeads())
    protocol = connection.protocol
    loop.run_until_complete(talk(connection, [REQUESTS["same"]] * 2, iter([0, 1])))
    protocol.timeout_keep_alive_handler()
    assert not connection.transport.closed
    protocol.data_received(REQUESTS["same"])
    protocol.timeout_keep_alive = -1
    protocol.timeout_keep_alive_handler()
    assert not connection.transport.closed, "an answer is due"
    loop.run_until_complete(talk(connection, [], iter([])))
    protocol.timeout_keep_alive_handler()
    assert connection.transport.closed


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(REQUESTS["same"] * 2, id="two messages"),
        pytest.param(REQUESTS["same"].replace(b"\r\n", b"\n", 2), id="bare newlines"),
        pytest.param(post(b"0123456789", b"x: " + b"y" * 3000 + b"\r\n"), id="long"),
    ],
)
def test_what_is_unusual_is_not_learned(
    loop: asyncio.AbstractEventLoop, message: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = KnownHeads()
    connection = Connection(loop, heads)
    with monkeypatch.context() as patch:
        patch.setattr(Transport, "write", lambda *_: None)
        loop.run_until_complete(talk(connection, [message], iter([0])))
    assert heads.find(message) is None
