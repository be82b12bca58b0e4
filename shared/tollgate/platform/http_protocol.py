"""uvicorn's HTTP protocol, held to a bound and to what clients really send.

A head has a bound (httptools has none, so one connection could fill the memory), a refusal never
overtakes the answer to an earlier request, and a request that offers an upgrade is read as if it
did not: RFC 9110, 7.8 lets a server ignore the offer, and Java's client makes one (h2c) with every
first request over plain HTTP, after which httptools would drop the body.

It also answers requests that a service takes at once (`tollgate.platform.direct`): in their turn
among pipelined ones, with uvicorn's own bookkeeping of what is in flight. Bodies that are long, or
come only after a `100 Continue`, and clients that do not read go through ASGI. Of a request like
the ones before it (`tollgate.platform.known_heads`) not even the head is parsed; whatever comes
before its answer waits.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tollgate.core.errors import PermanentFault, TollgateError
from tollgate.platform.application import send_problem
from tollgate.platform.body import Receive, Scope, Send
from tollgate.platform.direct import Direct
from tollgate.platform.known_heads import Known, KnownHeads

_log = logging.getLogger(__name__)

HEAD_BYTES_MAX = 64 << 10
"""Request line and headers; what one read brings beyond it is still taken."""
_OFFER = frozenset((b"upgrade", b"http2-settings"))


class BoundedHttpProtocol(HttpToolsProtocol):
    """The protocol of one connection."""

    _head_open = False
    _head_bytes = 0
    _offers_upgrade = False
    _held: tuple[RequestResponseCycle, Direct] | None = None
    """The request that is being read and may be taken at once when it is whole."""
    _reading = False
    """A message has begun and not ended."""
    _whole: bytes | None = None
    """What this read brought, if it began with a message."""
    _flying: bytes | None = None
    """The request that was taken without the parser and is not answered yet."""
    _failure: Exception | None = None
    """What went wrong with the request that is parsed now, after it was taken."""
    _ends = False
    """The connection is closed with the next answer."""
    _answered_at: float = 0  # tidy: allow-float -- a reading of the loop's clock

    def __init__(
        self,
        *arguments: Any,
        direct: Callable[[str], Direct | None],
        heads: KnownHeads,
        **named: Any,
    ) -> None:
        """As uvicorn makes it.

        Args:
            arguments: uvicorn's.
            direct: names the service that may answer a path at once.
            heads: what all connections have learned.
            named: uvicorn's.
        """
        super().__init__(*arguments, **named)
        self._direct = direct
        self._heads = heads
        self._early: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        """Takes what one read brought."""
        if self._flying is not None:
            self._early.append(data)
            self.flow.pause_reading()
            return
        if not self._reading and self._is_idle():
            if self._take_known(data):
                return
            self._whole = data
        self._parse(data)
        self._whole = None

    def _parse(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        except httptools.HttpParserUpgrade as offer:
            self._read_without_offer(data[offer.args[0] :])
        else:
            if self._head_open:
                self._head_bytes += len(data)
                if self._head_bytes > HEAD_BYTES_MAX:
                    self._refuse(b"431 Request Header Fields Too Large", "The head is too large.")

    def on_message_begin(self) -> None:
        """A request begins."""
        self._reading = self._head_open = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is there: starts the request, unless it is read again without its offer."""
        self._head_open = False
        self._offers_upgrade = (
            self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        )
        if not self._offers_upgrade:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is there."""
        self._reading = False
        if self._offers_upgrade:
            return
        super().on_message_complete()
        if self._held is not None:
            (cycle, service), self._held = self._held, None
            self._take(cycle, service)

    def on_body(self, body: bytes) -> None:
        """Some of a body is there."""
        super().on_body(body)
        if self._held is not None and len(self._held[0].body) > HIGH_WATER_LIMIT:
            self._let_go()

    def shutdown(self) -> None:
        """The server is about to end: what is in flight is answered, and the connection closed."""
        self._let_go()
        if self._flying is None:
            super().shutdown()
        else:
            self._ends = True

    def timeout_keep_alive_handler(self) -> None:
        """The connection may have been idle for long; answers without the parser move no timer."""
        left = self._answered_at + self.timeout_keep_alive - self.loop.time()
        if self._flying is None and left <= 0:
            super().timeout_keep_alive_handler()
        else:
            self._wait_for_more(max(left, 1))

    def _wait_for_more(self, seconds: float) -> None:  # tidy: allow-float -- a wait
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """It is a request's turn; its body may still be coming."""
        if self._failure is not None:
            problem, self._failure = self._failure, None
            failing: Any = _failing(problem)
            super()._start_asgi_task(cycle, failing)
            return
        service = self._service_of(cycle)
        if service is None:
            super()._start_asgi_task(cycle, app)
        elif cycle.more_body:
            self._held = (cycle, service)
        else:
            self._take(cycle, service)

    def _service_of(self, cycle: RequestResponseCycle) -> Direct | None:
        """The service that may take a request at once, if it is short and says so."""
        scope = cycle.scope
        if scope["method"] != "POST" or scope["query_string"] or cycle.waiting_for_100_continue:
            return None
        service = self._direct(scope["path"])
        if service is not None:
            for name, value in scope["headers"]:
                if name == b"content-length":
                    short = len(value) < 8 and value.isdigit() and int(value) <= HIGH_WATER_LIMIT
                    return service if short else None
        return None

    def _let_go(self) -> None:
        """What is being read goes through ASGI."""
        if self._held is not None:
            (cycle, _), self._held = self._held, None
            super()._start_asgi_task(cycle, self.app)

    def _take(self, cycle: RequestResponseCycle, service: Direct) -> None:
        taken = False
        if not self.flow.write_paused:
            scope, body = cycle.scope, bytes(cycle.body)
            path = scope["path"]
            headers: Any = scope["headers"]  # a list: `on_header` fills it
            try:
                take = service.taker(path, headers)
                taken = take is not None and take(body, partial(self._answer, cycle))
            except Exception:  # noqa: BLE001 -- out of the parser it came back as the client's fault
                _log.exception("a request could not be taken at once")
            else:
                if taken and take is not None and self._whole is not None and cycle.keep_alive:
                    known = Known(path, service, take, len(body))
                    self._heads.learn(self._whole, headers, known)
        if not taken:
            super()._start_asgi_task(cycle, self.app)

    def _take_known(self, data: bytes) -> bool:
        """Takes a whole request whose head is known."""
        found = self._heads.find(data)
        if found is None or self.flow.write_paused:
            return False
        known, body = found
        if self._direct(known.path) is not known.service:
            return False
        self._flying = data
        try:
            if known.take(body, self._answer_known):
                return True
        except Exception:  # noqa: BLE001 -- the long way answers it
            _log.exception("a request could not be taken at once")
        self._flying = None
        return False

    def _answer_known(self, lines: bytes | Exception) -> None:
        data, self._flying = self._flying, None
        if self.transport.is_closing() or data is None:
            return
        if isinstance(lines, Exception):
            self._failure = lines
            self._parse(data)
            if self._ends:
                super().shutdown()
        else:
            self.transport.write(self._whole_answer(lines, keep_alive=not self._ends))
            self.server_state.total_requests += 1
            if self._ends:
                self.transport.close()
                return
            self._answered_at = self.loop.time()
            if self.timeout_keep_alive_task is None:
                self._wait_for_more(self.timeout_keep_alive)
        if self._early:
            early = b"".join(self._early)
            self._early.clear()
            self.flow.resume_reading()
            self.data_received(early)

    def _whole_answer(self, lines: bytes, *, keep_alive: bool) -> bytes:
        answer = [lines]
        for name, value in self.server_state.default_headers:
            answer += (name, b": ", value, b"\r\n")
        answer.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
        return b"".join(answer)

    def _answer(self, cycle: RequestResponseCycle, lines: bytes | Exception) -> None:
        if self.transport.is_closing():
            return
        if isinstance(lines, Exception):
            app: Any = _failing(lines)
            super()._start_asgi_task(cycle, app)
            return
        cycle.response_started = cycle.response_complete = True
        self.transport.write(self._whole_answer(lines, keep_alive=cycle.keep_alive))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP."""
        self._refuse(b"400 Bad Request", msg)

    def _read_without_offer(self, rest: bytes) -> None:
        if not self._offers_upgrade:
            self.send_400_response("CONNECT is not served.")
            return
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                options = [each.strip() for each in value.split(b",")]
                kept = [each for each in options if each.lower() not in _OFFER]
                lines.append(b"connection: " + b", ".join(kept))
            elif name not in _OFFER:
                lines.append(b"%b: %b" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.data_received(b"\r\n".join((*lines, b"", rest)))

    def _is_next_to_be_answered(self) -> bool:
        """Whether what was just read is what the client waits for, or an earlier request."""
        if self._is_idle():
            return True
        return not self.pipeline and self.cycle.more_body and not self.cycle.response_started

    def _is_idle(self) -> bool:
        """Whether every request that was parsed is answered."""
        cycle: RequestResponseCycle | None = self.__dict__.get("cycle")  # None before the first
        return cycle is None or cycle.response_complete

    def _refuse(self, status: bytes, text: str) -> None:
        if self._is_next_to_be_answered():
            self.transport.write(
                b"HTTP/1.1 %b\r\ncontent-type: text/plain; charset=utf-8\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%b"
                % (status, len(text), text.encode("ascii"))
            )
        # Else the client would take it for the answer that it waits for.
        self.transport.close()


def _failing(problem: Exception) -> Callable[[Scope, Receive, Send], Any]:
    """An application that answers with a problem."""
    error = problem if isinstance(problem, TollgateError) else PermanentFault(repr(problem))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        await send_problem(scope, send, error)

    return app
