"""Use case: what remains of entitlements, at an instant or over time.

Facts come from SQL, usage from the usage store; everything is exact to the microsecond.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby

from tollgate.core.errors import Fault, InvalidInput
from tollgate.limits.burn_down import BurnDown, run
from tollgate.limits.facts_store import Known, Metering
from tollgate.limits.history import History, Window, merged
from tollgate.limits.limit import Limit, decide
from tollgate.limits.plan import plan
from tollgate.limits.usage_reader import Need, UsageReader
from tollgate.metering.window import Windows

WINDOWS_MAX = 10_000
"""Windows of one history."""


def limits_at(reader: UsageReader, known: Sequence[Known], at: datetime) -> list[Limit]:
    """The decisions for entitlements at an instant, in their order.

    Entitlements that count by one meter in one way share a query, also of several customers.

    Raises:
        TooLarge: a balance changed too often since usage is measured.
        Transient: the usage store is away.
    """
    needs: dict[str, Need] = {}
    for each in known:
        if each.metering is not None and each.record.definition.is_active(at):
            needs[each.record.id] = Need(metering=each.metering, plan=plan(each.metering.facts, at))
    usages = reader.usages(list(needs.values()))
    balances = {
        entitlement_id: run(need.plan, usage).balance
        for (entitlement_id, need), usage in zip(needs.items(), usages, strict=True)
    }
    return [decide(it.record.definition, at, balances.get(it.record.id)) for it in known]


def burn_down(
    reader: UsageReader, metering: Metering, until: datetime, cuts: Sequence[datetime] = ()
) -> BurnDown:
    """How usage burned the grants of an entitlement up to an instant, cut at further ones."""
    planned = plan(metering.facts, until, cuts=cuts)
    (usages,) = reader.usages([Need(metering=metering, plan=planned)])
    return run(planned, usages)


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
