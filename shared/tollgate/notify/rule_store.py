"""Rules in SQL. Every call names the namespace first."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from tollgate.core.clock import Clock
from tollgate.core.decimals import plain_text
from tollgate.core.errors import Fault, InvalidInput, NotFound
from tollgate.core.ids import new_ulid
from tollgate.notify.channel_store import Order
from tollgate.notify.rule import FeatureName, Kind, Rule, RuleInput
from tollgate.notify.tables import channels, rule_channels, rule_features, rules, watches
from tollgate.notify.threshold import Level, LevelType
from tollgate.platform.sql import ROWS_SKIPPED_MAX, Database

_c = rules.c


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleListing:
    """Which rules, and which page of them, from 1.

    Attributes:
        features: only rules that name one of these, by id or key; empty: all.
        channels: only rules that send to one of these; empty: all.
    """

    page: int = 1
    page_size: int = 100
    order: Order = Order.ID
    descending: bool = False
    include_deleted: bool = False
    include_disabled: bool = False
    features: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()


class RuleStore:
    """The rules of every namespace. Deleting is soft: events of a rule still show it."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create(
        self, namespace: str, wanted: RuleInput, features: Sequence[FeatureName] = ()
    ) -> Rule:
        """Stores a new rule.

        Args:
            namespace: whose.
            wanted: the rule.
            features: those that it names, found.

        Raises:
            InvalidInput: a channel is not there: every fault.
        """
        rule_id = new_ulid()
        with self._database.begin() as connection:
            now = self._clock.now()
            values = _values(wanted) | {"id": rule_id, "namespace": namespace}
            connection.execute(
                rules.insert().values(**values, created_at=now, updated_at=now, enabled_at=now)
            )
            _link(connection, namespace, rule_id, wanted, features)
            _look_anew(connection, namespace)
            return _read(connection, namespace, rule_id)

    def get(self, namespace: str, rule_id: str) -> Rule:
        """The rule of this id that is not deleted.

        Raises:
            NotFound: there is none.
        """
        with self._database.connect() as connection:
            return _read(connection, namespace, rule_id)

    def list(self, namespace: str, listing: RuleListing) -> tuple[tuple[Rule, ...], int]:
        """One page of rules, and how many all pages have together."""
        conditions = tuple(_conditions(namespace, listing))
        columns = (_c[listing.order.value], _c.id)
        query = (
            sa.select(rules)
            .where(*conditions)
            .order_by(*(c.desc() if listing.descending else c for c in columns))
            .limit(listing.page_size)
            .offset(min((listing.page - 1) * listing.page_size, ROWS_SKIPPED_MAX))
        )
        counting = sa.select(sa.func.count()).select_from(rules).where(*conditions)
        with self._database.connect() as connection:
            found = rules_from_rows(connection, connection.execute(query).mappings())
            return found, connection.scalar(counting) or 0

    def replace(
        self, namespace: str, rule_id: str, wanted: RuleInput, features: Sequence[FeatureName] = ()
    ) -> Rule:
        """Makes a rule what is wanted. What it has told in a usage period it does not tell again.

        Raises:
            NotFound: there is no such rule.
            InvalidInput: it is of another type, or a channel is not there: every fault.
        """
        with self._database.begin() as connection:
            stored = _read(connection, namespace, rule_id, for_update=True)
            if wanted.kind is not stored.kind:
                message = f"of a rule cannot change: it is {stored.kind}; make another rule"
                raise InvalidInput((Fault(field="type", code="type_changed", message=message),))
            for table in (rule_channels, rule_features):
                connection.execute(table.delete().where(table.c.rule_id == stored.id))
            _link(connection, namespace, stored.id, wanted, features)
            values = _values(wanted)
            linked = (wanted.channels, tuple(features))
            if linked != (stored.channels, stored.features) or values != _values(stored):
                now = self._clock.now()
                if stored.disabled and not wanted.disabled:
                    values["enabled_at"] = now
                write = rules.update().where(_c.id == stored.id)
                connection.execute(write.values(**values, updated_at=now))
                _look_anew(connection, namespace)
            return _read(connection, namespace, stored.id)

    def delete(self, namespace: str, rule_id: str) -> None:
        """Ends a rule; what it told is still delivered.

        Raises:
            NotFound: no such rule.
        """
        with self._database.begin() as connection:
            stored = _read(connection, namespace, rule_id, for_update=True)
            now = self._clock.now()
            write = rules.update().where(_c.id == stored.id)
            connection.execute(write.values(deleted_at=now, updated_at=now))

    def in_force(self, namespace: str, kind: Kind) -> tuple[Rule, ...]:
        """The rules of a kind that are neither deleted nor disabled, oldest first."""
        query = (
            sa.select(rules)
            .where(_c.namespace == namespace, _c.kind == kind.value, *_in_force())
            .order_by(_c.id)
        )
        with self._database.connect() as connection:
            return rules_from_rows(connection, connection.execute(query).mappings())

    def namespaces(self, kind: Kind) -> tuple[str, ...]:
        """The namespaces with a rule of a kind in force."""
        query = sa.select(_c.namespace).where(_c.kind == kind.value, *_in_force()).distinct()
        with self._database.connect() as connection:
            return tuple(connection.scalars(query.order_by(_c.namespace)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """How far a namespace was looked at.

    Attributes:
        generation: rises with every change of a rule.
        mark: of the last look at balances; "" where everything is to be looked at.
        resets_at: up to when resets were reported; None: none ever were.
    """

    generation: int = 0
    mark: str = ""
    resets_at: datetime | None = None


class WatchStore:
    """How far each namespace was looked at."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, namespace: str) -> Watched:
        """How far it was looked at."""
        c = watches.c
        query = sa.select(c.generation, c.mark, c.resets_at).where(c.namespace == namespace)
        with self._database.connect() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return Watched() if row is None else Watched(**row)

    def advance(self, namespace: str, generation: int, mark: str) -> bool:
        """Moves the mark, unless a rule changed since the generation was read; tells whether."""
        return self._move(namespace, generation, mark=mark)

    def advance_resets(self, namespace: str, generation: int, at: datetime) -> bool:
        """Resets were reported up to an instant; as `advance`."""
        return self._move(namespace, generation, resets_at=at)

    def _move(self, namespace: str, generation: int, **values: object) -> bool:
        c = watches.c
        write = watches.update().where(c.namespace == namespace, c.generation == generation)
        with self._database.begin() as connection:
            return connection.execute(write.values(**values)).rowcount == 1


def rules_from_rows(connection: sa.Connection, rows: Iterable[sa.RowMapping]) -> tuple[Rule, ...]:
    """Rules with their channels and features, in the order of their rows."""
    found = list(rows)
    ids = [row["id"] for row in found]
    linked: dict[str, list[str]] = defaultdict(list)
    query = sa.select(rule_channels).where(rule_channels.c.rule_id.in_(ids))
    for row in connection.execute(query.order_by(rule_channels.c.place)):
        linked[row.rule_id].append(row.channel_id)
    named: dict[str, list[FeatureName]] = defaultdict(list)
    query = sa.select(rule_features).where(rule_features.c.rule_id.in_(ids))
    for row in connection.execute(query.order_by(rule_features.c.place)):
        named[row.rule_id].append(FeatureName(id=row.feature_id, key=row.feature_key))
    return tuple(
        Rule(
            **{name: row[name] for name in _PLAIN},
            kind=Kind(row["kind"]),
            levels=tuple(
                Level(type=LevelType(each["type"]), value=Decimal(each["value"]))
                for each in row["levels"]
            ),
            channels=tuple(linked[row["id"]]),
            features=tuple(named[row["id"]]),
        )
        for row in found
    )


_PLAIN = [
    "id",
    "namespace",
    "name",
    "disabled",
    "metadata",
    "created_at",
    "updated_at",
    "enabled_at",
    "deleted_at",
]


def _in_force() -> tuple[sa.ColumnElement[bool], ...]:
    return (_c.deleted_at.is_(None), sa.not_(_c.disabled))


def _conditions(namespace: str, listing: RuleListing) -> Iterator[sa.ColumnElement[bool]]:
    yield _c.namespace == namespace
    if not listing.include_deleted:
        yield _c.deleted_at.is_(None)
    if not listing.include_disabled:
        yield sa.not_(_c.disabled)
    if listing.channels:
        link = rule_channels.c
        wanted = link.channel_id.in_([each.upper() for each in listing.channels])
        yield sa.exists().where(link.rule_id == _c.id, wanted)
    if listing.features:
        named = rule_features.c
        by_id = named.feature_id.in_([each.upper() for each in listing.features])
        yield sa.exists().where(
            named.rule_id == _c.id, by_id | named.feature_key.in_(listing.features)
        )


def _read(
    connection: sa.Connection, namespace: str, rule_id: str, *, for_update: bool = False
) -> Rule:
    query = sa.select(rules).where(
        _c.namespace == namespace, _c.id == rule_id.upper(), _c.deleted_at.is_(None)
    )
    if for_update:
        query = query.with_for_update()
    found = rules_from_rows(connection, connection.execute(query).mappings())
    if not found:
        raise NotFound(f"there is no rule {rule_id}")
    return found[0]


def _link(
    connection: sa.Connection,
    namespace: str,
    rule_id: str,
    wanted: RuleInput,
    features: Sequence[FeatureName],
) -> None:
    # Held until the rule is there: none of them can be deleted in between.
    query = sa.select(channels.c.id).where(
        channels.c.namespace == namespace,
        channels.c.id.in_(wanted.channels),
        channels.c.deleted_at.is_(None),
    )
    there = set(connection.scalars(query.order_by(channels.c.id).with_for_update(read=True)))
    faults = tuple(
        Fault(
            field=f"channels.{number}",
            code="unknown_channel",
            message=f"there is no channel {channel_id}",
        )
        for number, channel_id in enumerate(wanted.channels)
        if channel_id not in there
    )
    if faults:
        raise InvalidInput(faults)
    links = [
        {"rule_id": rule_id, "channel_id": each, "place": place}
        for place, each in enumerate(wanted.channels)
    ]
    connection.execute(rule_channels.insert(), links)
    if features:
        named = [
            {"rule_id": rule_id, "feature_id": each.id, "feature_key": each.key, "place": place}
            for place, each in enumerate(features)
        ]
        connection.execute(rule_features.insert(), named)


def _look_anew(connection: sa.Connection, namespace: str) -> None:
    """What was looked at under the rules before says nothing about those of now."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    write = insert(watches).values(namespace=namespace, generation=1, mark="")
    again = {"generation": watches.c.generation + 1, "mark": ""}
    connection.execute(write.on_conflict_do_update(index_elements=["namespace"], set_=again))


def _values(wanted: RuleInput | Rule) -> dict[str, object]:
    return {
        "kind": wanted.kind.value,
        "name": wanted.name,
        "disabled": wanted.disabled,
        "metadata": dict(wanted.metadata),
        "levels": [
            {"type": each.type.value, "value": plain_text(each.value)} for each in wanted.levels
        ],
    }
