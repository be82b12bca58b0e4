"""Runs the host in the foreground: `python -m tollgate.platform.up`, what `scripts/up` calls.

Makes the data folder, makes and migrates what the settings name (`tollgate.platform.setup`), starts
every function (or the one of `TOLLGATE_FUNCTION`) on one port, and ends on SIGINT or SIGTERM after
requests in flight are answered.
"""

import argparse
import gc
import ipaddress
import logging
import signal
import sys
from pathlib import Path

import uvicorn

from tollgate.core.errors import PermanentFault, TollgateError
from tollgate.platform.functions import BY_NAME, FUNCTIONS
from tollgate.platform.host import Host
from tollgate.platform.http_protocol import BoundedHttpProtocol
from tollgate.platform.keys import open_keys
from tollgate.platform.parts import Parts
from tollgate.platform.settings import Settings, read_settings
from tollgate.platform.setup import lines_of, lock_data_folder, prepare, prepare_own
from tollgate.platform.telemetry import configure_logs

_log = logging.getLogger(__name__)
_LOOPBACK = "127.0.0.1"
_ANY = "0.0.0.0"  # noqa: S104 -- only once keys are configured
_KEEP_ALIVE_SECONDS = 75
_COLLECT_AFTER_OBJECTS = 50_000


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/up", description="Runs Tollgate on one port.")
    parser.add_argument("--port", type=int, help="TCP port (TOLLGATE_PORT, 8888)")
    parser.add_argument("--data", type=Path, help="data folder (TOLLGATE_DATA)")
    parser.add_argument("--meters", type=Path, help="meters.yaml (TOLLGATE_METERS)")
    given = parser.parse_args(arguments)
    try:
        settings = read_settings(overrides=vars(given))
        configure_logs(settings.log_level)
        return run(settings)
    except TollgateError as problem:
        for line in lines_of(problem):
            print(f"tollgate: {line}", file=sys.stderr)  # noqa: T201 -- said to a person
        return 2


def run(settings: Settings) -> int:
    """Serves until told to end.

    Raises:
        PermanentFault: another process has the data folder, or the address is not safe to bind.
    """
    if settings.function and settings.function not in BY_NAME:
        raise PermanentFault(f"TOLLGATE_FUNCTION: there is no function {settings.function!r}")
    with lock_data_folder(settings):
        parts = Parts(settings)
        # What is shared with other processes is made by a Job, never by a function of its own.
        if settings.function:
            functions = [BY_NAME[settings.function]]
            done = prepare_own(parts, functions[0])
        else:
            functions = list(FUNCTIONS)
            done = prepare(parts)
        for line in done:
            _log.info(line)
        address = bind_address(settings, open_to_all=parts.get(open_keys).open_to_all)
        server = _Server(
            uvicorn.Config(
                Host(parts, functions),
                host=address,
                port=settings.port,
                loop="uvloop",
                http=BoundedHttpProtocol,
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
            open_to_all=parts.get(open_keys).open_to_all,
        )
        # uvicorn raises the signal that ended it once more, for whoever ran it: nobody here.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        server.run()
        return 0 if server.started else 1


def bind_address(settings: Settings, *, open_to_all: bool) -> str:
    """Where to listen: loopback only as long as nobody needs a key.

    Raises:
        PermanentFault: the settings ask for more while no key exists.
    """
    if not open_to_all:
        return settings.host or _ANY
    host = settings.host or _LOOPBACK
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise PermanentFault(
            f"TOLLGATE_HOST={host}: without any access key only loopback is served; start once "
            "without it, run `tollgate keys create --scope admin`, then start again"
        )
    return host


class _Server(uvicorn.Server):
    """Says where it listens and what to do next, once it does."""

    def __init__(self, config: uvicorn.Config, *, open_to_all: bool) -> None:
        super().__init__(config)
        self._open_to_all = open_to_all

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Starts, then greets."""
        await super().startup(sockets=sockets)  # type: ignore[arg-type]
        if self.started and not self.should_exit:
            # What start-up made lives as long as the process; requests make little that is cyclic.
            gc.collect()
            gc.freeze()
            gc.set_threshold(_COLLECT_AFTER_OBJECTS)
            port = self.servers[0].sockets[0].getsockname()[1]
            print(_greeting(f"http://localhost:{port}", self._open_to_all), flush=True)  # noqa: T201


def _greeting(url: str, open_to_all: bool) -> str:
    key = "" if open_to_all else " \\\n    -H 'Authorization: Bearer '\"$TOLLGATE_KEY\""
    access = (
        "No access key is configured: served on 127.0.0.1 only, namespace `default`."
        if open_to_all
        else "Requests need an access key: export TOLLGATE_KEY=tg_..."
    )
    return f"""
Tollgate runs at {url}
{access}

Send an event:

  curl -i {url}/api/v1/events{key} \\
    -H 'Content-Type: application/cloudevents+json' \\
    -d '{{"specversion":"1.0","id":"'$(date +%s%N)'","source":"quickstart","type":"prompt",
         "subject":"customer-1","data":{{"tokens":42,"model":"gpt-5","type":"input"}}}}'

See it counted:

  curl '{url}/api/v1/meters/tokens_total/query?groupBy=model'{key}

Or send two months of sample usage:  .venv/bin/tollgate demo --url {url}
End with Ctrl-C.
"""


if __name__ == "__main__":
    sys.exit(main())
