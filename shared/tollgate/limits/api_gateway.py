"""External authorization for gateways: may this request pass?

Envoy's HTTP service (`envoy.filters.http.ext_authz`) asks with the method, path and headers of the
request that it holds; nginx (`auth_request`) and Traefik (`forwardAuth`) ask alike. 200 lets it
pass, anything else is given to the client. Nothing is read of the request but these headers:

- `x-tollgate-customer`: id or key. `x-tollgate-feature`: one key, or several with commas.
- `x-tollgate-amount`: how much has to be left, 1 if it is left out.
- `x-tollgate-scope`: `project=p1,user=u7`, where budgets are to be passed too.
- `x-tollgate-key`: the access key, where `authorization` is the client's own.
"""

from decimal import Decimal, InvalidOperation

from tollgate.core.errors import Fault, Forbidden, InvalidInput, NotFound
from tollgate.limits.api_limits import limits_of, verdicts
from tollgate.limits.wire_limits import (
    FEATURES_MAX,
    CheckAnswerBody,
    limit_from_verdict,
    rate_limit_headers,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.body import Scope as Request

PATH = "/api/v1/limits/authorize"
_CUSTOMER, _FEATURE = "x-tollgate-customer", "x-tollgate-feature"
_AMOUNT, _SCOPE, _KEY = "x-tollgate-amount", "x-tollgate-scope", b"x-tollgate-key"
_OURS = b"Bearer tg_"


def gateway_request(scope: Request) -> Request:
    """The request as an operation: what follows the path is of the request that it is about."""
    path: str = scope["path"]
    if path != PATH and not path.startswith(f"{PATH}/"):
        return scope
    keys = [b"Bearer " + value for name, value in scope["headers"] if name == _KEY]
    keys += [v for n, v in scope["headers"] if n == b"authorization" and v.startswith(_OURS)]
    headers = [(name, value) for name, value in scope["headers"] if name != b"authorization"]
    headers += [(b"authorization", key) for key in keys[:1]]
    return {
        **scope,
        "method": "GET",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "headers": headers,
    }


async def authorize(call: Call) -> Reply:
    """Whether a request may pass: 200, or 429 with when to come again, or 403."""
    customer, features = _header(call, _CUSTOMER), _header(call, _FEATURE).split(",")
    if len(features) > FEATURES_MAX:
        raise _refused(_FEATURE, f"names more than {FEATURES_MAX} features")
    amount = _amount(call.headers.get(_AMOUNT, "1"))
    amounts = {feature.strip(): amount for feature in features if feature.strip()}
    limits = limits_of(call.parts)
    try:
        customer_id, found = await verdicts(
            limits, call.namespace, customer, amounts, _scope(call.headers.get(_SCOPE, ""))
        )
    except NotFound as unknown:
        raise Forbidden(unknown.detail) from None
    answer = CheckAnswerBody(
        allowed=all(each.allowed for each in found),
        customer_id=customer_id,
        limits=[limit_from_verdict(each) for each in found],
    )
    has_right = all(each.reason != "no_entitlement" for each in found)
    status = 200 if answer.allowed else 429 if has_right else 403
    return Reply(
        body=answer.model_dump_json(by_alias=True, exclude_none=True).encode(),
        status=status,
        headers=tuple(rate_limit_headers(found, call.parts.clock.now()).items()),
    )


def _header(call: Call, name: str) -> str:
    value = call.headers.get(name, "").strip()
    if not value:
        raise _refused(name, "is needed: the gateway has to send it")
    return value


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise _refused(_AMOUNT, "is no number") from None
    if not amount.is_finite() or amount < 0 or len(text) > 60:
        raise _refused(_AMOUNT, "must be 0 or more")
    return amount


def _scope(text: str) -> dict[str, str]:
    found = {}
    for pair in filter(None, text.split(",")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise _refused(_SCOPE, "is not of the form project=p1,user=u7")
        found[name.strip()] = value.strip()
    return found


def _refused(field: str, message: str) -> InvalidInput:
    return InvalidInput((Fault(field=field, code="invalid_header", message=message),))


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="GET",
        path=PATH,
        operation_id="authorizeRequest",
        summary="Whether a gateway may let a request pass",
        tag="Limits",
        scope=Scope.READ,
        handler=authorize,
        response=CheckAnswerBody,
        failures=(400, 403, 429),
        description="External authorization of Envoy over HTTP, `auth_request` of nginx: any "
        "method, and any path behind this one. Asked by the headers `x-tollgate-customer`, "
        "`x-tollgate-feature`, `x-tollgate-amount`, `x-tollgate-scope` and `x-tollgate-key`.",
    ),
)
