"""Subjects as v1 names customers: each of their usage's subjects stands for its customer."""

from collections.abc import Collection, Iterable

from tollgate.core.clock import Clock
from tollgate.core.errors import Conflict, NotFound
from tollgate.customers.customer import parse_customer
from tollgate.customers.customer_store import CustomerStore
from tollgate.customers.store import SubjectStore
from tollgate.platform.sql import Database


class EntitledSubjects:
    """Finds customers by their subjects, and subjects by their customers, as they are now."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._subjects = SubjectStore(database, clock)
        self._customers = CustomerStore(database, clock)
        self._attributions = self._customers.attributions

    def key(self, namespace: str, id_or_key: str) -> str:
        """The key of a subject; whoever has sent usage needs no subject to be made."""
        try:
            return self._subjects.get(namespace, id_or_key).key
        except NotFound:
            return id_or_key

    def customer(self, namespace: str, key: str) -> str:
        """Id of the customer whose a subject is.

        Raises:
            NotFound: it is nobody's.
        """
        found = self.customers(namespace, [key]).get(key)
        if found is None:
            raise NotFound(f"the subject {key} belongs to no customer")
        return found

    def customer_or_new(self, namespace: str, key: str) -> str:
        """Id of the customer whose a subject is; one is made that bears its name if it is nobody's.

        Raises:
            InvalidInput: the subject's key cannot be a customer's.
        """
        found = self.customers(namespace, [key]).get(key)
        if found is not None:
            return found
        members = {"key": key, "name": key, "usageAttribution": {"subjectKeys": [key]}}
        wanted = parse_customer(members)
        try:
            return self._customers.create(namespace, wanted).id
        except Conflict:
            # Another request was first.
            found = self.customers(namespace, [key]).get(key)
            if found is None:
                raise
            return found

    def customers(self, namespace: str, keys: Collection[str]) -> dict[str, str]:
        """Ids of the customers whose these subjects are now, by subject; nobody's are left out."""
        return {
            each.subject_key: each.customer_id
            for each in self._attributions.of_subjects(namespace, keys)
            if each.ends_at is None
        }

    def shown(self, namespace: str, customer_ids: Iterable[str]) -> dict[str, str]:
        """A subject of each customer: the first that it lists, its key, or else its id."""
        found = self._customers.find(namespace, set(customer_ids))
        return {
            each.id: each.subject_keys[0] if each.subject_keys else each.key or each.id
            for each in found.values()
        }
