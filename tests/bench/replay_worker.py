"""One process of `replay`: fills a log and its archive, or loads one of the two into a new store.

`python -m tests.bench.replay_worker fill|load|replay FOLDER DATA EVENTS`; prints JSON.
"""

import json
import random
import resource
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from tollgate.core.clock import SystemClock
from tollgate.events.archive import ArchiveLimits, Archiver
from tollgate.events.event import Arrival, Attributes, encode
from tollgate.events.ledger import Frontier
from tollgate.events.load import DAY_US, Loader
from tollgate.events.load_progress import LoadLimits
from tollgate.events.record import Group, encode_record
from tollgate.events.replay import Period, make_plan, replay
from tollgate.platform.clickhouse import DATABASE
from tollgate.platform.clickhouse_schema import migrate_clickhouse
from tollgate.platform.event_log import ARCHIVE, LOADER
from tollgate.platform.objects_folder import FolderObjects
from tollgate.platform.parts import Parts, open_clickhouse
from tollgate.platform.segment_log import SegmentLog
from tollgate.platform.settings import Settings

_PER_REQUEST: Final = 100
_REQUESTS: Final = 40
_MODELS: Final = ("small", "medium", "large", "embedding")


def _record(shuffle: random.Random, number: int, now_us: int) -> bytes:
    """One record as ingest makes it under load: many requests' events together."""
    groups = []
    for request in range(_REQUESTS):
        arrival = Arrival(namespace="default", received_us=now_us, event_bytes_max=1 << 20)
        events = []
        for index in range(_PER_REQUEST):
            attributes = Attributes(
                id=f"replay-{number:06d}-{request:03d}-{index:03d}",
                source=f"bench/gateway-{shuffle.randrange(8)}",
                type="bench.request",
                subject=f"customer-{shuffle.randrange(2000):05d}",
                time_us=now_us - shuffle.randrange(10_000_000),
                datacontenttype="",
                dataschema="",
                extensions="",
            )
            data = (
                f'{{"tokens":{shuffle.randrange(1, 4000)},"model":"{shuffle.choice(_MODELS)}",'
                f'"route":"/v1/chat/completions","region":"eu-central",'
                f'"duration_ms":{shuffle.randrange(5, 9000)}}}'
            )
            events.append(encode(attributes, data.encode(), arrival))
        groups.append(Group(arrival.namespace, now_us, events))
    return encode_record(groups)


def _open_log(folder: Path) -> SegmentLog:
    # A reader that needs everything for ever: each round loads the same records again.
    return SegmentLog(folder / "log", SystemClock(), readers=(LOADER, ARCHIVE, "bench"))


def fill(folder: Path, events: int) -> dict[str, Any]:
    """Fills the log and archives it; tells how fast that was."""
    shuffle, clock, done = random.Random(5), SystemClock(), threading.Semaphore(0)
    records = events // (_PER_REQUEST * _REQUESTS)
    with closing(_open_log(folder)) as log:
        for number in range(records):
            record = _record(shuffle, number, clock.now_us())
            log.submit(0, [record], lambda _: done.release())
            done.acquire()
        archiver = Archiver(
            log=log,
            partition=0,
            objects=FolderObjects(folder / "objects"),
            limits=ArchiveLimits(events_max=250_000, slot_us=DAY_US),
            clock=_Tomorrow(),
        )
        archiver.prepare()
        began = time.perf_counter()
        while found := archiver.gather():
            archiver.archive(found)
        seconds = time.perf_counter() - began
        progress = archiver.progress
    return {"events": progress.events, "seconds": seconds, "bytes": progress.bytes}


class _Tomorrow(SystemClock):
    """Every file's time is over."""

    def now_us(self) -> int:
        return super().now_us() + 2 * DAY_US


def load(folder: Path, data: Path) -> dict[str, Any]:
    """Loads the log as the loader does, from its own start to the last row."""
    with closing(_open_log(folder)) as log, closing(Parts(Settings(data=data))) as parts:
        clickhouse = parts.get(open_clickhouse)
        migrate_clickhouse(clickhouse)
        limits = LoadLimits(
            events_max=50_000, wait_ms=200, window_us=35 * DAY_US, dead_letters_max=0
        )
        loader = Loader(
            log=log,
            partition=0,
            clickhouse=clickhouse,
            frontier=Frontier(clickhouse),
            limits=limits,
            clock=parts.clock,
        )
        began, never = time.perf_counter(), threading.Event()
        loader.prepare()
        while loader.progress.frontier < log.end(0):
            loader.load(loader.gather(never))
        return _told(parts, time.perf_counter() - began)


def load_again(folder: Path, data: Path) -> dict[str, Any]:
    """Replays the archive, from reading its manifest to the last row."""
    with closing(Parts(Settings(data=data))) as parts:
        migrate_clickhouse(parts.get(open_clickhouse))
        began = time.perf_counter()
        objects = FolderObjects(folder / "objects")
        plan = make_plan(objects, Period(), 35 * DAY_US)
        replay(parts, objects, plan, lambda _: None)
        return _told(parts, time.perf_counter() - began)


def _told(parts: Parts, seconds: float) -> dict[str, Any]:
    ((events,),) = parts.get(open_clickhouse).query(f"SELECT count() FROM {DATABASE}.events")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"events": events, "seconds": seconds, "resident_mib": peak}


def main(arguments: list[str]) -> int:
    """See the module."""
    kind, folder, data = arguments[0], Path(arguments[1]), Path(arguments[2])
    if kind == "fill":
        found = fill(folder, int(arguments[3]))
    elif kind == "load":
        found = load(folder, data)
    else:
        found = load_again(folder, data)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
