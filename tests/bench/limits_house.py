"""Ten thousand customers with three features each, and ten million events of theirs."""

import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Final

import sqlalchemy as sa

from tests.bench.load_generator import Target, run_closed_loop
from tollgate.core.ids import new_ulid
from tollgate.customers.attribution_store import attributions
from tollgate.customers.customer_store import customers
from tollgate.limits.dimension_filter import filter_from_v1, stored_from_filter
from tollgate.limits.entitlement import IssueAfterReset, MeteredEntitlement
from tollgate.limits.entitlement_tables import (
    entitlements,
    grants,
    row_of_entitlement,
    row_of_grant,
)
from tollgate.limits.feature_store import features
from tollgate.limits.interval import Interval
from tollgate.limits.recurrence import Recurrence
from tollgate.metering.store import meters
from tollgate.platform.sql import Database

CUSTOMERS: Final = 10_000
FEATURES: Final = ("tokens", "calls", "large_tokens")
HOT: Final = "hot"
PROBE: Final = "probe"
TYPE: Final = "bench.limit"
MORE_METERS: Final = f"""\
  - slug: limit_tokens
    eventType: {TYPE}
    aggregation: SUM
    valueProperty: $.tokens
    groupBy:
      model: $.model
  - slug: limit_calls
    eventType: {TYPE}
    aggregation: COUNT
"""
_NS: Final = "default"
_BATCH: Final = 100
_TEMPLATES: Final = 64


@dataclass(frozen=True, kw_only=True)
class Seeded:
    """What was put into the control plane."""

    customers: int
    entitlements: int


def seed(url: str) -> Seeded:
    """Put customers, features and entitlements into the control plane, as its stores would.

    One by one they would take minutes; what is measured is how they are used.
    """
    database = Database(url)
    now = datetime.now(UTC)
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    names = [f"customer-{number:05d}" for number in range(CUSTOMERS)] + [HOT, PROBE]
    ids = {name: new_ulid() for name in names}
    kept = {key: new_ulid() for key in FEATURES}
    with database.begin() as connection:
        rows = connection.execute(sa.select(meters.c.slug, meters.c.id))
        of_meter = {row.slug: row.id for row in rows}
        connection.execute(sa.insert(customers), [_customer(n, i, now) for n, i in ids.items()])
        connection.execute(
            sa.insert(attributions),
            [
                {
                    "id": new_ulid(),
                    "namespace": _NS,
                    "customer_id": owner,
                    "subject_key": subject,
                    "origin": origin,
                }
                for name, owner in ids.items()
                for subject, origin in ((name, "key"), (owner, "id"))
            ],
        )
        connection.execute(
            sa.insert(features), [_feature(key, i, of_meter, now) for key, i in kept.items()]
        )
        rights, given = _rights(ids.values(), kept, month, now)
        for start in range(0, len(rights), 5000):
            connection.execute(sa.insert(entitlements), rights[start : start + 5000])
            connection.execute(sa.insert(grants), given[start : start + 5000])
    database.dispose()
    return Seeded(customers=len(ids), entitlements=len(rights))


def _rights(
    owners: Iterable[str], kept: Mapping[str, str], month: datetime, now: datetime
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Rows of a right of each customer to each feature, and of the grants that they issue."""
    period = Recurrence(interval=Interval.parse("MONTH"), anchor=month)
    rights: list[dict[str, object]] = []
    given: list[dict[str, object]] = []
    for owner in owners:
        for key, feature in kept.items():
            made = MeteredEntitlement(
                id=new_ulid(),
                customer_id=owner,
                feature_key=key,
                created_at=now,
                active_from=now,
                usage_period=period,
                measure_usage_from=month,
                issue_after_reset=IssueAfterReset(amount=Decimal(10) ** 12),
            )
            rights.append(
                row_of_entitlement(made, period)
                | {
                    "namespace": _NS,
                    "feature_id": feature,
                    "annotations": {},
                    "updated_at": now,
                    "version": 1,
                    "changed_at": now,
                }
            )
            grant = made.default_grant(new_ulid())
            assert grant is not None
            given.append(
                row_of_grant(grant)
                | {"namespace": _NS, "entitlement_id": made.id, "annotations": {}}
            )
    return rights, given


def _customer(name: str, customer_id: str, now: datetime) -> dict[str, object]:
    return {
        "id": customer_id,
        "namespace": _NS,
        "key": name,
        "name": name,
        "metadata": {},
        "annotations": {},
        "created_at": now,
        "updated_at": now,
    }


def _feature(
    key: str, feature_id: str, of_meter: dict[str, str], now: datetime
) -> dict[str, object]:
    slug = "limit_calls" if key == "calls" else "limit_tokens"
    conditions = {}
    if key == "large_tokens":
        conditions = {"model": stored_from_filter(filter_from_v1({"$eq": "large"}, "model"))}
    return {
        "id": feature_id,
        "namespace": _NS,
        "key": key,
        "name": key,
        "metadata": {},
        "meter_id": of_meter[slug],
        "meter_slug": slug,
        "conditions": conditions,
        "dimensions": sorted(conditions),
        "created_at": now,
        "updated_at": now,
    }


def event_requests(name: str) -> Callable[[], bytes]:
    """Return a function that gives POSTs of a hundred events, none of whose ids came before."""
    shuffle, numbers = random.Random(11), count()
    time = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=1, microsecond=0)
    text = time.isoformat().replace("+00:00", "Z")
    templates = []
    for _ in range(_TEMPLATES):
        body = [
            {
                "specversion": "1.0",
                "id": f"{name}-@@@@@@@@@@@@-{index:03d}",
                "source": "bench/limits",
                "type": TYPE,
                "subject": f"customer-{shuffle.randrange(CUSTOMERS):05d}",
                "time": text,
                "data": {
                    "tokens": shuffle.randrange(1, 4000),
                    "model": shuffle.choice(("small", "large")),
                },
            }
            for index in range(_BATCH)
        ]
        encoded = json.dumps(body, separators=(",", ":")).encode()
        templates.append(
            b"POST /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: application/cloudevents-batch+json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(encoded), encoded)
        )
    return lambda: shuffle.choice(templates).replace(b"@@@@@@@@@@@@", b"%012d" % next(numbers))


async def send_events(target: Target, events: int) -> int:
    """Send about so many events; return how many were acknowledged."""
    source, sent = event_requests("seed"), 0
    while sent < events:
        result = await run_closed_loop(target, source, connections=32, seconds=1)
        sent += result.acknowledged * _BATCH
    return sent


def post(path: str, body: object, *headers: str) -> bytes:
    """Return a POST of a JSON body."""
    encoded = json.dumps(body, separators=(",", ":")).encode()
    head = "".join(f"{line}\r\n" for line in headers)
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{head}"
        f"Content-Length: {len(encoded)}\r\n\r\n"
    ).encode() + encoded
