"""The ASGI host: serves one function, or all of them in one process.

Health for Kubernetes (`/healthz`, `/readyz`) and OpenFaaS (`/_/health`, `/_/ready`), `/metrics`,
and everything else by the function table. Start and stop run in the ASGI lifespan; uvicorn
finishes requests in flight before it stops the lifespan.
"""

import asyncio
import importlib.util
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from tollgate.core.errors import MethodNotAllowed, NotFound, PermanentFault
from tollgate.platform.application import Application, send_problem, send_reply
from tollgate.platform.body import Receive, Scope, Send
from tollgate.platform.direct import Direct
from tollgate.platform.functions import FUNCTIONS, Function, function_for
from tollgate.platform.keys import open_key_refresh
from tollgate.platform.parts import Parts
from tollgate.platform.paths import FUNCTIONS as FOLDER
from tollgate.platform.telemetry import exposition, gauge

_log = logging.getLogger(__name__)
_HEALTH = frozenset(("/healthz", "/_/health"))
_READY = frozenset(("/readyz", "/_/ready"))
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_TEXT = [(b"content-type", b"text/plain; charset=utf-8")]


def load_application(function: Function) -> Application:
    """Imports `functions/<name>/main.py` and gives its `app`.

    Raises:
        PermanentFault: the folder holds no such application.
    """
    path = FOLDER / function.name / "main.py"
    spec = importlib.util.spec_from_file_location(f"tollgate_function_{function.name}", path)
    if spec is None or spec.loader is None:
        raise PermanentFault(f"{path} can't be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    app: object = getattr(module, "app", None)
    if not isinstance(app, Application):
        raise PermanentFault(f"{path} has no `app`")
    return app


class Host:
    """ASGI application over the applications of some functions."""

    def __init__(self, parts: Parts, functions: Sequence[Function] = FUNCTIONS) -> None:
        self._parts = parts
        self._functions = {function.name: function for function in functions}
        self._apps = {f.name: load_application(f) for f in functions}
        self._exact: dict[tuple[str, str], Application] = {}
        self._direct: dict[str, Direct] = {}
        self._started = False
        self._stopping = False
        self._begun: list[Application] = []
        self._ticker: asyncio.Task[None] | None = None
        for function in functions:
            for method, prefix in function.routes:
                if method != "*" and prefix != "/":
                    self._exact[method, prefix] = self._apps[function.name]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request, or the lifespan."""
        if scope["type"] == "http":
            app = self._exact.get((scope["method"], scope["path"]))
            if app is not None and self._started:
                await app(scope, receive, send)
                return
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1003})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path in _HEALTH:
            await send_reply(send, 200, _TEXT, b"ok\n")
        elif path in _READY:
            reason = self.unreadiness()
            await send_reply(send, 503 if reason else 200, _TEXT, f"{reason or 'ready'}\n".encode())
        elif path == "/metrics" and method in ("GET", "HEAD"):
            await send_reply(
                send,
                200,
                [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")],
                await asyncio.to_thread(self.metrics),
            )
        elif method not in _METHODS:
            await send_problem(
                scope, send, MethodNotAllowed(f"{method} is not a method of the API")
            )
        else:
            raw_path: bytes = scope.get("raw_path") or path.encode()
            function = function_for(method, path, raw_path.decode("latin-1"))
            app = self._apps.get(function.name) if function else None
            if app is None:
                await send_problem(scope, send, NotFound(f"nothing answers {method} {path}"))
            else:
                await app(scope, receive, send)

    def unreadiness(self) -> str:
        """Why the host should get no requests now; "" when it can."""
        if not self._started:
            return "starting"
        if self._stopping:
            return "stopping"
        reasons = [
            f"{name}: {reason}"
            for name, app in self._apps.items()
            if app.service is not None and (reason := app.service.unreadiness())
        ]
        return "; ".join(reasons)

    def metrics(self) -> bytes:
        """All functions' figures in Prometheus' text format."""
        families = [gauge("tollgate_up", "1 while the host runs.", 1)]
        if self._parts.has(open_key_refresh):
            read_at = self._parts.get(open_key_refresh).read_at
            text = "How long ago the access keys in force were read; absent: they are not known."
            if read_at is not None:
                age = (self._parts.clock.now() - read_at).total_seconds()
                families.append(gauge("tollgate_access_keys_age_seconds", text, max(0, age)))
        for app in self._apps.values():
            if app.service is not None:
                families += app.service.metrics()
        return exposition(families)

    async def start(self) -> None:
        """Starts every function, then the scheduler."""
        for app in self._apps.values():
            await app.start(self._parts)
            self._begun.append(app)
        for (method, path), app in self._exact.items():
            service: object = app.service
            if method == "POST" and isinstance(service, Direct):
                self._direct[path] = service
        self._ticker = asyncio.create_task(self._schedule())
        self._started = True

    def direct(self, path: str) -> Direct | None:
        """The service that may answer a POST to this path without ASGI."""
        return self._direct.get(path)

    async def stop(self) -> None:
        """Stops all, last started first, and closes the parts."""
        self._stopping = True
        self._direct = {}
        if self._ticker is not None:
            self._ticker.cancel()
        while self._begun:
            await self._begun.pop().stop()
        await asyncio.to_thread(self._parts.close)
        self._started = False

    async def _schedule(self) -> None:
        """Calls scheduled functions when their cron expression says so (embedded world only)."""
        from tollgate.platform.cron import next_run

        scheduled = [f for f in self._functions.values() if f.schedule]
        due: dict[str, datetime] = {
            f.name: next_run(f.schedule, self._parts.clock.now()) for f in scheduled
        }
        while due:
            soonest = min(due.values())
            now = self._parts.clock.now()
            if soonest > now:
                await asyncio.sleep(min((soonest - now) / timedelta(seconds=1), 60))
                continue
            for name in [n for n, at in due.items() if at <= now]:
                due[name] = next_run(self._functions[name].schedule, now)
                service = self._apps[name].service
                if service is None:
                    continue
                try:
                    await service.tend()
                except Exception:  # noqa: BLE001 -- a scheduled run fails alone and runs again
                    _log.exception("scheduled run failed", extra={"function": name})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except Exception as problem:  # noqa: BLE001 -- said to the server, which ends the process
            _log.exception("start failed")
            try:
                # Threads that went on would meet what is closed beneath them as the process ends.
                await self.stop()
            except Exception:  # noqa: BLE001 -- it ends all the same
                _log.exception("what had begun could not be stopped")
            await send({"type": "lifespan.startup.failed", "message": repr(problem)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})
