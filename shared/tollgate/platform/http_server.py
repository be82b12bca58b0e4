"""Serves a host on a port until a signal ends it: uvicorn, bound and drained as we need it."""

import signal
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import uvicorn

from tollgate.core.errors import PermanentFault
from tollgate.platform.garbage import end_start
from tollgate.platform.http_protocol import BoundedHttpProtocol
from tollgate.platform.keys import open_keys
from tollgate.platform.known_heads import KnownHeads
from tollgate.platform.parts import Parts
from tollgate.platform.settings import Settings

if TYPE_CHECKING:
    from tollgate.platform.host import Host

_LOOPBACK = "127.0.0.1"
_ANY = "0.0.0.0"  # noqa: S104 -- only once keys are configured
_KEEP_ALIVE_SECONDS = 75


def serve(host: "Host", parts: Parts, greet: Callable[[int], None]) -> int:
    """Serves until SIGINT or SIGTERM, then answers what is in flight. Returns the exit code.

    Args:
        host: started and stopped by it.
        parts: of the host.
        greet: called with the port once requests are taken.

    Raises:
        PermanentFault: the address is not safe to bind.
    """
    settings = parts.settings
    keys = parts.get(open_keys)
    address = bind_address(settings, none_ever=keys.none_ever)
    if address == _LOOPBACK or settings.host_is_loopback:
        keys.allow_open()
    server = _Server(
        uvicorn.Config(
            host,
            host=address,
            port=settings.port,
            loop="uvloop",
            http=partial(  # type: ignore[arg-type]
                BoundedHttpProtocol, direct=host.direct, heads=KnownHeads()
            ),
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            date_header=True,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=settings.drain_seconds,
            ws="none",
        ),
        greet,
    )
    # uvicorn raises the signal that ended it once more, for whoever ran it: nobody here.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server.run()
    return 0 if server.started else 1


def bind_address(settings: Settings, *, none_ever: bool) -> str:
    """Where to listen: loopback only as long as nobody needs a key.

    Args:
        settings: what they ask for.
        none_ever: it is known that no key was ever made.

    Raises:
        PermanentFault: the settings ask for more while no key exists.
    """
    if not none_ever:
        return settings.host or _ANY
    if settings.host and not settings.host_is_loopback:
        raise PermanentFault(
            f"TOLLGATE_HOST={settings.host}: without any access key only loopback is served; start "
            "once without it, run `tollgate keys create --scope admin`, then start again"
        )
    return settings.host or _LOOPBACK


class _Server(uvicorn.Server):
    """Says where it listens, once it does."""

    def __init__(self, config: uvicorn.Config, greet: Callable[[int], None]) -> None:
        super().__init__(config)
        self._greet = greet

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Starts, then greets."""
        await super().startup(sockets=sockets)  # type: ignore[arg-type]
        if self.started and not self.should_exit:
            end_start()
            self._greet(self.servers[0].sockets[0].getsockname()[1])
