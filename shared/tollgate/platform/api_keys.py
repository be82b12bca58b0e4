"""Access keys on HTTP: made, listed, revoked.

An admin key manages the keys of its own namespace, an operator key those of all. A secret is in one
answer only, the one that makes the key; it is never logged, and neither is its hash.
"""

import logging
from typing import Any

from pydantic import Field

from tollgate.core.errors import Conflict, Forbidden, NotFound, TollgateError
from tollgate.platform.access import Scope
from tollgate.platform.access_store import AccessKey, AccessKeyInput, AccessKeyStore
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.database import open_database
from tollgate.platform.keys import open_key_refresh
from tollgate.platform.parts import Parts
from tollgate.platform.wire import Wire, WireInstant

_log = logging.getLogger(__name__)


class AccessKeyCreateBody(Wire):
    """What a person asks for."""

    name: str = Field(default="", description="what the key is for")
    namespace: str | None = Field(
        default=None, description="only an operator may name another than their own"
    )
    scopes: list[str] = Field(description="ingest, read, admin, operator")
    expires_at: WireInstant | None = Field(
        default=None, alias="expiresAt", description="good before this instant; left out: for ever"
    )


class AccessKeyBody(Wire):
    """A key without its secret."""

    id: str
    namespace: str
    name: str
    scopes: list[str]
    prefix: str = Field(description="the key's text up to its secret")
    last_four: str = Field(alias="lastFour", description="the last characters of the secret")
    created_at: WireInstant = Field(alias="createdAt")
    expires_at: WireInstant | None = Field(default=None, alias="expiresAt")
    revoked_at: WireInstant | None = Field(default=None, alias="revokedAt")


class AccessKeyCreatedBody(AccessKeyBody):
    """A new key, its secret included."""

    key: str = Field(description="send it as `Authorization: Bearer`; it is shown this once")


class AccessKeyListParameters(Wire):
    """Which keys."""

    namespace: str | None = Field(default=None, description="for operators: only of this namespace")


class AccessKeyRevokeParameters(Wire):
    """How to revoke."""

    force: bool = Field(
        default=False, description="revoke even the last key that could manage the others"
    )


def open_access_keys(parts: Parts) -> AccessKeyStore:
    """The access keys of the control plane."""
    return AccessKeyStore(parts.get(open_database), parts.clock)


def list_access_keys(call: Call) -> list[AccessKeyBody]:
    """Keys in SQL, revoked and expired ones too, oldest first."""
    asked: str | None = call.query.namespace
    if Scope.OPERATOR not in call.access.scopes:
        _require_own_namespace(call, asked)
        asked = call.namespace
    return [_body_from_key(key) for key in call.parts.get(open_access_keys).list(asked)]


def create_access_key(call: Call) -> Reply:
    """Makes a key. From the first one on, every request needs a key, from now on."""
    body: AccessKeyCreateBody = call.body
    if Scope.OPERATOR not in call.access.scopes:
        _require_own_namespace(call, body.namespace)
        if Scope.OPERATOR in body.scopes:
            raise Forbidden("only an operator can make an operator key")
    key, text = call.parts.get(open_access_keys).create(
        AccessKeyInput(
            namespace=call.namespace if body.namespace is None else body.namespace,
            scopes=body.scopes,
            name=body.name,
            expires_at=body.expires_at,
        ),
        # Keys of a file are in force already, so somebody manages.
        first_must_manage=not call.parts.get(open_key_refresh).from_file,
    )
    _note(call, "access key created", key)
    created = AccessKeyCreatedBody(**_body_from_key(key).model_dump(), key=text)
    return Reply(
        body=created.model_dump_json(by_alias=True, exclude_none=True).encode(),
        headers=(("cache-control", "no-store"),),
    )


def revoke_access_key(call: Call) -> None:
    """Ends a key at once in this process, within seconds in others. Again: no effect."""
    store, key_id = call.parts.get(open_access_keys), call.path["id"].upper()
    from_file = call.parts.get(open_key_refresh).from_file
    namespace = None if Scope.OPERATOR in call.access.scopes else call.namespace
    try:
        key = store.get(key_id, namespace)
    except NotFound:
        if any(k.id == call.path["id"] and namespace in (None, k.namespace) for k in from_file):
            raise Conflict("this key is in the keys file: take it out there and restart") from None
        raise
    if namespace is not None and Scope.OPERATOR in key.scopes:
        raise Forbidden("only an operator can revoke an operator key")
    key = store.revoke(key_id, namespace, keep_managed=not call.query.force, others=from_file)
    _note(call, "access key revoked", key)


def _require_own_namespace(call: Call, asked: str | None) -> None:
    if asked not in (None, call.namespace):
        raise Forbidden("only an operator manages keys of another namespace")


def _note(call: Call, what: str, key: AccessKey) -> None:
    _log.info(
        what,
        extra={
            "key_id": key.id,
            "key_namespace": key.namespace,
            "key_scopes": sorted(key.scopes),
            "by_key_id": call.access.key_id,
        },
    )
    try:
        call.parts.get(open_key_refresh).now()
    except TollgateError as problem:
        # It is done, and must be answered so: the key is shown now or never.
        _log.warning("access keys could not be read", extra={"problem": problem.detail})


def _body_from_key(key: AccessKey) -> AccessKeyBody:
    return AccessKeyBody(
        id=key.id,
        namespace=key.namespace,
        name=key.name,
        scopes=sorted(key.scopes),
        prefix=key.prefix,
        last_four=key.last_four,
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
    )


def _operation(method: str, path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path=f"/api/v1/access-keys{path}",
        operation_id=operation_id,
        summary=summary,
        tag="Access keys",
        scope=Scope.ADMIN,
        **more,
    )


OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "GET",
        "",
        "listAccessKeys",
        "List access keys",
        handler=list_access_keys,
        query=AccessKeyListParameters,
        response=list[AccessKeyBody],
        description="Those of the caller's namespace, of all namespaces for an operator; keys of "
        "the keys file are not listed.",
    ),
    _operation(
        "POST",
        "",
        "createAccessKey",
        "Make an access key",
        handler=create_access_key,
        body=AccessKeyCreateBody,
        response=AccessKeyCreatedBody,
        status=201,
        description="The first key must have the scope admin or operator: from then on every "
        "request needs a key.",
    ),
    _operation(
        "DELETE",
        "/{id}",
        "revokeAccessKey",
        "Revoke an access key",
        handler=revoke_access_key,
        query=AccessKeyRevokeParameters,
        status=204,
    ),
)
