"""OpenMeter's published Python client drives notifications; only the base URL is ours."""

from typing import Any

import pytest
from corehttp.exceptions import ResourceExistsError, ResourceNotFoundError
from openmeter import Client
from openmeter.models import (
    FeatureCreateInputs,
    NotificationChannelType,
    NotificationChannelWebhookCreateRequest,
    NotificationEventResendRequest,
    NotificationEventType,
    NotificationRuleBalanceThresholdCreateRequest,
    NotificationRuleBalanceThresholdValue,
)

from tests.support.receiver import receiving
from tests.support.server import Server, wait_until
from tollgate.core.ids import new_ulid

pytestmark = pytest.mark.e2e


def test_channels_rules_and_events(server: Server) -> None:
    client = Client(endpoint=server.url)
    channels: Any = client.notification_channels
    rules: Any = client.notification_rules
    events: Any = client.notification_events
    feature: Any = client.features.create(
        FeatureCreateInputs(key=f"feature_{new_ulid().lower()}", name="Calls")
    )
    with receiving() as receiver:
        wanted = NotificationChannelWebhookCreateRequest(
            type=NotificationChannelType.WEBHOOK,
            name="Sales",
            url=receiver.url,
            custom_headers={"X-Team": "sales"},
        )
        channel = channels.create(wanted)
        channel_id = channel["id"]  # a union stays a dict
        assert channels.get(channel_id)["customHeaders"] == {"X-Team": "sales"}
        newest = channels.list(order="DESC", order_by="createdAt", page_size=1)
        assert [each["id"] for each in newest.items_property] == [channel_id]
        levels = [
            NotificationRuleBalanceThresholdValue(type=kind, value=value)
            for kind, value in (("usage_percentage", 80), ("balance_value", 0.5))
        ]
        about = NotificationRuleBalanceThresholdCreateRequest(
            type=NotificationEventType.ENTITLEMENTS_BALANCE_THRESHOLD,
            name="Nearly used up",
            thresholds=levels,
            channels=[channel_id],
            features=[feature.key],
        )
        rule = rules.create(about)
        assert [each["value"] for each in rule["thresholds"]] == [80, 0.5]
        (listed,) = rules.list(feature=[feature.id], channel=[channel_id]).items_property
        assert listed["id"] == rule["id"]
        event = rules.test(rule["id"])
        (got,) = receiver.wait_for(1)
        assert got.is_signed_by(channel["signingSecret"])
        assert (got.headers["x-team"], got.headers["webhook-id"]) == ("sales", event.id)
        delivered = events.list(rule=[rule["id"]], feature=[feature.key]).items_property
        assert [each.id for each in delivered] == [event.id]

        def state() -> str:
            found: str = events.get(event.id).delivery_status[0].state
            return found

        wait_until(lambda: state() == "SUCCESS", what="delivered")
        events.resend(event.id, NotificationEventResendRequest(channels=[channel_id]))
        assert receiver.wait_for(2)[1].body == got.body
    about.name = "Used up"
    assert rules.update(rule["id"], about)["name"] == "Used up"
    with pytest.raises(ResourceExistsError):
        channels.delete(channel_id)
    rules.delete(rule["id"])
    wanted.disabled = True
    assert channels.update(channel_id, wanted)["disabled"]
    channels.delete(channel_id)
    with pytest.raises(ResourceNotFoundError):
        channels.get(channel_id)
