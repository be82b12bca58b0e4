"""One keep-alive HTTP/1.1 connection for what the load generator skips: answers with a body."""

import asyncio
from dataclasses import dataclass

from tests.bench.load_generator import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status and body of one response."""

    status: int
    body: bytes


class HttpClient:
    """Sends one request at a time and connects again when the server closed the connection."""

    def __init__(self, target: Target) -> None:
        """Remember the target; nothing is opened before the first request."""
        self._target = target
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return the open connection, opening it first when there is none.

        Raises:
            OSError: The server does not listen.
        """
        if self._reader is None or self._writer is None or self._reader.at_eof():
            self.close()
            self._reader, self._writer = await asyncio.open_connection(
                self._target.host, self._target.port
            )
        return self._reader, self._writer

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def get(self, path: str) -> Answer:
        """GET a path.

        Raises:
            OSError: The server does not listen or cut the connection.
            EOFError: It closed the connection before the answer was whole.
        """
        return await self.send(
            f"GET {path} HTTP/1.1\r\nHost: {self._target.host}\r\nAccept: */*\r\n\r\n".encode()
        )

    async def send(self, request: bytes) -> Answer:
        """Send a prebuilt request and return its answer; raises like `get`."""
        reader, writer = await self.connect()
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = head.split("\r\n")
            status = int(lines[0].split(" ", 2)[1])
            fields = dict(line.lower().split(":", 1) for line in lines[1:] if line)
            body = await _read_body(reader, status, fields)
        except BaseException:
            # Cancelled or broken half way: the rest of the answer would be taken for the next one.
            self.close()
            raise
        if fields.get("connection", "").strip() == "close":
            self.close()
        return Answer(status=status, body=body)


async def _read_body(reader: asyncio.StreamReader, status: int, fields: dict[str, str]) -> bytes:
    if status in (204, 304):
        return b""
    if "chunked" not in fields.get("transfer-encoding", ""):
        return await reader.readexactly(int(fields.get("content-length", "0")))
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";", 1)[0], 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readuntil(b"\r\n")
    return b"".join(parts)
