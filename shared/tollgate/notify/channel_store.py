"""Channels in SQL. Every call names the namespace first."""

import secrets
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from tollgate.core.clock import Clock
from tollgate.core.errors import Conflict, NotFound
from tollgate.core.ids import new_ulid
from tollgate.notify.channel import ROTATION, Channel, ChannelInput
from tollgate.notify.signature import SECRET_BYTES, secret_from_bytes
from tollgate.notify.tables import channels, rule_channels, rules
from tollgate.platform.sql import ROWS_SKIPPED_MAX, Database

_c = channels.c
_RULES_SHOWN = 3


class Order(StrEnum):
    """What lists of channels, rules and events may be sorted by; ties fall to the id."""

    ID = "id"
    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"
    KIND = "kind"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelListing:
    """Which channels, and which page of them, from 1."""

    page: int = 1
    page_size: int = 100
    order: Order = Order.ID
    descending: bool = False
    include_deleted: bool = False
    include_disabled: bool = False


class ChannelStore:
    """The channels of every namespace. Deleting is soft."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create(self, namespace: str, wanted: ChannelInput) -> Channel:
        """Stores a new channel, with a secret of its own if none is given."""
        with self._database.begin() as connection:
            now = self._clock.now()
            values = {
                **_values(wanted),
                "id": new_ulid(),
                "namespace": namespace,
                "secret": wanted.secret or secret_from_bytes(secrets.token_bytes(SECRET_BYTES)),
                "created_at": now,
                "updated_at": now,
            }
            write = channels.insert().values(values).returning(channels)
            return Channel(**connection.execute(write).mappings().one())

    def get(self, namespace: str, channel_id: str) -> Channel:
        """The channel of this id that is not deleted.

        Raises:
            NotFound: there is none.
        """
        with self._database.connect() as connection:
            return Channel(**_live(connection, namespace, channel_id))

    def list(self, namespace: str, listing: ChannelListing) -> tuple[tuple[Channel, ...], int]:
        """One page of channels, and how many all pages have together."""
        conditions = [_c.namespace == namespace]
        if not listing.include_deleted:
            conditions.append(_c.deleted_at.is_(None))
        if not listing.include_disabled:
            conditions.append(sa.not_(_c.disabled))
        # Channels are of one kind.
        order = _c.id if listing.order is Order.KIND else _c[listing.order.value]
        columns = (order, _c.id)
        query = (
            sa.select(channels)
            .where(*conditions)
            .order_by(*(c.desc() if listing.descending else c for c in columns))
            .limit(listing.page_size)
            .offset(min((listing.page - 1) * listing.page_size, ROWS_SKIPPED_MAX))
        )
        counting = sa.select(sa.func.count()).select_from(channels).where(*conditions)
        with self._database.connect() as connection:
            rows = connection.execute(query).mappings()
            return tuple(Channel(**row) for row in rows), connection.scalar(counting) or 0

    def replace(self, namespace: str, channel_id: str, wanted: ChannelInput) -> Channel:
        """Makes a channel what is wanted.

        Without a secret it keeps its own; with another, the one before signs too for `ROTATION`.
        It is unchanged, `updated_at` included, where nothing differs.

        Raises:
            NotFound: there is no such channel.
        """
        with self._database.begin() as connection:
            stored = Channel(**_live(connection, namespace, channel_id, for_update=True))
            now = self._clock.now()
            values = _values(wanted)
            if wanted.disabled and stored.disabled:
                values["disabled_reason"] = stored.disabled_reason
            if wanted.secret is not None and wanted.secret != stored.secret:
                values["secret"] = wanted.secret
                values["previous_secret"] = stored.secret
                values["previous_until"] = now + ROTATION
            if all(getattr(stored, name) == value for name, value in values.items()):
                return stored
            write = channels.update().where(_c.id == stored.id).returning(channels)
            row = connection.execute(write.values(**values, updated_at=now))
            return Channel(**row.mappings().one())

    def delete(self, namespace: str, channel_id: str) -> None:
        """Ends a channel; what is on its way to it is not sent any more.

        Raises:
            NotFound: no such channel.
            Conflict: rules send to it.
        """
        with self._database.begin() as connection:
            row = _live(connection, namespace, channel_id, for_update=True)
            query = (
                sa.select(rules.c.id)
                .join(rule_channels, rule_channels.c.rule_id == rules.c.id)
                .where(rule_channels.c.channel_id == row["id"], rules.c.deleted_at.is_(None))
                .order_by(rules.c.id)
            )
            users = connection.scalars(query).all()
            if users:
                more = f" and {len(users) - _RULES_SHOWN} more" * (len(users) > _RULES_SHOWN)
                named = ", ".join(users[:_RULES_SHOWN]) + more
                raise Conflict(f"the channel {channel_id} is used by rules, change them: {named}")
            now = self._clock.now()
            write = channels.update().where(_c.id == row["id"])
            connection.execute(write.values(deleted_at=now, updated_at=now))


def _live(
    connection: sa.Connection, namespace: str, channel_id: str, *, for_update: bool = False
) -> sa.RowMapping:
    query = sa.select(channels).where(
        _c.namespace == namespace, _c.id == channel_id.upper(), _c.deleted_at.is_(None)
    )
    row = connection.execute(query.with_for_update() if for_update else query).mappings()
    found = row.one_or_none()
    if found is None:
        raise NotFound(f"there is no channel {channel_id}")
    return found


def _values(wanted: ChannelInput) -> dict[str, object]:
    return {
        "name": wanted.name,
        "disabled": wanted.disabled,
        "disabled_reason": None,
        "metadata": dict(wanted.metadata),
        "url": wanted.url,
        "headers": dict(wanted.headers),
    }
