"""Use case: what remains of entitlements, at an instant or over time.

Facts come from SQL, usage from the usage store; everything is exact to the microsecond.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby

from tollgate.core.errors import Fault, InvalidInput, TooLarge
from tollgate.limits.balance import Balance
from tollgate.limits.burn_down import BurnDown, Segment, run
from tollgate.limits.facts_store import Known, Metering
from tollgate.limits.history import History, Window, merged
from tollgate.limits.limit import Limit, decide
from tollgate.limits.plan import BOUNDARY_COUNT_MAX, Facts, Plan, plan
from tollgate.limits.snapshot import Snapshot
from tollgate.limits.usage_reader import Need, UsageReader
from tollgate.metering.window import Windows

WINDOWS_MAX = 10_000
"""Windows of one history."""
PIECES_MAX = 16
"""Of a burn-down, each of thousands of changes: more than 18 years of hourly periods."""


def limits_at(reader: UsageReader, known: Sequence[Known], at: datetime) -> list[Limit]:
    """The decisions for entitlements at an instant, in their order.

    Entitlements that count by one meter in one way share a query, also of several customers.

    Raises:
        TooLarge: a balance changed too often since usage is measured.
        Transient: the usage store is away.
    """
    needs: dict[str, Need] = {}
    balances: dict[str, Balance] = {}
    for each in known:
        if each.metering is None or not each.record.definition.is_active(at):
            continue
        try:
            planned = plan(each.metering.facts, at)
        except TooLarge:
            balances[each.record.id] = burn_down(reader, each.metering, at).balance
        else:
            needs[each.record.id] = Need(metering=each.metering, plan=planned)
    usages = reader.usages(list(needs.values()))
    for (entitlement_id, need), usage in zip(needs.items(), usages, strict=True):
        balances[entitlement_id] = run(need.plan, usage).balance
    return [decide(it.record.definition, at, balances.get(it.record.id)) for it in known]


def burn_down(
    reader: UsageReader, metering: Metering, until: datetime, cuts: Sequence[datetime] = ()
) -> BurnDown:
    """How usage burned the grants of an entitlement up to an instant, cut at further ones.

    What has more changes than one plan takes is folded piece by piece, each from where the one
    before it ended: that gives the same.

    Raises:
        TooLarge: it would take more than `PIECES_MAX` pieces.
    """
    facts = metering.facts
    segments: list[Segment] = []
    snapshot: Snapshot | None = None
    for _ in range(PIECES_MAX):
        planned = _next_plan(facts, until, snapshot, cuts)
        (usages,) = reader.usages([Need(metering=metering, plan=planned)])
        found = run(planned, usages)
        segments += found.segments
        if planned.until == until:
            return replace(found, segments=tuple(segments))
        snapshot = found.snapshot
    raise TooLarge(f"a balance changed over {PIECES_MAX * BOUNDARY_COUNT_MAX // 2} times")


def _next_plan(
    facts: Facts, until: datetime, snapshot: Snapshot | None, cuts: Sequence[datetime]
) -> Plan:
    """The plan up to an instant, or to an earlier one if that has too many changes."""
    start = facts.measure_usage_from if snapshot is None else snapshot.at
    while True:
        try:
            return plan(facts, until, snapshot=snapshot, cuts=cuts)
        except TooLarge:
            until = start + (until - start) / 2


def history(reader: UsageReader, metering: Metering, windows: Windows) -> History:
    """What was used and what remained, by windows and by what changed the balance.

    Args:
        reader: of usage.
        metering: the entitlement.
        windows: with both bounds; what is outside of the entitlement's time is left out.

    Raises:
        InvalidInput: nothing of the entitlement is in the period, or it has too many windows.
        TooLarge: a balance changed too often since usage is measured.
        Transient: the usage store is away.
    """
    known = metering.entitlement
    assert windows.low is not None
    assert windows.high is not None
    start, end = max(windows.low, known.measure_usage_from), windows.high
    if known.active_to is not None:
        end = min(end, known.active_to)
    if start >= end:
        message = "the period ends before it begins, or before the entitlement does"
        raise InvalidInput((Fault(field="to", code="empty_period", message=message),))
    cuts = [start]
    for opened, _ in windows.tile():
        if len(cuts) > WINDOWS_MAX:
            message = f"gives over {WINDOWS_MAX} windows; ask for a shorter period, or larger ones"
            raise InvalidInput((Fault(field="windowSize", code="too_many_rows", message=message),))
        cuts.append(opened)
    found = burn_down(reader, metering, end, cuts)
    segments = [segment for segment in found.segments if segment.start >= start]
    kind = metering.facts.kind
    by_window = groupby(segments, lambda segment: windows.start_of(segment.start))
    return History(
        windows=tuple(Window.of(list(inside), kind) for _, inside in by_window),
        segments=tuple(merged(segments, kind)),
    )
