"""A receiver of webhooks on this machine: answers as a test says, checks signatures itself."""

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.server import wait_until


@dataclass(frozen=True, kw_only=True)
class Received:
    """One request; header names in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def payload(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    def is_signed_by(self, secret: str) -> bool:
        """By the specification, written down here once more."""
        key = base64.b64decode(secret.rsplit("_", maxsplit=1)[-1])
        parts = (self.headers["webhook-id"], self.headers["webhook-timestamp"])
        content = ".".join(parts).encode() + b"." + self.body
        wanted = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
        given = self.headers["webhook-signature"].split(" ")
        return any(hmac.compare_digest(each, f"v1,{wanted}") for each in given)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is answered; `hangs`: nothing, until the receiver ends; `drips`: byte by byte."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    hangs: bool = False
    drips: bool = False


Script = Callable[[Received], Answer]


class Receiver(ThreadingHTTPServer):
    """Notes what comes, and answers by the script."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, script: Script | None, family: socket.AddressFamily) -> None:
        self.address_family = family
        host = "::1" if family is socket.AF_INET6 else "127.0.0.1"
        super().__init__((host, 0), _Handler)
        self.script: Script = script or (lambda _received: Answer())
        self.received: list[Received] = []
        self.ending = threading.Event()
        place = f"[{host}]" if ":" in host else host
        self.url = f"http://{place}:{self.server_address[1]}/hook"

    def answers(self, *answers: Answer) -> None:
        """One after the other; the last for ever."""
        left = list(answers)
        self.script = lambda _received: left.pop(0) if len(left) > 1 else left[0]

    def wait_for(self, count: int) -> list[Received]:
        """Once so many have come."""
        wait_until(lambda: len(self.received) >= count, what=f"{count} webhooks")
        return self.received

    def handle_error(self, *_: Any) -> None:
        """Who hangs up on us is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", "0"))
        headers = {name.lower(): value for name, value in self.headers.items()}
        got = Received(path=self.path, headers=headers, body=self.rfile.read(length))
        self.server.received.append(got)
        answer = self.server.script(got)
        if answer.hangs:
            self.server.ending.wait(60)
            self.close_connection = True
            return
        with suppress(OSError):
            self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        if not answer.drips:
            self.wfile.write(answer.body)
            return
        for byte in answer.body:
            self.wfile.write(bytes([byte]))
            if self.server.ending.wait(0.05):
                return

    def log_message(self, *_: Any) -> None:
        return


@contextmanager
def receiving(
    script: Script | None = None, family: socket.AddressFamily = socket.AF_INET
) -> Iterator[Receiver]:
    """A receiver that listens."""
    with Receiver(script, family) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            receiver.ending.set()
            receiver.shutdown()
