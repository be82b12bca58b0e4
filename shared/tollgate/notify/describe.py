"""Feature, subject and customer of a payload, as v1 shows them, with what is known of them now."""

from collections.abc import Mapping

from tollgate.core.errors import NotFound
from tollgate.customers.api_v1 import body_from_subject
from tollgate.customers.customer import Customer
from tollgate.customers.customer_store import CustomerStore
from tollgate.customers.store import SubjectStore
from tollgate.customers.wire_v1 import body_from_customer
from tollgate.limits.feature_store import FeatureStore
from tollgate.limits.wire_features_v1 import body_from_feature
from tollgate.notify.balance import Balance
from tollgate.platform.wire import Wire


class Describer:
    """Looks up what a payload tells of besides figures. Reads only."""

    def __init__(
        self, features: FeatureStore, customers: CustomerStore, subjects: SubjectStore
    ) -> None:
        self._features = features
        self._customers = customers
        self._subjects = subjects

    def describe(self, balance: Balance) -> dict[str, object]:
        """Members `feature`, `subject`, and `customer` if there is one."""
        found = self._customers.find(balance.namespace, [balance.customer_id])
        customer = found.get(balance.customer_id)
        described: dict[str, object] = {
            "feature": self._feature(balance),
            "subject": self._subject(balance, customer),
        }
        if customer is not None:
            described["customer"] = _members(body_from_customer(customer))
        return described

    def _feature(self, balance: Balance) -> Mapping[str, object]:
        wanted = balance.feature.id
        feature = self._features.by_ids(balance.namespace, [wanted]).get(wanted)
        if feature is not None:
            return _members(body_from_feature(feature))
        members: dict[str, object] = {"id": wanted, "key": balance.feature.key}
        return members | {
            "name": balance.feature.key,
            "createdAt": balance.period_start,
            "updatedAt": balance.period_start,
        }

    def _subject(self, balance: Balance, customer: Customer | None) -> Mapping[str, object]:
        try:
            subject = self._subjects.get(balance.namespace, balance.subject_key)
        except NotFound:
            # Events need no subject to be described: what is known of it is whose it is.
            made = balance.period_start if customer is None else customer.created_at
            return {
                "id": balance.customer_id,
                "key": balance.subject_key,
                "createdAt": made,
                "updatedAt": made,
            }
        return _members(body_from_subject(subject))


def _members(body: Wire) -> Mapping[str, object]:
    return body.model_dump(mode="json", by_alias=True, exclude_none=True)
