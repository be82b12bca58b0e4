"""Facts of entitlements, written short."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import reduce

from tollgate.core.decimals import EXACT
from tollgate.limits.burn_down import BurnDown, run
from tollgate.limits.grant import Expiration, ExpirationUnit, Grant
from tollgate.limits.interval import Interval
from tollgate.limits.plan import Facts, plan
from tollgate.limits.recurrence import Recurrence
from tollgate.limits.reset import Reset
from tollgate.limits.snapshot import Snapshot
from tollgate.limits.usage_kind import UsageKind

ZERO = Decimal(0)
START = datetime(2024, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    """An instant of UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def decimals(*numbers: str | int) -> tuple[Decimal, ...]:
    """Some quantities."""
    return tuple(map(Decimal, numbers))


def hour(number: int) -> datetime:
    """So many hours after the start of 2024."""
    return START + timedelta(hours=number)


def every(hours: int, anchor: int = 0) -> Recurrence:
    """A recurrence of elapsed hours."""
    return Recurrence(interval=Interval(elapsed=timedelta(hours=hours)), anchor=hour(anchor))


def grant(
    name: str,
    amount: str | int,
    begins: int = 0,
    lasts: int | None = None,
    rolls: tuple[int, int] = (0, 0),
    **others: object,
) -> Grant:
    """A grant that begins at an hour, lasts some, and rolls over within bounds.

    It is made when it begins, and burns like any other, if `others` do not say more.
    """
    expiration = lasts and Expiration(duration=ExpirationUnit.HOUR, count=lasts)
    given: dict[str, object] = {
        "created_at": hour(begins),
        "min_rollover": Decimal(rolls[0]),
        "max_rollover": Decimal(rolls[1]),
        **others,
    }
    return Grant(
        id=name,
        amount=Decimal(amount),
        effective_at=hour(begins),
        expiration=expiration or None,
        **given,  # type: ignore[arg-type]
    )


def reset(
    number: int, *, retain_anchor: bool = True, preserve_overage: bool | None = None
) -> Reset:
    """A reset by hand at an hour."""
    return Reset(
        effective_at=hour(number), retain_anchor=retain_anchor, preserve_overage=preserve_overage
    )


def facts(
    *grants: Grant,
    kind: UsageKind = UsageKind.FLOW,
    usage_period: Recurrence | None = None,
    resets: tuple[Reset, ...] = (),
    preserve_overage: bool = False,
) -> Facts:
    """Usage measured from hour 0, in periods of 100 hours if no others are given."""
    return Facts(
        kind=kind,
        usage_period=usage_period or every(100),
        measure_usage_from=START,
        grants=grants,
        resets=resets,
        preserve_overage_at_reset=preserve_overage,
    )


def burn_down(
    known: Facts,
    usage: Mapping[int, str | int],
    until: int,
    *,
    snapshot: Snapshot | None = None,
    cuts: tuple[int, ...] = (),
) -> BurnDown:
    """Folds usage that happens at the starts of hours.

    Flows and distinct counts are given by what they add, levels by what they become.
    """
    planned = plan(known, hour(until), snapshot=snapshot, cuts=[hour(cut) for cut in cuts])
    amounts = {hour(number): Decimal(amount) for number, amount in usage.items()}
    quantities = []
    for asked in planned.intervals():
        inside = [amounts[it] for it in sorted(amounts) if asked.holds(it)]
        if known.kind is UsageKind.LEVEL:
            quantities.append(inside[-1] if inside else ZERO)
        else:
            quantities.append(reduce(EXACT.add, inside, ZERO))
    return run(planned, quantities)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is known, what is used, and what there is at some hours."""

    name: str
    known: Facts
    usage: Mapping[int, str | int] = field(default_factory=dict)
    # hour, by grant, usage, overage, total available
    expected: list[tuple[int, dict[str, str | int], str | int, str | int, str | int]]


def check(case: Case) -> None:
    """Compares each figure of a balance with the one worked out."""
    for until, by_grant, usage, overage, total in case.expected:
        found = burn_down(case.known, case.usage, until).balance
        assert dict(found.by_grant) == {name: Decimal(it) for name, it in by_grant.items()}, until
        assert list(found.by_grant) == list(by_grant), "in burn order"
        assert found.remaining == reduce(EXACT.add, map(Decimal, by_grant.values()), ZERO), until
        figures = (found.usage, found.overage, found.total_available)
        assert figures == decimals(usage, overage, total), until
