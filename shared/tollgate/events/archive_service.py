"""The archiver as a function.

Embedded: a thread for every partition of the log, as long as the process runs. On Kafka: for the
partitions that the group of archivers gives to this process. Without object storage in the
settings there is nothing to do.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from tollgate.core.errors import TollgateError, Transient
from tollgate.events.archive import ArchiveLimits, Archiver, require_same_log
from tollgate.events.archive_chain import RECORDS, Chain
from tollgate.events.archive_ledger import LedgerArchiver
from tollgate.events.archive_workers import ArchiveWorkers
from tollgate.events.ledger import Partition
from tollgate.platform.access import KeyIndex, Scope
from tollgate.platform.application import send_reply
from tollgate.platform.body import Receive, Send, header
from tollgate.platform.body import Scope as Request
from tollgate.platform.event_log import EventLog
from tollgate.platform.keys import open_keys
from tollgate.platform.objects import Objects, open_objects
from tollgate.platform.parts import Parts, open_clickhouse, open_layouts, open_log
from tollgate.platform.telemetry import counter, gauge

if TYPE_CHECKING:
    from tollgate.platform.kafka_group import GroupMember

_SECOND_US = 1_000_000
_log = logging.getLogger(__name__)


class ArchiveService:
    """The service of `functions/archive`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._keys: KeyIndex = parts.get(open_keys)
        self._workers: ArchiveWorkers | None = None
        self._member: GroupMember | None = None
        self._was_ready = False

    async def start(self) -> None:
        """Begins to archive, or to join the group."""
        settings = self._parts.settings
        objects = self._parts.get(open_objects)
        if objects is None:
            return
        workers = self._workers = self._open_workers(objects)
        if not settings.log_url.startswith("kafka:"):
            await asyncio.to_thread(self._archive_everything, workers, objects)
            return
        from tollgate.platform.kafka_client import archive_place
        from tollgate.platform.kafka_group import GroupMember

        self._member = GroupMember(archive_place(settings), workers)
        workers.start()
        self._member.start()

    def _open_workers(self, objects: Objects) -> ArchiveWorkers:
        parts, settings = self._parts, self._parts.settings
        limits = ArchiveLimits(
            events_max=settings.archive_events_max, slot_us=settings.archive_seconds * _SECOND_US
        )

        def new_archiver(log: EventLog, partition: int) -> Archiver:
            archiver = Archiver(
                log=log, partition=partition, objects=objects, limits=limits, clock=parts.clock
            )
            archiver.on_archived = self._archived
            return archiver

        def new_ledger(place: Partition) -> LedgerArchiver:
            return LedgerArchiver(objects, parts.get(open_clickhouse), place, parts.clock)

        return ArchiveWorkers(parts.get(open_layouts), new_archiver, new_ledger)

    def _archived(self, generation: int, partition: int, offset: int) -> None:
        if self._member is not None:
            self._member.commit(generation, partition, offset)

    def _archive_everything(self, workers: ArchiveWorkers, objects: Objects) -> None:
        """Refuses to start where the archive knows more than this folder: it must take nothing."""
        log = self._parts.get(open_log)
        for partition in range(log.partitions):
            try:
                frontier = Chain(objects, RECORDS, log.generation, partition).look()
            except Transient as away:
                _log.warning("the archive can't be asked yet", extra={"problem": away.detail})
            else:
                require_same_log(log, partition, objects, frontier)
        workers.start()
        workers.assigned([(log.generation, p) for p in range(log.partitions)])

    async def stop(self) -> None:
        """Lets the files at hand be stored, gives back the partitions, ends the threads."""
        if self._member is not None:
            await asyncio.to_thread(self._member.stop)
        if self._workers is not None:
            await asyncio.to_thread(self._workers.stop)

    async def tend(self) -> None:
        """Housekeeping: says which closed generations are archived to their ends."""
        if self._member is not None and self._workers is not None:
            await asyncio.to_thread(self._commit_ends, self._member, self._workers)

    def _commit_ends(self, member: "GroupMember", workers: ArchiveWorkers) -> None:
        layouts = self._parts.get(open_layouts)
        newest = layouts.newest()
        for worker in workers.workers():
            generation, partition = worker.partition
            if generation < newest and worker.archiver is not None:
                progress = worker.archiver.progress
                if progress.ready and progress.frontier >= layouts.open(generation).end(partition):
                    member.commit_end(generation, partition)

    def unreadiness(self) -> str:
        """Ready once all that is ours knew how far the archive goes; from then on, for good."""
        if self._was_ready or self._workers is None:
            return ""
        if self._member is not None and not self._member.joined:
            return self._member.failure or "joining the group of archivers"
        for worker in self._workers.workers():
            if reason := worker.unreadiness():
                return reason
        self._was_ready = True
        return ""

    def metrics(self) -> Iterable[Metric]:
        """What was archived, and how far behind it is."""
        if self._workers is None:
            return
        total, workers = self._workers.total(), self._workers.workers()
        archivers = [w.archiver for w in workers if w.archiver is not None]
        yield counter("tollgate_archive_events", "Events archived.", [({}, total.events)])
        yield counter("tollgate_archive_files", "Files of records stored.", [({}, total.files)])
        yield counter("tollgate_archive_bytes", "Their bytes.", [({}, total.bytes)])
        yield counter(
            "tollgate_archive_gaps",
            "Rows of offsets that the log had forgotten before they were archived.",
            [({}, total.gaps)],
        )
        yield counter(
            "tollgate_archive_failures",
            "Tries that were repeated.",
            [
                ({"of": "records"}, total.failures),
                ({"of": "ledger"}, self._workers.ledger_failures),
            ],
        )
        yield gauge("tollgate_archive_partitions", "Partitions that are ours.", len(workers))
        yield gauge(
            "tollgate_archive_partitions_stopped",
            "Partitions of which nothing is archived before a person has looked; the log says why.",
            sum(1 for each in archivers if each.progress.stopped),
        )
        yield gauge(
            "tollgate_archive_lag_records",
            "Records of our partitions and not yet archived; a file is stored when it is full or"
            " its time is over.",
            self._lag(self._workers),
        )

    def _lag(self, workers: ArchiveWorkers) -> int:
        layouts, lag = self._parts.get(open_layouts), 0
        for worker in workers.workers():
            generation, partition = worker.partition
            if worker.archiver is None or not worker.archiver.progress.ready:
                continue
            try:
                end = layouts.open(generation).end(partition)
            except TollgateError:
                continue  # the log is away: what it holds is unknown
            lag += max(0, end - worker.archiver.progress.frontier)
        return lag

    async def __call__(self, scope: Request, receive: Receive, send: Send) -> None:
        """A wake-up: archivers that are awake need none."""
        del receive
        access = self._keys.check(header(scope, b"authorization"), self._parts.clock)
        access.require(Scope.ADMIN)
        await send_reply(send, 204, [], b"")
