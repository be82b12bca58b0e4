"""The scheduled step: count again and seal, and what is known of it afterwards, as metrics."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from prometheus_client.core import GaugeMetricFamily, Metric

from tollgate.events.balance import Tally, read_total
from tollgate.events.seal import BEGINNING
from tollgate.events.seal_run import SealRun, open_recount_store, open_seal_store, open_sealer
from tollgate.platform.parts import Parts, open_clickhouse
from tollgate.platform.telemetry import gauge

_RECENT = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealFigures:
    """What the last run of this process left behind.

    Attributes:
        succeeded_at: when a run last sealed all that was due; None: none did.
        recent: what became of the events of the last 24 hours of receipt, of all namespaces.
        imbalanced_hours: of receipt, by namespace.
        blocked: namespaces that were not sealed.
        sealed_through: of the namespace that is furthest behind; None: none is sealed.
        revisions: of hours that changed after they were sealed.
    """

    succeeded_at: datetime | None
    recent: Tally
    imbalanced_hours: int
    blocked: int
    sealed_through: datetime | None
    revisions: int


class SealProgress:
    """What metrics read: never a store."""

    def __init__(self) -> None:
        self.figures: SealFigures | None = None


def open_seal_progress(parts: Parts) -> SealProgress:
    """Of this process."""
    del parts
    return SealProgress()


def recount_and_seal(parts: Parts) -> SealRun:
    """Counts the ledger again and seals what is due.

    May run twice, at once, or be killed anywhere. What could not be sealed says why in the answer,
    in the log and in metrics.

    Raises:
        Transient: SQL, ClickHouse or the log is away; the next run does it.
        PermanentFault: one of them refuses for good.
    """
    run = parts.get(open_sealer).run()
    _note(parts, run)
    return run


def _note(parts: Parts, run: SealRun) -> None:
    progress, store, now = (
        parts.get(open_seal_progress),
        parts.get(open_seal_store),
        parts.clock.now(),
    )
    before, off = progress.figures, parts.get(open_recount_store).imbalances()
    good = not run.problem and not run.blocked
    states = store.states().values()
    sealed = [s.sealed_through for s in states if s.sealed_through > BEGINNING]
    progress.figures = SealFigures(
        succeeded_at=now if good else before.succeeded_at if before else None,
        recent=read_total(parts.get(open_clickhouse), now - _RECENT, now),
        imbalanced_hours=len({(each.namespace, each.hour) for each in off}),
        blocked=len(run.blocked),
        sealed_through=min(sealed, default=None),
        revisions=store.count_revisions(),
    )


def seal_metrics(parts: Parts) -> Iterable[Metric]:
    """Figures of the last run of this process; none before the first."""
    figures = parts.get(open_seal_progress).figures
    if figures is None:
        return
    tally = figures.recent
    counts: Mapping[str, int] = {
        "accepted": tally.accepted,
        "stored": tally.stored,
        "duplicate": tally.duplicate,
        "conflict": tally.conflict,
        "dead": tally.dead,
        "corrections": tally.corrections,
    }
    family = GaugeMetricFamily(
        "tollgate_ledger_recent_events",
        "Events received in the last 24 hours, by what became of them.",
        labels=["outcome"],
    )
    for outcome, count in counts.items():
        family.add_metric([outcome], count)
    yield family
    yield gauge(
        "tollgate_ledger_imbalanced_hours",
        "Hours of receipt that do not balance: their namespaces are not sealed.",
        figures.imbalanced_hours,
    )
    yield gauge(
        "tollgate_seal_namespaces_blocked",
        "Namespaces that the last run did not seal; the log says why.",
        figures.blocked,
    )
    if figures.sealed_through is not None:
        lateness = timedelta(seconds=parts.settings.seal_lateness_seconds)
        late = parts.clock.now() - figures.sealed_through - lateness
        yield gauge(
            "tollgate_seal_delay_seconds",
            "How long after lateness the namespace that is furthest behind was not sealed; up to an"
            " hour and a run is usual.",
            late.total_seconds(),
        )
    if figures.succeeded_at is not None:
        yield gauge(
            "tollgate_seal_last_success",
            "When all that was due was last sealed, in seconds since 1970.",
            figures.succeeded_at.timestamp(),
        )
    yield gauge(
        "tollgate_seal_revisions",
        "Revisions of hours that changed after they were sealed, ever.",
        figures.revisions,
    )
