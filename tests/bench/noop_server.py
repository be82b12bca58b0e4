"""Servers that do nothing: the ceiling of what a product on the same HTTP stack could answer.

`asgi` is a raw ASGI application on uvicorn (uvloop, httptools): it reads the body and answers 204,
and 200 to a GET. `bare` is an asyncio protocol that only frames requests: it shows what the load
generator itself can send.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import uvicorn
import uvloop
from typing_extensions import override

_Message = MutableMapping[str, Any]
_NO_CONTENT: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


async def discard(
    scope: _Message,
    receive: Callable[[], Awaitable[_Message]],
    send: Callable[[_Message], Awaitable[None]],
) -> None:
    """Read the whole body and answer 204, or 200 to a GET."""
    if scope["type"] != "http":
        return
    parts = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    status = 200 if scope["method"] == "GET" else 204
    await send({"type": "http.response.start", "status": status, "headers": _headers_of(status)})
    await send({"type": "http.response.body", "body": b""})


def _headers_of(status: int) -> list[tuple[bytes, bytes]]:
    return [(b"content-length", b"0")] if status == 200 else []


class _Bare(asyncio.Protocol):
    """Answers 204 when a request with `Content-Length` is whole; enough for our own generator."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio.WriteTransport, so no isinstance check.
        self._transport = transport  # type: ignore[assignment]

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0 or self._transport is None:
            return
        head = self._buffer[:head_end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._buffer) >= head_end + 4 + length:
            self._buffer = self._buffer[head_end + 4 + length :]
            self._transport.write(_NO_CONTENT)


async def _serve_bare(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Bare, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Serve until a signal ends the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("asgi", "bare"))
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    if arguments.kind == "bare":
        uvloop.run(_serve_bare(arguments.port))
        return
    uvicorn.run(
        discard,
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        lifespan="off",
    )


if __name__ == "__main__":
    main()
