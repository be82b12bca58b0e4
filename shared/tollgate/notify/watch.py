"""The scheduled pass: finds entitlements whose balance may have moved, and resets; reports them.

Nothing tells this pass of usage, and nothing of time: it asks. So what time alone changes -- a
grant that expires or begins, a usage period that ends -- is found as usage is, and so is what a
worker that died had not reported yet: the mark moves after all reports before it are written.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Protocol, TypeVar

from tollgate.core.clock import Clock
from tollgate.core.errors import TollgateError
from tollgate.notify.balance import Balance, EntitlementReset
from tollgate.notify.report import Reporter
from tollgate.notify.rule import FeatureName, Kind, Rule
from tollgate.notify.rule_store import RuleStore, Watched, WatchStore

_BALANCES_AT_ONCE = 100
_INSTANT = timedelta.resolution
Found = TypeVar("Found")


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
        ended, or that a late event belongs to or precedes, there is a balance too, as it was at the
        period's end: what was reached in its last moments would be lost else.

        Args:
            namespace: whose.
            features: of entitlements to look at, found by id or key; None: of all.
            since: the mark of an earlier look; "": everything may have moved.
            at: the present.
        """
        ...


class Resets(Protocol):
    """Where resets come from."""

    def resets(
        self,
        namespace: str,
        features: frozenset[FeatureName] | None,
        since: datetime,
        at: datetime,
    ) -> Iterable[EntitlementReset]:
        """Every reset that came about in (since, at], also as of an earlier instant.

        Some that came about shortly before may be there again. Of an entitlement the newest 100
        are there: whoever was away for more usage periods loses the older ones.

        Args:
            namespace: whose.
            features: of entitlements to look at, found by key; None: of all.
            since: exclusive.
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
        resets: Resets,
        reporter: Reporter,
        clock: Clock,
    ) -> None:
        self._rules = rules
        self._watches = watches
        self._balances = balances
        self._resets = resets
        self._reporter = reporter
        self._clock = clock

    def run(self, stop: threading.Event) -> int:
        """Looks at every namespace with a rule of levels or resets in force; gives how many events.

        Raises:
            TollgateError: of the last look that failed; the others were made.
        """
        count = 0
        failure: TollgateError | None = None
        for kind, look in (
            (Kind.BALANCE_THRESHOLD, self._look_at_levels),
            (Kind.ENTITLEMENT_RESET, self._look_at_resets),
        ):
            for namespace in self._rules.namespaces(kind):
                if stop.is_set():
                    break
                try:
                    # Read before the rules: a rule that changes from here on makes the mark stay.
                    watched = self._watches.get(namespace)
                    rules = self._rules.in_force(namespace, kind)
                    if rules:
                        count += look(namespace, watched, rules, stop)
                except TollgateError as problem:
                    failure = problem
        if failure is not None:
            raise failure
        return count

    def _look_at_levels(
        self, namespace: str, watched: Watched, rules: Sequence[Rule], stop: threading.Event
    ) -> int:
        look = self._balances.look(namespace, _features(rules), watched.mark, self._clock.now())
        count = 0
        for some in _in_parts(look.balances):
            if stop.is_set():
                return count
            count += len(self._reporter.report_balances(some))
        self._watches.advance(namespace, watched.generation, look.mark)
        return count

    def _look_at_resets(
        self, namespace: str, watched: Watched, rules: Sequence[Rule], stop: threading.Event
    ) -> int:
        now = self._clock.now()
        # What was before any rule was in force is nobody's news.
        since = min(rule.enabled_at for rule in rules) - _INSTANT
        if watched.resets_at is not None:
            since = max(since, watched.resets_at)
        count = 0
        for some in _in_parts(self._resets.resets(namespace, _features(rules), since, now)):
            if stop.is_set():
                return count
            count += len(self._reporter.report_resets(some))
        self._watches.advance_resets(namespace, watched.generation, now)
        return count


def _features(rules: Sequence[Rule]) -> frozenset[FeatureName] | None:
    """What some rule is about; None: all."""
    if not all(rule.features for rule in rules):
        return None
    return frozenset(each for rule in rules for each in rule.features)


def _in_parts(found: Iterable[Found]) -> Iterator[list[Found]]:
    iterator = iter(found)
    while some := list(islice(iterator, _BALANCES_AT_ONCE)):
        yield some
