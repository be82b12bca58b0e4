"""Subjects that come to a customer, from others too, and who had them before. In SQL.

A move is one transaction that holds every customer it concerns: there is no instant at which the
subject is nobody's, or two customers'. What was used before it stays where it was.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from tollgate.core.clock import Clock
from tollgate.core.errors import Conflict
from tollgate.customers.attribution import Origin
from tollgate.customers.attribution_store import (
    add_attributions,
    attributions,
    end_attributions,
    listed_subjects,
)
from tollgate.customers.customer import SUBJECT_COUNT_MAX
from tollgate.customers.customer_store import customers, named_customer
from tollgate.platform.sql import Database

SUBJECTS_AT_ONCE = 1000
_TRIES = 5
_a = attributions.c
_c = customers.c


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSubject:
    """A stretch of time in which a subject was, or is, a customer's.

    Attributes:
        id: later ones are greater.
        begins_at: None: from the beginning of time.
        ends_at: None: it still is.
        reason: why it came; None: nobody said.
    """

    id: str
    customer_id: str
    subject_key: str
    origin: Origin
    begins_at: datetime | None
    ends_at: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectMove:
    """A subject as it was asked for.

    Attributes:
        held: since when it is the customer's.
        moved_from: id of the customer that had it until then; None: nobody, or it was its already.
    """

    held: HeldSubject
    moved_from: str | None


class SubjectMoves:
    """Adds and moves subjects, and lists whose they were."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def add(
        self,
        namespace: str,
        customer: str,
        subject_keys: Sequence[str],
        *,
        move: bool = False,
        reason: str | None = None,
    ) -> tuple[SubjectMove, ...]:
        """Makes subjects a customer's from now on, all or none; what is its already stays as it is.

        Args:
            namespace: whose.
            customer: id or key of a live one.
            subject_keys: at most `SUBJECTS_AT_ONCE`, each once.
            move: takes them from whoever has them.
            reason: kept with what begins.

        Raises:
            NotFound: there is no such customer.
            Conflict: a subject is another's and is not to be moved, or it is another's key or id,
                or another would be left without key and subject, or there would be too many.
        """
        for _ in range(_TRIES):
            try:
                with self._database.begin() as connection:
                    change = _hold(connection, namespace, customer, subject_keys)
                    refusal = "" if change is None else change.refusal(subject_keys, move=move)
                    if change is not None and not refusal:
                        return change.make(subject_keys, self._clock.now(), reason)
            except Conflict:
                continue  # somebody has just come to have one of them
            if refusal:
                raise Conflict(refusal)
        raise Conflict("others change the same customers at the same moment; ask again")

    def history(
        self, namespace: str, customer: str, *, after: str = "", count_max: int
    ) -> list[HeldSubject]:
        """What a live customer had and has, in the order in which it came.

        Args:
            namespace: whose.
            customer: id or key.
            after: id of the last that is known.
            count_max: at most so many.

        Raises:
            NotFound: there is no such customer.
        """
        with self._database.connect() as connection:
            customer_id = named_customer(connection, namespace, customer)
            query = _HELD.where(
                _a.namespace == namespace, _a.customer_id == customer_id, _a.id > after
            )
            rows = connection.execute(query.order_by(_a.id).limit(count_max)).mappings()
            return [_held_of_row(row) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """A transaction that holds all customers it concerns.

    Attributes:
        customer_id: whose the subjects are to be.
        keys: of the customers that are held, by id.
        holders: ids of those whose subjects are now; nobody's are left out.
        listed: the subject keys that each lists.
    """

    connection: sa.Connection
    namespace: str
    customer_id: str
    keys: Mapping[str, str | None]
    holders: Mapping[str, str]
    listed: Mapping[str, tuple[str, ...]]

    def refusal(self, subject_keys: Sequence[str], *, move: bool) -> str:
        """Why it can't be; "" if it can."""
        for subject in subject_keys:
            holder = self.holders.get(subject, self.customer_id)
            if holder == self.customer_id:
                continue
            key = self.keys[holder]
            shown = holder if key is None else f"{holder} ({key})"
            if not move:
                said = f"the subject {subject} belongs to the customer {shown} already"
                return f"{said}, and to one at a time; say `move` to take it from there"
            if subject in (holder, key):
                return f"the subject {subject} names the customer {shown} itself: it can't move"
        for holder, taken in self._from_others(subject_keys).items():
            if self.keys[holder] is None and set(self.listed.get(holder, ())) <= set(taken):
                said = f"the customer {holder} would be left without subjects, and has no key"
                return f"{said}; give it one first, or delete it"
        if len(self.listed.get(self.customer_id, ())) + len(subject_keys) > SUBJECT_COUNT_MAX:
            return f"the customer would have more than {SUBJECT_COUNT_MAX} subjects"
        return ""

    def make(
        self, subject_keys: Sequence[str], now: datetime, reason: str | None
    ) -> tuple[SubjectMove, ...]:
        """Ends what others have where it begins for the customer."""
        others = self._from_others(subject_keys)
        for holder, taken in others.items():
            end_attributions(self.connection, self.namespace, holder, taken, now)
        new = [each for each in subject_keys if self.holders.get(each) != self.customer_id]
        if new:
            wanted = dict.fromkeys(new, Origin.SUBJECT)
            add_attributions(self.connection, self.namespace, self.customer_id, wanted, now, reason)
            changed = customers.update().where(_c.id.in_([self.customer_id, *others]))
            self.connection.execute(changed.values(updated_at=now))
        held = _held(self.connection, self.namespace, self.customer_id, subject_keys)
        moved_from = {key: holder for holder, taken in others.items() for key in taken}
        return tuple(
            SubjectMove(held=held[key], moved_from=moved_from.get(key)) for key in subject_keys
        )

    def _from_others(self, subject_keys: Sequence[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for subject in subject_keys:
            holder = self.holders.get(subject, self.customer_id)
            if holder != self.customer_id:
                found.setdefault(holder, []).append(subject)
        return found


def _hold(
    connection: sa.Connection, namespace: str, customer: str, subject_keys: Sequence[str]
) -> _Change | None:
    """Locks a customer and all that have its subjects to be; None: others came in between.

    Raises:
        NotFound: there is no such customer.
    """
    customer_id = named_customer(connection, namespace, customer)
    concerned = {customer_id, *_holders(connection, namespace, subject_keys).values()}
    query = (
        sa.select(_c.id, _c.key)
        .where(_c.namespace == namespace, _c.id.in_(sorted(concerned)), _c.deleted_at.is_(None))
        .order_by(_c.id)
        .with_for_update()
    )
    keys = {row.id: row.key for row in connection.execute(query)}
    # Only now they can't change. Who came in between is not locked, and must not be: two that wait
    # for each other's customers would wait for ever.
    holders = _holders(connection, namespace, subject_keys)
    if not keys.keys() >= {customer_id, *holders.values()}:
        return None
    return _Change(
        connection=connection,
        namespace=namespace,
        customer_id=customer_id,
        keys=keys,
        holders=holders,
        listed=listed_subjects(connection, namespace, keys),
    )


def _holders(
    connection: sa.Connection, namespace: str, subject_keys: Collection[str]
) -> dict[str, str]:
    """Ids of the customers whose subjects are now, by subject; nobody's are left out."""
    query = sa.select(_a.subject_key, _a.customer_id).where(
        _a.namespace == namespace, _a.subject_key.in_(sorted(subject_keys)), _a.ends_at.is_(None)
    )
    return {row.subject_key: row.customer_id for row in connection.execute(query)}


_HELD = sa.select(
    _a.id, _a.customer_id, _a.subject_key, _a.origin, _a.begins_at, _a.ends_at, _a.reason
)


def _held(
    connection: sa.Connection, namespace: str, customer_id: str, subject_keys: Collection[str]
) -> dict[str, HeldSubject]:
    query = _HELD.where(
        _a.namespace == namespace,
        _a.customer_id == customer_id,
        _a.subject_key.in_(sorted(subject_keys)),
        _a.ends_at.is_(None),
    )
    found = (_held_of_row(row) for row in connection.execute(query).mappings())
    return {each.subject_key: each for each in found}


def _held_of_row(row: sa.RowMapping) -> HeldSubject:
    return HeldSubject(**dict(row) | {"origin": Origin(row["origin"])})
