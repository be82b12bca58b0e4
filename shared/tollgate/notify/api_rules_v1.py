"""v1 of notification rules on HTTP: create, list, read, replace, delete, test."""

from typing import Any

from tollgate.core.errors import Fault, InvalidInput
from tollgate.limits.api_features_v1 import open_features
from tollgate.notify.api_channels_v1 import ORDERS
from tollgate.notify.doorbell import open_doorbell
from tollgate.notify.event_store import EventStore
from tollgate.notify.payload import json_bytes
from tollgate.notify.rule import FeatureName, RuleInput, parse_rule
from tollgate.notify.rule_store import RuleListing, RuleStore
from tollgate.notify.sample import sample_event
from tollgate.notify.wire_events_v1 import EventBody, members_from_event
from tollgate.notify.wire_v1 import (
    RuleBody,
    RuleListParameters,
    RuleMembers,
    RulePageBody,
    members_from_rule,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.database import open_database
from tollgate.platform.exact import exact_members
from tollgate.platform.parts import Parts


def open_rules(parts: Parts) -> RuleStore:
    """The rules of the control plane."""
    return RuleStore(parts.get(open_database), parts.clock)


def open_events(parts: Parts) -> EventStore:
    """The notification events of the control plane."""
    return EventStore(parts.get(open_database), to_log=parts.settings.notify_log)


def list_rules(call: Call) -> Reply:
    """One page of rules."""
    query: RuleListParameters = call.query
    listing = RuleListing(
        page=query.page,
        page_size=query.page_size,
        order=ORDERS[query.order_by],
        descending=query.order == "DESC",
        include_deleted=query.include_deleted,
        include_disabled=query.include_disabled,
        features=tuple(query.feature or ()),
        channels=tuple(query.channel or ()),
    )
    found, total = call.parts.get(open_rules).list(call.namespace, listing)
    page = {"totalCount": total, "page": query.page, "pageSize": query.page_size}
    return Reply(body=json_bytes(page | {"items": [members_from_rule(each) for each in found]}))


def create_rule(call: Call) -> Reply:
    """Makes a rule; what was reached before it tells too, once."""
    wanted = _parse(call)
    features = _features(call, wanted)
    made = call.parts.get(open_rules).create(call.namespace, wanted, features)
    return Reply(body=json_bytes(members_from_rule(made)))


def get_rule(call: Call) -> Reply:
    """One rule by id."""
    found = call.parts.get(open_rules).get(call.namespace, call.path["ruleId"])
    return Reply(body=json_bytes(members_from_rule(found)))


def update_rule(call: Call) -> Reply:
    """Makes a rule what the body says; what it leaves out is gone. Its type stays."""
    wanted = _parse(call)
    features = _features(call, wanted)
    rules = call.parts.get(open_rules)
    changed = rules.replace(call.namespace, call.path["ruleId"], wanted, features)
    return Reply(body=json_bytes(members_from_rule(changed)))


def delete_rule(call: Call) -> None:
    """Deletes a rule; what it told is still delivered."""
    call.parts.get(open_rules).delete(call.namespace, call.path["ruleId"])


def test_rule(call: Call) -> Reply:
    """Sends an event with made-up data to the rule's channels, also of a disabled rule."""
    rule = call.parts.get(open_rules).get(call.namespace, call.path["ruleId"])
    event = sample_event(rule, call.parts.clock.now())
    events = call.parts.get(open_events)
    events.write([event])
    call.parts.get(open_doorbell).ring()
    return Reply(body=json_bytes(members_from_event(events.get(call.namespace, event.id))))


def _parse(call: Call) -> RuleInput:
    return parse_rule(exact_members(call.raw))


def _features(call: Call, wanted: RuleInput) -> tuple[FeatureName, ...]:
    """The features that a rule names, each once.

    Raises:
        InvalidInput: there is no such feature: every fault.
    """
    store = call.parts.get(open_features)
    by_id = store.by_ids(call.namespace, wanted.features)
    by_key = store.by_keys(call.namespace, wanted.features)
    found: dict[str, FeatureName] = {}
    faults = []
    for number, name in enumerate(wanted.features):
        feature = by_id.get(name) or by_key.get(name)
        if feature is None:
            message = f"there is no feature {name}"
            place = f"features.{number}"
            faults.append(Fault(field=place, code="unknown_feature", message=message))
        else:
            found[feature.id] = FeatureName(id=feature.id, key=feature.key)
    if faults:
        raise InvalidInput(tuple(faults))
    return tuple(found.values())


def _operation(method: str, path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path=f"/api/v1/notification/rules{path}",
        operation_id=operation_id,
        summary=summary,
        tag="Notifications",
        **{"scope": Scope.READ} | more,
    )


_ONE = "/{ruleId}"
OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "GET",
        "",
        "listNotificationRules",
        "List notification rules",
        handler=list_rules,
        query=RuleListParameters,
        response=RulePageBody,
    ),
    _operation(
        "POST",
        "",
        "createNotificationRule",
        "Create a notification rule",
        handler=create_rule,
        body=RuleMembers,
        response=RuleBody,
        status=201,
        scope=Scope.ADMIN,
    ),
    _operation(
        "GET",
        _ONE,
        "getNotificationRule",
        "Get notification rule",
        handler=get_rule,
        response=RuleBody,
    ),
    _operation(
        "PUT",
        _ONE,
        "updateNotificationRule",
        "Update a notification rule",
        handler=update_rule,
        body=RuleMembers,
        response=RuleBody,
        scope=Scope.ADMIN,
    ),
    _operation(
        "DELETE",
        _ONE,
        "deleteNotificationRule",
        "Delete a notification rule",
        handler=delete_rule,
        status=204,
        scope=Scope.ADMIN,
    ),
    _operation(
        "POST",
        f"{_ONE}/test",
        "testNotificationRule",
        "Test notification rule",
        handler=test_rule,
        response=EventBody,
        status=201,
        scope=Scope.ADMIN,
    ),
)
