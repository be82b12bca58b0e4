"""Runs Tollgate in the foreground: `python -m tollgate.platform.up`, what `scripts/up` calls.

Makes the data folder, makes and migrates what the settings name (`tollgate.platform.setup`), starts
every function on one port, and ends on SIGINT or SIGTERM after requests in flight are answered.
With `TOLLGATE_FUNCTION` it is `tollgate.platform.serve`.
"""

import argparse
import logging
import sys
from pathlib import Path

from tollgate.core.errors import TollgateError
from tollgate.platform.garbage import begin_start
from tollgate.platform.greeting import greeting
from tollgate.platform.host import Host
from tollgate.platform.http_server import serve
from tollgate.platform.keys import open_keys
from tollgate.platform.leave import leave
from tollgate.platform.parts import Parts
from tollgate.platform.serve import run as serve_one
from tollgate.platform.settings import Settings, read_settings
from tollgate.platform.setup import lines_of, lock_data_folder, prepare
from tollgate.platform.telemetry import configure_logs

_log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code."""
    begin_start()
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
    if settings.function:
        return serve_one(settings)
    with lock_data_folder(settings):
        parts = Parts(settings)
        for line in prepare(parts):
            _log.info(line)

        def greet(port: int) -> None:
            open_to_all = parts.get(open_keys).open_to_all
            print(greeting(f"http://localhost:{port}", open_to_all), flush=True)  # noqa: T201

        return serve(Host(parts), parts, greet)


if __name__ == "__main__":
    leave(main())
