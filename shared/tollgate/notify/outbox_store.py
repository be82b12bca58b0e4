"""The deliveries that are due, in SQL: claimed under a lease, and ended under it.

Nothing is read and then decided: a claim is an update that only one of many workers makes. A worker
that dies keeps its claims until their lease ends; then others take them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from tollgate.core.clock import Clock
from tollgate.core.errors import Fault, InvalidInput, NotFound
from tollgate.core.ids import new_ulid
from tollgate.notify.channel import Channel
from tollgate.notify.delivery import ATTEMPTS_KEPT, Attempt, State, Verdict, members_from_attempt
from tollgate.notify.event_store import new_delivery
from tollgate.notify.tables import channels, deliveries, events, rule_channels
from tollgate.platform.sql import Database

LEASE = timedelta(seconds=90)
IN_FLIGHT_OF_CHANNEL_MAX = 8
"""Of one channel: a receiver that hangs keeps no other waiting."""
_d = deliveries.c
_DISABLED = "the channel is disabled"
_DELETED = "the channel was deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A delivery that this worker, and no other, is to send before `leased_until`."""

    event_id: str
    channel: Channel
    payload: str
    tries: int
    lease: str
    leased_until: datetime


class OutboxStore:
    """The deliveries of every namespace."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def claim(self, count_max: int) -> tuple[Claim, ...]:
        """Takes deliveries that are due, at most `IN_FLIGHT_OF_CHANNEL_MAX` of a channel.

        What is due to a channel that is disabled or deleted fails here.
        """
        with self._database.begin() as connection:
            now = self._clock.now()
            lease, until = new_ulid(), now + LEASE
            taken: list[sa.Row[str, str, int]] = []
            for event_id, channel_id in _due(connection, now, count_max):
                write = (
                    deliveries.update()
                    .where(_d.event_id == event_id, _d.channel_id == channel_id, *_is_due(now))
                    .values(lease=lease, leased_until=until, state=State.SENDING.value)
                    .returning(_d.event_id, _d.channel_id, _d.tries)
                )
                taken += connection.execute(write).all()
            found = _channels(connection, {row.channel_id for row in taken})
            payloads = _payloads(connection, {row.event_id for row in taken})
            claims = []
            for row in taken:
                channel = found[row.channel_id]
                why = _DELETED if channel.deleted_at else _DISABLED if channel.disabled else ""
                if why:
                    _fail(connection, row.event_id, channel.id, why, now)
                    continue
                claim = Claim(
                    event_id=row.event_id,
                    channel=channel,
                    payload=payloads[row.event_id],
                    tries=row.tries,
                    lease=lease,
                    leased_until=until,
                )
                claims.append(claim)
            return tuple(claims)

    def end(self, claim: Claim, attempt: Attempt, verdict: Verdict) -> bool:
        """Writes down what came of an attempt, and gives the delivery back.

        A receiver that wants no more disables the channel, unless its URL has changed since.

        Returns:
            False if the lease has ended and another has the delivery: nothing is written.
        """
        with self._database.begin() as connection:
            now = self._clock.now()
            query = sa.select(deliveries).where(*_is_of(claim)).with_for_update()
            row = connection.execute(query).mappings().one_or_none()
            if row is None:
                return False
            attempts = [*row["attempts"], members_from_attempt(attempt)][-ATTEMPTS_KEPT:]
            values: dict[str, object] = {"attempts": attempts, "updated_at": now}
            values |= {"lease": None, "leased_until": None}
            if row["state"] != State.RESENDING:
                # Else somebody asked for it again while it was on its way: that stays.
                values |= {
                    "state": verdict.state.value,
                    "reason": verdict.reason,
                    "tries": row["tries"] + 1,
                    "next_attempt": verdict.next_attempt,
                }
            connection.execute(deliveries.update().where(*_is_of(claim)).values(values))
            if attempt.says_gone:
                c = channels.c
                write = channels.update().where(
                    c.id == claim.channel.id, c.url == claim.channel.url, sa.not_(c.disabled)
                )
                reason = "the receiver answered 410 Gone"
                connection.execute(
                    write.values(disabled=True, disabled_reason=reason, updated_at=now)
                )
            return True

    def next_due(self) -> datetime | None:
        """When the next delivery that nobody has is due; None: there is none."""
        now = self._clock.now()
        query = sa.select(sa.func.min(_d.next_attempt)).where(
            _d.next_attempt.is_not(None), _is_free(now)
        )
        with self._database.connect() as connection:
            found: datetime | None = connection.scalar(query)
            return found

    def waiting(self) -> int:
        """How many deliveries are not ended."""
        query = sa.select(sa.func.count()).where(_d.next_attempt.is_not(None))
        with self._database.connect() as connection:
            return connection.scalar(query) or 0

    def resend(self, namespace: str, event_id: str, wanted: Sequence[str]) -> int:
        """Sends an event again, from the first attempt on, under the same `webhook-id`.

        Args:
            namespace: whose.
            event_id: of the event.
            wanted: channels that it went to, or that its rule sends to; none: all of these that
                are not deleted.

        Returns:
            to how many channels.

        Raises:
            NotFound: there is no such event.
            InvalidInput: a channel is no such one: every fault.
        """
        with self._database.begin() as connection:
            c = events.c
            query = sa.select(events).where(c.namespace == namespace, c.id == event_id.upper())
            # Held, so that it is not deleted as old in between.
            held = query.with_for_update(read=True)
            event = connection.execute(held).mappings().one_or_none()
            if event is None:
                raise NotFound(f"there is no notification event {event_id}")
            possible = _possible_channels(connection, event)
            chosen = [each.upper() for each in wanted] or sorted(possible)
            faults = tuple(
                Fault(
                    field=f"channels.{number}",
                    code="unknown_channel",
                    message=f"the event did not go to the channel {each}, nor does its rule",
                )
                for number, each in enumerate(chosen)
                if each not in possible
            )
            if faults:
                raise InvalidInput(faults)
            now = self._clock.now()
            for channel_id in sorted(set(chosen)):
                _ask_again(connection, event["id"], channel_id, now)
            return len(set(chosen))


def _is_free(now: datetime) -> sa.ColumnElement[bool]:
    return _d.leased_until.is_(None) | (_d.leased_until <= now)


def _is_due(now: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return (_d.next_attempt.is_not(None), _d.next_attempt <= now, _is_free(now))


def _is_of(claim: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        _d.event_id == claim.event_id,
        _d.channel_id == claim.channel.id,
        _d.lease == claim.lease,
    )


def _due(connection: sa.Connection, now: datetime, count_max: int) -> Sequence[sa.Row[str, str]]:
    """The soonest due, few of each channel, in an order in which all workers lock rows."""
    sending = (
        sa.select(_d.channel_id, sa.func.count().label("count"))
        .where(_d.leased_until > now)
        .group_by(_d.channel_id)
        .subquery()
    )
    place = sa.func.row_number().over(
        partition_by=_d.channel_id, order_by=(_d.next_attempt, _d.event_id)
    )
    ranked = (
        sa.select(_d.event_id, _d.channel_id, _d.next_attempt, place.label("place"))
        .where(*_is_due(now))
        .subquery()
    )
    query = (
        sa.select(ranked.c.event_id, ranked.c.channel_id)
        .outerjoin(sending, sending.c.channel_id == ranked.c.channel_id)
        .where(ranked.c.place + sa.func.coalesce(sending.c.count, 0) <= IN_FLIGHT_OF_CHANNEL_MAX)
        .order_by(ranked.c.next_attempt, ranked.c.event_id)
        .limit(count_max)
    )
    return sorted(connection.execute(query).all(), key=tuple)


def _channels(connection: sa.Connection, ids: set[str]) -> Mapping[str, Channel]:
    query = sa.select(channels).where(channels.c.id.in_(ids))
    return {row["id"]: Channel(**row) for row in connection.execute(query).mappings()}


def _payloads(connection: sa.Connection, ids: set[str]) -> Mapping[str, str]:
    query = sa.select(events.c.id, events.c.payload).where(events.c.id.in_(ids))
    return {row.id: row.payload for row in connection.execute(query)}


def _fail(
    connection: sa.Connection, event_id: str, channel_id: str, reason: str, now: datetime
) -> None:
    write = deliveries.update().where(_d.event_id == event_id, _d.channel_id == channel_id)
    values = {"lease": None, "leased_until": None, "next_attempt": None, "updated_at": now}
    connection.execute(write.values(**values, state=State.FAILED.value, reason=reason))


def _possible_channels(connection: sa.Connection, event: sa.RowMapping) -> frozenset[str]:
    went = sa.select(_d.channel_id).where(_d.event_id == event["id"])
    goes = sa.select(rule_channels.c.channel_id).where(rule_channels.c.rule_id == event["rule_id"])
    query = sa.select(channels.c.id).where(
        channels.c.deleted_at.is_(None), channels.c.id.in_(went.union(goes))
    )
    return frozenset(connection.scalars(query))


def _ask_again(connection: sa.Connection, event_id: str, channel_id: str, now: datetime) -> None:
    reason = "was asked for again"
    write = deliveries.update().where(_d.event_id == event_id, _d.channel_id == channel_id)
    # A lease stays: whoever has it sends now, and gives back what is asked for again.
    again = write.values(
        state=State.RESENDING.value, reason=reason, tries=0, next_attempt=now, updated_at=now
    )
    if not connection.execute(again).rowcount:
        row = new_delivery(event_id, channel_id, State.RESENDING, reason, now)
        connection.execute(deliveries.insert().values(row))
