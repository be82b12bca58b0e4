"""Notification events in SQL: the outbox, written once with their deliveries, and read by pages."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from tollgate.core.errors import NotFound
from tollgate.notify.channel_store import Order
from tollgate.notify.delivery import Delivery, State, attempt_from_members
from tollgate.notify.new_event import NewEvent, key_digest
from tollgate.notify.rule import Kind, Rule
from tollgate.notify.rule_store import rules_from_rows
from tollgate.notify.tables import channels, deliveries, events, rule_channels, rules, told
from tollgate.platform.sql import ROWS_SKIPPED_MAX, Database

_c = events.c
_PENDING_REASON = "waits to be sent"
_KEYS_ASKED_MAX = 500
_AS_IS = frozenset(each.name for each in events.columns) - {"kind", "annotations", "log_due"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event as it is stored, with its rule as it is now and its deliveries."""

    id: str
    kind: Kind
    rule: Rule
    payload: str
    annotations: Mapping[str, object]
    created_at: datetime
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventListing:
    """Which events, and which page of them, from 1.

    Attributes:
        begin: of the time of making, inclusive.
        end: exclusive.
        features: only of one of these, by id or key; empty: all.
        subjects: only of one of these, by id or key; empty: all.
        rules: only of one of these; empty: all.
        channels: only such as go to one of these; empty: all.
    """

    page: int = 1
    page_size: int = 100
    order: Order = Order.ID
    descending: bool = False
    begin: datetime | None = None
    end: datetime | None = None
    features: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()


class EventStore:
    """The events of every namespace."""

    def __init__(self, database: Database, *, to_log: bool = True) -> None:
        """Takes the database.

        Args:
            database: of the control plane.
            to_log: whether what is written is due to be appended to the event log too.
        """
        self._database = database
        self._to_log = to_log

    def known(self, once_keys: Sequence[str]) -> frozenset[str]:
        """Those of the keys whose event was written, and may be gone again."""
        found: set[str] = set()
        with self._database.connect() as connection:
            for begin in range(0, len(once_keys), _KEYS_ASKED_MAX):
                asked = once_keys[begin : begin + _KEYS_ASKED_MAX]
                query = sa.select(_c.once_key).where(_c.once_key.in_(asked))
                found.update(connection.scalars(query))
                key_of = {key_digest(key): key for key in asked}
                query_told = sa.select(told.c.digest).where(told.c.digest.in_(key_of))
                found.update(key_of[bytes(each)] for each in connection.scalars(query_told))
        return frozenset(found)

    def write(self, wanted: Sequence[NewEvent]) -> tuple[str, ...]:
        """Writes events, each with a delivery to every channel of its rule; all or none.

        An event whose key was written already is left out. The unique key decides, so of two that
        write the same at once one does.

        Returns:
            the ids of those written.
        """
        with self._database.begin() as connection:
            # Two that write the same keys in different order would wait for each other.
            ordered = sorted(wanted, key=lambda each: each.once_key)
            return tuple(each.id for each in ordered if self._write(connection, each))

    def get(self, namespace: str, event_id: str) -> Event:
        """One event.

        Raises:
            NotFound: there is none.
        """
        query = sa.select(events).where(_c.namespace == namespace, _c.id == event_id.upper())
        with self._database.connect() as connection:
            found = _read(connection, connection.execute(query).mappings())
        if not found:
            raise NotFound(f"there is no notification event {event_id}")
        return found[0]

    def list(self, namespace: str, listing: EventListing) -> tuple[tuple[Event, ...], int]:
        """One page of events, and how many all pages have together."""
        conditions = tuple(_conditions(namespace, listing))
        columns = (_c[listing.order.value], _c.id)
        query = (
            sa.select(events)
            .where(*conditions)
            .order_by(*(c.desc() if listing.descending else c for c in columns))
            .limit(listing.page_size)
            .offset(min((listing.page - 1) * listing.page_size, ROWS_SKIPPED_MAX))
        )
        counting = sa.select(sa.func.count()).select_from(events).where(*conditions)
        with self._database.connect() as connection:
            found = _read(connection, connection.execute(query).mappings())
            return found, connection.scalar(counting) or 0

    def _write(self, connection: sa.Connection, event: NewEvent) -> bool:
        # A test says what did not happen: nothing may count it.
        to_log = self._to_log and not event.is_test
        return _write(connection, event, event.created_at if to_log else None)


def _write(connection: sa.Connection, event: NewEvent, log_due: datetime | None) -> bool:
    values = {name: getattr(event, name) for name in _AS_IS}
    values |= {"kind": event.kind.value, "annotations": dict(event.annotations)}
    values["log_due"] = log_due
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    made = connection.scalar(
        insert(events)
        .values(values)
        .on_conflict_do_nothing(index_elements=["once_key"])
        .returning(events.c.id)
    )
    if made is None:
        return False
    # After the insert, which waits for whoever deletes an event of the same key just now.
    if connection.scalar(sa.select(told).where(told.c.digest == key_digest(event.once_key))):
        connection.execute(events.delete().where(_c.id == event.id))
        return False
    query = (
        sa.select(rule_channels.c.channel_id)
        .join(channels, channels.c.id == rule_channels.c.channel_id)
        .where(
            rule_channels.c.rule_id == event.rule_id,
            channels.c.deleted_at.is_(None),
            sa.not_(channels.c.disabled),
        )
    )
    rows = [
        new_delivery(event.id, channel_id, State.PENDING, _PENDING_REASON, event.created_at)
        for channel_id in connection.scalars(query)
    ]
    if rows:
        connection.execute(deliveries.insert(), rows)
    return True


def new_delivery(
    event_id: str, channel_id: str, state: State, reason: str, now: datetime
) -> dict[str, object]:
    """The row of a delivery that is due."""
    return {
        "event_id": event_id,
        "channel_id": channel_id,
        "state": state.value,
        "reason": reason,
        "tries": 0,
        "next_attempt": now,
        "attempts": [],
        "updated_at": now,
    }


def _read(connection: sa.Connection, rows: Iterable[sa.RowMapping]) -> tuple[Event, ...]:
    found = list(rows)
    query = sa.select(rules).where(rules.c.id.in_({row["rule_id"] for row in found}))
    of_rules = rules_from_rows(connection, connection.execute(query).mappings())
    rule_by_id = {rule.id: rule for rule in of_rules}
    sent: dict[str, list[Delivery]] = defaultdict(list)
    query = sa.select(deliveries).where(deliveries.c.event_id.in_([row["id"] for row in found]))
    for row in connection.execute(query.order_by(deliveries.c.channel_id)).mappings():
        sent[row["event_id"]].append(_delivery(row))
    return tuple(
        Event(
            id=row["id"],
            kind=Kind(row["kind"]),
            rule=rule_by_id[row["rule_id"]],
            payload=row["payload"],
            annotations=row["annotations"],
            created_at=row["created_at"],
            deliveries=tuple(sent[row["id"]]),
        )
        for row in found
    )


def _delivery(row: sa.RowMapping) -> Delivery:
    return Delivery(
        event_id=row["event_id"],
        channel_id=row["channel_id"],
        state=State(row["state"]),
        reason=row["reason"],
        next_attempt=row["next_attempt"],
        attempts=tuple(map(attempt_from_members, row["attempts"])),
        updated_at=row["updated_at"],
    )


def _conditions(namespace: str, listing: EventListing) -> Iterator[sa.ColumnElement[bool]]:
    yield _c.namespace == namespace
    if listing.begin is not None:
        yield _c.created_at >= listing.begin
    if listing.end is not None:
        yield _c.created_at < listing.end
    for by_id, by_key, names in (
        (_c.feature_id, _c.feature_key, listing.features),
        (_c.subject_id, _c.subject_key, listing.subjects),
    ):
        if names:
            yield by_id.in_([each.upper() for each in names]) | by_key.in_(names)
    if listing.rules:
        yield _c.rule_id.in_([each.upper() for each in listing.rules])
    if listing.channels:
        wanted = deliveries.c.channel_id.in_([each.upper() for each in listing.channels])
        yield sa.exists().where(deliveries.c.event_id == _c.id, wanted)
