"""Operations: what an API offers, said once. Routes and the OpenAPI document are made from it.

A handler is a plain function run on a thread, or a coroutine function run on the loop, which must
not wait for anything else: it gets a `Call` (namespace, checked parameters and body) and gives a
model, a list of models, or a `Reply`.
"""

import asyncio
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import Any, get_origin
from urllib.parse import parse_qsl, unquote

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from tollgate.core.errors import (
    Fault,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    TollgateError,
    Unsupported,
)
from tollgate.platform.access import Access, Scope
from tollgate.platform.application import send_problem, send_reply
from tollgate.platform.body import Receive, Send, header, read_body
from tollgate.platform.body import Scope as Request
from tollgate.platform.deep_object import parse_deep_objects
from tollgate.platform.keys import open_keys
from tollgate.platform.parts import Parts
from tollgate.platform.problem import Wire
from tollgate.platform.telemetry import trace_context

_PARAMETER = re.compile(r"\{(\w+)\}")
_JSON_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json", re.IGNORECASE)
_QUERY_PAIRS_MAX = 1000
_BODY_BYTES_MAX = 1 << 20  # events come in bulk, meters and subjects do not
JSON = "application/json"
_building = threading.Lock()
_NOBODY = Access(namespace="", scopes=frozenset(), key_id="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer whose body is ready.

    Attributes:
        body: bytes of `media_type`.
        status: HTTP status; None: the operation's.
        headers: further headers, lower case.
        stream: pieces of a body too large to hold, made on a thread while they are sent; closed
            early if the client goes. If it fails, the connection breaks and the client can tell.
    """

    body: bytes = b""
    media_type: str = JSON
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    stream: Iterator[bytes] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, checked.

    Attributes:
        access: what the caller may do.
        path: path parameters.
        query: the operation's query model, or None.
        body: the operation's body model, or None.
        headers: request headers, lower case; the last of a name.
        target: path and query string as sent.
        parts: of the process.
        raw: the body as sent; it was checked against the operation's model.
        answer_headers: what the handler adds to the answer, also to a refusal.
    """

    access: Access
    path: Mapping[str, str]
    query: Any
    body: Any
    headers: Mapping[str, str]
    target: str
    parts: Parts
    raw: bytes = b""
    answer_headers: dict[str, str] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """The only namespace that the call sees."""
        return self.access.namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path.

    Attributes:
        method, path: as in OpenAPI, `/api/v1/meters/{meterIdOrSlug}`.
        operation_id: OpenAPI's operationId, the contract's where it has one.
        summary: one line for people.
        tag: group in the document.
        scope: what the key needs; None: nothing, the call is outside all namespaces.
        handler: does the work.
        query: model of the query parameters.
        body: model of the JSON body, or a type that pydantic can read.
        body_optional: no body at all stands for an empty object.
        response: model of the answer, or a type that pydantic can write; None: no body.
        status: of success.
        wire: whose errors and spelling.
        other_media: media types besides JSON that the answer may have.
        description: more lines for people.
        failures: statuses of problems that the rest does not imply.
        document: laid over the operation in the OpenAPI document; a None removes.
    """

    method: str
    path: str
    operation_id: str
    summary: str
    tag: str
    scope: Scope | None
    handler: Callable[[Call], object]
    query: type[BaseModel] | None = None
    body: Any = None
    body_optional: bool = False
    response: Any = None
    status: int = 200
    wire: Wire = "v1"
    other_media: tuple[str, ...] = ()
    description: str = ""
    failures: tuple[int, ...] = ()
    document: Mapping[str, Any] = field(default_factory=dict)
    pattern: re.Pattern[str] = field(init=False, repr=False)
    is_async: bool = field(init=False, repr=False)
    reader: TypeAdapter[Any] | None = field(init=False, repr=False)
    writer: TypeAdapter[Any] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pattern = _PARAMETER.sub(r"(?P<\1>[^/]+)", self.path)
        object.__setattr__(self, "pattern", re.compile(pattern))
        object.__setattr__(self, "is_async", iscoroutinefunction(self.handler))
        object.__setattr__(self, "reader", self.body and _adapter(self.body))
        object.__setattr__(self, "writer", self.response and _adapter(self.response))


def _adapter(described: Any) -> TypeAdapter[Any]:
    """Not built yet, as the models in it: no process uses all of them."""
    if isinstance(described, type) and issubclass(described, BaseModel):
        return TypeAdapter(described)
    return TypeAdapter(described, config=ConfigDict(defer_build=True))


def _built(adapter: TypeAdapter[Any]) -> TypeAdapter[Any]:
    if not adapter.pydantic_complete:
        # Handlers run on several threads.
        with _building:
            adapter.rebuild()
    return adapter


class ApiService:
    """Serves operations: the service of `functions/usage` and other control-plane functions."""

    def __init__(self, parts: Parts, operations: Sequence[Operation]) -> None:
        self._parts = parts
        self._operations = tuple(operations)
        self._keys = parts.get(open_keys)
        self._pool: ThreadPoolExecutor | None = None
        self._in_flight = 0

    async def start(self) -> None:
        """Makes the threads that handlers run on."""
        self._pool = ThreadPoolExecutor(self._parts.settings.query_threads, "api")

    async def stop(self) -> None:
        """Waits for handlers that still run."""
        if self._pool is not None:
            await asyncio.to_thread(self._pool.shutdown)

    async def tend(self) -> None:
        """Nothing is scheduled."""

    def unreadiness(self) -> str:
        """Ready once it is known which keys are in force, if an operation needs one."""
        needs_keys = any(operation.scope is not None for operation in self._operations)
        return self._keys.unreadiness() if needs_keys else ""

    def metrics(self) -> Iterable[Any]:
        """None of its own."""
        return ()

    async def __call__(self, scope: Request, receive: Receive, send: Send) -> None:
        """Finds the operation, checks access, parameters and body, runs the handler, answers."""
        operation, path = self._find(scope)
        access = _NOBODY
        if operation.scope is not None:
            access = self._keys.check(header(scope, b"authorization"), self._parts.clock)
            access.require(operation.scope)
        raw = await read_body(
            scope, receive, min(_BODY_BYTES_MAX, self._parts.settings.body_bytes_max)
        )
        call = Call(
            access=access,
            path=path,
            query=read_query(operation.query, scope["query_string"]),
            body=read_json(operation, header(scope, b"content-type"), raw),
            headers={k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]},
            target=_target(scope),
            parts=self._parts,
            raw=raw,
        )
        assert self._pool is not None
        loop = asyncio.get_running_loop()
        trace = (header(scope, b"traceparent") or b"").decode("latin-1")
        try:
            if operation.is_async:
                trace_context.set(trace)
                reply = _reply(operation, await operation.handler(call))  # type: ignore[misc]
            else:
                reply = await loop.run_in_executor(self._pool, _run, operation, call, trace)
        except TollgateError as error:
            await send_problem(scope, send, error, _encoded(call.answer_headers.items()))
            return
        headers = _encoded((*reply.headers, *call.answer_headers.items()))
        if reply.body or reply.stream:
            headers.append((b"content-type", reply.media_type.encode()))
        if reply.stream is not None:
            head = {"type": "http.response.start", "status": reply.status or operation.status}
            await send({**head, "headers": headers})
            await self._send_stream(reply.stream, receive, send)
            return
        body = b"" if scope["method"] == "HEAD" else reply.body
        await send_reply(send, reply.status or operation.status, headers, body)

    async def _send_stream(self, stream: Iterator[bytes], receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        # The request was read to its end: what still comes is the client's leaving.
        gone = asyncio.ensure_future(receive())
        try:
            while not gone.done():
                piece = await loop.run_in_executor(self._pool, next, stream, None)
                await send(
                    {
                        "type": "http.response.body",
                        "body": piece or b"",
                        "more_body": piece is not None,
                    }
                )
                if piece is None:
                    return
        finally:
            gone.cancel()
            close = getattr(stream, "close", None)
            if close is not None:
                await loop.run_in_executor(self._pool, close)

    def _find(self, scope: Request) -> tuple[Operation, dict[str, str]]:
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        path = raw_path.decode("latin-1")
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        others: set[str] = set()
        for operation in self._operations:
            match = operation.pattern.fullmatch(path)
            if match is None:
                continue
            if operation.method == method:
                try:
                    found = {k: unquote(v, errors="strict") for k, v in match.groupdict().items()}
                except UnicodeDecodeError:
                    raise NotFound("the path is not UTF-8") from None
                if any("\0" in name for name in found.values()):
                    # PostgreSQL can't even be asked for it.
                    raise NotFound("nothing is named by what the path names")
                return operation, found
            others.add(operation.method)
        if others:
            allowed = ", ".join(sorted(others))
            raise MethodNotAllowed(f"{method} is not allowed here; {allowed} is")
        raise NotFound(f"nothing answers {method} {scope['path']}")


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _run(operation: Operation, call: Call, trace: str) -> Reply:
    # A thread has its own context: what the handler logs belongs to the caller's trace.
    trace_context.set(trace)
    return _reply(operation, operation.handler(call))


def _reply(operation: Operation, result: object) -> Reply:
    if isinstance(result, Reply):
        return result
    if operation.writer is None:
        return Reply()
    body = _built(operation.writer).dump_json(result, by_alias=True, exclude_none=True)
    return Reply(body=body)


def _target(scope: Request) -> str:
    query = scope["query_string"].decode("latin-1")
    return f"{scope['path']}?{query}" if query else str(scope["path"])


def read_query(model: type[BaseModel] | None, query_string: bytes) -> Any:
    """Checked query parameters: `a=1`, repeated `a=1&a=2` for lists, `a[b]=c` for objects.

    Raises:
        InvalidInput: every fault, under the parameter's name.
    """
    if model is None:
        return None
    try:
        pairs = parse_qsl(
            query_string.decode("latin-1"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_QUERY_PAIRS_MAX,
        )
    except (UnicodeDecodeError, ValueError) as problem:
        fault = Fault(field="", code="invalid_query", message=f"the query string: {problem}")
        raise InvalidInput((fault,)) from None
    lists = {f.alias or name for name, f in model.model_fields.items() if _is_list(f.annotation)}
    values: dict[str, object] = {}
    deep: list[tuple[str, str]] = []
    for name, value in pairs:
        if "[" in name and not name.endswith("[]"):
            deep.append((name, value))
        elif name.removesuffix("[]") in lists:
            found = values.setdefault(name.removesuffix("[]"), [])
            assert isinstance(found, list)
            found.append(value)
        else:
            values[name] = value
    known = {f.alias or name for name, f in model.model_fields.items()}
    values |= parse_deep_objects(deep, known)
    return _validated(lambda: model.model_validate(values))


def _is_list(annotation: object) -> bool:
    if get_origin(annotation) in (list, tuple):
        return True
    # Annotated[list[str], ...], list[str] | None, and both at once.
    arguments: tuple[object, ...] = getattr(annotation, "__args__", ())
    return get_origin(annotation) is not dict and any(_is_list(each) for each in arguments)


def read_json(operation: Operation, content_type: bytes | None, raw: bytes) -> object:
    """The checked body of a request.

    Raises:
        InvalidInput: not JSON, or every fault with its path. Unsupported: another media type.
    """
    if operation.reader is None:
        return None
    if raw and content_type is not None:
        media_type = content_type.partition(b";")[0].strip().decode("latin-1")
        if not _JSON_TYPE.fullmatch(media_type):
            raise Unsupported(f"Content-Type {media_type!r} is not supported; use {JSON}")
    reader = _built(operation.reader)
    if not raw and operation.body_optional:
        raw = b"{}"
    return _validated(lambda: reader.validate_json(raw))


def faults_of(problem: ValidationError) -> tuple[Fault, ...]:
    """What pydantic found, each under its path."""
    return tuple(
        Fault(
            field=".".join(str(part) for part in error["loc"]),
            code=error["type"],
            message=error["msg"],
        )
        for error in problem.errors(include_url=False, include_input=False)
    )


def _validated(validate: Callable[[], Any]) -> Any:
    try:
        return validate()
    except ValidationError as problem:
        raise InvalidInput(faults_of(problem)) from None
    except RecursionError:
        fault = Fault(field="", code="too_deep", message="the body is nested too deeply")
        raise InvalidInput((fault,)) from None
