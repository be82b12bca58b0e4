"""Budgets and policies in SQL. Every call names the namespace first."""

import json
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from tollgate.core.clock import Clock
from tollgate.core.errors import Conflict, NotFound
from tollgate.core.ids import new_ulid
from tollgate.customers.customer_store import named_customer
from tollgate.limits.account import scope_from_mapping
from tollgate.limits.limit_rule import Budget, FailureMode, Policy
from tollgate.platform.sql import Database, Exact, Instant, Json, Text, metadata, put_row

budgets = sa.Table(
    "limit_budgets",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("namespace", Text, nullable=False),
    sa.Column("customer_id", Text, nullable=False),
    sa.Column("feature_key", Text, nullable=False),
    sa.Column("scope", Json, nullable=False),
    sa.Column("scope_key", Text, nullable=False),
    sa.Column("amount", Exact, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("changed_at", Instant, nullable=False),
    sa.Column("deleted_at", Instant),
)
_b = budgets.c
sa.Index(
    "uq_limit_budgets_live",
    _b.namespace,
    _b.customer_id,
    _b.feature_key,
    _b.scope_key,
    unique=True,
    sqlite_where=_b.deleted_at.is_(None),
    postgresql_where=_b.deleted_at.is_(None),
)
sa.Index("ix_limit_budgets_changed_at", _b.changed_at)
policies = sa.Table(
    "limit_policies",
    metadata,
    sa.Column("namespace", Text, primary_key=True),
    sa.Column("feature_key", Text, primary_key=True),
    sa.Column("failure_mode", Text, nullable=False),
    sa.Column("open_cap", Exact, nullable=False),
    sa.Column("stale_after_ms", sa.BigInteger, nullable=False),
    sa.Column("changed_at", Instant, nullable=False),
)
_p = policies.c
Key = tuple[str, str]
"""A customer's id and a feature's key."""


class LimitRuleStore:
    """The rules of every namespace."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create_budget(
        self,
        namespace: str,
        customer: str,
        feature_key: str,
        scope: Mapping[str, str],
        amount: Decimal,
    ) -> Budget:
        """Stores a budget of a customer, by id or key.

        Raises:
            NotFound: there is no such customer. Conflict: it has a budget for that already.
            InvalidInput: out of bounds.
        """
        try:
            with self._database.begin() as connection:
                made = Budget(
                    id=new_ulid(),
                    namespace=namespace,
                    customer_id=named_customer(connection, namespace, customer),
                    feature_key=feature_key,
                    scope=scope_from_mapping(scope),
                    amount=amount,
                    created_at=self._clock.now(),
                )
                connection.execute(budgets.insert().values(_row(made)))
        except Conflict:
            message = "there is a budget for this scope already; delete it first"
            raise Conflict(message) from None
        return made

    def delete_budget(self, namespace: str, budget_id: str) -> None:
        """Ends a budget.

        Raises:
            NotFound: there is none.
        """
        now = self._clock.now()
        live = (_b.namespace == namespace, _b.id == budget_id.upper(), _b.deleted_at.is_(None))
        with self._database.begin() as connection:
            ended = connection.execute(
                budgets.update().where(*live).values(deleted_at=now, changed_at=now)
            )
            if not ended.rowcount:
                raise NotFound("there is no such budget")

    def list_budgets(
        self, namespace: str, customer: str | None, *, after: str, limit: int
    ) -> tuple[Budget, ...]:
        """The budgets that hold, in the order of their making.

        Raises:
            NotFound: there is no such customer.
        """
        query = sa.select(budgets).where(
            _b.namespace == namespace, _b.deleted_at.is_(None), _b.id > after
        )
        with self._database.connect() as connection:
            if customer is not None:
                owner = named_customer(connection, namespace, customer)
                query = query.where(_b.customer_id == owner)
            rows = connection.execute(query.order_by(_b.id).limit(limit)).all()
        return tuple(_budget(row) for row in rows)

    def budgets(self, namespace: str, keys: Collection[Key]) -> dict[Key, list[Budget]]:
        """The budgets that hold, of customers and features; one statement."""
        named = sa.tuple_(_b.customer_id, _b.feature_key).in_(sorted(set(keys)))
        query = sa.select(budgets).where(_b.namespace == namespace, _b.deleted_at.is_(None), named)
        found: dict[Key, list[Budget]] = {}
        with self._database.connect() as connection:
            for row in connection.execute(query.order_by(_b.id)):
                found.setdefault((row.customer_id, row.feature_key), []).append(_budget(row))
        return found

    def changed_budgets(self, since: datetime) -> dict[tuple[str, str, str], datetime]:
        """Namespaces, customers and features whose budgets changed from an instant on, and when."""
        whose = (_b.namespace, _b.customer_id, _b.feature_key)
        query = sa.select(*whose, sa.func.max(_b.changed_at)).where(_b.changed_at >= since)
        with self._database.connect() as connection:
            rows = connection.execute(query.group_by(*whose)).all()
        return {(row[0], row[1], row[2]): row[3] for row in rows}

    def put_policy(self, namespace: str, feature_key: str, policy: Policy) -> None:
        """Says how a feature's limits fail."""
        key = {"namespace": namespace, "feature_key": feature_key}
        values = {
            "failure_mode": policy.failure_mode.value,
            "open_cap": policy.open_cap,
            "stale_after_ms": policy.stale_after // timedelta(milliseconds=1),
            "changed_at": self._clock.now(),
        }
        with self._database.begin() as connection:
            put_row(connection, policies, key, values)

    def policies(self) -> dict[tuple[str, str], Policy]:
        """All that are said, by namespace and feature; there are few."""
        with self._database.connect() as connection:
            rows = connection.execute(sa.select(policies)).all()
        return {
            (row.namespace, row.feature_key): Policy(
                failure_mode=FailureMode(row.failure_mode),
                open_cap=row.open_cap,
                stale_after=timedelta(milliseconds=row.stale_after_ms),
            )
            for row in rows
        }


def _row(budget: Budget) -> dict[str, object]:
    return {
        "id": budget.id,
        "namespace": budget.namespace,
        "customer_id": budget.customer_id,
        "feature_key": budget.feature_key,
        "scope": dict(budget.scope),
        "scope_key": json.dumps(budget.scope),
        "amount": budget.amount,
        "created_at": budget.created_at,
        "changed_at": budget.created_at,
    }


def _budget(row: sa.Row[Any]) -> Budget:
    return Budget(
        id=row.id,
        namespace=row.namespace,
        customer_id=row.customer_id,
        feature_key=row.feature_key,
        scope=scope_from_mapping(row.scope),
        amount=row.amount,
        created_at=row.created_at,
    )
