"""What a schedule is like: drawn from its seed."""

import random
from dataclasses import dataclass

from tests.schedules.clocks import DAY_US, SECOND_US
from tollgate.platform.event_log import ARCHIVE, LOADER

WINDOW_US = 4 * DAY_US


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The world of a schedule.

    Attributes:
        seed: all else, and every choice, follows from it.
        embedded: one process with a log of one partition that forgets what is loaded; else as on a
            broker: processes apart, and a loader that was sent away may still be at work.
        partitions: of the log.
        window_us: of dedupe; 0: for ever.
        clients: how many send side by side.
        requests: how many each sends.
        fault_rate: of calls to a dependency, in 1000.
        event_rate: of things that happen to the world, in 1000 steps.
        record_bytes_max: small, so that a request may need several records.
        log_bytes_max: of what is not loaded; embedded, more is refused.
        events_max: of a load batch.
        seals: whether hours are sealed meanwhile.
        archives: whether records are archived meanwhile, and loaded from there in the end.
        skew_us: how far clocks may be apart.
    """

    seed: int
    embedded: bool
    partitions: int
    window_us: int
    clients: int
    requests: int
    fault_rate: int
    event_rate: int
    record_bytes_max: int
    log_bytes_max: int
    events_max: int
    seals: bool
    archives: bool
    skew_us: int


def options_of(seed: int) -> Options:
    """The same for the same seed."""
    chance = random.Random(f"options {seed}")
    embedded = chance.random() < 0.35
    return Options(
        seed=seed,
        embedded=embedded,
        partitions=1 if embedded else chance.choice((1, 2, 3)),
        window_us=chance.choice((0, 0, WINDOW_US)),
        clients=chance.randint(1, 3),
        requests=chance.randint(3, 12),
        fault_rate=chance.choice((0, 10, 30, 80)),
        event_rate=chance.choice((10, 40, 120)),
        record_bytes_max=chance.choice((700, 1500, 1 << 20)),
        log_bytes_max=chance.choice((2000, 1 << 20)),
        events_max=chance.choice((1, 3, 20)),
        archives=chance.random() < 0.25,
        seals=chance.random() < 0.25,
        skew_us=chance.choice((0, 5, 600, 12 * 3600)) * SECOND_US,
    )


def readers_of(options: Options) -> tuple[str, ...]:
    """Who reads the log to its end."""
    return (LOADER, ARCHIVE) if options.archives else (LOADER,)
