"""Whose the usage of subjects is, as the projection remembers it, and whom changes concern."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tollgate.customers.attribution import Attribution
from tollgate.customers.customer_store import CustomerStore

_CUSTOMERS_AT_ONCE = 1000
_BELIEVED = timedelta(seconds=5)
"""Changes are followed; this is for those that another machine's clock dates too far back."""
_SUBJECTS_MAX = 400_000


@dataclass(frozen=True, slots=True)
class Moved:
    """A customer that changed: all that ever was attributed to it."""

    customer_id: str
    attributions: tuple[Attribution, ...]


class Owners:
    """Of one process; used by one thread at a time."""

    def __init__(self, customers: CustomerStore, on_moved: Callable[[str, str], None]) -> None:
        """Remembers nothing yet.

        Args:
            customers: where it is known.
            on_moved: called with namespace and customer where what was remembered is no longer so.
        """
        self._customers = customers
        self._on_moved = on_moved
        self._subjects: dict[tuple[str, str], tuple[datetime, tuple[Attribution, ...]]] = {}
        self._seen: dict[str, Mapping[str, datetime]] = {}
        self._followed: set[str] = set()

    def changed(self, namespace: str, since: datetime) -> Iterator[Moved]:
        """Customers that changed from an instant on, each change once; forgets their subjects.

        A change is seen when it is committed, a while after the instant that it bears: whoever asks
        again and again goes back by more than a transaction lasts.

        Raises:
            Transient: SQL is away: it is said again.
        """
        found = self._customers.changes(namespace, since)
        before = self._seen.get(namespace, {})
        new = [each for each, changed_at in found.items() if before.get(each) != changed_at]
        for start in range(0, len(new), _CUSTOMERS_AT_ONCE):
            few = new[start : start + _CUSTOMERS_AT_ONCE]
            whose = self._customers.attributions.of_customers(namespace, few)
            for customer_id, rows in whose.items():
                for row in rows:
                    self._subjects.pop((namespace, row.subject_key), None)
                yield Moved(customer_id, rows)
        self._seen[namespace] = found

    def follow_only(self, namespaces: Collection[str]) -> None:
        """Forgets the others: nobody asks what changes in them."""
        if not self._followed <= set(namespaces):
            kept = {key: it for key, it in self._subjects.items() if key[0] in namespaces}
            self._subjects = kept
            self._seen = {name: it for name, it in self._seen.items() if name in namespaces}
        self._followed = set(namespaces)

    def of(
        self, namespace: str, subjects: Collection[str], now: datetime
    ) -> dict[str, tuple[Attribution, ...]]:
        """Whose the usage of subjects is and was.

        Raises:
            Transient: SQL is away.
        """
        asked = {
            each
            for each in subjects
            if (known := self._subjects.get((namespace, each))) is None
            or known[0] <= now - _BELIEVED
        }
        if asked:
            if len(self._subjects) > _SUBJECTS_MAX:
                self._subjects.clear()
                asked = set(subjects)
            found: dict[str, list[Attribution]] = {each: [] for each in asked}
            for row in self._customers.attributions.of_subjects(namespace, asked):
                found[row.subject_key].append(row)
            for subject, rows in found.items():
                _, before = self._subjects.get((namespace, subject), (now, tuple(rows)))
                self._subjects[namespace, subject] = (now, tuple(rows))
                for customer_id in {row.customer_id for row in {*before} ^ {*rows}}:
                    self._on_moved(namespace, customer_id)
        return {each: self._subjects[namespace, each][1] for each in subjects}
