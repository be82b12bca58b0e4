"""Two namespaces never see each other's rows."""

import pytest

from tests.support.control_plane import NS, meter_input, renamed
from tollgate.core.errors import (
    NotFound,
)
from tollgate.customers.store import SubjectStore
from tollgate.customers.subject import parse_subjects
from tollgate.metering.store import MeterListing, MeterStore
from tollgate.platform.access_store import (
    AccessKeyInput,
    AccessKeyStore,
)


def test_namespaces_never_see_each_other(
    meters: MeterStore, subjects: SubjectStore, keys: AccessKeyStore
) -> None:
    meter = meters.create(NS, meter_input())
    (subject,) = subjects.upsert(NS, parse_subjects([{"key": "a"}]))
    key, _ = keys.create(AccessKeyInput(namespace=NS, scopes=["read"]))
    other = meters.create("other", meter_input())
    for name in (meter.id, "none"):
        for refused in (meters.get, meters.get_by_id, meters.delete):
            with pytest.raises(NotFound):
                refused("other", name)
        with pytest.raises(NotFound):
            meters.update("other", name, lambda _stored: renamed("stolen"))
    assert meters.live("other") == meters.list("other", MeterListing()) == (other,)
    assert meters.find("other", ["tokens_total"]) == {"tokens_total": other}
    assert meters.live_of_event_types("third", ["prompt"]) == ()
    assert meters.count("third", MeterListing(include_deleted=True)) == 0
    for name in (subject.id, "a"):
        for refuse in (subjects.get, subjects.delete):
            with pytest.raises(NotFound):
                refuse("other", name)
    assert subjects.list("other") == ()
    assert keys.list("other") == ()
    with pytest.raises(NotFound):
        keys.revoke(key.id, "other")
    assert meters.get(NS, meter.id) == meter
    assert subjects.get(NS, "a") == subject
    assert keys.active() == (key,)
