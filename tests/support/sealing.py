"""A namespace whose events are loaded, corrected and sealed in the test's own process."""

import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

from tests.support.loading import HOUR_US, NOON_US, NewStage, Stage, by_day
from tests.support.migrated import migrated_sqlite
from tollgate.core.clock import datetime_from_us
from tollgate.events.backfill import EXTENSION
from tollgate.events.correction import Action, Request, encode_correction, encode_key
from tollgate.events.event import Arrival, Attributes, column_time, encode
from tollgate.events.identity import key_hash, key_prefix
from tollgate.events.ledger import Frontier, read_frontier
from tollgate.events.position import Token
from tollgate.events.record import CORRECTIONS_VERSION, VERSION, Encoded, Group, encode_record
from tollgate.events.recount_store import RecountStore
from tollgate.events.seal_run import Sealer, SealRun
from tollgate.events.seal_store import SealStore
from tollgate.metering.meter import Aggregation, ManagedBy, Meter
from tollgate.metering.query import QueryBounds, run_query
from tollgate.metering.question import MeterQuery
from tollgate.platform.event_log import OneLayout
from tollgate.platform.sql import Database

BOUNDS = QueryBounds(rows_max=10_000, seconds_max=60)
LATENESS = timedelta(hours=1)
NOON = datetime_from_us(NOON_US)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """An event that uses `n` of something, some hours from noon."""

    id: str
    n: int = 1
    hour: int = 0
    subject: str = "u"
    model: str = "a"
    backfill: str = ""


class SealHouse:
    """One namespace, its log and its seals."""

    def __init__(self, stage: Stage, database: Database) -> None:
        self.stage = stage
        self.namespace = stage.namespace
        self.clickhouse = stage.clickhouse
        self.store = SealStore(database)
        self.recounts = RecountStore(database)
        # Other tests share the engine: what is older than this log is none of ours.
        generation = stage.log.generation
        self.recounts.save_recount(
            Token(generation=0, offsets={}), Token(generation=generation, offsets={}), ()
        )
        self._corrections = 0
        self._loader = stage.loader()

    def sealer(self, *, wait_ms: int = 5_000, slice_events_max: int = 4) -> Sealer:
        """As a process would have it."""
        return Sealer(
            clickhouse=self.clickhouse,
            layouts=OneLayout(self.stage.log),
            frontier=Frontier(self.clickhouse),
            store=self.store,
            recounts=self.recounts,
            clock=self.stage.clock,
            lateness=LATENESS,
            gapless=True,
            wait_ms=wait_ms,
            slice_events_max=slice_events_max,
        )

    def seal(self) -> SealRun:
        """A run that must not fail."""
        return self.sealer().run()

    def pass_hours(self, hours: int) -> None:
        """Moves the clock."""
        self.stage.clock.us += hours * HOUR_US

    def encoded(self, use: Use) -> Encoded:
        """The log's form of an event."""
        arrival = Arrival(
            namespace=self.namespace, received_us=self.stage.clock.us, event_bytes_max=1 << 20
        )
        attributes = Attributes(
            id=use.id,
            source="s",
            type="t",
            subject=use.subject,
            time_us=NOON_US + use.hour * HOUR_US + 1,
            datacontenttype="",
            dataschema="",
            extensions=f'{{"{EXTENSION}":"{use.backfill}"}}' if use.backfill else "",
        )
        return encode(attributes, f'{{"n":{use.n},"model":"{use.model}"}}'.encode(), arrival)

    def append(self, lines: Sequence[Encoded], version: int = VERSION) -> None:
        """Appends a record, and loads nothing."""
        group = Group(self.namespace, self.stage.clock.us, list(lines))
        answers: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
        self.stage.log.submit(0, [encode_record([group], version)], answers.put)
        assert isinstance(answers.get(timeout=10), int)

    def load(self) -> None:
        """Loads all that the log holds."""
        if not self._loader.progress.ready:
            self._loader.prepare()
        frontier = read_frontier(self.clickhouse, self.stage.log.generation, 0)
        for batch in by_day(self.stage.log.read(0, frontier, 1 << 24)):
            # Batches are of one kind; after a failure a loader starts over from the ledger.
            self._loader.progress.ready = False
            for record in batch:
                self._loader.load([record])
            self._loader.progress.ready = True

    def send(self, *uses: Use) -> None:
        """Events, loaded."""
        self.append([self.encoded(use) for use in uses])
        self.load()

    def correct(self, event_id: str, amended: Use | None = None, reason: str = "wrong") -> None:
        """A void, or an amendment; loaded."""
        self._corrections += 1
        action: Action = "void" if amended is None else "amend"
        request = Request(
            correction=f"c{self._corrections}",
            operation="",
            action=action,
            reason=reason,
            actor="someone",
            content="",
        )
        received = column_time(self.stage.clock.us)
        hashed = key_hash(key_prefix(self.namespace), "s", event_id)
        event = (
            encode_key((self.namespace, "s", event_id), received, hashed)
            if amended is None
            else self.encoded(amended)
        )
        self.append([encode_correction(request, event)], CORRECTIONS_VERSION)
        self.load()

    def meter(self, aggregation: Aggregation = Aggregation.SUM) -> Meter:
        """A meter of these events."""
        return Meter(
            id="01J00000000000000000000000",
            namespace=self.namespace,
            slug="m",
            name="m",
            description=None,
            metadata={},
            aggregation=aggregation,
            event_type="t",
            event_from=None,
            value_property=None if aggregation is Aggregation.COUNT else "$.n",
            group_by={"model": "$.model"},
            annotations={},
            managed_by=ManagedBy.API,
            created_at=NOON,
            updated_at=NOON,
            deleted_at=None,
        )

    def value(self, as_of: Token | None = None, hour: int | None = None) -> Decimal:
        """The sum, of one hour or of all."""
        start = None if hour is None else hour_at(hour)
        end = None if hour is None else hour_at(hour + 1)
        asked = MeterQuery(start=start, end=end, as_of=as_of)
        rows = run_query(self.clickhouse, self.meter(), asked, BOUNDS)
        return rows[0].value if rows else Decimal(0)


def hour_at(hour: int) -> datetime:
    """The begin of the hour that is so many from noon."""
    return NOON + timedelta(hours=hour)


@contextmanager
def open_house(stages: NewStage, folder: Path) -> Iterator[SealHouse]:
    """A house with a control plane of its own."""
    target = folder / "control.sqlite"
    target.write_bytes(migrated_sqlite())
    database = Database(f"sqlite:///{target}")
    try:
        with stages() as stage:
            yield SealHouse(stage, database)
    finally:
        database.dispose()
