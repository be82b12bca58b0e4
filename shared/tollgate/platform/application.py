"""A function as an ASGI application: started once, errors as problems, stopped after a drain."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from prometheus_client.core import Metric

from tollgate.core.errors import PermanentFault, TollgateError, Transient
from tollgate.platform.body import ClientGone, Receive, Scope, Send, header
from tollgate.platform.keys import open_keys
from tollgate.platform.parts import Parts
from tollgate.platform.problem import problem_reply, wire_of
from tollgate.platform.settings import Settings, read_settings
from tollgate.platform.telemetry import configure_logs, trace_context

_log = logging.getLogger(__name__)
Headers = Sequence[tuple[bytes, bytes]]


class Service(Protocol):
    """What a function does, built on shared parts."""

    async def start(self) -> None:
        """Opens what it needs; runs on the event loop that will serve it."""
        ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one HTTP request; may raise any `TollgateError` before it has answered."""
        ...

    async def stop(self) -> None:
        """Ends its background work; requests are drained before."""
        ...

    def unreadiness(self) -> str:
        """Why it can't serve now; "" when it can."""
        ...

    def metrics(self) -> Iterable[Metric]:
        """The present figures."""
        ...

    async def tend(self) -> None:
        """Scheduled work, if the function table names a schedule."""
        ...


class Application:
    """The ASGI application of one function. Opens nothing before `start` or the first request."""

    def __init__(self, name: str, build: Callable[[Parts], Service]) -> None:
        self.name = name
        self._build = build
        self._service: Service | None = None
        self._starting = asyncio.Lock()

    @property
    def service(self) -> Service | None:
        """The service, once started."""
        return self._service

    async def start(self, parts: Parts) -> None:
        """Builds and starts the service on the parts of the host."""
        async with self._starting:
            if self._service is None:
                service = self._build(parts)
                await service.start()
                self._service = service

    async def stop(self) -> None:
        """Stops the service."""
        if self._service is not None:
            await self._service.stop()
            self._service = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request. Under the stock functions-framework command the first one starts it."""
        service = self._service
        try:
            if service is None:
                settings = read_settings()
                configure_logs(settings.log_level)
                await self.start(_stock_parts(settings))
                service = self._service
                assert service is not None
            await service(scope, receive, send)
        except TollgateError as error:
            await send_problem(scope, send, error)
        except ClientGone:
            return
        except asyncio.CancelledError:
            # The drain took longer than allowed. Not a 500: sending it again is exact.
            await send_problem(scope, send, Transient("the server ends; send the request again"))
        except Exception as error:  # noqa: BLE001 -- the last barrier: say it, answer 500, go on
            trace = trace_context.set(_traceparent(scope))
            _log.exception("request failed", extra={"path": scope.get("path")})
            trace_context.reset(trace)
            await send_problem(scope, send, PermanentFault(repr(error)))


def _stock_parts(settings: Settings) -> Parts:
    """Of a process that the stock command runs: it may listen anywhere, so keys are needed.

    Unless the settings say that it does not.
    """
    parts = Parts(settings)
    if settings.host_is_loopback:
        parts.get(open_keys).allow_open()
    return parts


async def send_problem(
    scope: Scope, send: Send, error: TollgateError, headers: Headers = ()
) -> None:
    """Answers with a problem body; failures of ours are logged under its instance.

    Args:
        scope: of the request.
        send: takes the answer.
        error: what went wrong.
        headers: further ones of the answer.
    """
    reply = problem_reply(error, wire_of(scope["path"]))
    if reply.status >= 500:
        trace = trace_context.set(_traceparent(scope))
        _log.log(
            logging.ERROR if reply.status == 500 else logging.WARNING,
            error.detail,
            extra={"instance": reply.instance, "path": scope["path"], "status": reply.status},
        )
        trace_context.reset(trace)
    await send_reply(send, reply.status, [*reply.headers, *headers], reply.body)


def _traceparent(scope: Scope) -> str:
    return (header(scope, b"traceparent") or b"").decode("latin-1")


async def send_reply(
    send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """Sends a whole reply; a content length is added unless the status forbids a body."""
    if status != 204:
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
