"""Limits in memory follow usage on real stores, whichever of their questions fails."""

from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from typing import Any

from tests.support.control_plane import meter_input
from tests.support.loading import NOON_US, Correct, NewStage, Sent, Stage
from tollgate.core.clock import datetime_from_us
from tollgate.core.errors import Transient
from tollgate.customers.customer import parse_customer
from tollgate.customers.customer_store import CustomerStore
from tollgate.customers.subject_moves import SubjectMoves
from tollgate.events.load import DAY_US
from tollgate.limits.account import Account
from tollgate.limits.entitlement import IssueAfterReset
from tollgate.limits.entitlement_record import EntitlementInput, EntitlementKind, RecurrenceInput
from tollgate.limits.entitlement_store import EntitlementStore
from tollgate.limits.facts_store import FactsStore
from tollgate.limits.feature import parse_feature
from tollgate.limits.feature_store import FeatureStore
from tollgate.limits.interval import Interval
from tollgate.limits.limit_reader import LimitReader
from tollgate.limits.limit_rule_store import LimitRuleStore
from tollgate.limits.projection import Projection
from tollgate.limits.usage_reader import UsageReader
from tollgate.metering.store import MeterStore
from tollgate.platform.sql import Database

pytest_plugins = ["tests.support.stages"]
FEATURES = {"SUM": "values", "COUNT": "events", "UNIQUE_COUNT": "names"}


class Failing:
    """An engine whose n-th query from now fails; 0: none does."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.fails_in = 0

    def query(self, *arguments: Any, **more: Any) -> Any:
        self.fails_in -= 1
        if self.fails_in == 0:
            raise Transient("the store is away")
        return self._engine.query(*arguments, **more)


class House:
    """A customer with a limit of each aggregation, in memory."""

    def __init__(
        self,
        stage: Stage,
        database: Database,
        aggregations: Iterable[str] = FEATURES,
        kind: type[Projection] = Projection,
    ) -> None:
        self.stage, self.clock = stage, stage.clock
        self.clock.us = NOON_US
        namespace = stage.namespace
        customers = CustomerStore(database, self.clock)
        self.customers, self.moves = customers, SubjectMoves(database, self.clock)
        self.customer = customers.create(namespace, parse_customer({"key": "u", "name": "u"})).id
        rights, features = (
            EntitlementStore(database, self.clock),
            FeatureStore(database, self.clock),
        )
        self.features = [FEATURES.get(each, each.lower()) for each in aggregations]
        for key, aggregation in zip(self.features, aggregations, strict=True):
            path = None if aggregation == "COUNT" else "$.n"
            MeterStore(database, self.clock).create(
                namespace,
                meter_input(key, aggregation=aggregation, eventType="t", valueProperty=path),
            )
            feature = {"key": key, "name": key, "meterSlug": key}
            features.create(namespace, parse_feature(feature))
            month = RecurrenceInput(interval=Interval(months=1), anchor=datetime_from_us(NOON_US))
            rights.create(
                namespace,
                "u",
                EntitlementInput(
                    kind=EntitlementKind.METERED,
                    feature=key,
                    usage_period=month,
                    issue_after_reset=IssueAfterReset(amount=Decimal(100)),
                ),
            )
        self.failing = Failing(stage.clickhouse)
        engine: Any = self.failing
        rules = LimitRuleStore(database, self.clock)
        self.usage = usage = UsageReader(engine, None, 60)
        self.projection = kind(
            engine,
            LimitReader(FactsStore(database), rules, usage),
            rights,
            rules,
            customers,
            self.clock,
        )
        self._loader, self._offset = stage.loader(), 0

    def use(self, *values: int, subject: str = "u", later_us: int = 0) -> None:
        for value in values:
            self._offset += 1
            self.clock.us += 1_000_000
            event = Sent(
                id=str(self._offset),
                data=f'{{"n":{value}}}',
                time_us=self.clock.us + later_us,
                subject=subject,
            )
            self._loader.load([self.stage.record(self._offset, self.clock.us, event)])
        self.clock.us += 1_000_000

    def void(self, number: int) -> None:
        """Voids the event that was sent as the n-th; one that is void stays so."""
        self._offset += 1
        self.clock.us += 1_000_000
        wanted = Correct(id=str(number), correction=str(self._offset))
        self._loader.load([self.stage.corrections(self._offset, self.clock.us, wanted)])

    @property
    def sent(self) -> int:
        """Records so far."""
        return self._offset

    def accounts(self) -> list[Account]:
        return [
            Account(namespace=self.stage.namespace, customer_id=self.customer, feature_key=feature)
            for feature in self.features
        ]

    def usages(self) -> list[Decimal]:
        """As they are in memory."""
        found = []
        for account in self.accounts():
            state = self.projection.state(account)
            assert state is not None
            balance = state.balance(datetime_from_us(self.clock.us))
            assert balance is not None
            found.append(balance.usage)
        return found


def test_usage_counts_once_whichever_question_fails(stages: NewStage, database: Database) -> None:
    with stages() as stage:
        house = House(stage, database)
        house.use(3)
        assert house.projection.refresh(house.accounts()) == frozenset()
        assert house.usages() == [3, 1, 1]
        expected, failed, sent = [3, 1, 1], 0, 1
        while True:
            house.use(10 + sent)
            sent += 1
            house.failing.fails_in = failed + 1
            try:
                house.projection.tick()
            except Transient:
                failed += 1
                house.failing.fails_in = 0
                house.projection.tick()
            else:
                house.failing.fails_in = 0
                break
            finally:
                expected = [expected[0] + 9 + sent, expected[1] + 1, expected[2] + 1]
            assert house.usages() == expected, failed
        assert failed > 6  # every question was the one that failed
        assert house.usages() == expected


def test_what_nobody_asked_for_lately_is_not_read_anew(
    stages: NewStage, database: Database
) -> None:
    with stages() as stage:
        house = House(stage, database)
        house.projection.refresh(house.accounts())
        assert len(house.projection) == 3
        house.clock.us += timedelta(minutes=5) // timedelta(microseconds=1)
        house.use(1)
        house.projection.tick()
        # Distinct values can't be added to: that limit went, the others go on.
        assert len(house.projection) == 2


def test_a_moved_subject_is_known_with_the_next_look(stages: NewStage, database: Database) -> None:
    with stages() as stage:
        house = House(stage, database)
        house.customers.create(stage.namespace, parse_customer({"key": "other", "name": "o"}))
        # Nobody's, and known to be: the usage is in memory as nobody's.
        house.projection.refresh(house.accounts())
        house.use(2, subject="s")
        house.projection.tick()
        assert house.usages() == [0, 0, 0]
        house.moves.add(stage.namespace, "u", ["s"])
        house.projection.tick()
        assert house.usages() == [2, 1, 1]
        house.use(3, subject="s")
        house.clock.us += 30_000_000
        house.moves.add(stage.namespace, "other", ["s"], move=True)
        house.use(4, subject="s")
        house.projection.tick()
        assert house.usages() == [5, 2, 2]
        house.moves.add(stage.namespace, "u", ["s"], move=True)
        house.use(7, subject="s")
        house.projection.tick()
        assert house.usages() == [12, 3, 3]


def test_usage_of_the_next_period_that_was_there_before_counts_in_it(
    stages: NewStage, database: Database
) -> None:
    with stages() as stage:
        house = House(stage, database)
        house.use(5, later_us=31 * DAY_US)  # after the next reset
        house.use(2)
        house.projection.refresh(house.accounts())
        assert house.usages() == [2, 1, 1]
        house.clock.us += 30 * DAY_US + 1_000_000
        now = house.clock.now()
        for account in house.accounts():
            # Whoever asks for it reads it anew: what was known of it does not say what is used.
            state = house.projection.state(account)
            assert state is not None
            assert not state.holds(now)
            assert house.projection.supply_of(account) is None
        house.projection.refresh(house.accounts())
        assert house.usages() == [5, 1, 1]


def test_who_asks_while_usage_is_added_is_told_how_far_it_is_in_each_limit(
    stages: NewStage, database: Database
) -> None:
    """Usage that counts in a limit is never beyond the vector that goes with it, nor short of it.

    A settlement that waits for its usage would count twice, or not at all.
    """
    seen: list[list[tuple[Decimal, int]]] = []

    class Looking(Projection):
        piece = 1

        def give_way(self) -> None:
            look()

    def look() -> None:
        supplies = [house.projection.supply_of(each) for each in house.accounts()]
        assert all(supplies)
        seen.append([(s.remaining, sum(s.vector.offsets.values())) for s in supplies if s])

    with stages() as stage:
        house = House(stage, database, ["SUM", "COUNT"], Looking)
        house.use(1)
        house.projection.refresh(house.accounts())
        look()
        before = seen[0]
        seen.clear()
        house.use(5)
        house.projection.tick()
        look()
        after = seen[-1]
        assert [each[0] for each in before] == [99, 99]
        assert [each[0] for each in after] == [94, 98]
        assert after[0][1] > before[0][1]
        # One limit has all of it, the other nothing, then both have all.
        halves = ([after[0], before[1]], [before[0], after[1]])
        assert len(seen) == 3
        assert seen[0] in halves
        assert seen[1] == after
