"""Runs one function, as a cluster does: `python -m tollgate.platform.serve`.

`TOLLGATE_FUNCTION` says which; all settings come from the environment. Imports and opens only what
that function needs, makes nothing that is shared with other processes (`tollgate.platform.setup`
does), and ends on SIGINT or SIGTERM after requests in flight are answered.
"""

import logging
import sys
from contextlib import nullcontext

from tollgate.core.errors import PermanentFault, TollgateError
from tollgate.platform.functions import BY_NAME
from tollgate.platform.garbage import begin_start
from tollgate.platform.host import Host
from tollgate.platform.http_server import serve
from tollgate.platform.leave import leave
from tollgate.platform.parts import Parts
from tollgate.platform.settings import Settings, read_settings
from tollgate.platform.setup import lines_of, lock_data_folder, prepare_own
from tollgate.platform.telemetry import configure_logs

_log = logging.getLogger(__name__)


def main() -> int:
    """The command. Returns the exit code."""
    begin_start()
    try:
        settings = read_settings()
        configure_logs(settings.log_level)
        return run(settings)
    except TollgateError as problem:
        for line in lines_of(problem):
            print(f"tollgate: {line}", file=sys.stderr)  # noqa: T201 -- said to a person
        return 2


def run(settings: Settings) -> int:
    """Serves the function of the settings until told to end. Returns the exit code.

    Raises:
        PermanentFault: no such function, another process has the data folder that it needs, or the
            address is not safe to bind.
    """
    function = BY_NAME.get(settings.function)
    if function is None:
        raise PermanentFault(
            f"TOLLGATE_FUNCTION: there is no function {settings.function!r}; "
            f"it is one of {', '.join(BY_NAME)}"
        )
    embedded = not (settings.log_url and settings.clickhouse_url and settings.database_url)
    # Only embedded parts need the folder to themselves.
    with lock_data_folder(settings) if embedded else nullcontext():
        parts = Parts(settings)
        for line in prepare_own(parts, function):
            _log.info(line)

        def greet(port: int) -> None:
            _log.info("serving", extra={"function": function.name, "port": port})

        return serve(Host(parts, [function]), parts, greet)


if __name__ == "__main__":
    leave(main())
