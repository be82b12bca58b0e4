"""What keeps a meter as it is: features that are not archived, and whose usage it counts.

Features are a floor above: of their table only what is asked here is known.
"""

from collections.abc import Collection

import sqlalchemy as sa

from tollgate.core.errors import Conflict
from tollgate.metering.meter import Meter
from tollgate.platform.sql import Json, Text

_SHOWN_MAX = 5
_features = sa.table(
    "features",
    sa.column("id", Text),
    sa.column("namespace", Text),
    sa.column("key", Text),
    sa.column("meter_id", Text),
    sa.column("dimensions", Json),
    sa.column("archived_at"),
)
_entitlements = sa.table(
    "entitlements",
    sa.column("namespace", Text),
    sa.column("feature_id", Text),
    sa.column("deleted_at"),
)


def refuse_if_used(connection: sa.Connection, meter: Meter) -> None:
    """Keeps a meter that a feature counts by.

    Args:
        connection: that holds the meter's row for update, so no feature can come in between.
        meter: to be deleted.

    Raises:
        Conflict: it is in use; says by which features.
    """
    used = _dimensions_by_key(connection, meter, _features.c.archived_at.is_(None))
    if used:
        shown = ", ".join([*used][:_SHOWN_MAX]) + (", …" if len(used) > _SHOWN_MAX else "")
        raise Conflict(
            f"the meter {meter.slug} is in use by features: {shown}; archive these first"
        )


def refuse_if_dimensions_are_used(
    connection: sa.Connection, meter: Meter, kept: Collection[str]
) -> None:
    """Keeps dimensions that a feature filters by or is priced by.

    An archived one counts too, as long as entitlements to it are not deleted.

    Args:
        connection: as in `refuse_if_used`.
        meter: as it is.
        kept: names of the dimensions that it is to have.

    Raises:
        Conflict: one that is to go is in use; says by which feature.
    """
    gone = meter.group_by.keys() - set(kept)
    if not gone:
        return
    for key, dimensions in _dimensions_by_key(connection, meter, _is_counted_by()).items():
        for name in dimensions:
            if name in gone:
                raise Conflict(
                    f"the dimension {name} of the meter {meter.slug} is in use by the feature "
                    f"{key}; keep it, or archive the feature and delete its entitlements first"
                )


def needed_dimensions(connection: sa.Connection, namespace: str) -> dict[str, dict[str, str]]:
    """What features need of meters: by meter's id, dimension to the key of a feature."""
    c = _features.c
    query = (
        sa.select(c.meter_id, c.key, c.dimensions)
        .where(c.namespace == namespace, c.meter_id.is_not(None), _is_counted_by())
        .order_by(c.key.desc())
    )
    found: dict[str, dict[str, str]] = {}
    for row in connection.execute(query):
        found.setdefault(row.meter_id, {}).update(dict.fromkeys(row.dimensions, row.key))
    return found


def _is_counted_by() -> sa.ColumnElement[bool]:
    """Features that are not archived, and those that somebody has a right to all the same."""
    features, rights = _features.c, _entitlements.c
    entitled = sa.exists().where(
        rights.namespace == features.namespace,
        rights.feature_id == features.id,
        rights.deleted_at.is_(None),
    )
    return features.archived_at.is_(None) | entitled


def _dimensions_by_key(
    connection: sa.Connection, meter: Meter, counted: sa.ColumnElement[bool]
) -> dict[str, list[str]]:
    c = _features.c
    query = (
        sa.select(c.key, c.dimensions)
        .where(c.namespace == meter.namespace, c.meter_id == meter.id, counted)
        .order_by(c.key)
    )
    found: dict[str, list[str]] = {}
    for row in connection.execute(query):
        found.setdefault(row.key, []).extend(row.dimensions)
    return found
