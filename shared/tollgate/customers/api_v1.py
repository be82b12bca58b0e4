"""v1 of subjects on HTTP: list, upsert, read, delete, named as the contract names them."""

from typing import Any

from pydantic import Field

from tollgate.customers.store import SubjectStore
from tollgate.customers.subject import Subject, parse_subjects
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation
from tollgate.platform.database import open_database
from tollgate.platform.parts import Parts
from tollgate.platform.wire import Wire, WireInstant


class SubjectUpsertBody(Wire):
    """A subject as it should be (schema `SubjectUpsert`); checked by `parse_subjects`.

    A member that is left out stays as it is; null clears it.
    """

    key: str
    display_name: str | None = Field(default=None, alias="displayName")
    metadata: dict[str, Any] | None = None
    current_period_start: WireInstant | None = Field(default=None, alias="currentPeriodStart")
    current_period_end: WireInstant | None = Field(default=None, alias="currentPeriodEnd")
    stripe_customer_id: str | None = Field(default=None, alias="stripeCustomerId")


class SubjectBody(SubjectUpsertBody):
    """A subject (schema `Subject`)."""

    id: str
    created_at: WireInstant = Field(alias="createdAt")
    updated_at: WireInstant = Field(alias="updatedAt")
    deleted_at: WireInstant | None = Field(default=None, alias="deletedAt")


def open_subjects(parts: Parts) -> SubjectStore:
    """The subjects of the control plane."""
    return SubjectStore(parts.get(open_database), parts.clock)


def list_subjects(call: Call) -> list[SubjectBody]:
    """All live subjects, oldest first: the contract knows no pages here."""
    return [
        body_from_subject(subject) for subject in call.parts.get(open_subjects).list(call.namespace)
    ]


def upsert_subjects(call: Call) -> list[SubjectBody]:
    """Creates or partly changes each subject; all or none."""
    # Only what was given: left out is not the same as null.
    raw = [body.model_dump(by_alias=True, exclude_unset=True) for body in call.body]
    stored = call.parts.get(open_subjects).upsert(call.namespace, parse_subjects(raw))
    return [body_from_subject(subject) for subject in stored]


def get_subject(call: Call) -> SubjectBody:
    """One subject by id or key."""
    subjects = call.parts.get(open_subjects)
    return body_from_subject(subjects.get(call.namespace, call.path["subjectIdOrKey"]))


def delete_subject(call: Call) -> None:
    """Deletes a subject; its usage stays, and its key is free again."""
    call.parts.get(open_subjects).delete(call.namespace, call.path["subjectIdOrKey"])


def body_from_subject(subject: Subject) -> SubjectBody:
    """The wire's form of a subject."""
    return SubjectBody.model_construct(
        id=subject.id,
        key=subject.key,
        display_name=subject.display_name,
        metadata=None if subject.metadata is None else dict(subject.metadata),
        current_period_start=subject.current_period_start,
        current_period_end=subject.current_period_end,
        stripe_customer_id=subject.stripe_customer_id,
        created_at=subject.created_at,
        updated_at=subject.updated_at,
        deleted_at=subject.deleted_at,
    )


def _operation(method: str, path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path=f"/api/v1/subjects{path}",
        operation_id=operation_id,
        summary=summary,
        tag="Subjects",
        **{"scope": Scope.READ} | more,
    )


_ONE = "/{subjectIdOrKey}"
OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "GET",
        "",
        "listSubjects",
        "List subjects",
        handler=list_subjects,
        response=list[SubjectBody],
    ),
    _operation(
        "POST",
        "",
        "upsertSubject",
        "Upsert subjects",
        handler=upsert_subjects,
        body=list[SubjectUpsertBody],
        response=list[SubjectBody],
        scope=Scope.ADMIN,
    ),
    _operation(
        "GET", _ONE, "getSubject", "Get a subject", handler=get_subject, response=SubjectBody
    ),
    _operation(
        "DELETE",
        _ONE,
        "deleteSubject",
        "Delete a subject",
        handler=delete_subject,
        status=204,
        scope=Scope.ADMIN,
    ),
)
