"""What a loader may do, and what it has done."""

from dataclasses import dataclass, field

from tollgate.events.batch import OUTCOMES


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLimits:
    """Bounds of one batch.

    Attributes:
        events_max: events in a batch (a batch holds whole records, so one record more at most).
        wait_ms: how long a batch is gathered, from the append of its first record; up to twice as
            long when writing takes long.
        window_us: how long a key is claimed; 0: for ever.
        dead_letters_max: in an hour of the log's time. With more, something is wrong that a person
            must look at, and loading stops.
    """

    events_max: int
    wait_ms: int
    window_us: int
    dead_letters_max: int


@dataclass(slots=True, kw_only=True)
class LoadProgress:
    """What a loader has done since it started; read by `/metrics`.

    Attributes:
        counts: events by outcome.
        corrections: corrections loaded.
        batches, failures: batches written, and tries that failed and were repeated.
        frontier: last offset loaded.
        known: whether the ledger has ever said so; a store that goes away leaves it known.
        loaded_through_us: append time of the last record loaded.
        last_failure: what the last failed try met; "" once a batch was written.
        stopped: it will not pass by itself; a person has to look.
    """

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    corrections: int = 0
    batches: int = 0
    failures: int = 0
    frontier: int = -1
    known: bool = False
    loaded_through_us: int = 0
    seconds: float = 0.0  # tidy: allow-float -- time spent writing, not a quantity
    last_failure: str = ""
    stopped: bool = False
    ready: bool = False
