"""The scheduled pass: finds entitlements whose balance may have moved, and reports them.

Nothing tells this pass of usage, and nothing of time: it asks. So what time alone changes -- a
grant that expires or begins, a usage period that ends -- is found as usage is, and so is what a
worker that died had not reported yet: the mark moves after all reports before it are written.
"""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Protocol

from tollgate.core.clock import Clock
from tollgate.core.errors import TollgateError
from tollgate.notify.balance import Balance
from tollgate.notify.report import Reporter
from tollgate.notify.rule import FeatureName, Kind
from tollgate.notify.rule_store import RuleStore, WatchStore

_BALANCES_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a look at balances gave.

    Attributes:
        balances: read as they are taken; what moves meanwhile may be in them, and is in the next
            look in any case.
        mark: for the next look.
    """

    balances: Iterable[Balance]
    mark: str


class Balances(Protocol):
    """Where balances come from."""

    def look(
        self, namespace: str, features: frozenset[FeatureName] | None, since: str, at: datetime
    ) -> Look:
        """Every balance that may have moved since an earlier look, as it is at an instant.

        Moved has a balance whose usage changed (by an event loaded, a correction, a moved subject),
        whose grants or resets changed, or for which, after the time of the earlier look and up to
        `at`, a grant began, ended or recurred, or a usage period ended. Of a usage period that
        ended, or that a late event belongs to, there is a balance too, as it was at the period's
        end: what was reached in its last moments would be lost else.

        Args:
            namespace: whose.
            features: of entitlements to look at, found by id or key; None: of all.
            since: the mark of an earlier look; "": everything may have moved.
            at: the present.
        """
        ...


class Watch:
    """One worker; any number of them may watch at once, for a report that is repeated is none."""

    def __init__(
        self,
        rules: RuleStore,
        watches: WatchStore,
        balances: Balances,
        reporter: Reporter,
        clock: Clock,
    ) -> None:
        self._rules = rules
        self._watches = watches
        self._balances = balances
        self._reporter = reporter
        self._clock = clock

    def run(self, stop: threading.Event) -> int:
        """Looks at every namespace that has a threshold rule in force; gives how many events.

        Raises:
            TollgateError: of the last namespace that failed; the others were looked at.
        """
        count = 0
        failure: TollgateError | None = None
        for namespace in self._rules.namespaces(Kind.BALANCE_THRESHOLD):
            if stop.is_set():
                break
            try:
                count += self._run(namespace, stop)
            except TollgateError as problem:
                failure = problem
        if failure is not None:
            raise failure
        return count

    def _run(self, namespace: str, stop: threading.Event) -> int:
        # Read before the rules: a rule that changes from here on makes the mark stay.
        generation, mark = self._watches.get(namespace)
        rules = self._rules.in_force(namespace, Kind.BALANCE_THRESHOLD)
        if not rules:
            return 0
        features = frozenset(each for rule in rules for each in rule.features)
        wanted = features if all(rule.features for rule in rules) else None
        look = self._balances.look(namespace, wanted, mark, self._clock.now())
        count = 0
        for some in _in_parts(look.balances):
            if stop.is_set():
                return count
            count += len(self._reporter.report_balances(some))
        self._watches.advance(namespace, generation, look.mark)
        return count


def _in_parts(balances: Iterable[Balance]) -> Iterator[list[Balance]]:
    iterator = iter(balances)
    while some := list(islice(iterator, _BALANCES_AT_ONCE)):
        yield some
