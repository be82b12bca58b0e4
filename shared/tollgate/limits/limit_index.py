"""Limits in memory, found in every way that following usage needs, without looking at all."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tollgate.limits.account import Account
from tollgate.limits.limit_state import LimitState
from tollgate.limits.usage_reader import usage_key
from tollgate.metering.meter import Meter
from tollgate.platform.filters import Filter


@dataclass(slots=True)
class Question:
    """Limits that count the same usage, each customer's together."""

    meter: Meter
    filters: Mapping[str, Filter]
    adds_up: bool
    of_customer: dict[str, list[LimitState]] = field(default_factory=dict)


class LimitIndex:
    """Whoever reads or changes it holds the projection's lock."""

    def __init__(self) -> None:
        self._states: dict[str, LimitState] = {}
        self._of_customer: dict[tuple[str, str], set[str]] = {}
        self._questions: dict[Hashable, Question] = {}
        self._marked: set[str] = set()
        self._namespaces: Counter[str] = Counter()
        self._scoped = 0

    def __len__(self) -> int:
        return len(self._states)

    def get(self, account: Account) -> LimitState | None:
        """A limit, if it is here."""
        return self._states.get(account.id)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Those that limits are of."""
        return tuple(name for name, count in self._namespaces.items() if count)

    @property
    def has_budgets(self) -> bool:
        """Whether any limit is a budget."""
        return self._scoped > 0

    def keep(self, state: LimitState) -> None:
        """Puts a limit in place of what was known of it."""
        account = state.definition.account
        self.drop(account.id)
        self._states[account.id] = state
        owner = (account.namespace, account.customer_id)
        self._of_customer.setdefault(owner, set()).add(account.id)
        self._namespaces[account.namespace] += 1
        self._scoped += bool(account.scope)
        key = _question(state)
        if key is None or state.definition.metering is None:
            return
        question = self._questions.get(key)
        if question is None:
            question = self._questions[key] = Question(
                state.definition.metering.meter, state.definition.filters, state.adds_up
            )
        question.of_customer.setdefault(account.customer_id, []).append(state)

    def drop(self, account_id: str) -> None:
        """Forgets a limit."""
        state = self._states.pop(account_id, None)
        self._marked.discard(account_id)
        if state is None:
            return
        account = state.definition.account
        owner = (account.namespace, account.customer_id)
        self._of_customer[owner].discard(account_id)
        if not self._of_customer[owner]:
            del self._of_customer[owner]
        self._namespaces[account.namespace] -= 1
        self._scoped -= bool(account.scope)
        key = _question(state)
        question = None if key is None else self._questions.get(key)
        if question is None:
            return
        left = [it for it in question.of_customer[account.customer_id] if it is not state]
        question.of_customer[account.customer_id] = left
        if not left:
            del question.of_customer[account.customer_id]
        if not question.of_customer:
            del self._questions[key]

    def questions(self) -> list[Question]:
        """All usage that has to be followed."""
        return list(self._questions.values())

    def of(self, namespace: str, customer_id: str) -> Iterator[LimitState]:
        """All limits of a customer."""
        for account_id in self._of_customer.get((namespace, customer_id), ()):
            yield self._states[account_id]

    def counting(self, namespace: str, customer_id: str, event_type: str) -> Iterator[LimitState]:
        """Limits of a customer that count by a type of events."""
        for state in self.of(namespace, customer_id):
            metering = state.definition.metering
            if metering is not None and metering.meter.event_type == event_type:
                yield state

    def mark(self, states: Iterable[LimitState]) -> None:
        """Says that limits have to be read anew."""
        self._marked.update(state.definition.account.id for state in states)

    def is_marked(self, account: Account) -> bool:
        """Whether a limit has to be read anew."""
        return account.id in self._marked

    def marked(self) -> list[LimitState]:
        """Limits that have to be read anew."""
        return [self._states[account_id] for account_id in self._marked]

    def oldest(self, count: int) -> list[LimitState]:
        """Those that were not asked for longest."""
        return sorted(self._states.values(), key=lambda state: state.asked_at_us)[:count]


def _question(state: LimitState) -> Hashable:
    metering = state.definition.metering
    if metering is None:
        return None
    return usage_key(metering.meter, state.definition.filters)
