"""One HTTP connection to Tollgate, from the standard library: the command starts in no time."""

import gzip
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

_TRIES = 8
_TIMEOUT_SECONDS = 60


_Sent = tuple[str, str, bytes | None, Mapping[str, str]]


class CommandError(Exception):
    """What went wrong, said to the person at the terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer that was read whole. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> object:
        """The body as JSON values."""
        value: object = json.loads(self.body)
        return value


class Connection:
    """A connection that is kept, and made anew when it broke."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CommandError(f"--url: {url!r} is not a URL such as http://localhost:8888")
        make = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._url = url
        self._prefix = parts.path.rstrip("/")
        self._connection = make(parts.hostname, parts.port, timeout=_TIMEOUT_SECONDS)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Sends a request and reads the answer; 503 is tried again after the time it names.

        Raises:
            CommandError: nobody answers, or the answer is a problem.
        """
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        sent = dict(self._headers) | dict(headers or {})
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
            data = gzip.compress(data, 1)
            sent["Content-Encoding"] = "gzip"
        target = self._prefix + path + (f"?{urlencode(query)}" if query else "")
        for left in reversed(range(_TRIES)):
            answer = self._once((method, target, data, sent), last=not left)
            if answer is None or answer.status == 503:
                pause = int(answer.headers.get("retry-after", "1")) if answer else 1
                if left:
                    # The same request again is exact: ids decide what counts.
                    threading.Event().wait(pause)
                    continue
            assert answer is not None
            if answer.status >= 400:
                raise CommandError(_problem(answer))
            return answer
        raise AssertionError("the last try answers or raises")

    def _once(self, request: _Sent, *, last: bool) -> Answer | None:
        """One try; None where the connection broke and another try may do."""
        method, target, data, headers = request
        try:
            self._connection.request(method, target, data, headers)
            response = self._connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(status=response.status, headers=found, body=response.read())
        except (OSError, http.client.HTTPException) as problem:
            self._connection.close()
            if isinstance(problem, ConnectionRefusedError) or last:
                raise CommandError(
                    f"{self._url} does not answer ({problem}). Is it running? Start it with "
                    "scripts/up, or name another with --url"
                ) from None
            return None

    @contextmanager
    def stream(self, method: str, path: str) -> Iterator[http.client.HTTPResponse]:
        """An answer to be read piece by piece. Raises CommandError like `request`."""
        try:
            self._connection.request(method, self._prefix + path, headers=self._headers)
            response = self._connection.getresponse()
            if response.status >= 400:
                body = response.read()
                raise CommandError(_problem(Answer(status=response.status, headers={}, body=body)))
            yield response
        except (OSError, http.client.HTTPException) as problem:
            raise CommandError(f"{self._url}: {problem}") from None
        finally:
            self._connection.close()


def _problem(answer: Answer) -> str:
    try:
        problem = json.loads(answer.body)
        return f"{answer.status} {problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"the answer was {answer.status}: {answer.body[:200]!r}"
