"""The distributed world on one machine: `python -m tollgate.local.world`, for people and tests.

A real Kafka broker, PostgreSQL and ClickHouse's engine, each function as processes of its own, and
one entry port in front of them. In the foreground: what ends is started again; SIGINT or SIGTERM
ends all, requests first. No process outlives this one, however it ends. `world.json` in the data
folder says what runs where.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tollgate.core.errors import PermanentFault, TollgateError, Transient
from tollgate.local.broker import CACHE, Broker
from tollgate.local.clickhouse_http import ClickHouseServer
from tollgate.local.ending import listen_for_end
from tollgate.local.entry import Entry
from tollgate.local.entry_rules import Upstream
from tollgate.local.function_process import FunctionProcess
from tollgate.local.keeper import Keeper
from tollgate.local.leash import release_leash, start_leashed
from tollgate.local.ports import HOST, free_ports, is_free
from tollgate.local.postgres import Postgres
from tollgate.platform.greeting import greeting
from tollgate.platform.settings import Settings, read_settings
from tollgate.platform.setup import lines_of, lock_data_folder
from tollgate.platform.telemetry import configure_logs

_log = logging.getLogger(__name__)
PROCESSES: Mapping[str, tuple[str, ...]] = {
    "ingest": ("ingest",),
    "load": ("load-1", "load-2"),
    "rollup": ("rollup",),
    "customers": ("customers",),
    "entitlements": ("entitlements",),
    "limits": ("limits",),
    "notify": ("notify",),
    "usage": ("usage",),
    "console": ("console",),
}
"""Names of the processes of each function."""
_ARCHIVE: Mapping[str, tuple[str, ...]] = {"archive": ("archive",)}
"""Those that are there if object storage is named."""
STATUS_FILE = "world.json"
DATA = Path(".data") / "distributed"
"""Where a world's data are, unless something else is said."""
_TOPIC_PREFIX = "tollgate-events"
_ATTEMPTS = 3
_READY_SECONDS = 120
_PORT_SECONDS = 2
_LOOK_SECONDS = 0.05
_LOG_SHOWN_BYTES = 2000


class World:
    """All processes: started from the bottom up, ended from the top down."""

    def __init__(self, settings: Settings) -> None:
        """Names them; nothing is started.

        Args:
            settings: port, data folder, meters file and drain time of the whole. The functions read
                all others from the environment that they share with this process.
        """
        self.settings = settings
        self._data = settings.data.resolve()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._making: subprocess.Popen[bytes] | None = None
        self._names = {**PROCESSES, **_ARCHIVE} if settings.objects_url else PROCESSES
        names = [name for of_one in self._names.values() for name in of_one]
        kafka, postgres, clickhouse, *ports = free_ports(3 + len(names))
        self._upstreams = {
            name: Upstream(name=name, port=port) for name, port in zip(names, ports, strict=True)
        }
        self._kafka = Broker(self._data / "kafka", port=kafka)
        self._postgres = Postgres(self._data / "postgres", port=postgres)
        self._clickhouse = ClickHouseServer(self._data / "clickhouse", port=clickhouse)
        self._stores = [
            Keeper("kafka", self._kafka, self.note),
            Keeper("postgres", self._postgres, self.note),
            Keeper("clickhouse", self._clickhouse, self.note),
        ]
        self._functions: dict[str, Keeper] = {}
        self._entry: Keeper | None = None

    @property
    def url(self) -> str:
        """The entry."""
        return f"http://localhost:{self.settings.port}"

    @property
    def keepers(self) -> list[Keeper]:
        """Whatever has been named so far."""
        return [*self._stores, *self._functions.values(), *([self._entry] if self._entry else [])]

    def start(self) -> bool:
        """Returns when every function takes requests; tells whether they need no access key.

        Raises:
            PermanentFault: something did not come up, or the world is to end.
        """
        self.start_stores()
        self._set_up()
        open_to_all, host = self._access()
        self._functions = {
            upstream.name: Keeper(upstream.name, self._process(function, upstream), self.note)
            for function, of_one in self._by_function().items()
            for upstream in of_one
        }
        # Before it takes requests, there is somebody to take them.
        self._start_all(self._functions.values())
        entry = Entry(
            self._data,
            self._by_function(),
            port=self.settings.port,
            host=host,
            drain_seconds=self.settings.drain_seconds,
        )
        self._entry = Keeper("entry", entry, self.note)
        self._start_all([self._entry])
        self._wait_until_ready(entry)
        return open_to_all

    def start_stores(self) -> Mapping[str, str]:
        """Starts the services alone; gives the settings that name them.

        Raises:
            PermanentFault: something did not come up, or the world is to end.
        """
        self._data.mkdir(parents=True, exist_ok=True)
        self.note()
        self._start_all(self._stores)
        return self._shared_settings()

    def stop(self) -> None:
        """Ends all in good order: no new requests, then none in flight, then nothing to load."""
        self._stopping.set()
        making = self._making
        if making is not None:
            making.kill()
        loaders = [self._functions[name] for name in PROCESSES["load"] if name in self._functions]
        others = [each for each in self._functions.values() if each not in loaders]
        for group in ([self._entry] if self._entry else [], others, loaders, self._stores):
            _all_at_once(Keeper.stop, group)
        self.note()

    def note(self) -> None:
        """Writes what runs where."""
        with self._lock:
            processes = {
                each.name: {
                    "pid": each.pid,
                    "url": each.service.url,
                    "log": str(each.service.log),
                }
                for each in self.keepers
            }
            status = {"pid": os.getpid(), "url": self.url, "processes": processes}
            new = self._data / (STATUS_FILE + ".new")
            new.write_text(json.dumps(status, indent=2))
            new.replace(self._data / STATUS_FILE)

    def _start_all(self, keepers: Iterable[Keeper]) -> None:
        _all_at_once(self._start, keepers)

    def _start(self, keeper: Keeper) -> None:
        pause = threading.Event()
        for attempt in range(1, _ATTEMPTS + 1):
            if self._stopping.is_set():
                raise PermanentFault("told to end")
            try:
                keeper.start()
            except PermanentFault:
                # What an earlier world left may take a moment to be gone.
                if attempt == _ATTEMPTS:
                    raise
                pause.wait(attempt)
            else:
                return

    def _shared_settings(self) -> dict[str, str]:
        """What makes the functions one world."""
        return {
            "TOLLGATE_LOG_URL": f"{self._kafka.url}/{_TOPIC_PREFIX}",
            # One broker: all replicas of a record are one.
            "TOLLGATE_LOG_DEVELOPMENT": "true",
            "TOLLGATE_LOG_REPLICAS": "1",
            "TOLLGATE_CLICKHOUSE_URL": self._clickhouse.url,
            "TOLLGATE_DATABASE_URL": self._postgres.url,
            "TOLLGATE_DATA": str(self._data),
            "TOLLGATE_METERS": "",
        }

    def _set_up(self) -> None:
        log = self._data / "setup.log"
        settings = [f"{name}={value}" for name, value in self._shared_settings().items()]
        command = ["env", *settings, sys.executable, "-m", "tollgate.platform.setup"]
        self._making = start_leashed(command, log)
        failed = self._making.wait()
        release_leash(self._making)
        if failed:
            raise PermanentFault(f"setup ended with {failed}: {_end_of(log)}")

    def _access(self) -> tuple[bool, str]:
        """Whether requests need no key, and the address that the entry may then listen on."""
        # They take uvicorn along, which nothing else here needs.
        from tollgate.platform.http_server import bind_address
        from tollgate.platform.keys import open_key_refresh
        from tollgate.platform.parts import Parts

        parts = Parts(self.settings.model_copy(update={"database_url": self._postgres.url}))
        refresh, end = parts.get(open_key_refresh), time.monotonic() + _READY_SECONDS
        while True:
            try:
                refresh.now()
                break
            except Transient as away:
                # PostgreSQL may have ended since it came up; then it is started again.
                if self._stopping.wait(_LOOK_SECONDS) or time.monotonic() > end:
                    raise PermanentFault(f"access keys can't be read: {away.detail}") from away
        none_ever = refresh.index.none_ever
        return none_ever, bind_address(self.settings, none_ever=none_ever)

    def _by_function(self) -> dict[str, list[Upstream]]:
        return {
            function: [self._upstreams[name] for name in names]
            for function, names in self._names.items()
        }

    def _wait_until_ready(self, entry: Entry) -> None:
        end = time.monotonic() + _READY_SECONDS
        while reason := entry.unreadiness():
            if self._stopping.wait(_LOOK_SECONDS) or time.monotonic() > end:
                raise PermanentFault(f"not ready in time: {reason}; see the logs in {self._data}")

    def _process(self, function: str, upstream: Upstream) -> FunctionProcess:
        settings = self._shared_settings()
        if function == "usage" and self.settings.meters is not None:
            settings["TOLLGATE_METERS"] = str(self.settings.meters.resolve())
        return FunctionProcess(
            function,
            self._data / f"{upstream.name}.log",
            port=upstream.port,
            settings=settings,
            drain_seconds=self.settings.drain_seconds,
        )


def _all_at_once(action: Callable[[Keeper], None], keepers: Iterable[Keeper]) -> None:
    every = list(keepers)
    with ThreadPoolExecutor(max(1, len(every))) as pool:
        for done in [pool.submit(action, each) for each in every]:
            done.result()


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-_LOG_SHOWN_BYTES:].strip()


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/up --distributed", description="Runs Tollgate as separate processes."
    )
    parser.add_argument("--port", type=int, help="TCP port of the entry (TOLLGATE_PORT, 8888)")
    parser.add_argument("--data", type=Path, help=f"data folder (TOLLGATE_DATA, {DATA})")
    parser.add_argument("--meters", type=Path, help="meters.yaml (TOLLGATE_METERS)")
    given = parser.parse_args(arguments)
    try:
        settings = read_settings(overrides=vars(given))
        if "data" not in settings.model_fields_set:
            settings = settings.model_copy(update={"data": DATA})
        configure_logs(settings.log_level)
        return run(settings)
    except TollgateError as problem:
        for line in lines_of(problem):
            print(f"tollgate: {line}", file=sys.stderr)  # noqa: T201 -- said to a person
        return 2


def run(settings: Settings) -> int:
    """Runs the world until told to end. Returns the exit code.

    Raises:
        PermanentFault: another world has the data folder or the port, or something did not come up.
        InvalidInput: the meters file is wrong.
    """
    if settings.meters is not None:
        from tollgate.metering.meters_file import read_meters

        read_meters(settings.meters)
    ended, end = listen_for_end()
    with lock_data_folder(settings):
        _wait_for_port(settings.host or HOST, settings.port)
        if not any(CACHE.glob("*.jars")):
            _log.info("fetching Kafka's jars, once (45 MB)", extra={"into": str(CACHE)})
        world = World(settings)
        failures: list[Exception] = []

        def start() -> None:
            try:
                print(_report(world, open_to_all=world.start()), flush=True)  # noqa: T201
            except Exception as problem:  # noqa: BLE001 -- raised again where the world is ended
                failures.append(problem)
                os.write(end, b"\0")

        starting = threading.Thread(target=start, name="start", daemon=True)
        starting.start()
        os.read(ended, 1)
        told = not failures
        _log.info("ending")
        world.stop()
        starting.join()
        if not told:
            raise failures[0]
    return 0


def _wait_for_port(host: str, port: int) -> None:
    # The entry of a world that was killed a moment ago may still be going.
    pause, end = threading.Event(), time.monotonic() + _PORT_SECONDS
    while not is_free(host, port):
        if time.monotonic() > end:
            raise PermanentFault(f"port {port}: address already in use")
        pause.wait(_LOOK_SECONDS)


def _report(world: World, *, open_to_all: bool) -> str:
    rows = [f"  {each.name:<11} {each.pid:<8} {each.service.url}" for each in world.keepers]
    where = world.settings.data.resolve()
    return "\n".join(
        [greeting(world.url, open_to_all), f"Processes (logs and data in {where}):\n", *rows, ""]
    )


if __name__ == "__main__":
    sys.exit(main())
