"""`tollgate demo --gateway`: an AI gateway that meters tokens, and stops where the quota ends.

For every request it holds as many tokens as the answer may have, asks the model, reports what was
used, and settles. What it shows is what a real one would do, with a model that is made up.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

from tollgate.cli.http import CommandError, Connection
from tollgate.core.clock import Clock
from tollgate.core.times import format_instant

_FEATURE = "gateway_tokens"
_METER = "tokens_total"
_QUOTA = 10_000
_TOKENS_MAX = 1_500
_REQUESTS_MAX = 60
_AFTER_RESET = 3
_POSITION = "tollgate-position"
_LOOKS, _LOOK_SECONDS = 300, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One request of the gateway's client, and what became of it."""

    held: str
    used: str
    available: str
    outcome: str


def run_gateway(connection: Connection, clock: Clock) -> None:
    """Makes a customer with a quota, and answers its requests until they are blocked.

    Raises:
        CommandError: no answer, a refusal, or the sample meters are not there.
    """
    console = Console()
    now = clock.now()
    customer = f"gateway-{now:%Y%m%d-%H%M%S}"
    gateway = _Gateway(connection, customer, clock)
    gateway.prepare(now)
    console.print(f"Customer {customer}: {_QUOTA:,} tokens a month. Requests come in ...")
    calls = []
    for _ in range(_REQUESTS_MAX):
        calls.append(gateway.answer())
        if calls[-1].outcome == "blocked":
            break
    else:
        raise CommandError(f"{_REQUESTS_MAX} requests were answered: the quota blocked none")
    _print(console, "Until the quota is used up", calls)
    gateway.reset()
    console.print("The quota begins anew (here by hand, else at the end of the month).")
    _print(console, "After the reset", [gateway.answer() for _ in range(_AFTER_RESET)])
    used, metered = gateway.used, gateway.metered()
    console.print(f"Tokens that the model used: {used:,}; on the meter: {metered:,}.")
    if used != metered:
        raise CommandError("the meter does not say what was used")


class _Gateway:
    """A gateway in front of a model, for one customer."""

    def __init__(self, connection: Connection, customer: str, clock: Clock) -> None:
        self._connection = connection
        self._customer = customer
        self._clock = clock
        self._model = Random(customer)  # noqa: S311 -- a model that is made up
        self._count = 0
        self._position = ""
        self.used = 0

    def prepare(self, now: datetime) -> None:
        """Makes the feature, unless it is there, the customer, and its right."""
        found = self._json("GET", "/api/v1/features")
        if all(each["key"] != _FEATURE for each in found):
            feature = {"key": _FEATURE, "name": "Tokens through the gateway", "meterSlug": _METER}
            self._json("POST", "/api/v1/features", feature)
        self._json("POST", "/api/v1/customers", {"key": self._customer, "name": "Gateway demo"})
        right = {
            "type": "metered",
            "featureKey": _FEATURE,
            "usagePeriod": {"interval": "MONTH", "anchor": format_instant(now)},
            "issue": {"amount": _QUOTA},
        }
        self._json("POST", f"/api/v2/customers/{self._customer}/entitlements", right)

    def answer(self) -> _Call:
        """Holds, asks the model, reports and settles; or says that there is no room."""
        self._count += 1
        amounts = [{"feature": _FEATURE, "amount": _TOKENS_MAX}]
        wanted = {
            "customer": self._customer,
            "amounts": amounts,
            "idempotencyKey": f"{self._customer}-{self._count}",
        }
        hold = self._json("POST", "/api/v1/limits/reservations", wanted)
        if not hold["allowed"]:
            left = hold["holds"][0]["available"]
            return _Call(held="-", used="-", available=left, outcome="blocked")
        tokens = self._model.randrange(200, _TOKENS_MAX)
        self.used += tokens
        event_id = f"{self._customer}-{self._count}"
        event = {
            "specversion": "1.0",
            "id": event_id,
            "source": "demo/gateway",
            "type": "prompt",
            "subject": self._customer,
            "data": {"tokens": tokens, "model": "made-up", "type": "output"},
        }
        sent = self._connection.request(
            "POST",
            "/api/v1/events",
            body=event,
            headers={"Content-Type": "application/cloudevents+json"},
        )
        self._position = sent.headers[_POSITION]
        settled = self._json(
            "POST",
            f"/api/v1/limits/reservations/{hold['id']}/settle",
            {
                "amounts": [{"feature": _FEATURE, "amount": tokens}],
                "event": {"source": "demo/gateway", "id": event_id},
                "position": self._position,
            },
        )
        return _Call(
            held=str(_TOKENS_MAX),
            used=str(tokens),
            available=settled["holds"][0]["available"],
            outcome="answered",
        )

    def reset(self) -> None:
        """Begins the usage period anew, and waits until limits know."""
        # What was used before has to be counted before.
        self._check()
        path = f"/api/v2/customers/{self._customer}/entitlements/{_FEATURE}/reset"
        self._connection.request("POST", path, body={})
        for _ in range(_LOOKS):
            if Decimal(self._check()["available"]) == _QUOTA:
                return
            threading.Event().wait(_LOOK_SECONDS)
        raise CommandError("the reset is not known to limits")

    def metered(self) -> int:
        """What the meter says."""
        query = {"subject": self._customer}
        path = f"/api/v1/meters/{_METER}/query"
        rows = self._json("GET", path, query=query, headers={_POSITION: self._position})["data"]
        return sum(int(row["value"]) for row in rows)

    def _check(self) -> Any:
        body = {"customer": self._customer, "features": [{"feature": _FEATURE}]}
        headers = {_POSITION: self._position}
        return self._json("POST", "/api/v1/limits/check", body, headers=headers)["limits"][0]

    def _json(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        answer = self._connection.request(method, path, query=query, body=body, headers=headers)
        return answer.json() if answer.body else None


def _print(console: Console, title: str, calls: list[_Call]) -> None:
    table = Table("request", title=title)
    for name in ("held", "used", "left", ""):
        table.add_column(name, justify="right" if name else "left")
    for number, call in enumerate(calls, 1):
        table.add_row(str(number), call.held, call.used, call.available, call.outcome)
    console.print(table)
