"""Reads limits: definitions from SQL, usage from the usage store up to a vector of the log."""

from collections.abc import Iterable
from datetime import datetime

from tollgate.events.position import Token
from tollgate.limits.account import Account
from tollgate.limits.facts_store import FactsStore
from tollgate.limits.limit_rule import budgets_of
from tollgate.limits.limit_rule_store import LimitRuleStore
from tollgate.limits.limit_state import (
    LimitDefinition,
    LimitState,
    definition_of,
    present_plan,
    running_from,
)
from tollgate.limits.usage_reader import Need, UsageReader

CUSTOMERS_AT_ONCE = 500


class LimitReader:
    """Reads; nothing is remembered."""

    def __init__(self, facts: FactsStore, rules: LimitRuleStore, usage: UsageReader) -> None:
        self._facts = facts
        self._rules = rules
        self._usage = usage

    def definitions(self, accounts: Iterable[Account], at: datetime) -> dict[str, LimitDefinition]:
        """Definitions by account; limits that do not hold at the instant are left out.

        Raises:
            Transient: SQL is away.
        """
        by_namespace: dict[str, list[Account]] = {}
        for account in accounts:
            by_namespace.setdefault(account.namespace, []).append(account)
        found: dict[str, LimitDefinition] = {}
        for namespace, own in by_namespace.items():
            customers = sorted({each.customer_id for each in own})
            for at_once in range(0, len(customers), CUSTOMERS_AT_ONCE):
                chosen = set(customers[at_once : at_once + CUSTOMERS_AT_ONCE])
                few = [each for each in own if each.customer_id in chosen]
                found |= self._definitions(namespace, few, at)
        return found

    def _definitions(
        self, namespace: str, accounts: list[Account], at: datetime
    ) -> dict[str, LimitDefinition]:
        features = {each.feature_key for each in accounts}
        customers = {each.customer_id for each in accounts}
        known = {
            (each.record.definition.customer_id, each.record.definition.feature_key): each
            for each in self._facts.of_customers(namespace, customers, at, features)
        }
        scoped = {(each.customer_id, each.feature_key) for each in accounts if each.scope}
        budgets = self._rules.budgets(namespace, scoped) if scoped else {}
        found = {}
        for account in accounts:
            key = (account.customer_id, account.feature_key)
            if key not in known:
                continue
            budget = None
            if account.scope:
                falls = budgets_of(budgets.get(key, ()), dict(account.scope))
                budget = falls.get(account.scope)
                if budget is None or known[key].metering is None:
                    continue
            found[account.id] = definition_of(account, known[key], budget)
        return found

    def states(
        self, definitions: Iterable[LimitDefinition], now: datetime, vector: Token | None
    ) -> list[LimitState]:
        """Limits with their usage up to a vector; None: up to now.

        Raises:
            Transient: the usage store is away. TooLarge: a balance changes too often.
        """
        every = list(definitions)
        needs = {
            each.account.id: Need(
                metering=each.metering, plan=present_plan(each, now), filters=each.filters
            )
            for each in every
            if each.metering is not None and each.is_active(now)
        }
        asked = list(needs.values())
        usages = self._usage.usages(asked, as_of=vector)
        found = zip(usages, self._usage.latest(asked, now), strict=True)
        running = {
            account_id: (running_from(need.plan, usage), latest)
            for (account_id, need), (usage, latest) in zip(needs.items(), found, strict=True)
        }
        states = []
        for each in every:
            balance, latest = running.get(each.account.id, (None, None))
            states.append(LimitState(each, balance, now, latest))
        return states
