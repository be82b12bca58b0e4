"""Ways to call the operations of limits."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from tests.support.houses import World, mark
from tests.support.probe import PLAIN, Probe, done


def limited(house: str) -> str:
    return f"limited_{house}"


def holder_of(house: str) -> dict[str, Any]:
    return {"customer": f"holder-of-{house}"}


def limited_of(house: str) -> dict[str, Any]:
    return holder_of(house) | {"features": [{"feature": limited(house)}]}


def gateway_headers_of(house: str) -> dict[str, str]:
    return {"x-tollgate-customer": f"holder-of-{house}", "x-tollgate-feature": limited(house)}


def by_limited(_world: World, house: str) -> Mapping[str, str]:
    return {"featureKey": limited(house)}


def by_reservation(number: int) -> Callable[[World, str], Mapping[str, str]]:
    return lambda world, house: {"reservationId": world.reservation_ids[house][number]}


def names_holder(answer: httpx.Response, _house: str) -> bool:
    return answer.is_success and "customerId" in answer.json()


LIMITS: Mapping[str, Sequence[Probe]] = {
    "checkLimits": (Probe(body=limited_of, own=names_holder),),
    "authorizeRequest": (Probe(headers=gateway_headers_of, own=names_holder),),
    "createReservation": (
        Probe(
            body=lambda h: holder_of(h) | {"amounts": [{"feature": limited(h), "amount": 1}]},
            own=names_holder,
        ),
    ),
    "listReservations": (PLAIN, Probe(query=holder_of)),
    "getReservation": (Probe(path=by_reservation(0)),),
    "settleReservation": (Probe(path=by_reservation(0), body=lambda _h: {}),),
    "releaseReservation": (Probe(path=by_reservation(1)),),
    "createBudget": (
        Probe(
            body=lambda h: (
                holder_of(h)
                | {"feature": limited(h), "scope": {"model": f"2-{mark(h)}"}, "amount": 1}
            )
        ),
    ),
    "listBudgets": (PLAIN, Probe(query=holder_of)),
    "deleteBudget": (Probe(path=lambda w, h: {"budgetId": w.budget_ids[h]}, own=done, ends=True),),
    "putLimitPolicy": (Probe(path=by_limited, body=lambda _h: {"failureMode": "open"}, own=done),),
    "getLimitPolicy": (Probe(path=by_limited, own=done),),
}
