"""OpenMeter's published Python client, unmodified: only the base URL is ours."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from corehttp.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from openmeter import Client
from openmeter.aio import Client as AsyncClient
from openmeter.models import (
    Address,
    CustomerCreate,
    CustomerReplaceUpdate,
    CustomerUsageAttribution,
    Event,
    FeatureCreateInputs,
    FeatureManualUnitCost,
    FeatureUnitCostType,
    FilterString,
    Metadata,
    MeterAggregation,
    MeterCreate,
    MeterQueryRequest,
    MeterQueryResult,
    MeterUpdate,
    SubjectUpsert,
    WindowSize,
)

from tests.support.server import Server, wait_until
from tollgate.core.ids import new_ulid

pytestmark = pytest.mark.e2e

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


def fresh(word: str) -> str:
    """A name that no other test has."""
    return f"{word}_{new_ulid().lower()}"


def event(kind: str, subject: str, minute: int = 0, **data: object) -> Event:
    return Event(
        id=new_ulid(),
        source="sdk-python",
        specversion="1.0",
        type=kind,
        subject=subject,
        time=NOON + timedelta(minutes=minute),
        data=data,
    )


def meter(kind: str) -> MeterCreate:
    return MeterCreate(
        slug=fresh("sdk"),
        name="Tokens",
        aggregation=MeterAggregation.SUM,
        event_type=kind,
        value_property="$.tokens",
        group_by={"model": "$.model"},
    )


def totals(result: MeterQueryResult) -> list[tuple[str | None, str | None, float]]:
    """Subject, model and value of each row, in order of the first two."""
    rows = [(row.subject, row.group_by.get("model"), row.value) for row in result.data]
    return sorted(rows, key=lambda row: (row[0] or "", row[1] or ""))


def counted(query: Callable[[], MeterQueryResult], total: int) -> MeterQueryResult:
    """The answer once all that was sent is counted."""
    wait_until(lambda: sum(row.value for row in query().data) == total, what=f"total {total}")
    return query()


@pytest.fixture(params=["with a token", "without"])
def client(request: pytest.FixtureRequest, server: Server) -> Client:
    """Without any key configured a token is not looked at."""
    return Client(endpoint=server.url, token="any" if request.param == "with a token" else None)


def test_meters_and_queries(client: Client) -> None:
    kind = fresh("kind")
    made = client.meters.create(meter(kind))
    assert made.slug.startswith("sdk_")
    assert made.created_at.tzinfo is not None
    assert client.meters.get(made.id).slug == made.slug
    assert client.meters.get(made.slug).id == made.id
    assert made.id in {each.id for each in client.meters.list(page_size=1000)}

    client.events.ingest_event(event(kind, "ada", tokens=1, model="a"))
    client.events.ingest_events(
        [event(kind, "ada", 1, tokens=2, model="b"), event(kind, "bob", 61, tokens=4, model="a")]
    )
    client.events.ingest_events_json(event(kind, "bob", 62, tokens=8, model="b"))
    client.events.ingest_events_json([event(kind, "bob", 63, tokens=16, model="b")])

    assert totals(counted(lambda: client.meters.query_json(made.slug), 31)) == [(None, None, 31)]
    by_model = client.meters.query_json(made.slug, group_by=["model"])
    assert totals(by_model) == [(None, "a", 5), (None, "b", 26)]
    of_bob = client.meters.query_json(made.slug, subject=["bob"], group_by=["subject", "model"])
    assert totals(of_bob) == [("bob", "a", 4), ("bob", "b", 24)]
    # The client can't write down its own filters; OpenMeter's advice is `params`.
    of_model = client.meters.query_json(made.slug, params={"filterGroupBy[model]": "a"})
    assert totals(of_model) == [(None, None, 5)]

    hours = client.meters.query_json(
        made.slug, window_size=WindowSize.HOUR, from_parameter=NOON, to=NOON + timedelta(hours=2)
    )
    assert [(row.window_start, row.window_end, row.value) for row in hours.data] == [
        (NOON, NOON + timedelta(hours=1), 3),
        (NOON + timedelta(hours=1), NOON + timedelta(hours=2), 28),
    ]
    assert hours.window_size == WindowSize.HOUR
    assert hours.from_property == NOON

    posted = client.meters.query(
        made.slug, MeterQueryRequest(group_by=["model"], filter_group_by={"model": ["b"]})
    )
    assert totals(posted) == [(None, "b", 26)]

    assert client.meters.list_subjects(made.slug) == ["ada", "bob"]
    values = client.meters.list_group_by_values(made.slug, "model", from_parameter=NOON)
    assert values == ["a", "b"]

    renamed = client.meters.update(
        made.slug, MeterUpdate(name="Renamed", group_by={"model": "$.model"})
    )
    assert renamed.name == "Renamed"
    client.meters.delete(made.slug)
    with pytest.raises(ResourceNotFoundError):
        client.meters.get(made.slug)


def test_csv(client: Client) -> None:
    kind = fresh("kind")
    made = client.meters.create(meter(kind))
    client.events.ingest_events(
        [event(kind, "ada", tokens=1, model="a"), event(kind, "bob", tokens=2, model='b,"')]
    )
    counted(lambda: client.meters.query_json(made.slug), 3)
    text = client.meters.query_csv(
        made.slug, from_parameter=NOON, to=NOON + timedelta(hours=1), group_by=["subject", "model"]
    )
    head, *rows = text.splitlines()
    assert head == "window_start,window_end,subject,subject_display_name,model,value"
    period = "2026-03-10T12:00:00Z,2026-03-10T13:00:00Z"
    assert sorted(rows) == [f"{period},ada,,a,1", f'{period},bob,,"b,""",2']


def test_events_are_listed(client: Client) -> None:
    kind, subject = fresh("kind"), fresh("subject")
    sent = [event(kind, subject, n, tokens=n) for n in range(3)]
    client.events.ingest_events(sent)

    def listed() -> list[str]:
        found = client.events.list(subject=subject, from_parameter=NOON - timedelta(days=1))
        return [each.event.id for each in found]

    wait_until(lambda: len(listed()) == 3, what="three events listed")
    assert listed() == [each.id for each in reversed(sent)]
    (one,) = client.events.list(id=sent[0].id, from_parameter=NOON - timedelta(days=1))
    assert (one.event.type, one.event.time, one.event.data) == (kind, NOON, {"tokens": 0})
    assert one.ingested_at <= one.stored_at
    assert one.validation_error


def test_events_are_listed_by_pages(client: Client) -> None:
    kind, subject = fresh("kind"), fresh("subject")
    sent = [event(kind, subject, n) for n in range(5)]
    client.events.ingest_events(sent)

    wanted = {"filter": quote(json.dumps({"subject": {"$eq": subject}}))}

    def listed() -> list[str]:
        # The client can't write down its own filter; OpenMeter's advice is `params`.
        return [each.event.id for each in client.events_v2.list(limit=2, params=wanted)]

    wait_until(lambda: len(listed()) == 5, what="five events listed")
    assert listed() == [each.id for each in reversed(sent)]


def test_subjects(client: Client) -> None:
    subjects: Any = client.subjects  # two classes of one name: the types show the other
    key = fresh("subject")
    (made,) = subjects.upsert(
        [SubjectUpsert(key=key, display_name="Ada", metadata={"tier": "gold"})]
    )
    assert (made.key, made.display_name, made.metadata) == (key, "Ada", {"tier": "gold"})
    assert subjects.get(key).id == made.id
    assert key in {each.key for each in subjects.list()}
    (again,) = subjects.upsert([SubjectUpsert(key=key, display_name="Ada L.")])
    assert (again.id, again.display_name) == (made.id, "Ada L.")
    subjects.delete(key)
    with pytest.raises(ResourceNotFoundError):
        subjects.get(key)


def test_customers_and_their_usage(client: Client) -> None:
    customers: Any = client.customers
    kind, key, subject = fresh("kind"), fresh("acme"), fresh("subject")
    usage = CustomerUsageAttribution(subject_keys=[subject])
    wanted = CustomerCreate(
        name="ACME",
        key=key,
        usage_attribution=usage,
        currency="EUR",
        billing_address=Address(country="DE", city="Berlin"),
        metadata=Metadata({"crm": "17"}),
    )
    made = customers.create(wanted)
    assert (made.key, made.currency, made.billing_address.city) == (key, "EUR", "Berlin")
    assert made.usage_attribution.subject_keys == [subject]
    assert customers.get(key).id == customers.get(made.id).id == made.id
    found = customers.list(subject=subject.upper(), order_by="name", order="DESC")
    assert ([each.id for each in found.items_property], found.total_count) == ([made.id], 1)
    with pytest.raises(ResourceExistsError) as taken:
        customers.create(CustomerCreate(name="Other", usage_attribution=usage))
    answer: Any = taken.value.response
    assert made.id in answer.json()["detail"]
    counting = client.meters.create(meter(kind))
    events = [event(kind, who, tokens=n) for n, who in enumerate((subject, key, "nobody"), 1)]
    client.events.ingest_events(events)
    of_customer: Any = {"filter_customer_id": [made.id], "group_by": ["customer_id"]}
    result = counted(lambda: client.meters.query_json(counting.slug, **of_customer), 3)
    assert [(row.customer_id, row.value) for row in result.data] == [(made.id, 3)]
    listed = client.events.list(customer_id=[made.id], from_parameter=NOON - timedelta(days=1))
    assert {each.customer_id for each in listed} == {made.id}
    changed = customers.update(made.id, CustomerReplaceUpdate(name="ACME 2", key=key))
    assert (changed.name, changed.usage_attribution.subject_keys) == ("ACME 2", [])
    customers.delete(key)
    with pytest.raises(ResourceNotFoundError):
        customers.get(made.id)


def test_features(client: Client) -> None:
    features: Any = client.features
    key, kind = fresh("feature"), fresh("kind")
    counting = client.meters.create(meter(kind))
    wanted = FeatureCreateInputs(
        key=key,
        name="Tokens of two models",
        meter_slug=counting.slug,
        advanced_meter_group_by_filters={"model": FilterString(in_property=["a", "b"])},
        unit_cost=FeatureManualUnitCost(
            type=FeatureUnitCostType.MANUAL, amount="0.000000000000000005"
        ),
        metadata=Metadata({"crm": "17"}),
    )
    made = features.create(wanted)
    assert (made.key, made.meter_slug, made.archived_at) == (key, counting.slug, None)
    assert made.advanced_meter_group_by_filters["model"].in_property == ["a", "b"]
    assert made.unit_cost["amount"] == "0.000000000000000005"  # a union stays a dict
    assert features.get(key).id == features.get(made.id).id == made.id
    assert [each["id"] for each in features.list(meter_slug=[counting.slug])] == [made.id]
    with pytest.raises(ResourceExistsError):
        features.create(wanted)
    with pytest.raises(ResourceExistsError) as used:
        client.meters.delete(counting.slug)
    answer: Any = used.value.response
    assert key in answer.json()["detail"]
    features.delete(made.id)
    with pytest.raises(ResourceNotFoundError):
        features.get(key)
    assert features.get(made.id).archived_at is not None
    assert features.create(FeatureCreateInputs(key=key, name="Static")).id != made.id
    client.meters.delete(counting.slug)


def test_a_refusal_is_understood(client: Client) -> None:
    with pytest.raises(HttpResponseError) as refusal:
        client.meters.create(MeterCreate(slug="NOT A SLUG", aggregation="SUM", event_type=""))
    assert refusal.value.response is not None
    assert refusal.value.response.status_code == 400
    with pytest.raises(HttpResponseError, match="400"):
        client.events.ingest_event(event("", "ada"))


def refused(refusal: HttpResponseError, status: int, title: str) -> str:
    """The detail of a problem that has all its members."""
    assert refusal.response is not None
    # As sent: two of the client's exceptions carry no model of the body.
    problem = json.loads(refusal.response.text())
    assert refusal.response.status_code == status
    assert (problem["status"], problem["title"]) == (status, title)
    detail: str = problem["detail"]
    assert detail
    return detail


def test_a_refusal_says_why(client: Client) -> None:
    wanted = meter(fresh("kind"))
    client.meters.create(wanted)
    with pytest.raises(ResourceExistsError) as conflict:
        client.meters.create(wanted)
    assert wanted.slug in refused(conflict.value, 409, "Conflict")
    with pytest.raises(ResourceNotFoundError) as missing:
        client.meters.get(fresh("none"))
    refused(missing.value, 404, "Not Found")
    with pytest.raises(HttpResponseError) as invalid:
        client.meters.query_json(wanted.slug, window_size="YEAR")
    detail = refused(invalid.value, 400, "Bad Request")
    model: Any = invalid.value.model
    assert (model.status, model.title, model.detail) == (400, "Bad Request", detail)


def test_async_client(server: Server) -> None:
    kind = fresh("kind")

    async def talk() -> None:
        async with AsyncClient(endpoint=server.url) as client:
            made = await client.meters.create(meter(kind))
            await client.events.ingest_event(event(kind, "ada", tokens=1, model="a"))
            await client.events.ingest_events([event(kind, "bob", tokens=2, model="b")] * 2)
            deadline = asyncio.get_running_loop().time() + 20
            while True:
                result = await client.meters.query_json(made.slug, group_by=["subject"])
                if sum(row.value for row in result.data) >= 3:
                    break
                assert asyncio.get_running_loop().time() < deadline
            assert totals(result) == [("ada", None, 1), ("bob", None, 2)]
            assert "ada,,1" in await client.meters.query_csv(made.slug, group_by=["subject"])
            events = await client.events.list(
                subject="ada", from_parameter=NOON - timedelta(days=1)
            )
            assert kind in {each.event.type for each in events}
            key = fresh("subject")
            subjects: Any = client.subjects
            await subjects.upsert([SubjectUpsert(key=key)])
            assert (await subjects.get(key)).key == key
            await subjects.delete(key)
            await client.meters.delete(made.slug)
            with pytest.raises(ResourceNotFoundError):
                await client.meters.get(made.slug)

    asyncio.run(talk())
