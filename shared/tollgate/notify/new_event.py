"""An event before it is written: its identity, what it is about, and the bytes that are sent."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tollgate.core.ids import new_ulid
from tollgate.notify.balance import Balance
from tollgate.notify.payload import payload_text
from tollgate.notify.rule import Kind, Rule

TEST_ANNOTATION = "notification.rule.test"
_TEST = "test|"


def is_key_of_test(once_key: str) -> bool:
    """Whether a key is of a test, each of which is one of its own."""
    return once_key.startswith(_TEST)


def key_digest(once_key: str) -> bytes:
    """What stands for a key after its event is gone: of 10^12 no two are alike by chance."""
    return hashlib.blake2b(once_key.encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event to write.

    Attributes:
        once_key: an event of the same key is written once.
        payload: JSON, as it is sent.
    """

    id: str
    namespace: str
    kind: Kind
    rule_id: str
    once_key: str
    payload: str
    created_at: datetime
    feature_id: str | None = None
    feature_key: str | None = None
    subject_id: str | None = None
    subject_key: str | None = None
    annotations: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_test(self) -> bool:
        """Whether nothing happened of which it tells."""
        return TEST_ANNOTATION in self.annotations


def new_event(
    rule: Rule,
    data: Mapping[str, object],
    about: Balance | None,
    once_key: str | None,
    now: datetime,
) -> NewEvent:
    """An event of a rule.

    Args:
        rule: that it comes from.
        data: of the payload.
        about: the balance that it tells of, if it does.
        once_key: what it tells once; None: it is a test, each of which is one of its own.
        now: when it is made.
    """
    event_id = new_ulid()
    subject = data.get("subject")
    subject_id = subject.get("id") if isinstance(subject, Mapping) else None
    return NewEvent(
        id=event_id,
        namespace=rule.namespace,
        kind=rule.kind,
        rule_id=rule.id,
        once_key=f"{_TEST}{event_id}" if once_key is None else once_key,
        payload=payload_text(rule.kind, event_id, now, data),
        created_at=now,
        feature_id=None if about is None else about.feature.id,
        feature_key=None if about is None else about.feature.key,
        subject_id=subject_id if isinstance(subject_id, str) else None,
        subject_key=None if about is None else about.subject_key,
        annotations={TEST_ANNOTATION: True} if once_key is None else {},
    )
