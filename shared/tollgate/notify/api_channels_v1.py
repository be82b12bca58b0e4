"""v1 of notification channels on HTTP: create, list, read, replace, delete."""

from typing import Any

from tollgate.notify.channel import ChannelInput, parse_channel
from tollgate.notify.channel_store import ChannelListing, ChannelStore, Order
from tollgate.notify.wire_v1 import (
    ChannelBody,
    ChannelListParameters,
    ChannelMembers,
    ChannelPageBody,
    body_from_channel,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation
from tollgate.platform.database import open_database
from tollgate.platform.parts import Parts

ORDERS = {
    "id": Order.ID,
    "type": Order.KIND,
    "createdAt": Order.CREATED_AT,
    "updatedAt": Order.UPDATED_AT,
}


def open_channels(parts: Parts) -> ChannelStore:
    """The channels of the control plane."""
    return ChannelStore(parts.get(open_database), parts.clock)


def list_channels(call: Call) -> ChannelPageBody:
    """One page of channels."""
    query: ChannelListParameters = call.query
    listing = ChannelListing(
        page=query.page,
        page_size=query.page_size,
        order=ORDERS[query.order_by],
        descending=query.order == "DESC",
        include_deleted=query.include_deleted,
        include_disabled=query.include_disabled,
    )
    found, total = call.parts.get(open_channels).list(call.namespace, listing)
    shown = _may_see_secrets(call)
    return ChannelPageBody.model_construct(
        total_count=total,
        page=query.page,
        page_size=query.page_size,
        items=[body_from_channel(each, with_secrets=shown) for each in found],
    )


def create_channel(call: Call) -> ChannelBody:
    """Makes a channel; its secret is made, unless one is given."""
    wanted = _parse(call)
    made = call.parts.get(open_channels).create(call.namespace, wanted)
    return body_from_channel(made, with_secrets=True)


def get_channel(call: Call) -> ChannelBody:
    """One channel by id."""
    found = call.parts.get(open_channels).get(call.namespace, call.path["channelId"])
    return body_from_channel(found, with_secrets=_may_see_secrets(call))


def update_channel(call: Call) -> ChannelBody:
    """Makes a channel what the body says; what it leaves out is gone, but for the secret."""
    wanted = _parse(call)
    channels = call.parts.get(open_channels)
    changed = channels.replace(call.namespace, call.path["channelId"], wanted)
    return body_from_channel(changed, with_secrets=True)


def delete_channel(call: Call) -> None:
    """Deletes a channel that no rule sends to."""
    call.parts.get(open_channels).delete(call.namespace, call.path["channelId"])


def _parse(call: Call) -> ChannelInput:
    private = call.parts.settings.notify_private_addresses
    return parse_channel(call.body, private_addresses=private)


def _may_see_secrets(call: Call) -> bool:
    return Scope.ADMIN in call.access.scopes


def _operation(method: str, path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path=f"/api/v1/notification/channels{path}",
        operation_id=operation_id,
        summary=summary,
        tag="Notifications",
        **{"scope": Scope.READ} | more,
    )


_ONE = "/{channelId}"
OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "GET",
        "",
        "listNotificationChannels",
        "List notification channels",
        handler=list_channels,
        query=ChannelListParameters,
        response=ChannelPageBody,
    ),
    _operation(
        "POST",
        "",
        "createNotificationChannel",
        "Create a notification channel",
        handler=create_channel,
        body=ChannelMembers,
        response=ChannelBody,
        status=201,
        scope=Scope.ADMIN,
    ),
    _operation(
        "GET",
        _ONE,
        "getNotificationChannel",
        "Get notification channel",
        handler=get_channel,
        response=ChannelBody,
    ),
    _operation(
        "PUT",
        _ONE,
        "updateNotificationChannel",
        "Update a notification channel",
        handler=update_channel,
        body=ChannelMembers,
        response=ChannelBody,
        scope=Scope.ADMIN,
    ),
    _operation(
        "DELETE",
        _ONE,
        "deleteNotificationChannel",
        "Delete a notification channel",
        handler=delete_channel,
        status=204,
        scope=Scope.ADMIN,
        failures=(409,),
    ),
)
