"""A customer with a feature, and what is asked of its entitlements over HTTP."""

from typing import Any

from tests.support.server import Server
from tests.support.usage import Usage, event, exact, fresh

BEGIN = "2020-01-01T00:00:00Z"
CENTURY = {"interval": "P100Y", "anchor": BEGIN}
IDS = {
    ("POST", ""): "createCustomerEntitlementV2",
    ("GET", ""): "listCustomerEntitlementsV2",
    ("GET", "/x"): "getCustomerEntitlementV2",
    ("DELETE", "/x"): "deleteCustomerEntitlementV2",
    ("PUT", "/x/override"): "overrideCustomerEntitlementV2",
    ("GET", "/x/grants"): "listCustomerEntitlementGrantsV2",
    ("POST", "/x/grants"): "createCustomerEntitlementGrantV2",
    ("GET", "/x/value"): "getCustomerEntitlementValueV2",
    ("GET", "/x/history"): "getCustomerEntitlementHistoryV2",
    ("POST", "/x/reset"): "resetCustomerEntitlementUsageV2",
}


class Desk:
    """A customer of a test with a feature, and what is asked of its entitlements."""

    def __init__(self, server: Server) -> None:
        self.usage = Usage(server)
        self.http = server.http
        self.key = fresh("customer")
        body = {"key": self.key, "name": "n"}
        answer = self.http.post("/api/v1/customers", json=body)
        assert answer.status_code == 201, answer.text
        self.id: str = answer.json()["id"]
        self.feature = self.make_feature(meterSlug=self.usage.meter())

    def make_feature(self, **more: Any) -> str:
        key = fresh("f")
        answer = self.http.post("/api/v1/features", json={"key": key, "name": key} | more)
        assert answer.status_code == 201, answer.text
        return key

    def on(self, method: str, rest: str = "", status: int = 200, **more: Any) -> Any:
        """An operation on the customer's entitlements; the answer's numbers keep their digits."""
        _, name, action = (rest.partition("?")[0] + "//").split("/")[:3]
        template = ("/x" if name else "") + (f"/{action}" if action else "")
        path = f"/api/v2/customers/{self.key}/entitlements{rest}"
        headers = self.usage.waiting
        operation = IDS[method, template]
        answer = self.usage.call("v1", operation, method, path, headers=headers, **more)
        assert answer.status_code == status, answer.text
        return exact(answer.content) if answer.content else None

    def create(self, status: int = 201, **more: Any) -> Any:
        body = {"type": "metered", "featureKey": self.feature, "usagePeriod": CENTURY}
        return self.on("POST", "", status, json=body | {"measureUsageFrom": BEGIN} | more)

    def grant(self, amount: Any, status: int = 201, name: str = "", **more: Any) -> Any:
        body = {"amount": amount, "effectiveAt": BEGIN} | more
        return self.on("POST", f"/{name or self.feature}/grants", status, json=body)

    def value(self, name: str = "", **query: Any) -> Any:
        return self.on("GET", f"/{name or self.feature}/value", params=query)

    def use(self, *used: tuple[str, str]) -> None:
        self.usage.send(
            *(event(f'{{"v":{value}}}', time=time, subject=self.key) for time, value in used)
        )
