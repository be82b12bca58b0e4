"""A customer's subjects on HTTP, our own: added, moved from others, and since when they are its."""

from typing import Annotated, Any

from pydantic import Field

from tollgate.core.errors import Fault, InvalidInput
from tollgate.customers.attribution import Origin
from tollgate.customers.subject import subject_key_fault
from tollgate.customers.subject_moves import (
    SUBJECTS_AT_ONCE,
    HeldSubject,
    SubjectMoves,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation
from tollgate.platform.database import open_database
from tollgate.platform.parts import Parts
from tollgate.platform.wire import Wire, WireInstant


class SubjectMoveBody(Wire):
    """What a customer is to have."""

    subjects: Annotated[
        list[str],
        Field(min_length=1, max_length=SUBJECTS_AT_ONCE, description="Keys of subjects."),
    ]
    move: Annotated[
        bool,
        Field(description="Takes them from customers that have them; else these are a conflict."),
    ] = False
    reason: Annotated[
        str | None, Field(min_length=1, max_length=1024, description="Kept with the history.")
    ] = None


class HeldSubjectBody(Wire):
    """A stretch of time in which a subject was, or is, the customer's: [from, to)."""

    subject: str
    origin: Annotated[
        Origin, Field(description="One of its subject keys, or the customer's own key or id.")
    ]
    begins_at: Annotated[
        WireInstant | None,
        Field(alias="from", description="Left out: from the beginning of time."),
    ] = None
    ends_at: Annotated[
        WireInstant | None, Field(alias="to", description="Left out: it still is.")
    ] = None
    reason: str | None = None
    moved_from: Annotated[
        str | None,
        Field(alias="movedFrom", description="Id of the customer that had it until then."),
    ] = None


class SubjectMoveAnswerBody(Wire):
    """The subjects that were asked for, as they are held now."""

    items: list[HeldSubjectBody]


class HeldSubjectPageBody(Wire):
    """A page of a customer's history."""

    items: list[HeldSubjectBody]
    next: Annotated[
        str | None, Field(description="`after` of the next page; left out: there is none.")
    ] = None


class HeldSubjectParameters(Wire):
    """Which page."""

    after: Annotated[str, Field(max_length=26)] = ""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


def open_subject_moves(parts: Parts) -> SubjectMoves:
    """Whose subjects are, in the control plane."""
    return SubjectMoves(parts.get(open_database), parts.clock)


def add_subjects(call: Call) -> SubjectMoveAnswerBody:
    """Makes subjects a customer's from now on, all or none."""
    body: SubjectMoveBody = call.body
    wanted = list(dict.fromkeys(body.subjects))
    faults = [
        Fault(field=f"subjects.{number}", code=wrong[0], message=wrong[1])
        for number, key in enumerate(body.subjects)
        if (wrong := subject_key_fault(key)) is not None
    ]
    if faults:
        raise InvalidInput(tuple(faults))
    made = call.parts.get(open_subject_moves).add(
        call.namespace, call.path[_NAME], wanted, move=body.move, reason=body.reason
    )
    return SubjectMoveAnswerBody(items=[_body(each.held, each.moved_from) for each in made])


def list_subjects(call: Call) -> HeldSubjectPageBody:
    """All that was and is a customer's, in the order in which it came."""
    query: HeldSubjectParameters = call.query
    found = call.parts.get(open_subject_moves).history(
        call.namespace, call.path[_NAME], after=query.after.upper(), count_max=query.limit + 1
    )
    shown = found[: query.limit]
    return HeldSubjectPageBody(
        items=[_body(each) for each in shown],
        next=shown[-1].id if len(found) > len(shown) else None,
    )


def _body(held: HeldSubject, moved_from: str | None = None) -> HeldSubjectBody:
    return HeldSubjectBody.model_construct(
        subject=held.subject_key,
        origin=held.origin,
        begins_at=held.begins_at,
        ends_at=held.ends_at,
        reason=held.reason,
        moved_from=moved_from,
    )


def _operation(method: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path=f"/api/v1/customers/{{{_NAME}}}/subjects",
        operation_id=operation_id,
        summary=summary,
        tag="Customers",
        **more,
    )


_NAME = "customerIdOrKey"
OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "POST",
        "addCustomerSubjects",
        "Give subjects to a customer, or move them to it",
        handler=add_subjects,
        body=SubjectMoveBody,
        response=SubjectMoveAnswerBody,
        scope=Scope.ADMIN,
        failures=(409,),
        description="All or none, in one moment: no usage is nobody's in between. Usage from "
        "before a move stays with the customer that had the subject then. Asked again it changes "
        "nothing.",
    ),
    _operation(
        "GET",
        "listCustomerSubjects",
        "List what was and is a customer's, with its times",
        handler=list_subjects,
        query=HeldSubjectParameters,
        response=HeldSubjectPageBody,
        scope=Scope.READ,
    ),
)
