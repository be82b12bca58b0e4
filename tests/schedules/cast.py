"""Who is at work in a schedule."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.schedules.edges import Copy
from tests.schedules.ingesting import CorrectionCopy, IngestCopy
from tests.schedules.turns import Turn, TurnEvent
from tollgate.events.load import Loader


@dataclass(slots=True, kw_only=True, eq=False)
class LoaderRun:
    """A loader of one partition and the thread that it runs in."""

    copy: Copy
    partition: int
    loader: Loader
    stop: TurnEvent
    turn: Turn


@dataclass(slots=True, kw_only=True, eq=False)
class ArchiverRun:
    """An archiver of one partition."""

    copy: Copy
    partition: int


@dataclass(slots=True, kw_only=True, eq=False)
class Actor:
    """Somebody who can take a step. Its weight says how often, its sleep that it does not."""

    name: str
    step: Callable[[], None]
    runnable: Callable[[], bool]
    owner: object
    weight: int = 1
    asleep: bool = False


@dataclass(slots=True, kw_only=True)
class Cast:
    """Who is at work now."""

    ingests: list[IngestCopy] = field(default_factory=list)
    corrections: list[CorrectionCopy] = field(default_factory=list)
    loaders: list[LoaderRun] = field(default_factory=list)
    archivers: list[ArchiverRun] = field(default_factory=list)
    sealing: list[Copy] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
