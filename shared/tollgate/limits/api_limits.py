"""Limits on HTTP: check, reserve, settle, release; budgets and policies."""

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.ids import new_ulid
from tollgate.events.position import HEADER, parse_token
from tollgate.limits.account import Account
from tollgate.limits.check import Verdict
from tollgate.limits.limit_parts import Limits, open_limits
from tollgate.limits.limit_rule import Policy
from tollgate.limits.reservation import Hold, Reservation, ReservationState, Settlement
from tollgate.limits.reservation_work import Decision, Releasing, Settling
from tollgate.limits.wire_limit_rules import (
    BudgetBody,
    BudgetPageBody,
    BudgetRequestBody,
    PolicyBody,
    body_from_budget,
    body_from_policy,
)
from tollgate.limits.wire_limits import (
    AmountBody,
    CheckAnswerBody,
    CheckBody,
    limit_from_verdict,
    rate_limit_headers,
)
from tollgate.limits.wire_reservations import (
    ReservationBody,
    ReservationListParameters,
    ReservationPageBody,
    ReservationRequestBody,
    SettleBody,
    accounts_text,
    body_from_decision,
    body_from_reservation,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.parts import Parts

_ZERO = Decimal(0)
_UNSEEN_FOR = timedelta(hours=1)


def limits_of(parts: Parts) -> Limits:
    """What the limits function decides by."""
    return parts.get(open_limits)


async def verdicts(
    limits: Limits,
    namespace: str,
    customer: str,
    amounts: Mapping[str, Decimal],
    scope: Mapping[str, str],
) -> tuple[str, list[Verdict]]:
    """The customer's id, and what every limit says that amounts of features have to pass.

    Raises:
        NotFound: there is no such customer. Transient: a store is away, and a limit fails closed.
    """
    customer_id = await limits.checking.customer_id(namespace, customer)
    asked: dict[Account, Decimal] = {}
    for feature, amount in amounts.items():
        for account in await limits.checking.accounts(namespace, customer_id, feature, scope):
            asked[account] = amount
    found = await limits.checking.check(asked)
    if any(each.kind is None for each in found):
        # The key may be another customer's by now.
        limits.checking.forget(namespace, customer)
    return customer_id, found


async def check(call: Call) -> CheckAnswerBody:
    """Whether a customer may use features now. Nothing is held."""
    body: CheckBody = call.body
    _require_distinct([each.feature for each in body.features], "features")
    amounts = {each.feature: each.amount or _ZERO for each in body.features}
    limits = limits_of(call.parts)
    position = call.headers.get(HEADER.lower())
    if position is not None:
        await limits.checking.reach(parse_token(position), call.parts.settings.position_wait_ms)
    customer_id, found = await verdicts(
        limits, call.namespace, body.customer, amounts, body.scope or {}
    )
    call.answer_headers.update(rate_limit_headers(found, call.parts.clock.now()))
    return CheckAnswerBody(
        allowed=all(each.allowed for each in found),
        customer_id=customer_id,
        limits=[limit_from_verdict(each) for each in found],
    )


async def reserve(call: Call) -> Reply:
    """Holds amounts of all limits that they have to pass, or none."""
    body: ReservationRequestBody = call.body
    _require_distinct([each.feature for each in body.amounts], "amounts")
    limits = limits_of(call.parts)
    customer_id = await limits.checking.customer_id(call.namespace, body.customer)
    amounts: dict[Account, Decimal] = {}
    for each in body.amounts:
        for account in await limits.checking.accounts(
            call.namespace, customer_id, each.feature, body.scope or {}
        ):
            amounts[account] = each.amount
    now = call.parts.clock.now()
    asked = Reservation(
        id=new_ulid(),
        namespace=call.namespace,
        customer_id=customer_id,
        idempotency_key=body.idempotency_key,
        fingerprint=accounts_text(amounts),
        state=ReservationState.HELD,
        created_at=now,
        expires_at=now + timedelta(seconds=body.ttl_seconds),
        holds=tuple(Hold(account=each, amount=amount) for each, amount in amounts.items()),
    )
    decision = await limits.reserving.ask(asked)
    limits.holds.note(decision.standings)
    answer = body_from_decision(decision, customer_id, asked.holds)
    return Reply(
        body=answer.model_dump_json(by_alias=True, exclude_none=True).encode(),
        status=201 if decision.reservation is not None and decision.is_new else 200,
    )


async def settle(call: Call) -> ReservationBody:
    """Ends a reservation by what was used."""
    body: SettleBody = call.body
    limits = limits_of(call.parts)
    amounts: list[AmountBody] = body.amounts or []
    _require_distinct([each.feature for each in amounts], "amounts")
    now = call.parts.clock.now()
    text, field = body.position, "position"
    if text is None:
        text, field = call.headers.get(HEADER.lower()), HEADER
    settlement = Settlement(
        actual={each.feature: each.amount for each in amounts},
        source=body.event.source if body.event else "",
        event_id=body.event.id if body.event else "",
        position=None if text is None else parse_token(text, field),
        settled_at=now,
        unseen_until=now + _UNSEEN_FOR,
    )
    decision = await limits.reserving.ask(
        Settling(namespace=call.namespace, id=_id(call), settlement=settlement)
    )
    return _ended(limits, decision)


async def release(call: Call) -> ReservationBody:
    """Ends a reservation without usage."""
    limits = limits_of(call.parts)
    decision = await limits.reserving.ask(Releasing(namespace=call.namespace, id=_id(call)))
    return _ended(limits, decision)


def _ended(limits: Limits, decision: Decision) -> ReservationBody:
    limits.holds.note(decision.standings)
    assert decision.reservation is not None
    return body_from_decision(decision, decision.reservation.customer_id, ())


def get_reservation(call: Call) -> ReservationBody:
    """One reservation as it is now."""
    found = limits_of(call.parts).reservations.get(call.namespace, _id(call))
    return body_from_reservation(found)


def list_reservations(call: Call) -> ReservationPageBody:
    """Reservations in the order of their making."""
    query: ReservationListParameters = call.query
    limits = limits_of(call.parts)
    customer_id = None
    if query.customer is not None:
        customer_id = limits.customers.get(call.namespace, query.customer).id
    found = limits.reservations.listed(
        call.namespace, customer_id, after=query.after.upper(), limit=query.limit + 1
    )
    shown = found[: query.limit]
    return ReservationPageBody(
        items=[body_from_reservation(each) for each in shown],
        next=shown[-1].id if len(found) > len(shown) else None,
    )


def create_budget(call: Call) -> BudgetBody:
    """Makes a budget within a customer's limit."""
    body: BudgetRequestBody = call.body
    limits = limits_of(call.parts)
    limits.require_dimensions(call.namespace, body.feature, body.scope)
    made = limits.rules.create_budget(
        call.namespace, body.customer, body.feature, body.scope, body.amount
    )
    return body_from_budget(made)


def list_budgets(call: Call) -> BudgetPageBody:
    """Budgets in the order of their making."""
    query: ReservationListParameters = call.query
    found = limits_of(call.parts).rules.list_budgets(
        call.namespace, query.customer, after=query.after.upper(), limit=query.limit + 1
    )
    shown = found[: query.limit]
    return BudgetPageBody(
        items=[body_from_budget(each) for each in shown],
        next=shown[-1].id if len(found) > len(shown) else None,
    )


def delete_budget(call: Call) -> None:
    """Ends a budget; the limit that it was a part of stays."""
    limits_of(call.parts).rules.delete_budget(call.namespace, call.path["budgetId"])


def put_policy(call: Call) -> PolicyBody:
    """Says how a feature's limits fail."""
    body: PolicyBody = call.body
    limits = limits_of(call.parts)
    feature = limits.features.get_live(call.namespace, call.path["featureKey"])
    limits.rules.put_policy(call.namespace, feature.key, body.policy())
    return body


def get_policy(call: Call) -> PolicyBody:
    """How a feature's limits fail."""
    limits = limits_of(call.parts)
    feature = limits.features.get_live(call.namespace, call.path["featureKey"])
    known = limits.rules.policies().get((call.namespace, feature.key))
    return body_from_policy(known or Policy())


def _id(call: Call) -> str:
    return call.path["reservationId"].upper()


def _require_distinct(features: list[str], field: str) -> None:
    if len(set(features)) < len(features):
        message = "names a feature twice; add its amounts up"
        raise InvalidInput((Fault(field=field, code="repeated", message=message),))


def _operation(method: str, path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path=f"/api/v1/limits{path}",
        operation_id=operation_id,
        summary=summary,
        tag="Limits",
        **{"scope": Scope.READ} | more,
    )


_ONE = "/reservations/{reservationId}"
OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "POST",
        "/check",
        "checkLimits",
        "Whether a customer may use features now",
        handler=check,
        body=CheckBody,
        response=CheckAnswerBody,
        failures=(404,),
        description="Answered from memory; with `Tollgate-Position` once usage up to there is "
        "known. `X-RateLimit-Limit`, `-Remaining` and `-Reset` are of "
        "the limit with the least left.",
    ),
    _operation(
        "POST",
        "/reservations",
        "createReservation",
        "Hold amounts of several limits, all or none",
        handler=reserve,
        body=ReservationRequestBody,
        response=ReservationBody,
        status=201,
        scope=Scope.INGEST,
        failures=(404,),
        document={"responses": {"200": {"description": "Held before, or refused."}}},
        description="201: held. 200: it was held before under the same key, or `allowed` is false "
        "and nothing was. Never more is held than the limit less known usage.",
    ),
    _operation(
        "GET",
        "/reservations",
        "listReservations",
        "List reservations",
        handler=list_reservations,
        query=ReservationListParameters,
        response=ReservationPageBody,
        failures=(404,),
    ),
    _operation(
        "GET",
        _ONE,
        "getReservation",
        "Get a reservation",
        handler=get_reservation,
        response=ReservationBody,
    ),
    _operation(
        "POST",
        f"{_ONE}/settle",
        "settleReservation",
        "End a reservation by what was used",
        handler=settle,
        body=SettleBody,
        response=ReservationBody,
        scope=Scope.INGEST,
        failures=(409,),
        description="Never refused for its size: `beyondHold` and `beyondLimit` say what it did.",
    ),
    _operation(
        "POST",
        f"{_ONE}/release",
        "releaseReservation",
        "End a reservation without usage",
        handler=release,
        response=ReservationBody,
        scope=Scope.INGEST,
        failures=(409,),
    ),
    _operation(
        "POST",
        "/budgets",
        "createBudget",
        "Make a budget within a customer's limit",
        handler=create_budget,
        body=BudgetRequestBody,
        response=BudgetBody,
        status=201,
        scope=Scope.ADMIN,
        failures=(404, 409),
    ),
    _operation(
        "GET",
        "/budgets",
        "listBudgets",
        "List budgets",
        handler=list_budgets,
        query=ReservationListParameters,
        response=BudgetPageBody,
        failures=(404,),
    ),
    _operation(
        "DELETE",
        "/budgets/{budgetId}",
        "deleteBudget",
        "End a budget",
        handler=delete_budget,
        status=204,
        scope=Scope.ADMIN,
    ),
    _operation(
        "PUT",
        "/policies/{featureKey}",
        "putLimitPolicy",
        "Say how a feature's limits fail",
        handler=put_policy,
        body=PolicyBody,
        response=PolicyBody,
        scope=Scope.ADMIN,
    ),
    _operation(
        "GET",
        "/policies/{featureKey}",
        "getLimitPolicy",
        "How a feature's limits fail",
        handler=get_policy,
        response=PolicyBody,
    ),
)
