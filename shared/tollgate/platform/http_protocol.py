"""uvicorn's HTTP protocol, held to a bound and to what clients really send.

A head has a bound (httptools has none, so one connection could fill the memory), a refusal never
overtakes the answer to an earlier request, and a request that offers an upgrade is read as if it
did not: RFC 9110, 7.8 lets a server ignore the offer, and Java's client makes one (h2c) with every
first request over plain HTTP, after which httptools would drop the body.
"""

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_BYTES_MAX = 64 << 10
"""Request line and headers; what one read brings beyond it is still taken."""
_OFFER = frozenset((b"upgrade", b"http2-settings"))


class BoundedHttpProtocol(HttpToolsProtocol):
    """The protocol of one connection."""

    _head_open = False
    _head_bytes = 0
    _offers_upgrade = False

    def data_received(self, data: bytes) -> None:
        """Takes what one read brought."""
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
        self._head_open = True
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
        if not self._offers_upgrade:
            super().on_message_complete()

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
        cycle: RequestResponseCycle | None = self.__dict__.get("cycle")  # None before the first
        if cycle is None or cycle.response_complete:
            return True
        return not self.pipeline and cycle.more_body and not cycle.response_started

    def _refuse(self, status: bytes, text: str) -> None:
        if self._is_next_to_be_answered():
            self.transport.write(
                b"HTTP/1.1 %b\r\ncontent-type: text/plain; charset=utf-8\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%b"
                % (status, len(text), text.encode("ascii"))
            )
        # Else the client would take it for the answer that it waits for.
        self.transport.close()
