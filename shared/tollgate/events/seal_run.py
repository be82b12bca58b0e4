"""Use case: count the ledger again, then seal the hours that are over.

Scheduled. May run twice, at once, or be killed anywhere: the recount goes on from where the last
one was saved, a namespace is sealed in one transaction or not. Any store that is away ends the run;
the next one does what is left.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from tollgate.core.clock import Clock
from tollgate.core.errors import Conflict, PermanentFault, TollgateError
from tollgate.events.as_of import vector_now
from tollgate.events.imbalance import EVERYBODY, Imbalance, Slice
from tollgate.events.late import HOURS_MAX, Range, read_active, read_late, read_range
from tollgate.events.ledger import (
    Frontier,
    open_frontier,
    read_frontiers_after,
    read_newest_generation,
)
from tollgate.events.position import Token, covers, joined
from tollgate.events.recount import SLICE_EVENTS_MAX, LogCheck, merged, read_slices, recount
from tollgate.events.recount_store import RecountStore
from tollgate.events.seal import (
    BEGINNING,
    Late,
    Seal,
    SealState,
    require_sealable,
    sealable_through,
    summary,
    unloaded_text,
)
from tollgate.events.seal_store import SealStore
from tollgate.platform.clickhouse import ClickHouse
from tollgate.platform.database import open_database
from tollgate.platform.event_log import Layouts
from tollgate.platform.parts import Parts, open_clickhouse, open_layouts

_log = logging.getLogger(__name__)
WAIT_MS: Final = 60_000
"""How long a run waits until all is loaded that the log held when it began."""
Ends = dict[tuple[int, int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SealRun:
    """What a run did.

    Attributes:
        through: hours before it are over, lateness included.
        vector: up to which all was loaded and counted; None: that far it did not come.
        sealed: what was sealed, by namespace.
        blocked: why others were not, by namespace.
        problem: why nothing could be sealed; "" if nothing spoke against it.
    """

    through: datetime
    vector: Token | None = None
    sealed: Mapping[str, tuple[Seal, ...]] = field(default_factory=dict)
    blocked: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealer:
    """Everything that sealing needs.

    Attributes:
        clickhouse, layouts, frontier, store, recounts, clock: the parts.
        lateness: how long after its end an hour still takes events.
        gapless: every offset of the log is a record's.
        wait_ms: how long a run waits for the loader.
        slice_events_max: how many events are counted at once.
    """

    clickhouse: ClickHouse
    layouts: Layouts
    frontier: Frontier
    store: SealStore
    recounts: RecountStore
    clock: Clock
    lateness: timedelta
    gapless: bool
    wait_ms: int = WAIT_MS
    slice_events_max: int = SLICE_EVENTS_MAX

    def run(self) -> SealRun:
        """Counts again, and seals what can be.

        Raises:
            Transient: a store is away. What was done by then stays.
            PermanentFault: a store refuses for good.
        """
        # The clock first: what the log holds after that is all that came in time.
        through = sealable_through(self.clock.now(), self.lateness)
        try:
            ends = self._ends()
        except PermanentFault as fault:
            return SealRun(through=through, problem=fault.detail)
        recounted = self.recounts.recounted()
        wanted = dict(ends)
        for partition, offset in recounted.offsets.items():
            key = (recounted.generation, partition)
            wanted[key] = max(offset, wanted.get(key, -1))
        if not self.frontier.reach(wanted, self.wait_ms):
            return SealRun(through=through, problem=self._unloaded(wanted))
        vector = joined(recounted, self._vector(ends))
        try:
            self._recount(recounted, vector)
        except Conflict as other:
            return SealRun(through=through, problem=other.detail)
        return self._seal_all(through, vector)

    def _ends(self) -> Ends:
        """The last offset of every partition that has records.

        Raises:
            Transient: the log is away.
            PermanentFault: it is not the log of this ledger, so its ends say nothing.
        """
        ends: Ends = {}
        generations = self.layouts.generations()
        newest = read_newest_generation(self.clickhouse)
        if max(generations, default=0) < max(1, newest):
            shown = ", ".join(map(str, generations)) or "none"
            raise PermanentFault(
                f"the ledger has records of generation {newest}, the event log has generations:"
                f" {shown}. Is TOLLGATE_LOG_URL the log that was loaded?"
            )
        for generation in generations:
            log = self.layouts.open(generation)
            for partition in range(log.partitions):
                end = log.end(partition)
                if end >= 0:
                    ends[generation, partition] = end
        return ends

    def _vector(self, ends: Ends) -> Token:
        newest = max((generation for generation, _ in ends), default=0)
        if not newest:
            # Nothing was written to this generation yet: the ledger has all of those before.
            return vector_now(self.clickhouse)
        return Token(generation=newest, offsets={p: o for (g, p), o in ends.items() if g == newest})

    def _unloaded(self, wanted: Ends) -> str:
        loaded = read_frontiers_after(self.clickhouse, dict.fromkeys(wanted))
        return "not loaded yet: " + (summary(unloaded_text(wanted, loaded)) or "a moment too late")

    def _recount(self, recounted: Token, vector: Token) -> None:
        logs = {each: self.layouts.open(each) for each in self.layouts.generations()}
        with LogCheck(self.clickhouse, logs, gapless=self.gapless) as check:
            for part in sorted({each.part for each in self.recounts.imbalances()}):
                found, _ = self._count(check, part)
                self.recounts.replace_imbalances(part, found)
            for part in read_slices(self.clickhouse, recounted, vector, self.slice_events_max):
                found, namespaces = self._count(check, part)
                for each in found:
                    _log.error("the ledger does not balance", extra={"problem": str(each)})
                offsets = dict(recounted.offsets) if part.generation == recounted.generation else {}
                offsets[part.partition] = part.through
                done = Token(generation=part.generation, offsets=offsets)
                self.recounts.save_recount(recounted, done, found, namespaces)
                recounted = done
        if recounted != vector:
            self.recounts.save_recount(recounted, vector, ())

    def _count(self, check: LogCheck, part: Slice) -> tuple[list[Imbalance], set[str]]:
        ledger, found = recount(self.clickhouse, part)
        found += check.check(part)
        return merged(found, self.clock.now()), {namespace for namespace, _ in ledger}

    def _seal_all(self, through: datetime, vector: Token) -> SealRun:
        sealed: dict[str, tuple[Seal, ...]] = {}
        blocked: dict[str, str] = {}
        due: dict[str, dict[str, SealState]] = {}
        off = self.recounts.imbalances()
        for namespace, state in sorted(self.store.states().items()):
            reason = blocking(namespace, state, off)
            if reason:
                blocked[namespace] = reason
            elif through > state.sealed_through:
                due.setdefault(str(state.vector), {})[namespace] = state
        for group in due.values():
            # All that were sealed by the same run have the same range to look through.
            part = self._range(next(iter(group.values())), vector)
            active = read_active(self.clickhouse, part)
            late = self._late(part, group)
            for namespace, state in group.items():
                changed = late.get(namespace, {})
                if len(changed) > HOURS_MAX:
                    blocked[namespace] = (
                        f"more than {HOURS_MAX:,} sealed hours have changed: look at what was sent,"
                        " then seal by force"
                    )
                    continue
                seal = self._seal(state, through, part.end)
                idle = namespace not in active
                try:
                    sealed[namespace] = self.store.seal(namespace, state, seal, changed, idle=idle)
                except Conflict as other:
                    blocked[namespace] = other.detail
        for namespace, reason in blocked.items():
            _log.warning("not sealed", extra={"namespace": namespace, "problem": reason})
        return SealRun(through=through, vector=vector, sealed=sealed, blocked=blocked)

    def _range(self, state: SealState, vector: Token) -> Range:
        return read_range(self.clickhouse, state.vector, joined(state.vector, vector))

    def _late(self, part: Range, group: Mapping[str, SealState]) -> dict[str, dict[datetime, Late]]:
        before = {n: s.sealed_through for n, s in group.items() if s.sealed_through > BEGINNING}
        if not before:
            return {}
        found = read_late(self.clickhouse, part, max(before.values()), sorted(before))
        return {
            namespace: {hour: late for hour, late in hours.items() if hour < before[namespace]}
            for namespace, hours in found.items()
        }

    def _seal(self, state: SealState, through: datetime, vector: Token) -> Seal:
        return Seal(
            start=state.sealed_through,
            end=through,
            revision=1,
            vector=vector,
            sealed_at=self.clock.now(),
        )

    def force(self, namespace: str, through: datetime, reason: str, actor: str) -> tuple[Seal, ...]:
        """Seals hours up to an instant, whatever speaks against it, and says what did.

        Imbalances known by now keep the namespace from sealing no longer. The log may be away.

        Returns:
            what was sealed, and the revisions of hours that had changed.

        Raises:
            InvalidInput: `through` is no whole hour, or not over.
            Conflict: these hours are sealed, or are being sealed just now.
            Transient: SQL or ClickHouse is away.
        """
        require_sealable(through, self.clock.now())
        state = self.store.state(namespace)
        if through <= state.sealed_through:
            end = state.sealed_through.isoformat().replace("+00:00", "Z")
            raise Conflict(f"the hours before {end} are sealed already")
        part = self._range(state, vector_now(self.clickhouse))
        seal = Seal(
            start=state.sealed_through,
            end=through,
            revision=1,
            vector=part.end,
            sealed_at=self.clock.now(),
            kind="forced",
            reason=reason,
            actor=actor,
            missing=tuple(self._missing(namespace, state, through, part.end)),
        )
        late = self._late(part, {namespace: state}).get(namespace, {})
        return self.store.seal(namespace, state, seal, late)

    def _missing(
        self, namespace: str, state: SealState, through: datetime, vector: Token
    ) -> Sequence[str]:
        missing = []
        if through > sealable_through(self.clock.now(), self.lateness):
            missing.append("the allowed lateness of these hours was not over")
        try:
            ends = self._ends()
            missing += unloaded_text(
                ends, read_frontiers_after(self.clickhouse, dict.fromkeys(ends))
            )
        except TollgateError as away:
            missing.append(f"what the log held was unknown: {away.detail}")
        if not covers(self.recounts.recounted(), vector):
            missing.append("not all of the ledger was counted again")
        if reason := blocking(namespace, state, self.recounts.imbalances(namespace)):
            missing.append(reason)
        return missing


def blocking(namespace: str, state: SealState, off: Sequence[Imbalance]) -> str:
    """Why imbalances keep a namespace from sealing; "" if they do not."""
    mine = [
        each
        for each in off
        if each.namespace in (namespace, EVERYBODY)
        and (state.accepted_at is None or each.found_at > state.accepted_at)
    ]
    return f"the ledger does not balance: {summary(mine)}" if mine else ""


def open_seal_store(parts: Parts) -> SealStore:
    """The seals of the control plane."""
    return SealStore(parts.get(open_database))


def open_recount_store(parts: Parts) -> RecountStore:
    """The recount of the control plane."""
    return RecountStore(parts.get(open_database))


def open_sealer(parts: Parts) -> Sealer:
    """The sealer of this process."""
    settings = parts.settings
    return Sealer(
        clickhouse=parts.get(open_clickhouse),
        layouts=parts.get(open_layouts),
        frontier=parts.get(open_frontier),
        store=parts.get(open_seal_store),
        recounts=parts.get(open_recount_store),
        clock=parts.clock,
        lateness=timedelta(seconds=settings.seal_lateness_seconds),
        gapless=not settings.log_url.startswith("kafka:"),
    )
